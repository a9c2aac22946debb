//! Real database servers, thrown away at the end: a cluster in a temporary folder, a free port, an
//! unprivileged user, from the distribution's own programs. A test that finds none fails.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

/// The databases that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    Mariadb,
}

/// The password that the servers ask for. It must never be seen outside of a URL.
pub(crate) const PASSWORD: &str = "Tr0ub4dor";

/// A database that is there from the start, and empty: the one that PostgreSQL makes by itself.
pub(crate) const DATABASE: &str = "postgres";

/// The user that runs them when the tests are run by root, which they refuse. There is one on every
/// Linux.
const NOBODY: (u32, &str) = (65534, "65534");

/// The requirements of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// Connections in the clear. It does not know TLS.
    Plain,
    /// Connections over TLS, with a certificate of an authority of its own.
    Tls,
}

/// A server of our own.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    folder: PathBuf,
    port: u16,
    keeper: Mutex<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Child,
}

impl Server {
    /// Makes a cluster. It is not running yet.
    pub(crate) fn new(kind: Kind) -> Self {
        Self::with(kind, Transport::Plain)
    }

    /// Makes a cluster that is spoken to over TLS only, and starts it.
    pub(crate) fn over_tls(kind: Kind) -> Self {
        let server = Self::with(kind, Transport::Tls);
        server.order("start");
        server
    }

    fn with(kind: Kind, transport: Transport) -> Self {
        let folder = TempDir::with_prefix("ferricorn-").unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY.0), Some(NOBODY.0)).unwrap();
        }
        // From here on the keeper removes it.
        let folder = folder.keep();
        let port = free_port();
        let (signal, mut server) = match kind {
            Kind::Sqlite => panic!("SQLite has no server"),
            Kind::Postgres => ("QUIT", postgres(&folder, port)),
            Kind::Mariadb => ("KILL", mariadb(&folder, port)),
        };
        match transport {
            Transport::Plain => {}
            Transport::Tls => server.extend(tls(&folder, kind)),
        }
        let keeper = Mutex::new(Keeper::new(&folder, signal, server));
        Self { kind, folder, port, keeper }
    }

    /// Makes a cluster and starts it.
    pub(crate) fn running(kind: Kind) -> Self {
        let server = Self::new(kind);
        server.order("start");
        server
    }

    /// `start`, `stop` at once, `pause` as if the network had gone, or `resume`.
    pub(crate) fn order(&self, order: &str) {
        self.keeper.lock().unwrap().order(order);
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that vouches for a server that speaks TLS.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The URL of a database, for a user that may do everything.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_with(database, PASSWORD)
    }

    /// The same with another password.
    pub(crate) fn url_with(&self, database: &str, password: &str) -> String {
        let scheme = match self.kind {
            Kind::Sqlite => "sqlite",
            Kind::Postgres => "postgres",
            Kind::Mariadb => "mariadb",
        };
        format!("{scheme}://tester:{password}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Keeper {
    /// A keeper of one command, which is not running yet. At the end it removes the folder.
    fn new(folder: &Path, signal: &str, command: Vec<String>) -> Self {
        let mut keeper = unprivileged("sh");
        // Its text, not its path: the checkout may stand where nobody can get to it.
        keeper.args(["-c", include_str!("keeper.sh"), "keeper.sh"]);
        keeper.arg(folder).arg(signal).args(command);
        let mut process =
            keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/").spawn().unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { orders, answers, _process: process }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "the keeper is gone");
    }
}

/// A PgBouncer before a server, in transaction mode, with the settings that it has by default.
#[derive(Debug)]
pub(crate) struct Pooler {
    port: u16,
    _keeper: Keeper,
}

impl Pooler {
    /// Starts one that has at most so many connections to the server for each database.
    pub(crate) fn before(server: &Server, connections: u8) -> Self {
        let folder = TempDir::with_prefix("ferricorn-").unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY.0), Some(NOBODY.0)).unwrap();
        }
        let folder = folder.keep();
        let port = free_port();
        let to = server.port();
        let settings = format!(
            "[databases]\n\
             * = host=127.0.0.1 port={to} user=tester password={PASSWORD}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = transaction\n\
             max_client_conn = 400\n\
             default_pool_size = {connections}\n"
        );
        let path = folder.join("pgbouncer.ini");
        fs::write(&path, settings).unwrap();
        let found = ["/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer", "/usr/bin/pgbouncer"];
        let program = found.into_iter().find(|program| Path::new(program).exists());
        let program = program.expect("no PgBouncer found: apt-get install pgbouncer");
        let command = vec![program.to_owned(), path.display().to_string()];
        let mut keeper = Keeper::new(&folder, "TERM", command);
        keeper.order("start");
        Self { port, _keeper: keeper }
    }

    /// The URL of a database behind it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://tester:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }
}

