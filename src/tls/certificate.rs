//! The names and dates of a certificate.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Reads a certificate.
///
/// # Errors
/// A fragment of a sentence.
fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err("malformed certificate (X.509)".to_owned()),
    }
}

/// # Errors
/// When it is no certificate, as a fragment of a sentence.
pub(super) fn check(der: &[u8]) -> Result<(), String> {
    parse(der).map(drop)
}

/// The first time at which it is not valid any more.
///
/// # Errors
/// As [`check`].
pub(super) fn expiry(der: &[u8]) -> Result<SystemTime, String> {
    let last = parse(der)?.validity().not_after.timestamp();
    let seconds = u64::try_from(last).unwrap_or(0).saturating_add(1);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A day as people write it.
pub(super) fn date(at: SystemTime) -> String {
    // It says when the certificate is not valid any more, a second after it was.
    let last = at.checked_sub(Duration::from_secs(1)).unwrap_or(at);
    let day = Timestamp::try_from(last).map(|last| last.strftime("%Y-%m-%d").to_string());
    day.unwrap_or_else(|_| "an unknown day".to_owned())
}

/// The names that it stands for, in lower case: those of its extension, and where it has none its common
/// name.
pub(super) fn names(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = parse(der) else { return Vec::new() };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return common_name(der).into_iter().map(|name| name.to_ascii_lowercase()).collect();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(address.ok()?.to_string())
        }
        _ => None,
    };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

/// Its subject, as `CN=…, O=…`.
pub(crate) fn subject(der: &[u8]) -> Option<String> {
    Some(parse(der).ok()?.subject().to_string())
}

/// The common name of its subject.
pub(crate) fn common_name(der: &[u8]) -> Option<String> {
    let certificate = parse(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    Some(name.as_str().ok()?.to_owned())
}
