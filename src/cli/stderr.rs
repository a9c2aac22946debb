//! Errors on stderr. Workers and others may have the same pipe, and its reader may stand still: a server
//! ends all the same.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::sys::write;

/// The time that stderr has for each 4 KiB.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Prints the text, as far as stderr takes it.
pub(super) fn complain(text: &str) {
    let _unsaid = write::in_time(io::stderr().as_fd(), text.as_bytes(), TIMEOUT);
}
