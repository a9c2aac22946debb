//! The errors that can end the server, each with its exit code.

use super::ConfigError;

/// Why the server ended, or did not start. Its text is one sentence that says what, where, and what
/// to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Called as it must not be: with threads, or with a runtime.
    #[error("failed to start: {0}")]
    Usage(String),
    /// The configuration is wrong: everything that is, one line each.
    #[error("{0}")]
    Config(ConfigError),
    /// An address cannot be listened on.
    #[error("{0}")]
    Bind(String),
    /// `prepare` failed.
    #[error("{0}")]
    Prepare(String),
    /// No worker could boot.
    #[error("{0}")]
    WorkerBoot(String),
    /// The system refused something that the master cannot do without.
    #[error("failed to {action}: {source}")]
    System {
        /// The attempt.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn folder(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Config(format!("chdir: failed to enter {}: {error}", path.display()).into())
    }

    pub(crate) fn logs(reason: String) -> Self {
        Self::Config(reason.into())
    }

    pub(crate) fn identity(reason: String) -> Self {
        Self::Config(reason.into())
    }

    /// The exit code for this error (`sysexits.h`, and gunicorn's 3 and 4).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::WorkerBoot(_) => 3,
            Self::Prepare(_) => 4,
            Self::Usage(_) => 64,
            Self::Bind(_) => 69,
            Self::System { .. } => 70,
            Self::Config(_) => 78,
        }
    }
}
