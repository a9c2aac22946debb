//! The control socket: by it a client asks the running server for its state, and gives it commands.
//!
//! A client sends one line of JSON ([`Request`]) and receives lines of JSON ([`Reply`], log events)
//! until the last one, whose type is `end`; then the connection is closed. `docs/control.md` is the
//! contract. [`Control`] is the master's end, [`Server`] the client's.
//!
//! # Why bounded
//! The master has one thread. So no client is waited for; each has a request of at most
//! [`clients::REQUEST_MAX`] bytes and one second for it, and receives lines as fast as it reads them and no
//! faster than the master has time for. A client that does not read for a second is dropped.

mod client;
mod clients;
mod place;
mod protocol;
mod status;

pub(crate) use client::{Conclusion, Problem, Server};
pub(crate) use clients::{Ask, Control, End, Feed, HandedControl, Heard};
pub(crate) use protocol::{Reply, Request, RequestRow, ServerRow, WorkerCount, WorkerRow, line};
pub(crate) use status::Status;
