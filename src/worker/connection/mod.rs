//! The connections of a worker: their sockets, what each waits for and since when, and their memory.

pub(crate) mod budget;
pub(crate) mod conn;
pub(crate) mod conns;
pub(crate) mod heads;
mod leak;
pub(crate) mod machine;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod streams;
mod timeouts;
pub(crate) mod waits;
