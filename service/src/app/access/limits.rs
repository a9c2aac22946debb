//! Failed logins are limited, by the client's address and by the user's name, over all workers together.
//!
//! # Why both
//! One address that tries many names is stopped by its address; many addresses that try one name, by the
//! name. Each attempt takes a token before the password is tried, so that a thousand at once are no more
//! than a burst; a login that succeeds puts it back.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ferricorn::shared::RateLimit;

/// Failed logins of one address in a row; then one more in each interval.
const ADDRESS_BURST: u32 = 10;
const ADDRESS_INTERVAL: Duration = Duration::from_secs(6);
/// The same for one name: more, since they may come from several people.
const NAME_BURST: u32 = 20;
const NAME_INTERVAL: Duration = Duration::from_secs(6);

/// The limits of the whole server. They are made before the first fork.
#[derive(Debug)]
pub(crate) struct Limits {
    by_address: RateLimit,
    by_name: RateLimit,
}

/// The keys under which one attempt is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    address: Option<IpAddr>,
    name: &'a str,
}

impl<'a> Attempt<'a> {
    /// Of an address; `None`: of this machine, through a unix socket.
    pub(super) fn new(address: Option<IpAddr>, name: &'a str) -> Self {
        Self { address: address.map(network), name }
    }
}

/// The size of one client's share of IPv6: a network of 64 bits at least.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

impl Limits {
    /// Makes them.
    ///
    /// # Errors
    /// The system's error about shared memory.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            by_address: RateLimit::new(ADDRESS_BURST, ADDRESS_INTERVAL)?,
            by_name: RateLimit::new(NAME_BURST, NAME_INTERVAL)?,
        })
    }

    /// Counts an attempt as a failed one, until it is forgiven.
    ///
    /// # Errors
    /// The time until another attempt is allowed.
    pub(super) fn take(&self, attempt: Attempt<'_>) -> Result<(), Duration> {
        self.by_address.take(attempt.address)?;
        self.by_name.take(attempt.name).inspect_err(|_| self.by_address.give_back(attempt.address))
    }

    /// The attempt has succeeded, or came to no trial.
    pub(super) fn forgive(&self, attempt: Attempt<'_>) {
        self.by_address.give_back(attempt.address);
        self.by_name.give_back(attempt.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn address_has_its_burst_over_all_names() {
        let limits = Limits::new().unwrap();
        for number in 0..ADDRESS_BURST {
            limits.take(Attempt::new(address("192.0.2.1"), &format!("user{number}"))).unwrap();
        }
        let wait = limits.take(Attempt::new(address("192.0.2.1"), "other")).unwrap_err();
        assert!(wait <= ADDRESS_INTERVAL, "{wait:?}");
        limits.take(Attempt::new(address("192.0.2.2"), "other")).unwrap();
        limits.take(Attempt::new(None, "other")).unwrap();
    }

    #[test]
    fn name_has_its_burst_over_all_addresses() {
        let limits = Limits::new().unwrap();
        for number in 0..NAME_BURST {
            limits.take(Attempt::new(address(&format!("192.0.2.{number}")), "alice")).unwrap();
        }
        for _ in 0..=ADDRESS_BURST {
            limits.take(Attempt::new(address("198.51.100.1"), "alice")).unwrap_err();
        }
        let other = Attempt::new(address("198.51.100.1"), "bob");
        limits.take(other).expect("what the name refuses is not the address's fault");
    }

    #[test]
    fn success_costs_nothing() {
        let limits = Limits::new().unwrap();
        let attempt = Attempt::new(address("192.0.2.1"), "alice");
        for _ in 0..10 * NAME_BURST {
            limits.take(attempt).unwrap();
            limits.forgive(attempt);
        }
    }

    #[test]
    fn ipv6_client_is_its_network() {
        let limits = Limits::new().unwrap();
        for number in 0..ADDRESS_BURST {
            let address = address(&format!("2001:db8::{number}:1"));
            limits.take(Attempt::new(address, &format!("user{number}"))).unwrap();
        }
        limits.take(Attempt::new(address("2001:db8::ffff"), "x")).unwrap_err();
        limits.take(Attempt::new(address("2001:db8:0:1::1"), "x")).unwrap();
    }
}
