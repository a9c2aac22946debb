//! The one door to the system: every system call that std does not offer, and everything unsafe.
//!
//! It knows descriptors, processes and signals by the system's own names, and none of ferricorn's
//! words: no worker, no slot, no reload. Each unsafe site carries its `SAFETY:` reason.

pub(crate) mod acceptor;
pub(crate) mod bell;
pub(crate) mod channel;
pub(crate) mod clock;
pub(crate) mod exec;
pub(crate) mod filter;
pub(crate) mod foreign;
pub(crate) mod fork;
pub(crate) mod identity;
pub(crate) mod incarnation;
pub(crate) mod launch;
pub(crate) mod local;
pub(crate) mod notes;
pub(crate) mod options;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod readable;
pub(crate) mod receipt;
pub(crate) mod relay;
pub(crate) mod shared;
pub(crate) mod signals;
pub(crate) mod sink;
pub(crate) mod socket;
pub(crate) mod statistics;
pub(crate) mod title;
pub(crate) mod wait;
pub(crate) mod waiting;
pub(crate) mod walk;
pub(crate) mod write;
