//! The part of an address that is a configuration's, not its socket's: TLS, or none, and its name.
//! That may change over a reload while the socket stays.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Address, Bound, Listeners, open};
use crate::config::{Bind, BindAddress, Config};

/// The properties of addresses by the configuration that was noted last.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// True if its clients speak TLS.
    pub(super) is_tls: bool,
    /// Its name among the application's listeners.
    pub(super) name: Option<String>,
}

impl Listeners {
    /// Notes what the addresses are by this configuration.
    pub(crate) fn note(&mut self, config: &Config) {
        for address in self.addresses.iter_mut().flatten() {
            address.note(config);
        }
    }

    /// Returns true if the clients of this address speak TLS.
    pub(crate) fn is_tls(&self, number: u16) -> bool {
        self.noted(number).is_some_and(|noted| noted.is_tls)
    }

    /// The name of this address.
    pub(crate) fn name(&self, number: u16) -> Option<&str> {
        self.noted(number)?.name.as_deref()
    }

    /// The open addresses that have a name, each behind its name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, String)> {
        self.open_addresses()
            .filter_map(|(_, address)| Some((address.noted.name.as_deref()?, address.to_string())))
    }

    /// The same by their names.
    pub(crate) fn by_name(&self) -> BTreeMap<String, Vec<String>> {
        let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, address) in self.named() {
            named.entry(name.to_owned()).or_default().push(address);
        }
        named
    }

    /// The addresses as [`Listeners::names`] has them, each behind its name.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.open_addresses().map(|(_, address)| address.label()).collect()
    }

    /// The local address of every connection of this address; `None` where they have different ones, or
    /// none. A socket that was inherited may have options that ours have not (ip(7), `IP_TRANSPARENT`).
    pub(crate) fn local(&self, number: u16) -> Option<SocketAddr> {
        match self.addresses.get(usize::from(number))?.as_ref()?.bound {
            Bound::Tcp(local) => Some(local).filter(|local| !local.ip().is_unspecified()),
            Bound::Unix { .. } | Bound::Inherited { .. } => None,
        }
    }

    /// Returns true if a connection of this address may have this local address, which is `None` on a unix
    /// socket; `None` where the address is not open.
    pub(crate) fn may_have(&self, number: u16, local: Option<SocketAddr>) -> Option<bool> {
        Some(match &self.addresses.get(usize::from(number))?.as_ref()?.bound {
            Bound::Tcp(own) => local.is_some_and(|local| {
                let is_everywhere = own.ip().is_unspecified();
                let is_there = || own.ip().to_canonical() == local.ip().to_canonical();
                own.port() == local.port() && (is_everywhere || is_there())
            }),
            Bound::Unix { .. } => local.is_none(),
            Bound::Inherited { address, .. } => address.is_some() == local.is_some(),
        })
    }

    fn noted(&self, number: u16) -> Option<&Noted> {
        let address = self.addresses.get(usize::from(number))?.as_ref()?;
        Some(&address.noted)
    }
}

impl Address {
    /// The address behind its name.
    pub(super) fn label(&self) -> String {
        self.noted.name.as_ref().map_or_else(|| self.to_string(), |name| format!("{name}={self}"))
    }

    pub(super) fn note(&mut self, config: &Config) {
        self.noted.is_tls = config.tls.is_on() && self.speaks_tls(config);
        // One that this configuration does not have is another generation's, and keeps its name.
        if let Some(bind) = config.binds().find(|bind| self.is_of(bind, config)) {
            self.noted.name.clone_from(&bind.name);
        }
    }

    fn speaks_tls(&self, config: &Config) -> bool {
        let binds = &config.tls.bind;
        match &self.bound {
            Bound::Tcp(_) | Bound::Inherited { address: Some(_), .. } if binds.is_empty() => true,
            _ => binds.iter().any(|bind| self.is_of(bind, config)),
        }
    }

    /// Returns true if it is opened for this bind, or is that of a service manager which this bind names
    /// by number or by address.
    fn is_of(&self, bind: &Bind, config: &Config) -> bool {
        match (&self.bound, &self.bind) {
            (_, Some(name)) => open::identity(bind, config) == *name,
            (Bound::Inherited { number, address }, None) => match &bind.address {
                BindAddress::Fd(fd) => fd == number,
                BindAddress::Tcp(tcp) => *address == Some(*tcp),
                BindAddress::Unix(_) => false,
            },
            (Bound::Tcp(_) | Bound::Unix { .. }, None) => false,
        }
    }
}
