//! The key that signs tokens: a secret of 32 bytes or more (HS256), or an Ed25519 key (EdDSA).

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::files;

/// Bytes of a secret at least: HMAC-SHA256's own strength (RFC 7518 section 3.2).
const LENGTH_MIN: usize = 32;
/// Random bytes of one that is made; base64 makes 64 characters of them.
const LENGTH_MADE: usize = 48;
/// An Ed25519 key has 48 bytes, or 85 with its public half.
const PKCS8_MAX: usize = 256;

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// A key, shown nowhere.
pub(super) enum Secret {
    /// A holder of the key that checks can sign.
    Shared(Zeroizing<Vec<u8>>),
    /// A PKCS#8 document.
    Ed25519(Zeroizing<Vec<u8>>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shared(_) => "Shared",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

/// The secret's file: the one that is named, or one beside the users' file.
pub(super) fn path(named: &str, users: &Path) -> PathBuf {
    if !named.is_empty() {
        return PathBuf::from(named);
    }
    let mut beside = users.as_os_str().to_owned();
    beside.push(".secret");
    PathBuf::from(beside)
}

impl Secret {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence that names the file, never what is in it.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text =
            files::read(path).map_err(|error| fault(path, &format!("cannot read: {error}")))?;
        Self::parse(&Zeroizing::new(text)).map_err(|why| fault(path, why))
    }

    /// Reads the file, or makes one where there is none. Of several servers that make it at once, one
    /// does.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(super) fn read_or_make(path: &Path) -> Result<Self, String> {
        match files::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Self::read(path),
        }
        let mut bytes = Zeroizing::new([0_u8; LENGTH_MADE]);
        let random = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random, &mut *bytes)
            .map_err(|_| fault(path, "cannot make it: the system has no random numbers"))?;
        let text = Zeroizing::new(STANDARD.encode(*bytes) + "\n");
        files::make(path, &text)
            .map_err(|error| fault(path, &format!("is not there, and cannot be made: {error}")))?;
        Self::read(path)
    }

    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.starts_with("-----") {
            return Self::parse_pem(text);
        }
        if text.len() < LENGTH_MIN {
            return Err("is shorter than 32 bytes; remove it, and one is made");
        }
        Ok(Self::Shared(Zeroizing::new(text.as_bytes().to_vec())))
    }

    fn parse_pem(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str =
            "is no Ed25519 key in PKCS#8; `openssl genpkey -algorithm ed25519` makes one";
        let inner = text.strip_prefix(PEM_BEGIN).and_then(|text| text.strip_suffix(PEM_END));
        let mut encoded = Zeroizing::new(inner.ok_or(WRONG)?.to_owned());
        encoded.retain(|letter| !letter.is_ascii_whitespace());
        let mut bytes = Zeroizing::new(vec![0; PKCS8_MAX]);
        let length = STANDARD.decode_slice(encoded.as_bytes(), &mut bytes).map_err(|_| WRONG)?;
        bytes.truncate(length);
        super::crypto::key_pair(&bytes).map_err(|_| WRONG)?;
        Ok(Self::Ed25519(bytes))
    }
}

fn fault(path: &Path, why: &str) -> String {
    format!("access.secret: {} {why}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn secret_is_made_once_and_for_its_owner() {
        let folder = TempDir::new().unwrap();
        let path = path("", &folder.path().join("users"));
        assert!(path.ends_with("users.secret"));
        assert!(Secret::read(&path).unwrap_err().contains("cannot read"));
        Secret::read_or_make(&path).unwrap();
        let made = fs::read(&path).unwrap();
        assert_eq!(made.len(), 65);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        Secret::read_or_make(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), made);
    }

    #[test]
    fn secret_that_is_none_is_refused_and_not_quoted() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("secret");
        for text in ["", "hunter2", "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n", "-----\n"] {
            fs::write(&path, text).unwrap();
            let error = Secret::read_or_make(&path).unwrap_err();
            assert!(error.starts_with("access.secret: ") && !error.contains("hunter2"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "it is not replaced");
        }
    }
}
