//! A real HAProxy in front of the bundled program, with the health check that it makes by default.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::client::{Address, Connection};
use crate::harness::{Ferricorn, PATIENCE, eventually};

/// A running HAProxy; killed when the test is over.
struct Proxy {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Proxy {
    /// Starts it with these lines in the section of its only server.
    fn start(check: &str, server: &Ferricorn) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "global\n stats socket {stats} mode 600 level admin\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             listen front\n bind unix@{front}\n {check}\n server one {one} check inter 100 fall 1\n",
            stats = at("stats"),
            front = at("front"),
            one = server.address().tcp(),
        );
        std::fs::write(at("haproxy.cfg"), text).expect("the folder is ours");
        let child = Command::new("haproxy")
            .args(["-db", "-f", &at("haproxy.cfg")])
            .env("PATH", "/usr/sbin:/usr/bin:/bin")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy is installed: ./check names the packages");
        Self { child, folder }
    }

    fn socket(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The server's status, how its last check ended, and the status that this one was answered with.
    fn checked(&self) -> [String; 3] {
        eventually("a check has ended", PATIENCE, || {
            let table = ask(&self.socket("stats"), "show stat\n")?;
            let mut lines = table.lines();
            let names: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
            let row: Vec<&str> = lines
                .map(|line| line.split(',').collect::<Vec<_>>())
                .find(|row| row.get(1) == Some(&"one"))?;
            let field = |name: &str| {
                let at = names.iter().position(|found| *found == name)?;
                row.get(at).map(|value| (*value).to_owned())
            };
            let found = [field("status")?, field("check_status")?, field("check_code")?];
            (!found[1].is_empty() && found[1] != "INI" && !found[1].starts_with('*'))
                .then_some(found)
        })
    }
}

fn ask(socket: &Path, question: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// `option httpchk` alone asks `OPTIONS /` over HTTP/1.0.
#[test]
fn haproxy_httpchk_finds_the_server_up() {
    let server = Ferricorn::bundled().config("workers = 1").start();
    for (check, code) in [
        ("option httpchk", "204"),
        ("option httpchk OPTIONS /readyz", "204"),
        ("option httpchk\n http-check send meth OPTIONS uri / ver HTTP/1.1 hdr Host a", "204"),
        ("option httpchk GET /readyz", "200"),
    ] {
        let proxy = Proxy::start(check, &server);
        let [status, check_status, check_code] = proxy.checked();
        assert_eq!(
            (status.as_str(), check_status.as_str(), check_code.as_str()),
            ("UP", "L7OK", code),
            "{check}"
        );
        let mut connection =
            Connection::open(&Address::Unix(proxy.socket("front"))).expect("it listens");
        assert_eq!(connection.get("/healthz").expect("it is passed on").status, 200, "{check}");
    }
    server.stop();
}
