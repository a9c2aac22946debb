//! The process that serves metrics and the status page: it reads the memory that the other processes
//! write, and asks no worker anything.
//!
//! It has the rights of a worker, a runtime with one thread, and nothing to lose: another one serves the
//! same numbers. It takes its orders through its channel, at whose end it has no master any more; signals
//! are not for it.

mod application;
pub(crate) mod events;
mod exposition;
mod families;
mod http;
mod page;
mod snapshot;
mod statsd;
mod status;

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;

use self::events::StatsEvent;
use self::snapshot::Source;
use crate::config::Config;
use crate::logging;
use crate::scoreboard::MetricsMemory;
use crate::sys::channel::{Lower, Received};
use crate::sys::fork::InChild;
use crate::sys::identity::Identity;
use crate::sys::process;
use crate::sys::readable::readable;
use crate::sys::signals::{self, Signals};
use crate::sys::statistics::Extent;
use crate::wire::{LogOrder, MESSAGE_MAX};

/// Exit code of a stats process that could not begin.
const FAILED: i32 = 1;

/// From the order to leave to the end: time for a request that is on its way, and its answer.
const LAST_ANSWERS: Duration = Duration::from_millis(150);

/// A certificate of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Its file.
    pub(crate) name: String,
    /// The first second at which it is not valid any more, since the epoch.
    pub(crate) end: u64,
}

/// The state that the stats process is forked with.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    pub(crate) config: &'a Config,
    /// The server's addresses, in the order in which the master counts their queues.
    pub(crate) addresses: Vec<String>,
    /// The certificates that the master has read last, with their ends.
    pub(crate) certificates: Vec<Certificate>,
    /// Where metrics are served; `None`: they are only sent.
    pub(crate) listener: Option<TcpListener>,
    pub(crate) memory: &'a MetricsMemory,
    /// The master's signals, to be forgotten.
    pub(crate) signals: &'a Signals,
    /// Its end of the channel.
    pub(crate) channel: Lower,
    pub(crate) master: i32,
    /// The user and the group to become.
    pub(crate) identity: &'a Identity,
}

/// Serves until the master tells it to leave or is gone; returns the exit code.
pub(crate) fn main(child: InChild, birth: Birth<'_>) -> i32 {
    process::extend_name("stat");
    // From here on they are caught and do nothing: a group's or a service's stop is not for it.
    birth.signals.forget();
    let assumed = birth.identity.assume();
    // After the change of user, which clears it (prctl(2), PR_SET_PDEATHSIG).
    let assumed = assumed.and_then(|()| process::die_with_parent(signals::KILL));
    child.unblock_signals();
    let is_orphan = process::parent_pid() != birth.master;
    match assumed.and_then(|()| serve(birth)) {
        Ok(()) => 0,
        Err(_) if is_orphan => FAILED,
        Err(error) => {
            logging::emit(&StatsEvent::Unborn { reason: error.to_string() });
            FAILED
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "after the fork, and nowhere else")]
fn serve(birth: Birth<'_>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(birth))?;
    runtime.shutdown_background();
    Ok(())
}

async fn run(birth: Birth<'_>) -> io::Result<()> {
    let memory = MetricsMemory::inherit(birth.memory.as_fd().try_clone_to_owned()?);
    let channel = Arc::new(readable(birth.channel)?);
    let is_program = birth.config.program.is_set();
    let extent = if is_program { Extent::Tree } else { Extent::Process };
    let addresses = birth.addresses;
    let certificates = birth.certificates;
    let source = Source::new(memory, Arc::clone(&channel), addresses, certificates, extent)?;
    let source = Arc::new(source);
    let stats = &birth.config.stats;
    let mut accepting = None;
    if let Some(listener) = birth.listener {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting = Some(tokio::spawn(http::accept(listener, Arc::clone(&source))));
    }
    if let Some(address) = &stats.statsd {
        tokio::spawn(statsd::push(address.clone(), stats.clone(), source));
    }
    told_to_leave(&channel).await?;
    // What connects from now on waits for the next one; what has connected is answered.
    if let Some(accepting) = accepting {
        accepting.abort();
        tokio::time::sleep(LAST_ANSWERS).await;
    }
    Ok(())
}

/// Waits for the master's order, or its end.
async fn told_to_leave(channel: &AsyncFd<Lower>) -> io::Result<()> {
    let mut message = [0; MESSAGE_MAX];
    loop {
        let mut ready = channel.readable().await?;
        match channel.get_ref().receive(&mut message) {
            Ok(Received::Nothing) | Err(_) => ready.clear_ready(),
            Ok(Received::End) => return Ok(()),
            Ok(Received::Message { length, .. }) => match LogOrder::decode(&message[..length]) {
                Ok(LogOrder::Finish) => return Ok(()),
                // Another's order, or another version's.
                Ok(LogOrder::Reopen | LogOrder::Ring { .. }) | Err(_) => {}
            },
        }
    }
}
