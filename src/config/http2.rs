//! The type of the table `[http2]`.

use super::fields::fields;
use super::typed::FieldReader;

fields! {
    /// The `[http2]` table.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Http2 in "http2." {
        /// True if HTTP/2 is spoken: by ALPN on addresses of TLS, by prior knowledge on others.
        pub enabled: bool = if_built,
        /// Requests that one connection may have open at once.
        pub max_streams: u32,
    }
}

/// Reads a setting that is false in a program without HTTP/2.
fn if_built(reader: &mut FieldReader<'_>, key: &str) -> bool {
    cfg!(feature = "http2") && reader.read(key)
}
