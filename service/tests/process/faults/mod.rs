//! The matrix of faults: what clients see, what the logs say, who is replaced, that nothing of it is
//! left (no zombie, no descriptor), and how long it took until all was well.
//!
//! Figures are printed: `cargo test --test process faults -- --nocapture`.
//!
//! | fault | test |
//! |---|---|
//! | `/slow`, `/never`, `/panic`, `/big`, `/exit`, `/abort`, `/overflow`, `/block`, `/leak`, `/orphan` | [`requests`] |
//! | `KILL`, `SEGV`, `ABRT`, `STOP` and other signals to a worker | [`requests`] |
//! | a whole machine that stands still, which is nobody's fault | [`stalls`] |
//! | whose fault it was, fifty of fifty | [`culprits`] |
//! | a worker that exits, fails, panics, hangs, blocks or is slow when it boots | [`boots`] |
//! | no fork, no descriptor, no room for a connection, no memory | [`shortages`] |
//! | a stop with a worker, a client or an operator that does not play along | [`stops`] |
//! | kills in a row, all workers in a crash loop | [`crowds`] |

mod boots;
mod crowds;
mod culprits;
mod requests;
mod scene;
mod shortages;
mod stalls;
mod stops;

pub(crate) use requests::send_until_it_dies;
pub(crate) use scene::{connect_to, settled};

use crate::client::{Connection, get};
use crate::harness::{Ferricorn, PATIENCE, eventually};

/// Sends a request to `/until` or `/block` with this number in it, and waits until its handler runs.
fn hold(server: &Ferricorn, connection: &mut Connection, target: &str, number: usize) {
    connection.send(get(target)).expect("it is open");
    let begun = server.folder().join(format!("begun-{number}"));
    eventually("the handler runs", PATIENCE, || begun.exists().then_some(()));
}

/// Lets the request to `/until` with this number go on.
fn release(server: &Ferricorn, number: usize) {
    std::fs::write(server.folder().join(format!("go-{number}")), "").expect("the folder is ours");
}
