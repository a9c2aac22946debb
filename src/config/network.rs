//! Networks whose members are trusted.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::from_value::{choice, from_value};

choice! {
    /// A family of header fields in which proxies say who their client is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ForwardedFields {
        /// `X-Forwarded-For` and `X-Forwarded-Proto`.
        XForwarded = "x-forwarded",
        /// `Forwarded` (RFC 7239).
        Forwarded = "forwarded",
    }
}

/// A network in CIDR notation: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

from_value! {
    Vec<Network>, Self::new(), |value| {
        let networks = value.items()?.iter().map(|text| Network::parse(text).ok());
        Some(networks.collect::<Option<Vec<_>>>()?.concat())
    };
}

impl Network {
    /// Returns true if the address is one of this network's. An IPv4 address that arrives on a
    /// dual-stack socket (`::ffff:10.0.0.1`) is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Reads `127.0.0.1`, `10.0.0.0/8`, `fd00::/8`, or `*`, every address of both families.
    pub(super) fn parse(text: &str) -> Result<Vec<Self>, String> {
        if text == "*" {
            let every = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
            return Ok(every.map(Self).to_vec());
        }
        let wrong = || {
            format!("expected an address, a network like \"10.0.0.0/8\" or \"*\", found {text:?}")
        };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(vec![Self(IpNet::from(address.to_canonical()))]);
        }
        let network: IpNet = text.parse().map_err(|_| wrong())?;
        // 10.1.2.3/8 is as likely a misspelt /32 as a misspelt 10.0.0.0, and one of them trusts
        // sixteen million addresses too many.
        if network.trunc() != network {
            let meant = network.trunc();
            return Err(format!("expected \"{meant}\" or a longer prefix, found {text:?}"));
        }
        Ok(vec![Self(network)])
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            return write!(f, "{}", self.0.addr());
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        let address = address.parse().unwrap();
        Network::parse(network).unwrap().iter().any(|network| network.contains(address))
    }

    #[test]
    fn a_network_holds_its_own_addresses_and_no_others() {
        assert!(holds("10.0.0.0/8", "10.1.2.3"));
        assert!(!holds("10.0.0.0/8", "11.1.2.3"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(holds("::ffff:10.1.2.3", "10.1.2.3"));
        assert!(holds("127.0.0.1", "127.0.0.1"));
        assert!(!holds("127.0.0.1", "::1"));
        assert!(holds("*", "192.0.2.1") && holds("*", "2001:db8::1"));
    }

    #[test]
    fn what_is_no_network_is_refused_in_words() {
        let refused = |text| Network::parse(text).unwrap_err();
        assert_eq!(
            refused("10.1.2.3/8"),
            "expected \"10.0.0.0/8\" or a longer prefix, found \"10.1.2.3/8\""
        );
        assert_eq!(
            refused("localhost"),
            "expected an address, a network like \"10.0.0.0/8\" or \"*\", found \"localhost\""
        );
    }

    #[test]
    fn a_shown_network_reads_back() {
        for text in ["127.0.0.1", "::1", "10.0.0.0/8", "fd00::/8", "0.0.0.0/0"] {
            assert_eq!(Network::parse(text).unwrap()[0].to_string(), text);
        }
    }
}
