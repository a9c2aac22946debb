//! The type of the table `[tls]`.

use std::path::PathBuf;

use super::bind::Bind;
use super::fields::fields;
use super::from_value::choice;
use super::typed::FieldReader;

fields! {
    /// The `[tls]` table.
    #[derive(Clone, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Tls in "tls." {
        /// Addresses that speak TLS, beside those of `bind`; none, and a certificate given: every TCP address
        /// of `bind` does.
        pub bind: Vec<Bind> = FieldReader::binds,
        /// Files of certificate chains.
        pub certificate: Vec<PathBuf>,
        /// Files of private keys, one for each certificate.
        pub key: Vec<PathBuf>,
        /// File of the authorities that certificates of clients are checked against.
        pub client_ca: Option<PathBuf>,
        /// The rule about certificates of clients.
        pub client_auth: ClientAuth,
        /// The oldest version that is spoken.
        pub min_version: TlsVersion,
    }
}

choice! {
    /// The rule about certificates of clients.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ClientAuth {
        /// It is not asked for one.
        None = "none",
        /// It may show one, which must be valid.
        Optional = "optional",
        /// It must show one.
        Required = "required",
    }
}

choice! {
    /// A version of TLS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[expect(missing_docs, reason = "the names say it")]
    pub enum TlsVersion {
        V1_2 = "1.2",
        V1_3 = "1.3",
    }
}

impl Tls {
    /// Returns true if some address speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.certificate.is_empty()
    }
}
