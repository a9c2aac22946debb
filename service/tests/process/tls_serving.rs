//! TLS as clients and operators meet it: versions, names, certificates of clients, files that are
//! broken, and no request lost over it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned,
};

use crate::client::{Address, Connection, get};
use crate::harness::{Builder, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::metrics::{scrape, stats_address, stats_process};
use crate::tls::{self, Algorithm, Pair, client_config};

/// The `[tls]` table of a server with one certificate.
const TLS: &str = "[tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n";

/// A server with a certificate for `localhost`, and these further settings.
fn encrypted(builder: Builder, before: &str, after: &str) -> Builder {
    tls::localhost().write(builder.folder(), "a");
    builder.config(&format!("{before}{TLS}{after}"))
}

/// The result of a handshake with a server.
struct Shaken {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

/// Shakes hands by these settings.
fn shake(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Shaken> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).expect("it is a name");
    let client = ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(client, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Shaken { stream })
}

impl Shaken {
    /// Asks for a path, and returns all that is answered until the connection ends.
    fn ask(&mut self, target: &str) -> std::io::Result<String> {
        let request = get(target).replacen("\r\n", "\r\nconnection: close\r\n", 1);
        self.stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The certificate that the server has shown.
    fn certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().expect("it has shown one")[0].to_vec()
    }
}

fn der(pair: &Pair) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("it is PEM").to_vec()
}

fn any_version() -> Arc<ClientConfig> {
    Arc::new(client_config(&[&TLS13, &TLS12], None))
}

#[test]
fn both_versions_are_spoken_and_plain_http_is_told_so() {
    let builder = Ferricorn::unruly();
    let server = encrypted(
        builder,
        "workers = 1\n[log]\naccess_format = '%(h)s %({scheme}e)s \"%(r)s\" %(s)s'\n",
        "",
    )
    .start();
    let address = server.address().tcp();
    assert!(matches!(server.address(), Address::Tls(_)), "{:?}", server.addresses());
    for (version, expected) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let config = Arc::new(client_config(&[version], None));
        let mut shaken = shake(address, &config, "localhost").expect("hands are shaken");
        assert_eq!(shaken.stream.conn.protocol_version(), Some(expected));
        let answer = shaken.ask("/").expect("it ends with the alert of TLS");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    let mut plain = Connection::open(&Address::Tcp(address)).expect("it listens");
    let answer = plain.get("/").expect("it answers");
    assert_eq!((answer.status, answer.closes()), (400, true));
    assert_eq!(
        answer.text(),
        r#"{"error":"plain HTTP was sent to an address that speaks TLS (https)"}"#
    );
    server.wait_log("plain HTTP was sent to an address that speaks TLS; answered 400");
    server.wait_log("127.0.0.1 https \"GET / HTTP/1.1\" 200");
    server.stop();
}

#[test]
fn old_version_can_be_left_out() {
    let builder = Ferricorn::unruly();
    let server = encrypted(builder, "workers = 1\n", "min_version = \"1.3\"\n").start();
    let address = server.address().tcp();
    let old = Arc::new(client_config(&[&TLS12], None));
    let error = shake(address, &old, "localhost").err().expect("there is no version in common");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let new = Arc::new(client_config(&[&TLS13], None));
    shake(address, &new, "localhost").expect("hands are shaken");
    server.stop();
}

#[test]
fn certificates_are_chosen_by_name() {
    let builder = Ferricorn::unruly();
    let names: [(&str, &[&str], Algorithm); 3] = [
        ("a", &["a.example", "localhost"], Algorithm::Rsa),
        ("b", &["*.b.example"], Algorithm::Ecdsa),
        ("c", &["a.example"], Algorithm::Ecdsa),
    ];
    let pairs = names.map(|(file, names, algorithm)| {
        let pair = Pair::server(names, algorithm, 2099);
        pair.write(builder.folder(), file);
        der(&pair)
    });
    let server = builder
        .config(
            "workers = 1\n[tls]\ncertificate = [\"a.crt\", \"b.crt\", \"c.crt\"]\n\
             key = [\"a.key\", \"b.key\", \"c.key\"]\n",
        )
        .start();
    let address = server.address().tcp();
    for (name, at) in [("localhost", 0), ("a.example", 0), ("x.b.example", 1)] {
        let shaken = shake(address, &any_version(), name).expect("hands are shaken");
        assert_eq!(shaken.certificate(), pairs[at], "{name}");
    }
    let error = shake(address, &any_version(), "other.example").err().expect("it has no such name");
    assert!(error.to_string().contains("not valid for name"), "the first one is shown: {error}");
    server.stop();
}

