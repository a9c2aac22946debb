//! The messages to a service manager, in the words of sd_notify(3). Without one, nothing.
//!
//! The pid never changes, not over an upgrade either, so `MAINPID` is never told.
//!
//! # The trap
//! A manager that does not read makes its socket full, and who then sends, waits: a server would stand
//! still because its manager does. So nothing waits here; what finds no room is kept and told later.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use super::events::MasterEvent;
use crate::config::Config;
use crate::logging;
use crate::supervisor::notice::Notice;
use crate::supervisor::stage::Urgency;
use crate::time::Instant;

/// The service manager that has started this process, if one has.
#[derive(Debug)]
pub(super) struct Manager {
    /// The interval at which it wants to hear from the master, and when it will hear next: twice as
    /// often.
    watchdog: Option<(Duration, Instant)>,
    /// True if it was told that the server serves.
    ready: bool,
    /// The messages that found no room, in their order.
    unsent: VecDeque<String>,
    /// When to try again.
    retry_at: Option<Instant>,
}

/// From one try to the next.
const RETRY: Duration = Duration::from_millis(100);
/// Messages that wait at the most: of more, the oldest are of no interest any more.
const UNSENT_MAX: usize = 32;

impl Manager {
    /// `ready` says whether it was told so already, by the image before.
    pub(super) fn new(now: Instant, ready: bool) -> Self {
        let half = sd_notify::watchdog_enabled().map(|interval| interval / 2);
        let watchdog = half.map(|half| (half, now));
        Self { watchdog, ready, unsent: VecDeque::new(), retry_at: None }
    }

    /// When it must hear next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.watchdog.map(|(_, next)| next).into_iter().chain(self.retry_at).min()
    }

    /// Lets it hear that the master's loop runs, when it is time.
    pub(super) fn ping(&mut self, now: Instant) {
        if let Some((half, next)) = &mut self.watchdog
            && *next <= now
        {
            *next = now.after(*half);
            // One that waits already says as much.
            if self.unsent.is_empty() {
                self.tell(now, &[NotifyState::Watchdog]);
            }
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.send(now);
        }
    }

    /// Every worker serves, for the first time.
    pub(super) fn ready(&mut self, now: Instant, workers: u16) {
        if !std::mem::replace(&mut self.ready, true) {
            let status = format!("{workers} workers serve");
            self.tell(now, &[NotifyState::Ready, NotifyState::Status(&status)]);
        }
    }

    /// Sends the part of the error log that concerns the manager.
    pub(super) fn note(&mut self, now: Instant, notice: &Notice, config: &Config) {
        // A message is made of lines, and a state is one of them.
        let status = notice.to_string().replace('\n', "; ");
        let status = NotifyState::Status(&status);
        match notice {
            Notice::Forked { .. } if !self.ready => {
                self.tell(now, &[NotifyState::Custom(&extend(config.boot_timeout))]);
            }
            Notice::Reloading { .. } => match NotifyState::monotonic_usec_now() {
                Ok(at) => self.tell(now, &[NotifyState::Reloading, at, status]),
                Err(_) => self.tell(now, &[NotifyState::Reloading, status]),
            },
            Notice::Reloaded { .. } | Notice::ReloadFailed { .. } => {
                self.tell(now, &[NotifyState::Ready, status]);
            }
            Notice::StopAnnounced { announce, timeout } => {
                let longer = extend(announce.saturating_add(*timeout));
                self.tell(now, &[NotifyState::Stopping, NotifyState::Custom(&longer), status]);
            }
            Notice::Stopping { urgency: Urgency::Graceful, timeout } => {
                let longer = extend(*timeout);
                self.tell(now, &[NotifyState::Stopping, NotifyState::Custom(&longer), status]);
            }
            Notice::Stopping { urgency: Urgency::Quick, .. } => {
                self.tell(now, &[NotifyState::Stopping, status]);
            }
            Notice::Resized { .. } | Notice::SlotsFailing { .. } => self.tell(now, &[status]),
            _ => {}
        }
    }

    fn tell(&mut self, now: Instant, states: &[NotifyState<'_>]) {
        if self.unsent.len() == UNSENT_MAX {
            self.unsent.pop_front();
        }
        self.unsent.push_back(states.iter().map(|state| format!("{state}\n")).collect());
        self.send(now);
    }

    fn send(&mut self, now: Instant) {
        self.retry_at = None;
        while let Some(message) = self.unsent.front() {
            match send(message) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.retry_at = Some(now.after(RETRY));
                    return;
                }
                Err(error) => {
                    logging::emit(&MasterEvent::NotifyFailed { reason: error.to_string() });
                }
                Ok(()) => {}
            }
            self.unsent.pop_front();
        }
    }
}

/// Asks for so much longer, and a little for what comes after. In our own words: sd-notify's number ends
/// at 71 minutes.
fn extend(by: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", by.saturating_add(Duration::from_secs(5)).as_micros())
}

/// Sends a message to the socket that the manager has named, if it has. It never waits.
fn send(message: &str) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}
