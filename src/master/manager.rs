//! What a service manager is told, in the words of sd_notify(3). Without one, nothing.
//!
//! The pid never changes, not over an upgrade either, so `MAINPID` is never told.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::config::Config;
use crate::supervisor::notice::Notice;
use crate::supervisor::stage::Urgency;
use crate::time::Instant;

/// The service manager that has started this process, if one has.
#[derive(Debug)]
pub(super) struct Manager {
    /// How often it wants to hear from us, and when it will hear next: twice as often.
    watchdog: Option<(Duration, Instant)>,
    /// Whether it was told that the server serves.
    ready: bool,
}

impl Manager {
    /// `ready` says whether it was told so already, by the image before.
    pub(super) fn new(now: Instant, ready: bool) -> Self {
        let half = sd_notify::watchdog_enabled().map(|interval| interval / 2);
        Self { watchdog: half.map(|half| (half, now)), ready }
    }

    /// When it must hear next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.watchdog.map(|(_, next)| next)
    }

    /// Lets it hear that the master's loop runs, when it is time.
    pub(super) fn beat(&mut self, now: Instant) {
        if let Some((half, next)) = &mut self.watchdog
            && *next <= now
        {
            *next = now.after(*half);
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Every worker serves, for the first time.
    pub(super) fn ready(&mut self, workers: u16) {
        if !std::mem::replace(&mut self.ready, true) {
            let status = format!("{workers} workers serve");
            tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        }
    }

    /// What the error log says, as far as it concerns the manager.
    pub(super) fn note(&self, notice: &Notice, config: &Config) {
        let status = notice.to_string();
        let status = NotifyState::Status(&status);
        match notice {
            Notice::Forked { .. } if !self.ready => tell(&[extend(config.boot_timeout)]),
            Notice::Reloading { .. } => match NotifyState::monotonic_usec_now() {
                Ok(now) => tell(&[NotifyState::Reloading, now, status]),
                Err(_) => tell(&[NotifyState::Reloading, status]),
            },
            Notice::Reloaded { .. } | Notice::ReloadFailed { .. } => {
                tell(&[NotifyState::Ready, status])
            }
            Notice::Stopping { urgency: Urgency::Graceful, patience } => {
                tell(&[NotifyState::Stopping, extend(*patience), status]);
            }
            Notice::Stopping { urgency: Urgency::Quick, .. } => {
                tell(&[NotifyState::Stopping, status])
            }
            Notice::Resized { .. } | Notice::StillFailing { .. } => tell(&[status]),
            _ => {}
        }
    }
}

/// Asks for so much longer, and a little for what comes after.
fn extend(by: Duration) -> NotifyState<'static> {
    let by = by.saturating_add(Duration::from_secs(5)).as_micros();
    NotifyState::ExtendTimeoutUsec(u32::try_from(by).unwrap_or(u32::MAX))
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("failed to tell the service manager: {error}");
    }
}
