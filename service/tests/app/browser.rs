//! Chromium, driven through WebDriver, and the program that it visits.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::servers::free_port;
use crate::world::eventually;

/// The time that a browser may take for anything, on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The page's words when it is there.
const READY: [&str; 2] = ["Ready. Worker ", "Sign in to see the rows."];

/// The program with four workers, on a database of its own.
#[derive(Debug)]
pub(crate) struct Program {
    process: Process,
    pub(crate) origin: String,
    pub(crate) database: PathBuf,
    _folder: TempDir,
}

/// A browser with the page open.
#[derive(Debug)]
pub(crate) struct Browser {
    client: Client,
    driver_port: u16,
    _driver: Process,
    _profile: TempDir,
}

/// The properties of a browser.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    Light,
    Dark,
    /// A small telephone's screen: so many pixels wide.
    Narrow(u16),
}

/// It is stopped when this is dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.0.try_wait() {
            return;
        }
        // TERM, that each may stop its own children.
        let id = self.0.id().to_string();
        drop(Command::new("kill").args(["-TERM", &id]).status());
        drop(self.0.wait());
    }
}

impl Program {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Each request comes on a connection of its own, so that all workers are seen to answer.
    pub(crate) async fn without_keepalive() -> Self {
        Self::start_with(&["--keep-alive", "0"]).await
    }

    /// A user writes, and one alone, where `read` is true reads.
    pub(crate) async fn with_user(name: &str, password: &str, read: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let users = folder.path().join("users");
        fs::write(&users, format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap())).unwrap();
        let users = users.display().to_string();
        let read = format!("--access-read={read}");
        Self::start_in(folder, &["--access-users", &users, &read]).await
    }

    /// The same over TLS, with a certificate that no browser knows the authority of.
    pub(crate) async fn over_tls() -> Self {
        let folder = TempDir::new().unwrap();
        let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let [certificate, key] = ["a.crt", "a.key"].map(|name| folder.path().join(name));
        fs::write(&certificate, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
        let flags = ["--certfile", &certificate, "--keyfile", &key];
        let mut program = Self::start_in(folder, &flags).await;
        program.origin = program.origin.replacen("http:", "https:", 1);
        program
    }

    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), flags).await
    }

    async fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let database = folder.path().join("data.db");
        let address = format!("127.0.0.1:{}", free_port());
        let process = Command::new(env!("CARGO_BIN_EXE_ferricorn"))
            .args(["--bind", &address, "--database-url"])
            .arg(format!("sqlite://{}", database.display()))
            .args(flags)
            .current_dir(folder.path())
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(process);
        eventually(PATIENCE, async || TcpStream::connect(&address).ok()).await;
        Self { process, origin: format!("http://{address}"), database, _folder: folder }
    }

    /// Kills it, so that nobody listens any more.
    pub(crate) async fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
        let address = self.origin.strip_prefix("http://").unwrap();
        eventually(PATIENCE, async || TcpStream::connect(address).err()).await;
    }
}

impl Browser {
    /// Opens the page, and waits until it has its rows.
    pub(crate) async fn open(program: &Program, look: Look) -> Self {
        let browser = Self::launch(look).await;
        browser.visit(&program.origin).await;
        browser.told(|notice| READY.iter().any(|ready| notice.starts_with(ready))).await;
        browser
    }

