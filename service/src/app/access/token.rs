//! Tokens: JSON Web Tokens (RFC 7519) that a login gives out and a writing request brings.
//!
//! # Why
//! A token needs no memory that the workers would have to share. So it ends by its time, by its user's
//! removal from the users' file, or by another secret; not by a logout, which takes the browser's cookie
//! alone.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, get_current_timestamp,
};
use ring::signature::KeyPair;
use serde::{Deserialize, Serialize};

use super::crypto;
use super::secret::Secret;

/// Made by this service, and meant for it.
const SERVICE: &str = "ferricorn";
/// A longer one is none of ours: a name has 64 bytes.
const LENGTH_MAX: usize = 1024;
/// The difference that the clocks of replicas may have, in seconds.
const SKEW_MAX: u64 = 60;
/// Tokens whose signature was right, in each worker: an Ed25519 signature costs 50 µs and more.
const SEEN_MAX: usize = 256;

/// The claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
    jti: String,
}

/// Signs and checks tokens.
pub(super) struct Tokens {
    header: Header,
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
    lifetime: Duration,
    seen: Mutex<HashMap<String, Claims>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("algorithm", &self.header.alg).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens that are signed with this secret and live so long.
    ///
    /// # Errors
    /// When the system's random numbers, or the key, are refused by the cryptography.
    pub(super) fn new(secret: &Secret, lifetime: Duration) -> Result<Self, String> {
        crypto::install();
        let (algorithm, signing, checking) = match secret {
            Secret::Shared(bytes) => {
                let checking =
                    DecodingKey::from_secret(bytes).map_err(|error| error.to_string())?;
                let signing = EncodingKey::from_secret(bytes).map_err(|error| error.to_string())?;
                (Algorithm::HS256, signing, checking)
            }
            Secret::Ed25519(pkcs8) => {
                let pair = crypto::key_pair(pkcs8).map_err(|error| error.to_string())?;
                let checking = DecodingKey::from_ed_der(pair.public_key().as_ref());
                (Algorithm::EdDSA, EncodingKey::from_ed_der(pkcs8), checking)
            }
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_audience(&[SERVICE]);
        validation.set_issuer(&[SERVICE]);
        validation.set_required_spec_claims(&["exp", "sub", "aud", "iss"]);
        let header = Header::new(algorithm);
        Ok(Self { header, signing, checking, validation, lifetime, seen: Mutex::default() })
    }

    /// The lifetime of a token.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Makes a token for a user, from now on.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub(super) fn issue(&self, name: &str) -> Result<String, String> {
        self.issue_at(name, get_current_timestamp())
    }

    fn issue_at(&self, name: &str, now: u64) -> Result<String, String> {
        let id: [u8; 12] = rand::random();
        let claims = Claims {
            iss: SERVICE.to_owned(),
            aud: SERVICE.to_owned(),
            sub: name.to_owned(),
            iat: now,
            exp: now.saturating_add(self.lifetime.as_secs().max(1)),
            jti: URL_SAFE_NO_PAD.encode(id),
        };
        encode(&self.header, &claims, &self.signing).map_err(|error| error.to_string())
    }

    /// Returns the user's name of a token that is in force.
    pub(super) fn check(&self, token: &str) -> Option<String> {
        if token.len() > LENGTH_MAX {
            return None;
        }
        let now = get_current_timestamp();
        let is_valid = |claims: &Claims| claims.exp > now && claims.iat <= now + SKEW_MAX;
        if let Ok(seen) = self.seen.lock()
            && let Some(claims) = seen.get(token)
        {
            return is_valid(claims).then(|| claims.sub.clone());
        }
        let claims: Claims = decode(token, &self.checking, &self.validation).ok()?.claims;
        if !is_valid(&claims) {
            return None;
        }
        let name = claims.sub.clone();
        if let Ok(mut seen) = self.seen.lock() {
            if seen.len() >= SEEN_MAX {
                seen.clear();
            }
            seen.insert(token.to_owned(), claims);
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;
    use zeroize::Zeroizing;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn shared(byte: u8) -> Tokens {
        Tokens::new(&Secret::Shared(Zeroizing::new(vec![byte; 32])), HOUR).unwrap()
    }

    /// With a key of its own, as PEM, read as from its file.
    fn ed25519() -> Tokens {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let encoded = STANDARD.encode(pkcs8.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{encoded}\n-----END PRIVATE KEY-----\n");
        let secret = Secret::parse(&pem).unwrap();
        assert_eq!(format!("{secret:?}"), "Ed25519");
        Tokens::new(&secret, HOUR).unwrap()
    }

    #[test]
    fn token_is_checked_with_its_own_key_alone() {
        let all = [shared(1), shared(2), ed25519(), ed25519()];
        for (number, own) in all.iter().enumerate() {
            let token = own.issue("alice").unwrap();
            for (other, tokens) in all.iter().enumerate() {
                // The second time it is known already.
                for _ in 0..2 {
                    let expected = (number == other).then(|| "alice".to_owned());
                    assert_eq!(tokens.check(&token), expected, "{number} {other}");
                }
            }
        }
    }

    #[test]
    fn known_token_expires_too() {
        for tokens in [shared(1), ed25519()] {
            let now = get_current_timestamp();
            let fresh = tokens.issue("alice").unwrap();
            assert!(tokens.check(&fresh).is_some());
            for claims in tokens.seen.lock().unwrap().values_mut() {
                claims.exp = now;
            }
            assert_eq!(tokens.check(&fresh), None);
            let old = tokens.issue_at("alice", now - 3600).unwrap();
            assert_eq!(tokens.check(&old), None);
            let early = tokens.issue_at("alice", now + 3600).unwrap();
            assert_eq!(tokens.check(&early), None);
        }
    }

    #[test]
    fn token_has_what_a_token_needs_and_shows_no_key() {
        let tokens = shared(7);
        let one = tokens.issue("alice").unwrap();
        let other = tokens.issue("alice").unwrap();
        assert_ne!(one, other, "each has an id of its own");
        let payload = URL_SAFE_NO_PAD.decode(one.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let names: Vec<_> = claims.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "sub"]);
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
        assert!(!format!("{tokens:?}").contains('7'), "{tokens:?}");
    }

    #[test]
    fn tokens_that_are_kept_are_bounded() {
        let tokens = shared(1);
        for number in 0..2 * SEEN_MAX {
            let token = tokens.issue(&format!("user{number}")).unwrap();
            assert!(tokens.check(&token).is_some());
            assert!(tokens.seen.lock().unwrap().len() <= SEEN_MAX);
        }
    }

    proptest! {
        #[test]
        fn any_token_is_refused_without_a_panic(
            text in "[A-Za-z0-9._=-]{0,200}|\\PC{0,60}",
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let tokens = shared(1);
            prop_assert_eq!(tokens.check(&text), None);
            // One that is damaged in one place.
            let good = tokens.issue("alice").unwrap();
            let mut bytes = good.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let damaged = String::from_utf8_lossy(&bytes).into_owned();
            if damaged != good {
                prop_assert_eq!(tokens.check(&damaged), None);
            }
        }
    }
}
