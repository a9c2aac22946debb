//! Addresses to listen on, as they are written.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `host:port`, `[v6]:port`, `:port`
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
    /// `fd://N`
    Fd(i32),
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(number) => write!(f, "fd://{number}"),
        }
    }
}
