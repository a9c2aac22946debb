//! The program, run in a folder of its own with no environment but what a test gives it.
//!
//! Nothing of the machine may leak in: a `PORT` or `DATABASE_URL` of the developer's would change
//! what is tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder that is gone after the test.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

/// The result of a run.
#[derive(Debug)]
#[must_use = "compare the output or assert the exit code"]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder for the test"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).expect("the test's folder is writable");
        path
    }

    /// Runs the program here.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    /// Runs the program here with some variables.
    pub(crate) fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let output = self
            .command(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        Output {
            code: output.status.code().expect("the program was not killed"),
            stdout: String::from_utf8(output.stdout).expect("it writes UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("it writes UTF-8"),
        }
    }

    /// The program, ready to run here.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferricorn"));
        command.args(arguments).current_dir(self.path()).env_clear();
        command
    }
}

impl Output {
    /// Returns the text on stderr, when the code is that of a wrong configuration.
    pub(crate) fn problems(&self) -> &str {
        assert_eq!(self.code, 78, "{self:?}");
        assert_eq!(self.stdout, "");
        &self.stderr
    }

    /// The line of `ferricorn config` for a key.
    pub(crate) fn setting(&self, key: &str) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        let begin = format!("{key} = ");
        let mut lines = self.stdout.lines().filter(|line| line.starts_with(&begin));
        let line = lines.next().unwrap_or_else(|| panic!("no {key} in {self:?}"));
        assert_eq!(lines.next(), None, "{key} twice");
        line
    }
}
