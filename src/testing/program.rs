//! The real program, with its master and workers, for the length of a test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::with_free_port;
use crate::sys::{clock, signals, wait};

/// The time that a program may take to stop before it is killed, longer than `graceful_timeout` by
/// default.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// The interval at which its exit is polled.
const LOOK: Duration = Duration::from_millis(5);

/// A program that calls [`crate::main`], and how to start it.
///
/// ```no_run
/// # fn test() -> std::io::Result<()> {
/// // In a test of the package whose program it is: Program::new(env!("CARGO_BIN_EXE_shop"))
/// let shop = ferricorn::testing::Program::new("target/debug/shop").settings("workers = 2").start()?;
/// assert!(shop.url("/").starts_with("http://127.0.0.1:"));
/// assert!(shop.stop()?.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Program {
    command: Command,
    settings: String,
}

/// A program that serves. It is stopped when this is dropped.
#[derive(Debug)]
pub struct RunningProgram {
    child: Child,
    addresses: Vec<String>,
    /// Addresses of the listeners with a name.
    named: BTreeMap<String, Vec<String>>,
    files: Files,
}

/// The files of a running program, which are removed with it.
#[derive(Debug)]
struct Files {
    config: PathBuf,
    log: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.config, &self.log] {
            // It may never have been made.
            let _absent = fs::remove_file(file);
        }
    }
}

impl Program {
    /// The program of this file.
    #[must_use]
    pub fn new(file: impl AsRef<Path>) -> Self {
        Self { command: Command::new(file.as_ref()), settings: String::new() }
    }

    /// The text of its `config.toml`; it listens on a free port of 127.0.0.1 unless `bind` is in it.
    #[must_use]
    pub fn settings(mut self, text: &str) -> Self {
        text.clone_into(&mut self.settings);
        self
    }

    /// A variable of its environment, which is that of the test otherwise.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it, and waits until every worker serves.
    ///
    /// # Errors
    /// The system's, and `Other` with its log when it ends before.
    pub fn start(mut self) -> io::Result<RunningProgram> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // ORDERING: a number that no other memory depends on: Relaxed.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ferricorn-test-{}-{number}", std::process::id());
        let file = |kind: &str| std::env::temp_dir().join(format!("{name}.{kind}"));
        let files = Files { config: file("toml"), log: file("log") };
        fs::write(&files.config, with_free_port(&self.settings))?;
        let log = File::create(&files.log)?;
        let (ready, teller) = io::pipe()?;
        let child = self
            .command
            .arg("--config")
            .arg(&files.config)
            .args(["--ready-fd", "0"])
            .stdin(Stdio::from(teller))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        // The writing end, else the line would never end.
        drop(self.command);
        let mut program =
            RunningProgram { child, addresses: Vec::new(), named: BTreeMap::new(), files };
        let mut line = String::new();
        BufReader::new(ready).read_line(&mut line)?;
        let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let addresses = told["addresses"].as_array().into_iter().flatten();
        program.addresses =
            addresses.filter_map(|address| address.as_str().map(str::to_owned)).collect();
        program.named = serde_json::from_value(told["named"].clone()).unwrap_or_default();
        if program.addresses.is_empty() {
            let log = program.log();
            return Err(io::Error::other(format!("the program did not get ready:\n{log}")));
        }
        Ok(program)
    }
}

impl RunningProgram {
    /// Where it listens, as its log has it.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The URL of a path, which begins with a slash, at its first address.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.addresses[0])
    }

    /// The URL of a path, which begins with a slash, at the listener with this name in `bind`.
    ///
    /// # Panics
    /// When no address has the name.
    #[must_use]
    pub fn url_of(&self, listener: &str, path: &str) -> String {
        let addresses = self.named.get(listener).and_then(|addresses| addresses.first());
        let address = addresses.unwrap_or_else(|| panic!("bind names no listener {listener}"));
        format!("{address}{path}")
    }

    /// The pid of its master, to which signals go.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output and standard error by now.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.files.log).unwrap_or_default()
    }

    /// Stops it gracefully, and waits until it has ended.
    ///
    /// # Errors
    /// The system's, and `TimedOut` when it had to be killed.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        wait::Child::new(pid).signal(signals::TERM)?;
        let begun = clock::now();
        while begun.elapsed() < STOP_TIMEOUT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            clock::nap(LOOK);
        }
        self.child.kill()?;
        self.child.wait()?;
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        // A test that has failed shows its own error.
        let _ended = self.end();
    }
}
