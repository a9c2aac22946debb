//! The configurations of proxies that are shipped in `deploy/`, tried with the real programs.

use std::process::{Child, Command, Stdio};

use crate::client::{Address, Connection, Response};
use crate::harness::{Ferricorn, PATIENCE, eventually};
use crate::program::repository;

/// A proxy that is ended with its test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself: the test says so.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn shipped(name: &str) -> String {
    std::fs::read_to_string(repository("deploy").join(name)).expect("it is shipped")
}

/// The text with another in the place of one that it has exactly once outside comments.
fn with(text: &str, old: &str, new: &str) -> String {
    let code = |line: &&str| !line.trim_start().starts_with('#');
    let count = text.lines().filter(code).filter(|line| line.contains(old)).count();
    assert_eq!(count, 1, "{old:?} in {text}");
    let lines =
        text.lines().map(|line| if code(&line) { line.replace(old, new) } else { line.to_owned() });
    lines.map(|line| line + "\n").collect()
}

fn answer(proxy: &Address) -> Response {
    eventually("the proxy answers", PATIENCE, || {
        Connection::open(proxy).ok()?.get("/").ok().filter(|answer| answer.status == 200)
    })
}

/// nginx with a shipped file, whose upstream is the server; it listens on a socket in the folder.
fn nginx(server: &Ferricorn, file: &str, upstream: &str) -> (Proxy, Address) {
    let at = server.folder().display().to_string();
    let actual = server.addresses()[0].replace("unix:f", &format!("unix:{at}/f"));
    let actual = actual.trim_start_matches("http://");
    let text = with(&shipped(file), upstream, actual);
    let text = with(&text, "listen 80", &format!("listen unix:{at}/proxy.sock"));
    let conf = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/nginx.log;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p;\n\
         fastcgi_temp_path {at}/f_; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n{text} }}\n"
    );
    let path = server.folder().join("nginx.conf");
    std::fs::write(&path, conf).expect("the folder is ours");
    let mut command = Command::new("nginx");
    command.arg("-c").arg(path).stderr(Stdio::null());
    let child = command.spawn().expect("nginx is installed");
    (Proxy(child), Address::Unix(server.folder().join("proxy.sock")))
}

#[test]
fn shipped_nginx_file_serves_over_tcp() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let (_nginx, proxy) = nginx(&server, "nginx/ferricorn.conf", "127.0.0.1:5000");
    for _ in 0..20 {
        assert_eq!(answer(&proxy).status, 200);
    }
    server.stop();
}

#[test]
fn shipped_nginx_file_serves_over_a_unix_socket() {
    let server = Ferricorn::unruly().config("bind = \"unix:f.sock\"").by_ourselves().start();
    let upstream = "unix:/run/ferricorn/ferricorn.sock";
    let (_nginx, proxy) = nginx(&server, "nginx/ferricorn-unix.conf", upstream);
    for _ in 0..20 {
        assert_eq!(answer(&proxy).status, 200);
    }
    server.stop();
}

#[test]
fn shipped_caddy_file_serves() {
    let server = Ferricorn::unruly().config("workers = 2").start();
    let at = server.folder().display().to_string();
    let actual = server.addresses()[0].trim_start_matches("http://").to_owned();
    let text = with(&shipped("caddy/Caddyfile"), "127.0.0.1:5000", &actual);
    let text = with(&text, ":80 {", &format!("http:// {{\n\tbind unix/{at}/proxy.sock"));
    let path = server.folder().join("Caddyfile");
    // No administration, no certificates, no state outside of the folder.
    std::fs::write(&path, format!("{{\n\tadmin off\n}}\n{text}")).expect("the folder is ours");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&path).env("HOME", &at);
    let child = command.stderr(Stdio::null()).spawn().expect("caddy is installed");
    let _caddy = Proxy(child);
    let proxy = Address::Unix(server.folder().join("proxy.sock"));
    for _ in 0..20 {
        assert_eq!(answer(&proxy).status, 200);
    }
    server.stop();
}
