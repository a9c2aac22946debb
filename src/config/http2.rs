//! The type of the table `[http2]`.

/// The `[http2]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Http2 {
    /// True if HTTP/2 is spoken: by ALPN on addresses of TLS, by prior knowledge on others.
    pub enabled: bool,
    /// Requests that one connection may have open at once.
    pub max_streams: u32,
}