#[test]
fn broken_files_change_nothing_at_a_reload() {
    let _alone = crate::machine::alone();
    let builder = Ferricorn::unruly();
    let settings = format!("workers = 2\n{TLS}");
    let server = encrypted(builder, "workers = 2\n", "").start();
    let address = server.address();
    let before = server.wait_workers(2);
    let load = Load::begin(&address, &[Crowd::get(2, Client::PerRequest)]);
    let first = shake(address.tcp(), &any_version(), "localhost").expect("hands are shaken");
    let next = tls::localhost();
    // The certificate is new, the key is not yet.
    std::fs::write(server.folder().join("a.crt"), &next.certificate).expect("the folder is ours");
    server.rewrite_config(&settings);
    server.signal(Signal::SIGHUP);
    let reason = server.wait_reload_failed(2);
    let expected = "a.key: the key does not belong to the certificate in a.crt";
    assert!(reason.contains(expected), "{reason}");
    // Half of the key.
    std::fs::write(server.folder().join("a.key"), &next.key[..60]).expect("the folder is ours");
    server.signal(Signal::SIGHUP);
    assert!(server.wait_reload_failed(3).contains("a.key: malformed PEM"));
    Pair::server(&["localhost"], Algorithm::Ecdsa, 2021).write(server.folder(), "a");
    server.signal(Signal::SIGHUP);
    let expected = "a.crt: the certificate expired on 2021-12-31";
    assert!(server.wait_reload_failed(4).contains(expected));
    assert_eq!(server.wait_workers(2), before);
    let again = shake(address.tcp(), &any_version(), "localhost").expect("hands are shaken");
    assert_eq!(again.certificate(), first.certificate());
    next.write(server.folder(), "a");
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(5);
    let new = shake(address.tcp(), &any_version(), "localhost").expect("hands are shaken");
    assert_eq!(new.certificate(), der(&next));
    load.wait_for_more(10);
    load.finish().assert_clean();
    server.stop();
}

#[test]
fn start_refuses_broken_files_in_words() {
    let builder = Ferricorn::unruly();
    Pair::server(&["localhost"], Algorithm::Ecdsa, 2021).write(builder.folder(), "a");
    let log = builder.config(TLS).fails_with(78);
    assert!(log.contains("tls.certificate: "), "{log}");
    assert!(log.contains("a.crt: the certificate expired on 2021-12-31"), "{log}");
    let log = Ferricorn::unruly().config("[tls]\nkey = \"a.key\"\n").fails_with(78);
    assert!(log.contains("expected one key for each of 0 certificates, found 1"), "{log}");
}

#[test]
fn certificate_that_expires_soon_is_a_warning() {
    let builder = Ferricorn::unruly();
    let soon = time_in_days(10);
    Pair::server_until(&["localhost"], soon).write(builder.folder(), "a");
    let stats = "[stats]\nbind = '127.0.0.1:0'\n";
    let server = builder.config(&format!("workers = 1\n{TLS}{stats}")).start();
    server.wait_event("certificate_expires", &[("file", "a.crt".into())]);
    let expiry = || scrape(stats_address(&server)).get(EXPIRY).copied().unwrap_or_default();
    let is_end_of = |at: i64| (0.0..=1.0).contains(&(expiry() - at as f64));
    assert!(is_end_of(soon), "{} {soon}", expiry());
    let late = time_in_days(90);
    Pair::server_until(&["localhost"], late).write(server.folder(), "a");
    server.signal(Signal::SIGHUP);
    eventually("the metric of the new one", PATIENCE, || is_end_of(late).then_some(()));
    server.stop();
}

