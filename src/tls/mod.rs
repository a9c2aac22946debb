//! TLS: the files of certificates and keys, checked; what workers make of them; the keys of session
//! tickets.
//!
//! # Where the keys are
//! The master reads the files with its own rights, in the transaction of a start or a reload, and puts
//! them into a file in memory ([`Bundle`]), which no process maps. Workers read it when they boot; other
//! children do not have its descriptor. The keys of session tickets lie in another one ([`TicketKeys`]).

mod certificate;
mod files;
mod server;
mod session;
mod tickets;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;
use crate::sys::exec;

pub(crate) use self::certificate::{common_name, subject};
pub(crate) use self::files::{Problem, read};
pub(crate) use self::server::{Client, acceptor};
pub(crate) use self::session::{Acceptor, Session};
pub(crate) use self::tickets::{TicketKeys, Tickets};

/// A certificate that expires within this time is a daily warning.
pub(crate) const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// The keys and rules of a worker that speaks TLS.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) bundle: Bundle,
    pub(crate) tickets: TicketKeys,
}

/// A certificate's chain and its key.
#[derive(Debug)]
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The end of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Expiry {
    /// The certificate's file.
    pub(crate) file: String,
    /// The first time at which it is not valid any more.
    pub(crate) at: SystemTime,
}

/// The certificates and keys of one configuration, in a file in memory.
#[derive(Debug)]
pub(crate) struct Bundle {
    memory: File,
    expiries: Vec<Expiry>,
}

impl Bundle {
    /// Reads and checks the files that a configuration names, from this process's folder; `None` where it
    /// names none.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn of(config: &Config, now: SystemTime) -> Result<Option<Self>, Vec<Problem>> {
        if !config.tls.is_on() {
            return Ok(None);
        }
        let read = read(&config.tls, Path::new(""), now)?;
        let mut content = read.encode();
        let memory = exec::sealed_file("ferricorn-tls", &content);
        content.fill(0);
        let memory = memory.map_err(|error| vec![Problem::of("tls.certificate", &error)])?;
        Ok(Some(Self { memory, expiries: read.expiries }))
    }

    /// Takes over the file in memory of another image, with the ends of its certificates.
    pub(crate) fn inherit(memory: OwnedFd, expiries: Vec<Expiry>) -> Self {
        Self { memory: memory.into(), expiries }
    }

    /// The certificates that are not valid any more so much later.
    pub(crate) fn expiring(
        &self,
        now: SystemTime,
        within: Duration,
    ) -> impl Iterator<Item = &Expiry> {
        self.expiries.iter().filter(move |expiry| expiry.at <= now + within)
    }

    /// The ends of all its certificates.
    pub(crate) fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }

    fn content(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.memory.metadata()?.len()).unwrap_or(0);
        let mut content = vec![0; length];
        self.memory.read_exact_at(&mut content, 0)?;
        Ok(content)
    }
}

impl AsFd for Bundle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl AsRawFd for Bundle {
    fn as_raw_fd(&self) -> RawFd {
        self.memory.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
