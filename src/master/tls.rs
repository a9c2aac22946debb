//! The master's part in TLS: certificates of each generation, keys of session tickets, and warnings
//! before a certificate expires.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::events::MasterEvent;
use crate::config::Error;
use crate::config::{Config, ConfigError};
use crate::ids::Generation;
use crate::logging;
use crate::stats::Certificate;
use crate::sys::clock;
use crate::sys::exec::{self, Handover};
use crate::time::Instant;
use crate::tls::{Bundle, EXPIRES_SOON, Expiry, Material, TicketKeys};

/// From one look at the dates of the certificates to the next.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Reads and checks the certificates and keys that a configuration names.
///
/// # Errors
/// [`Error::Config`] with everything that is wrong with them.
pub(crate) fn read(config: &Config) -> Result<Option<Bundle>, Error> {
    Bundle::of(config, clock::wall()).map_err(|problems| {
        let placed = problems.iter().map(|problem| config.placed(problem.key, &problem.reason));
        Error::Config(ConfigError::of(placed.collect()))
    })
}

/// The state that the master keeps for TLS.
#[derive(Debug, Default)]
pub(super) struct Tls {
    bundles: BTreeMap<Generation, Bundle>,
    /// Made with the first bundle.
    tickets: Option<TicketKeys>,
    /// When to look next at the dates of the certificates.
    look_at: Option<Instant>,
}

/// [`Tls`] for another image of the program: descriptors by their numbers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct HandedTls {
    bundles: BTreeMap<Generation, (i32, Vec<Expiry>)>,
    tickets: Option<(i32, Instant)>,
    look_at: Option<Instant>,
}

impl Tls {
    /// Keeps a generation's certificates.
    ///
    /// # Errors
    /// When there is no memory, or are no random numbers, for the keys of session tickets.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        generation: Generation,
        bundle: Option<Bundle>,
    ) -> io::Result<()> {
        let Some(bundle) = bundle else { return Ok(()) };
        if self.tickets.is_none() {
            self.tickets = Some(TicketKeys::new(now)?);
        }
        self.bundles.insert(generation, bundle);
        self.look_at = Some(now);
        Ok(())
    }

    /// The generation is over.
    pub(super) fn forget(&mut self, generation: Generation) {
        self.bundles.remove(&generation);
    }

    /// When [`Tls::look`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let rotate_at = self.tickets.as_ref().map(TicketKeys::rotate_at);
        rotate_at.into_iter().chain(self.look_at).min()
    }

    /// Makes a new key for tickets where one is due, and warns once a day of certificates of this
    /// generation that expire soon.
    pub(super) fn look(&mut self, now: Instant, generation: Generation) {
        if let Some(tickets) = &mut self.tickets {
            tickets.rotate(now);
        }
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.look_at = Some(now.after(DAY));
        let wall = clock::wall();
        let bundle = self.bundles.get(&generation);
        for expiry in bundle.iter().flat_map(|bundle| bundle.expiring(wall, EXPIRES_SOON)) {
            let file = expiry.file.clone();
            logging::emit(&match days_left(wall, expiry.at) {
                Some(days) => MasterEvent::CertificateExpires { file, days },
                None => MasterEvent::CertificateExpired { file },
            });
        }
    }

    /// The certificates of this generation, for the stats process.
    pub(super) fn certificates(&self, generation: Generation) -> Vec<Certificate> {
        let expiries = self.bundles.get(&generation).map_or(&[][..], Bundle::expiries);
        let certificate =
            |expiry: &Expiry| Certificate { name: expiry.file.clone(), end: seconds(expiry.at) };
        expiries.iter().map(certificate).collect()
    }

    /// In a worker: takes what it needs; `None` without TLS.
    pub(super) fn take_for(&mut self, generation: Generation) -> Option<Material> {
        let bundle = self.bundles.remove(&generation)?;
        Some(Material { bundle, tickets: self.tickets.take()? })
    }

    pub(super) fn hand_over<'a>(&'a self, handover: &mut Handover<'a>) -> HandedTls {
        let Self { bundles, tickets, look_at } = self;
        let bundle = |(generation, bundle): (&Generation, &'a Bundle)| {
            (*generation, (handover.add(bundle), bundle.expiries().to_vec()))
        };
        HandedTls {
            bundles: bundles.iter().map(bundle).collect(),
            tickets: tickets.as_ref().map(|keys| (handover.add(keys), keys.rotate_at())),
            look_at: *look_at,
        }
    }

    pub(super) fn take_over(handed: HandedTls) -> io::Result<Self> {
        let HandedTls { bundles, tickets, look_at } = handed;
        let bundle = |(generation, (number, expiries))| {
            Ok((generation, Bundle::inherit(exec::inherited(number)?, expiries)))
        };
        let keys = |(number, rotate_at)| {
            Ok::<_, io::Error>(TicketKeys::inherit(exec::inherited(number)?, rotate_at))
        };
        Ok(Self {
            bundles: bundles.into_iter().map(bundle).collect::<io::Result<_>>()?,
            tickets: tickets.map(keys).transpose()?,
            look_at,
        })
    }
}

#[cfg(test)]
impl Tls {
    /// A certificate and keys that are not read.
    pub(super) fn sample(bundle: std::os::fd::OwnedFd, tickets: std::os::fd::OwnedFd) -> Self {
        let expiry = Expiry { file: "a.crt".to_owned(), at: SystemTime::UNIX_EPOCH };
        let bundle = Bundle::inherit(bundle, vec![expiry]);
        let look_at = Some(Instant::from_millis(9));
        let tickets = Some(TicketKeys::inherit(tickets, Instant::from_millis(8)));
        Self { bundles: BTreeMap::from([(Generation::FIRST, bundle)]), tickets, look_at }
    }
}

/// The descriptors that a worker needs.
pub(super) fn descriptors(birth: &Material) -> [RawFd; 2] {
    [birth.bundle.as_raw_fd(), birth.tickets.as_raw_fd()]
}

/// Seconds since 1970.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whole days until then; `None`: it is over.
fn days_left(now: SystemTime, at: SystemTime) -> Option<u64> {
    at.duration_since(now).ok().map(|left| left.as_secs() / DAY.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_end() {
        let now = SystemTime::UNIX_EPOCH + 100 * DAY;
        assert_eq!(days_left(now, now + 13 * DAY + Duration::from_secs(7)), Some(13));
        assert_eq!(days_left(now, now + Duration::from_secs(7)), Some(0));
        assert_eq!(days_left(now, now - Duration::from_secs(1)), None);
    }
}