fn postgres(folder: &Path, port: u16) -> Vec<String> {
    let programs = newest("/usr/lib/postgresql", "bin/postgres")
        .expect("no PostgreSQL server found: apt-get install postgresql");
    let programs = programs.parent().unwrap();
    let data = folder.join("data");
    let password = folder.join("password");
    fs::write(&password, PASSWORD).unwrap();
    let mut initdb = unprivileged(programs.join("initdb").to_str().unwrap());
    initdb.args(["--username=tester", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"]);
    initdb.args(["--locale=C", "--no-instructions"]);
    initdb.arg("--pgdata").arg(&data).arg("--pwfile").arg(&password);
    finish(initdb);
    let mut server = vec![programs.join("postgres").display().to_string()];
    server.extend(["-D".into(), data.display().to_string(), "-p".into(), port.to_string()]);
    // Power does not fail during a test: no need to wait for the disk.
    server.push("-F".into());
    for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"]
    {
        server.extend(["-c".into(), setting.into()]);
    }
    server
}

fn mariadb(folder: &Path, port: u16) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let found = ["/usr/sbin/mariadbd", "/usr/local/sbin/mariadbd", "/usr/bin/mariadbd"];
    let program = found.into_iter().find(|program| Path::new(program).exists());
    let program = program.expect("no MariaDB server found: apt-get install mariadb-server-core");
    let mut install = unprivileged("mariadb-install-db");
    install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    install.arg(format!("--datadir={}", path("data"))).arg(format!("--tmpdir={}", path("")));
    finish(install);
    let users = path("users.sql");
    let statements = format!(
        "CREATE OR REPLACE USER tester@'%' IDENTIFIED BY '{PASSWORD}';\n\
         GRANT ALL ON *.* TO tester@'%' WITH GRANT OPTION;\n\
         CREATE DATABASE IF NOT EXISTS {DATABASE};\n"
    );
    fs::write(&users, statements).unwrap();
    vec![
        program.into(),
        "--no-defaults".into(),
        format!("--datadir={}", path("data")),
        format!("--tmpdir={}", path("")),
        format!("--socket={}", path("socket")),
        format!("--pid-file={}", path("pid")),
        format!("--init-file={users}"),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".into(),
        "--skip-log-bin".into(),
        // Power does not fail during a test: no need to wait for the disk.
        "--innodb-flush-log-at-trx-commit=2".into(),
        "--innodb-buffer-pool-size=32M".into(),
    ]
}

/// Makes certificates; answers what the server must be told of them.
fn tls(folder: &Path, kind: Kind) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let issue = |name: &str, arguments: &[&str]| {
        let mut openssl = unprivileged("openssl");
        openssl.args(["req", "-x509", "-days", "2", "-nodes", "-newkey", "ec"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-out", &path(&format!("{name}.pem"))]);
        openssl.args(["-keyout", &path(&format!("{name}.key"))]).args(arguments);
        finish(openssl);
    };
    issue("ca", &["-subj", "/CN=an authority"]);
    let by = ["-CA", &path("ca.pem"), "-CAkey", &path("ca.key")];
    let names = ["-subj", "/CN=a server", "-addext", "subjectAltName=IP:127.0.0.1"];
    issue("server", &[&by[..], &names, &["-addext", "basicConstraints=CA:FALSE"]].concat());
    let certificate = path("server.pem");
    let key = path("server.key");
    match kind {
        Kind::Sqlite => panic!("SQLite has no server"),
        Kind::Postgres => {
            let rules = folder.join("data/pg_hba.conf");
            fs::write(rules, "hostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
            let settings =
                ["ssl=on", &format!("ssl_cert_file={certificate}"), &format!("ssl_key_file={key}")];
            settings.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]).collect()
        }
        Kind::Mariadb => vec![
            format!("--ssl-cert={certificate}"),
            format!("--ssl-key={key}"),
            "--require-secure-transport=ON".to_owned(),
        ],
    }
}

/// A port below those that the kernel gives to outgoing connections: nobody takes it by chance.
pub(crate) fn free_port() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let ephemeral: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    (0..100)
        .map(|_| rand::random_range(ephemeral / 2..ephemeral))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free below the ephemeral range")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn unprivileged(program: &str) -> Command {
    let mut command = if is_root() {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", NOBODY.1, "--regid", NOBODY.1, "--clear-groups", "--", program]);
        setpriv
    } else {
        Command::new(program)
    };
    command.env("LC_ALL", "C").current_dir("/");
    command
}

fn finish(mut command: Command) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

/// The program of the highest version in a folder that has one folder for each.
fn newest(folder: &str, program: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let programs = versions.map(|version| version.path().join(program));
    programs.filter(|program| program.exists()).max()
}
