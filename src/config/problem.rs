//! All that is wrong with a configuration, and the places it came from.

use std::fmt;
use std::io;

use super::resolve::Resolved;
use super::setting::Setting;

/// Everything that is wrong with a configuration, one line each: `place: key: expected …, found …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// The problems in the order of the layers they are in, at least one.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl From<String> for ConfigError {
    fn from(problem: String) -> Self {
        Self { problems: vec![problem] }
    }
}

/// Problems as they are found, so that none hides another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    /// Adds one; the place is empty when the problem has none.
    pub(crate) fn add(&mut self, place: &str, message: impl fmt::Display) {
        let text =
            if place.is_empty() { message.to_string() } else { format!("{place}: {message}") };
        // A wrong value that two layers of one file repeat is still one thing to do.
        if !self.0.contains(&text) {
            self.0.push(text);
        }
    }

    /// Adds what is wrong with a setting's value.
    pub(super) fn add_for(&mut self, place: &str, setting: &Setting, error: impl fmt::Display) {
        self.add(place, format!("{}: {error}", setting.key));
    }

    /// Adds what is wrong with the value that a setting has in the end.
    pub(super) fn refuse(&mut self, settings: &Resolved, key: &str, error: impl fmt::Display) {
        self.add("", settings.placed(key, error));
    }

    /// Adds what another search has found.
    pub(super) fn append(&mut self, other: Self) {
        for problem in other.0 {
            self.add("", problem);
        }
    }

    /// All that was found, or nothing.
    pub(crate) fn into_result(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.0 }) }
    }
}

impl ConfigError {
    /// Several problems, one line each.
    pub(crate) fn of(problems: Vec<String>) -> Self {
        Self { problems }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The table of settings.
    Default,
    /// A line of the configuration file.
    File { file: String, line: usize },
    /// A variable that a line of the `env_file` sets.
    EnvFile { file: String, line: usize, variable: String },
    /// A variable of the process.
    Environment { variable: String },
    /// A file that a variable names.
    SecretFile { file: String, variable: String },
    /// An option, with its dashes.
    CommandLine { flag: String },
    /// An option in a variable that holds several.
    Arguments { variable: &'static str, flag: String },
}

impl Origin {
    /// The place, as the beginning of an error; empty for a default.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Default => String::new(),
            Self::File { file, line } => format!("{file}:{line}"),
            Self::EnvFile { file, line, variable } => format!("{file}:{line}: {variable}"),
            Self::Environment { variable } => variable.clone(),
            Self::SecretFile { file, variable } => format!("{variable}: {file}"),
            Self::CommandLine { flag } => flag.clone(),
            Self::Arguments { variable, flag } => format!("{variable}: {flag}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::EnvFile { file, line, variable } => write!(f, "{file}:{line} {variable}"),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::SecretFile { file, variable } => write!(f, "{file}, environment {variable}"),
            Self::CommandLine { flag } => write!(f, "command line {flag}"),
            Self::Arguments { variable, flag } => write!(f, "environment {variable} {flag}"),
        }
    }
}

/// Why the system refused, without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        kind => {
            let text = error.to_string();
            if error.raw_os_error().is_some() && text.starts_with("os error") {
                return kind.to_string();
            }
            text.split(" (os error").next().unwrap_or(&text).to_lowercase()
        }
    }
}
