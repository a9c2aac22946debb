//! Hashes of passwords: bcrypt, as `htpasswd -B` writes it, and argon2id.
//!
//! # The trap
//! A hash says itself how much work it is. One that takes minutes, or more memory than the machine
//! has, is refused where it is read, not tried at a login.

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};

/// bcrypt's work doubles with each step: 14 is about a second.
const BCRYPT_COST_MAX: u32 = 14;
/// Memory of an argon2id hash at the most, in KiB.
const ARGON2_MEMORY_MAX_KIB: u32 = 256 << 10;
/// Passes over all lanes at the most.
const ARGON2_PASSES_MAX: u32 = 32;
/// A shorter output is guessed sooner than the password.
const ARGON2_OUTPUT_MIN: usize = 16;

/// The hash of one password. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Hash {
    Bcrypt(String),
    Argon2id(Box<PasswordHash>),
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bcrypt(_) => "Bcrypt",
            Self::Argon2id(_) => "Argon2id",
        })
    }
}

impl Hash {
    /// Reads a hash as it stands in the users' file.
    ///
    /// # Errors
    /// A fragment that says what is wrong, without a character of the hash.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("the hash is missing");
        }
        if text.starts_with("$argon2") {
            return argon2id(text);
        }
        if text.starts_with("$2x$") {
            return Err("$2x$ marks a hash of an early, broken bcrypt; make a new one");
        }
        if text.starts_with("$2") {
            return bcrypt(text);
        }
        Err("the hash is neither bcrypt nor argon2id; `ferricorn user add` makes one")
    }

    /// Makes an argon2id hash, with the costs that OWASP recommends: 19 MiB, two passes.
    ///
    /// # Errors
    /// When the system has no random numbers, or the password is too long.
    pub(super) fn make(password: &str) -> Result<String, argon2::password_hash::Error> {
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
        Ok(hasher.hash_password(password.as_bytes())?.to_string())
    }

    /// Returns true if it is this password's. It takes as long for any other.
    pub(super) fn verify(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2id(hash) => {
                Argon2::default().verify_password(password.as_bytes(), hash.as_ref()).is_ok()
            }
        }
    }
}

fn bcrypt(text: &str) -> Result<Hash, &'static str> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| "malformed bcrypt hash")?;
    match parts.get_cost() {
        4..=BCRYPT_COST_MAX => Ok(Hash::Bcrypt(text.to_owned())),
        0..4 => Err("bcrypt's cost is below 4"),
        _ => Err("bcrypt's cost is above 14: a login would take seconds"),
    }
}

fn argon2id(text: &str) -> Result<Hash, &'static str> {
    let hash = PasswordHash::new(text).map_err(|_| "malformed argon2 hash")?;
    if hash.algorithm.as_str() != "argon2id" {
        return Err("argon2i and argon2d are not for passwords of users; take argon2id");
    }
    if hash.version != Some(Version::V0x13.into()) {
        return Err("argon2id is understood in version 19 alone");
    }
    let params = Params::try_from(&hash).map_err(|_| "malformed parameters of argon2id")?;
    if hash.salt.is_none() || hash.hash.as_ref().is_none_or(|hash| hash.len() < ARGON2_OUTPUT_MIN) {
        return Err("the argon2id hash lacks its salt, or 16 bytes of output");
    }
    if params.m_cost() > ARGON2_MEMORY_MAX_KIB || params.t_cost() > ARGON2_PASSES_MAX {
        return Err("argon2id's cost is above 256 MiB or 32 passes: a login would take seconds");
    }
    Ok(Hash::Argon2id(Box::new(hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "correct horse", by `htpasswd -nbBC 5`.
    const HTPASSWD: &str = "$2y$05$S1rDNY3KrX4ABG6Ztiu4PeBbCT1KsC7ttXgoM.a3Bp8pPTfV1eIOK";

    #[test]
    fn hash_is_of_its_password_alone() {
        for text in [HTPASSWD.to_owned(), Hash::make("correct horse").unwrap()] {
            let hash = Hash::parse(&text).unwrap();
            assert!(hash.verify("correct horse"), "{text}");
            for other in ["", "correct", "correct horse ", "Correct horse", "correct horse\0"] {
                assert!(!hash.verify(other), "{other:?}");
            }
        }
    }

    #[test]
    fn hash_is_salted_and_shown_nowhere() {
        let one = Hash::make("x").unwrap();
        let other = Hash::make("x").unwrap();
        assert_ne!(one, other);
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_eq!(format!("{:?}", Hash::parse(&one).unwrap()), "Argon2id");
        assert_eq!(format!("{:?}", Hash::parse(HTPASSWD).unwrap()), "Bcrypt");
    }

    #[test]
    fn hash_that_is_no_protection_is_refused() {
        let argon2id = Hash::make("x").unwrap();
        let table = [
            (String::new(), "the hash is missing"),
            ("secret".into(), "neither bcrypt nor argon2id"),
            ("$apr1$abcdefgh$0123456789012345678901".into(), "neither bcrypt nor argon2id"),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=".into(), "neither bcrypt nor argon2id"),
            ("$6$salt$hash".into(), "neither bcrypt nor argon2id"),
            (HTPASSWD.replace("$2y$", "$2x$"), "broken bcrypt"),
            (HTPASSWD.replace("$05$", "$03$"), "below 4"),
            (HTPASSWD.replace("$05$", "$15$"), "above 14"),
            (HTPASSWD.replace("$05$", "$31$"), "above 14"),
            (HTPASSWD[..59].into(), "malformed bcrypt"),
            (argon2id.replace("argon2id", "argon2i"), "take argon2id"),
            (argon2id.replace("v=19", "v=16"), "version 19"),
            (argon2id.replace("v=19$", ""), "version 19"),
            (argon2id.replace("m=19456", "m=4194304"), "above 256 MiB"),
            (argon2id.replace("t=2", "t=1000000"), "above 256 MiB or 32 passes"),
            (argon2id.rsplit_once('$').unwrap().0.into(), "lacks its salt"),
            (argon2id[..20].into(), "lacks its salt"),
        ];
        for (text, expected) in table {
            let error = Hash::parse(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
