//! The files of certificates and keys, read and checked, and their form in memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::{Expiry, Pair, certificate};
use crate::config::Tls;
use crate::config::problem::reason;

/// A larger file is no chain and no key.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Something wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The setting that names the file.
    pub(crate) key: &'static str,
    /// A fragment of a sentence.
    pub(crate) reason: String,
    /// True if this user may not see the file.
    pub(crate) is_hidden: bool,
}

impl Problem {
    pub(super) fn of(key: &'static str, reason: &dyn std::fmt::Display) -> Self {
        Self { key, reason: reason.to_string(), is_hidden: false }
    }
}

/// The content of the files.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(super) pairs: Vec<Pair>,
    /// The authorities that certificates of clients are checked against.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) expiries: Vec<Expiry>,
}

/// Reads and checks all files; relative ones from this folder.
///
/// # Errors
/// Everything that is wrong with them.
pub(crate) fn read(tls: &Tls, folder: &Path, now: SystemTime) -> Result<Contents, Vec<Problem>> {
    let mut contents = Contents::default();
    let mut problems = Vec::new();
    for (certificate, key) in tls.certificate.iter().zip(&tls.key) {
        match pair(&folder.join(certificate), &folder.join(key), now) {
            Ok((pair, expiry)) => {
                contents.pairs.push(pair);
                contents.expiries.push(expiry);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(file) = &tls.client_ca {
        match chain(&folder.join(file), "a certificate of an authority") {
            Ok(authorities) => contents.authorities = authorities,
            Err(wrong) => problems.push(wrong.of("tls.client_ca")),
        }
    }
    if problems.is_empty() { Ok(contents) } else { Err(problems) }
}

/// Something wrong with a file, which the reader of its setting names.
#[derive(Debug)]
struct Wrong {
    reason: String,
    is_hidden: bool,
}

impl Wrong {
    fn of(self, key: &'static str) -> Problem {
        Problem { key, reason: self.reason, is_hidden: self.is_hidden }
    }
}

impl From<String> for Wrong {
    fn from(reason: String) -> Self {
        Self { reason, is_hidden: false }
    }
}

fn pair(certificate: &Path, key_file: &Path, now: SystemTime) -> Result<(Pair, Expiry), Problem> {
    let of_certificate = |wrong: Wrong| wrong.of("tls.certificate");
    let of_key = |wrong: Wrong| wrong.of("tls.key");
    let file = certificate.display().to_string();
    let key_shown = key_file.display();
    let chain = chain(certificate, "a certificate").map_err(of_certificate)?;
    let judged = |reason| of_certificate(format!("{file}: {reason}").into());
    let at = certificate::expiry(&chain[0]).map_err(judged)?;
    if at <= now {
        return Err(judged(format!("the certificate expired on {}", certificate::date(at))));
    }
    let key = key(key_file).map_err(of_key)?;
    let loaded = ring::sign::any_supported_type(&key).map_err(|_| {
        let expected = "expected a private key (RSA, ECDSA or Ed25519), found another";
        of_key(format!("{key_shown}: {expected}").into())
    })?;
    CertifiedKey::new(chain.clone(), loaded).keys_match().map_err(|_| {
        let reason = format!(
            "{key_shown}: the key does not belong to the certificate in {file}: one of them is older, or \
             the server's own certificate is not the first one"
        );
        of_key(reason.into())
    })?;
    Ok((Pair { chain, key }, Expiry { file, at }))
}

fn chain(file: &Path, expected: &str) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let shown = file.display();
    let text = text(file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| broken(file, &error))?;
    if chain.is_empty() {
        return Err(format!("{shown}: expected {expected} (PEM), found none").into());
    }
    for certificate in &chain {
        certificate::check(certificate).map_err(|reason| format!("{shown}: {reason}"))?;
    }
    Ok(chain)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    let mut text = text(file)?;
    let key = PrivateKeyDer::from_pem_slice(&text);
    // The key is elsewhere by now.
    text.fill(0);
    let shown = file.display();
    key.map_err(|error| match error {
        pem::Error::NoItemsFound => {
            format!("{shown}: expected a private key (PEM, not encrypted), found none").into()
        }
        error => broken(file, &error).into(),
    })
}

fn broken(file: &Path, error: &pem::Error) -> String {
    format!("{}: malformed PEM ({error}): it may not be written whole yet", file.display())
}

fn text(file: &Path) -> Result<Vec<u8>, Wrong> {
    let failed = |error: io::Error| Wrong {
        is_hidden: error.kind() == io::ErrorKind::PermissionDenied,
        reason: format!("{}: {}", file.display(), reason(&error)),
    };
    let opened = File::open(file).map_err(failed)?;
    let length = opened.metadata().map_err(failed)?.len();
    if length > FILE_MAX_BYTES {
        return Err(format!("{}: expected at most {FILE_MAX_BYTES} bytes", file.display()).into());
    }
    // Large enough at once, so that no part of a key is left behind where the text has moved away.
    let room = usize::try_from(length).unwrap_or(0).saturating_add(1);
    let mut text = Vec::with_capacity(room);
    opened.take(FILE_MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

// The form in memory: items of a tag, a length and as many bytes (DER). A chain stands before its key.
const CERTIFICATE: u8 = b'c';
const AUTHORITY: u8 = b'a';
const PKCS_1: u8 = b'1';
const PKCS_8: u8 = b'8';
const SEC_1: u8 = b's';

impl Contents {
    /// The form in memory.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut item = |tag: u8, der: &[u8]| {
            bytes.push(tag);
            bytes.extend(u32::try_from(der.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(der);
        };
        for pair in &self.pairs {
            pair.chain.iter().for_each(|certificate| item(CERTIFICATE, certificate));
            let tag = match &pair.key {
                PrivateKeyDer::Pkcs1(_) => PKCS_1,
                PrivateKeyDer::Sec1(_) => SEC_1,
                _ => PKCS_8,
            };
            item(tag, pair.key.secret_der());
        }
        self.authorities.iter().for_each(|authority| item(AUTHORITY, authority));
        bytes
    }

    /// Reads the form in memory; `None` where it is none.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut contents = Self::default();
        let mut chain = Vec::new();
        while let Some((tag, rest)) = bytes.split_first() {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (der, rest) = rest.split_at_checked(length)?;
            let der = der.to_vec();
            let key = match *tag {
                CERTIFICATE => {
                    chain.push(der.into());
                    None
                }
                AUTHORITY => {
                    contents.authorities.push(der.into());
                    None
                }
                PKCS_1 => Some(PrivateKeyDer::Pkcs1(der.into())),
                SEC_1 => Some(PrivateKeyDer::Sec1(der.into())),
                PKCS_8 => Some(PrivateKeyDer::Pkcs8(der.into())),
                _ => return None,
            };
            if let Some(key) = key {
                contents.pairs.push(Pair { chain: std::mem::take(&mut chain), key });
            }
            bytes = rest;
        }
        Some(contents)
    }
}
