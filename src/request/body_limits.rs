//! The longest request bodies: `limits.body`, and what the application says of single paths.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};

/// The longest body of requests, by their paths.
#[derive(Clone, Default)]
pub(crate) struct BodyLimits {
    /// For paths without a limit of their own.
    default: Limit,
    paths: matchit::Router<Limit>,
    has_paths: bool,
}

/// The limit of one body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Limit {
    /// As long as the application's extractors take: axum's 2 MiB, unless its routes have a
    /// [`DefaultBodyLimit`].
    #[default]
    Extractors,
    /// As long as it likes.
    None,
    /// So many bytes.
    Bytes(u64),
}

impl BodyLimits {
    /// For a server whose `limits.body` is this.
    pub(crate) fn new(configured: u64) -> Self {
        let default = if configured == 0 { Limit::Extractors } else { Limit::Bytes(configured) };
        Self { default, ..Self::default() }
    }

    /// # Errors
    /// When the path is no path of a route, or stands in another one's way.
    fn set(&mut self, path: &str, limit: Limit) -> Result<(), String> {
        let inserted = self.paths.insert(path, limit);
        inserted.map_err(|error| format!("cannot limit the bodies of {path:?}: {error}"))?;
        self.has_paths = true;
        Ok(())
    }

    /// The limit of a request to this path.
    pub(crate) fn of(&self, path: &str) -> Limit {
        if !self.has_paths {
            return self.default;
        }
        self.paths.at(path).map_or(self.default, |found| *found.value)
    }
}

impl fmt::Debug for BodyLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyLimits").field("default", &self.default).finish_non_exhaustive()
    }
}

impl Limit {
    /// Bytes that the server takes.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Extractors | Self::None => u64::MAX,
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Has axum's extractors take as much as the server does. A [`DefaultBodyLimit`] of a route comes
    /// later, and wins.
    pub(crate) fn apply(self, request: &mut Request<Body>) {
        match self {
            Self::Extractors => {}
            Self::None => DefaultBodyLimit::disable().apply(request),
            Self::Bytes(bytes) => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                DefaultBodyLimit::max(bytes).apply(request);
            }
        }
    }
}

/// The limits of a worker while its application declares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared(Arc<Mutex<BodyLimits>>);

impl Declared {
    pub(crate) fn new(configured: u64) -> Self {
        Self(Arc::new(Mutex::new(BodyLimits::new(configured))))
    }

    /// # Errors
    /// See [`crate::WorkerContext::limit_body`].
    pub(crate) fn set(&self, path: &str, bytes: u64) -> Result<(), String> {
        let limit = if bytes == 0 { Limit::None } else { Limit::Bytes(bytes) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set(path, limit)
    }

    /// The declarations so far.
    pub(crate) fn limits(&self) -> BodyLimits {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_limits_are_those_of_the_path_or_the_default() {
        let declared = Declared::new(1000);
        declared.set("/files/{name}", 5).unwrap();
        declared.set("/all", 0).unwrap();
        let limits = declared.limits();
        let found = ["/", "/files", "/files/a", "/files/a/b", "/all"].map(|path| limits.of(path));
        let usual = Limit::Bytes(1000);
        assert_eq!(found, [usual, usual, Limit::Bytes(5), usual, Limit::None]);
        assert_eq!(BodyLimits::new(0).of("/"), Limit::Extractors);
        assert_eq!(Limit::Extractors.bytes(), u64::MAX);
    }

    #[test]
    fn body_limit_is_refused_when_its_path_is_wrong() {
        let declared = Declared::new(0);
        declared.set("/a/{b}", 1).unwrap();
        for path in ["/a/{c}", "/a/{b}", "/{"] {
            let result = declared.set(path, 1);
            let error = result.unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("cannot limit the bodies of {path:?}: ")),
                "{error}"
            );
        }
    }
}