    /// Starts a browser without a page.
    pub(crate) async fn launch(look: Look) -> Self {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("no chromedriver found: apt-get install chromium chromium-driver");
        let driver = Process(driver);
        eventually(PATIENCE, async || TcpStream::connect(("127.0.0.1", port)).ok()).await;
        let profile = TempDir::new().unwrap();
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities(&profile, look))
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Self { client, driver_port: port, _driver: driver, _profile: profile }
    }

    /// Opens an address.
    pub(crate) async fn visit(&self, address: &str) {
        self.client.goto(address).await.unwrap();
    }

    /// Types a text into a field.
    pub(crate) async fn write(&self, selector: &str, text: &str) {
        let element = self.client.find(Locator::Css(selector)).await.unwrap();
        element.send_keys(text).await.unwrap();
    }

    pub(crate) async fn close(self) {
        self.client.close().await.unwrap();
    }

    /// Waits for a notice, and gives it.
    pub(crate) async fn told(&self, expected: impl Fn(&str) -> bool) -> String {
        eventually(PATIENCE, async || {
            let notice = self.text("#notice").await;
            expected(&notice).then_some(notice)
        })
        .await
    }

    pub(crate) async fn text(&self, selector: &str) -> String {
        let element = self.client.find(Locator::Css(selector)).await.unwrap();
        element.text().await.unwrap()
    }

    /// The visible texts of all that match.
    pub(crate) async fn texts(&self, selector: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for element in self.client.find_all(Locator::Css(selector)).await.unwrap() {
            texts.push(element.text().await.unwrap());
        }
        texts
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.client.find(Locator::Css(selector)).await.unwrap();
        element.click().await.unwrap();
    }

    /// Types a key into whatever has the focus.
    pub(crate) async fn press(&self, key: Key) {
        let focused = self.client.active_element().await.unwrap();
        focused.send_keys(&char::from(key).to_string()).await.unwrap();
    }

    /// The id, or else the text, of what has the focus.
    pub(crate) async fn focus(&self) -> String {
        let focused = self.client.active_element().await.unwrap();
        match focused.attr("id").await.unwrap() {
            Some(id) => id,
            None => focused.text().await.unwrap(),
        }
    }

    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// The errors in its console: of scripts, of requests that failed, of what a policy forbids.
    pub(crate) async fn errors(&self) -> Vec<Value> {
        let session = self.client.session_id().await.unwrap().expect("it has begun");
        let body = r#"{"type":"browser"}"#;
        let request = format!(
            "POST /session/{session}/se/log HTTP/1.1\r\nhost: 127.0.0.1\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut driver = TcpStream::connect(("127.0.0.1", self.driver_port)).unwrap();
        driver.write_all(request.as_bytes()).unwrap();
        // The driver keeps the connection.
        let mut answer = BufReader::new(driver);
        let mut length = 0;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).unwrap();
        let log: Value = serde_json::from_slice(&body).unwrap();
        let entries = log["value"].as_array().unwrap_or_else(|| panic!("{log}"));
        entries.iter().filter(|entry| entry["level"] == "SEVERE").cloned().collect()
    }

    /// Keeps a picture where `FERRICORN_SCREENSHOTS` says: those of `docs/` are made so.
    pub(crate) async fn picture(&self, name: &str) {
        let picture = self.client.screenshot().await.unwrap();
        assert!(picture.starts_with(b"\x89PNG"));
        if let Some(folder) = std::env::var_os("FERRICORN_SCREENSHOTS") {
            fs::write(PathBuf::from(folder).join(name), picture).unwrap();
        }
    }
}

fn capabilities(profile: &TempDir, look: Look) -> serde_json::Map<String, Value> {
    let mut arguments = vec![
        "--headless".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-background-networking".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--hide-scrollbars".to_owned(),
        "--window-size=900,1240".to_owned(),
        format!("--user-data-dir={}", profile.path().display()),
    ];
    let mut options = json!({});
    match look {
        Look::Light => arguments.push("--blink-settings=preferredColorScheme=1".to_owned()),
        Look::Dark => arguments.push("--blink-settings=preferredColorScheme=0".to_owned()),
        Look::Narrow(width) => {
            let metrics = json!({ "width": width, "height": 740, "pixelRatio": 2.0 });
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
    }
    options["args"] = json!(arguments);
    let capabilities = json!({
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL" },
        "acceptInsecureCerts": true,
    });
    capabilities.as_object().unwrap().clone()
}
