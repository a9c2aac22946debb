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
