//! The facts that proxies report of a client, and which of them are believed.

pub(crate) mod forwarded;
pub(crate) mod header;