/// The image that takes over knows the certificates in use, also while its own generation is not ready.
#[test]
fn certificate_metric_stands_while_an_upgrade_boots() {
    let builder = Ferricorn::unruly().env("UNRULY_PREPARE_FILE", "prepare").file("prepare", "");
    let late = time_in_days(90);
    Pair::server_until(&["localhost"], late).write(builder.folder(), "a");
    let stats = "[stats]\nbind = '127.0.0.1:0'\n";
    let builder = builder.config(&format!("workers = 1\n{TLS}{stats}"));
    let real = builder.binary().to_owned();
    let server = crate::disk::started_by_link(builder).start();
    std::fs::write(server.folder().join("prepare"), "held").expect("the folder is ours");
    let before = stats_process(&server);
    crate::disk::put_link(server.folder(), &real);
    server.signal(Signal::SIGUSR2);
    server.wait_event("server_upgraded", &[]);
    eventually("another stats process", PATIENCE, || {
        let now = stats_process(&server);
        (now.is_some() && now != before).then_some(())
    });
    let end = scrape(stats_address(&server)).get(EXPIRY).copied().unwrap_or_default();
    assert!((0.0..=1.0).contains(&(end - late as f64)), "{end} {late}");
    assert!(server.noted("reload_succeeded").is_empty(), "its reload is held");
    std::fs::write(server.folder().join("prepare"), "").expect("the folder is ours");
    server.wait_reloaded(2);
    server.stop();
}

const EXPIRY: &str = "ferricorn_tls_certificate_expiry_timestamp_seconds{name=\"a.crt\"}";

/// Seconds since the epoch, so many days from now.
fn time_in_days(days: u64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = now.expect("it is after 1970").as_secs() + days * 24 * 3600;
    i64::try_from(seconds).expect("it fits")
}

#[test]
fn certificates_of_clients_are_asked_for_and_checked() {
    let asked = |auth: &str| {
        let builder = Ferricorn::unruly();
        std::fs::write(builder.folder().join("ca.crt"), tls::authority_pem()).expect("it is ours");
        let format = "[log]\naccess_format = '%(s)s <%({client_certificate}e)s>'\n";
        let more = format!("client_ca = \"ca.crt\"\nclient_auth = \"{auth}\"\n");
        encrypted(builder, &format!("workers = 1\n{format}"), &more).start()
    };
    let with = Arc::new(client_config(&[&TLS13, &TLS12], Some(&Pair::client("a client"))));
    for auth in ["optional", "required"] {
        let server = asked(auth);
        let address = server.address().tcp();
        // The second one resumes, and is known all the same.
        for _ in 0..2 {
            let mut shaken = shake(address, &with, "localhost").expect("hands are shaken");
            let answer = shaken.ask("/").expect("it answers");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        eventually("both lines", PATIENCE, || {
            (server.log().matches("200 <CN=a client>").count() == 2).then_some(())
        });
        let without = shake(address, &any_version(), "localhost");
        let answer = without.and_then(|mut shaken| shaken.ask("/"));
        match (auth, answer) {
            ("optional", Ok(answer)) => assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}"),
            ("required", Err(error)) => {
                assert!(error.to_string().contains("CertificateRequired"), "{error}");
            }
            (_, answer) => panic!("{auth}: {answer:?}"),
        }
        server.stop();
    }
}

#[test]
fn tls_and_plain_addresses_stand_side_by_side() {
    let builder = Ferricorn::unruly();
    let unix = builder.folder().join("tls.sock");
    let bind = format!("bind = [\"127.0.0.1:0\", \"unix:{}\"]\n", unix.display());
    let server = encrypted(builder, "workers = 2\n", &bind).start();
    let [plain, encrypted, socket] = server.addresses() else { panic!("{:?}", server.addresses()) };
    assert!(plain.starts_with("http://") && encrypted.starts_with("https://"));
    assert!(socket.starts_with("unix:"));
    for address in [plain, encrypted] {
        let address = crate::harness::parse_address(address);
        let answer = Connection::open(&address).and_then(|mut open| open.get("/"));
        assert_eq!(answer.expect("it answers").status, 200);
    }
    let socket = std::os::unix::net::UnixStream::connect(&unix).expect("it listens");
    let mut stream = StreamOwned::new(tls::client(), socket);
    stream.write_all(get("/").as_bytes()).expect("it reads");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("it answers");
    assert_eq!(&status, b"HTTP/1.1 200");
    drop(stream);
    server.stop();
}

