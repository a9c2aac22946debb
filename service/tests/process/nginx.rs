//! The real nginx in front: of a unix socket, and of two replicas.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Address, Connection};
use crate::drains::{Held, pass};
use crate::harness::{Exit, Ferricorn, PATIENCE, Signal, eventually, send};
use crate::load::{Client, Crowd, Load};
use crate::log_figures::{figure, is_in_full_length};

/// As in gunicorn's own page on deployment: the proxy is another user, in the group of the server's.
#[test]
fn nginx_reaches_the_unix_socket_of_another_user() {
    let Some((server, mut nginx)) = behind_nginx() else {
        return println!("not tested: only root can have two users");
    };
    let found = std::fs::metadata(server.folder().join("f.sock")).unwrap();
    let www_data = nix::unistd::User::from_name("www-data").unwrap().expect("Debian has it");
    let uid = www_data.uid.as_raw();
    let gid = www_data.gid.as_raw();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (uid, gid, 0o770));
    let proxy = Address::Unix(server.folder().join("nginx.sock"));
    let answer =
        eventually("nginx answers", PATIENCE, || Connection::open(&proxy).ok()?.get("/").ok());
    assert_eq!(answer.status, 200);
    // On TERM it ends its worker, too.
    send(i32::try_from(nginx.id()).unwrap(), Signal::SIGTERM);
    nginx.wait().unwrap();
    server.stop();
}

/// A server of www-data's on a unix socket, and the nginx in front of it.
fn behind_nginx() -> Option<(Ferricorn, Child)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let config = "bind = \"unix:f.sock\"\nuser = \"www-data\"\ngroup = \"www-data\"\n\
                  umask = \"007\"";
    let server = Ferricorn::unruly().config(config).by_ourselves().start();
    let folder = server.folder();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).ok()?;
    let at = folder.display();
    let conf = format!(
        "daemon off; master_process on; user www-data; pid {at}/nginx.pid;\n\
         error_log {at}/nginx.log; events {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
         fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
         server {{ listen unix:{at}/nginx.sock; location / {{\n\
         proxy_pass http://unix:{at}/f.sock; }} }} }}"
    );
    std::fs::write(folder.join("nginx.conf"), conf).ok()?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(folder.join("nginx.conf")).stderr(Stdio::null());
    Some((server, command.spawn().expect("nginx is installed")))
}

/// Two replicas behind a balancer that knows nothing of them but what it is answered.
struct Balanced {
    nginx: Child,
    folder: tempfile::TempDir,
}

impl Balanced {
    fn start(replicas: [&Ferricorn; 2]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let at = folder.path().display();
        let [one, other] = replicas.map(|replica| replica.address().tcp());
        let conf = format!(
            "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/nginx.log;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             upstream replicas {{ server {one}; server {other}; }}\n\
             server {{ listen unix:{at}/nginx.sock; location / {{\n\
             proxy_pass http://replicas; }} }} }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, conf).expect("the folder is ours");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).stderr(Stdio::null());
        let nginx = command.env("PATH", "/usr/sbin:/usr/bin:/bin").spawn();
        let balanced = Self { nginx: nginx.expect("nginx is installed"), folder };
        eventually("nginx answers", PATIENCE, || {
            Connection::open(&balanced.address()).ok()?.get("/").ok()
        });
        balanced
    }

    fn address(&self) -> Address {
        Address::Unix(self.folder.path().join("nginx.sock"))
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        let _gone = self.nginx.kill();
        let _reaped = self.nginx.wait();
    }
}

/// One replica stops, and has a request that takes long: the balancer's new connections are refused soon, so that
/// it turns to the other. With `FIGURE_SECONDS` in full length.
#[test]
fn balancer_turns_to_the_other_replica_while_one_stops() {
    let is_figure = is_in_full_length("FIGURE_SECONDS");
    let _alone = is_figure.then(crate::machine::alone);
    let long = Duration::from_secs(figure("FIGURE_SECONDS", 3));
    let start = || Ferricorn::unruly().config("workers = 2").start();
    let mut leaves = start();
    let stays = start();
    let mut connection = leaves.connect();
    let held = Held::begin(&leaves, &mut connection, 0);
    let balanced = Balanced::start([&leaves, &stays]);
    let kept = Client::KeepAlive { pause: Duration::from_millis(5), watches: false };
    let load = Load::begin(&balanced.address(), &[Crowd::get(8, kept)]);
    load.wait_for_more(200);
    let told = Instant::now();
    leaves.signal(Signal::SIGTERM);
    pass(long);
    assert!(!leaves.workers().is_empty(), "the stop waits for the long request");
    let tally = load.finish();
    tally.assert_clean();
    let slowest = tally.latencies.last().copied().unwrap_or_default();
    println!("{} answered in {:?}, the slowest after {slowest:?}", tally.answered, told.elapsed());
    // On a machine that does other things a second may be longer.
    let most = if is_figure { Duration::from_millis(1500) } else { Duration::from_secs(10) };
    assert!(slowest <= most, "{slowest:?}");
    held.release();
    assert_eq!(connection.response().expect("it was in hand").status, 200);
    assert_eq!(leaves.wait_exit(), Exit::Code(0));
    stays.stop();
}