#[test]
fn proxy_header_stands_before_the_handshake() {
    let builder = Ferricorn::unruly();
    let before = "workers = 1\nproxy_protocol = true\n[log]\naccess_format = '%(h)s %(s)s'\n";
    let server = encrypted(builder, before, "").start();
    let mut socket = TcpStream::connect(server.address().tcp()).expect("it listens");
    socket.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n").expect("it reads");
    let mut stream = StreamOwned::new(tls::client(), socket);
    stream.write_all(get("/").as_bytes()).expect("it reads");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("it answers");
    assert_eq!(&status, b"HTTP/1.1 200");
    server.wait_log("192.0.2.7 200");
    drop(stream);
    server.stop();
}

#[test]
fn key_is_read_with_the_rights_of_the_master() {
    if !crate::program::may_become_nobody() {
        return;
    }
    let builder = Ferricorn::unruly().by_ourselves();
    tls::localhost().write(builder.folder(), "a");
    let key = builder.folder().join("a.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("it is ours");
    let server = builder.config(&format!("workers = 1\nuser = \"65534\"\n{TLS}")).start();
    assert_eq!(server.get("/").expect("it answers").status, 200);
    // A worker that is killed is replaced, whatever became of the files.
    std::fs::remove_file(&key).expect("it is ours");
    let worker = server.worker(0);
    send(worker, Signal::SIGKILL);
    eventually("another worker answers", PATIENCE, || {
        server.get("/").ok().filter(|answer| answer.pid() != worker)
    });
    server.stop();
}

#[test]
fn health_check_speaks_tls() {
    let server = encrypted(Ferricorn::bundled(), "workers = 1\n", "").start();
    let output = Command::new(env!("CARGO_BIN_EXE_ferricorn"))
        .arg("healthcheck")
        .current_dir(server.folder())
        .env_clear()
        .output()
        .expect("it can be executed");
    assert!(output.status.success(), "{output:?}");
    let page = server.get("/").expect("it answers");
    assert_eq!((page.status, page.field("strict-transport-security")), (200, "max-age=31536000"));
    server.stop();
}

#[test]
fn half_handshakes_end_and_keep_nobody_out() {
    let builder = Ferricorn::unruly();
    let before = "workers = 1\nworker_connections = 64\n[limits]\nheader_timeout = 1\n";
    let server = encrypted(builder, before, "").start();
    let mut halves: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(server.address().tcp()).expect("it listens")).collect();
    for half in &mut halves {
        half.write_all(b"\x16\x03\x01").expect("it reads");
    }
    assert_eq!(server.get("/").expect("others are served").status, 200);
    for mut half in halves {
        let mut rest = Vec::new();
        half.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        // Ended or reset.
        let _reset = half.read_to_end(&mut rest);
    }
    server.stop();
}

/// The share of connections that resume the session of the one before.
fn resumed(address: SocketAddr, config: &Arc<ClientConfig>, count: usize) -> usize {
    let resumes = |_: &usize| {
        let mut shaken = shake(address, config, "localhost").expect("hands are shaken");
        let kind = shaken.stream.conn.handshake_kind();
        shaken.ask("/").expect("it answers");
        kind == Some(HandshakeKind::Resumed)
    };
    (0..count).filter(resumes).count()
}

#[test]
fn sessions_resume_with_every_worker_over_reloads_and_upgrades() {
    let _alone = crate::machine::alone();
    let builder = encrypted(Ferricorn::unruly(), "workers = 4\n", "");
    let real = builder.binary().to_owned();
    let server = crate::disk::started_by_link(builder).start();
    let address = server.address().tcp();
    for (generation, version) in [(2, &TLS12), (4, &TLS13)] {
        let config = Arc::new(client_config(&[version], None));
        assert_eq!(resumed(address, &config, 21), 20, "all but the first");
        server.signal(Signal::SIGHUP);
        server.wait_reloaded(generation);
        assert_eq!(resumed(address, &config, 20), 20, "over a reload");
        crate::disk::put_link(server.folder(), &real);
        server.signal(Signal::SIGUSR2);
        server.wait_reloaded(generation + 1);
        server.wait_workers(4);
        assert_eq!(resumed(address, &config, 20), 20, "over an upgrade");
    }
    server.stop();
}
