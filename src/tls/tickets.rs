//! Session tickets that every worker understands, of each generation and each image.
//!
//! # Why
//! rustls makes the keys of its tickets in each process: a client that comes back would meet another
//! worker three times of four, and shake hands from the beginning. So the master makes the keys and
//! replaces the oldest one every six hours. They lie in a file in memory, which the workers read: it is
//! mapped by no process, so it is in no core dump.
//!
//! # What a ticket is bound to
//! The policy about certificates of clients is authenticated with each ticket: a session that began
//! under another one is not resumed.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use tokio_rustls::rustls::server::ProducesTickets;

use crate::sys::{clock, exec};
use crate::time::Instant;

/// From one key to the next.
const ROTATION: Duration = Duration::from_secs(6 * 3600);
/// The lifetime of a ticket. Its key is kept for longer.
const LIFETIME_SECONDS: u32 = 12 * 3600;
/// Keys that are kept: the newest one makes tickets.
const KEYS: usize = 3;
const KEY_BYTES: usize = 32;
const NAME_BYTES: usize = 16;
/// A client sends no longer ticket back: what we make is a few hundred bytes, and certificates of a client.
const TICKET_MAX_BYTES: usize = 32 << 10;
/// From one look at the keys to the next, in milliseconds.
const LOOK_MS: u64 = 1000;

/// The keys, newest first, where the master keeps them.
#[derive(Debug)]
pub(crate) struct TicketKeys {
    memory: File,
    rotate_at: Instant,
}

impl TicketKeys {
    /// Makes the first keys.
    ///
    /// # Errors
    /// The error of memfd_create(2), or that there are no random numbers.
    pub(crate) fn new(now: Instant) -> io::Result<Self> {
        let mut keys = [0; KEYS * KEY_BYTES];
        random(&mut keys)?;
        // No worker can change its size, nor, as another user, what is in it.
        let memory = exec::notepad("ferricorn-tickets", keys.len())?;
        memory.set_permissions(Permissions::from_mode(0o444))?;
        memory.write_all_at(&keys, 0)?;
        Ok(Self { memory, rotate_at: now.after(ROTATION) })
    }

    /// Takes over those of another image.
    pub(crate) fn inherit(memory: OwnedFd, rotate_at: Instant) -> Self {
        Self { memory: memory.into(), rotate_at }
    }

    /// When the next key is due.
    pub(crate) fn rotate_at(&self) -> Instant {
        self.rotate_at
    }

    /// Makes a new key where one is due, and forgets the oldest one.
    pub(crate) fn rotate(&mut self, now: Instant) {
        if self.rotate_at > now {
            return;
        }
        self.rotate_at = now.after(ROTATION);
        let mut keys = [0; KEYS * KEY_BYTES];
        let (newest, others) = keys.split_at_mut(KEY_BYTES);
        // Where either fails the old keys stay until the next time.
        let made = random(newest).and_then(|()| self.memory.read_exact_at(others, 0));
        let _kept = made.and_then(|()| self.memory.write_all_at(&keys, 0));
        keys.fill(0);
    }
}

impl AsFd for TicketKeys {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl AsRawFd for TicketKeys {
    fn as_raw_fd(&self) -> RawFd {
        self.memory.as_raw_fd()
    }
}

/// The same file, which cannot be written through this descriptor where the system lets it be opened anew.
fn read_only(memory: OwnedFd) -> File {
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    File::open(path).unwrap_or_else(|_| File::from(memory))
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|_| io::Error::other("there are no random numbers"))
}

/// The keys that a worker makes tickets with.
#[derive(Debug)]
pub(crate) struct Tickets {
    memory: File,
    /// A digest of what sessions depend on beside their keys.
    policy: [u8; 32],
    known: Mutex<Known>,
}

/// The keys as they were read last.
#[derive(Debug)]
struct Known {
    /// In milliseconds of the monotonic clock.
    read_at: u64,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    name: [u8; NAME_BYTES],
    key: LessSafeKey,
}

impl Tickets {
    /// Reads the keys from this file in memory, whose tickets are bound to this policy.
    ///
    /// # Errors
    /// The error of read(2).
    pub(crate) fn new(memory: OwnedFd, policy: &[u8]) -> io::Result<Self> {
        let memory = read_only(memory);
        let keys = keys(&memory)?;
        let known = Mutex::new(Known { read_at: clock::coarse_millis(), keys });
        let digest = digest(&SHA256, policy);
        let mut policy = [0; 32];
        policy.copy_from_slice(digest.as_ref());
        Ok(Self { memory, policy, known })
    }

    /// Calls this with the keys of today.
    fn with_keys<T>(&self, call: impl FnOnce(&[Key]) -> Option<T>) -> Option<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::coarse_millis();
        if now.saturating_sub(known.read_at) >= LOOK_MS {
            known.read_at = now;
            if let Ok(keys) = keys(&self.memory) {
                known.keys = keys;
            }
        }
        call(&known.keys)
    }

    /// The data that is authenticated beside a ticket's content.
    fn beside(&self, name: &[u8; NAME_BYTES]) -> Vec<u8> {
        [name.as_slice(), &self.policy].concat()
    }
}

fn keys(memory: &File) -> io::Result<Vec<Key>> {
    let mut bytes = [0; KEYS * KEY_BYTES];
    memory.read_exact_at(&mut bytes, 0)?;
    let key = |bytes: &[u8; KEY_BYTES]| {
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..NAME_BYTES]);
        Some(Key { name, key: LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).ok()?) })
    };
    let (each, _) = bytes.as_chunks::<KEY_BYTES>();
    let keys = each.iter().filter_map(key).collect();
    bytes.fill(0);
    Ok(keys)
}

/// A ticket: the name of its key, a nonce, the encrypted content with its tag.
impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce).ok()?;
        self.with_keys(|keys| {
            let Key { name, key } = keys.first()?;
            let mut ticket = [name.as_slice(), &nonce, plain].concat();
            let content = &mut ticket[NAME_BYTES + NONCE_LEN..];
            let nonce = Nonce::assume_unique_for_key(nonce);
            let beside = Aad::from(self.beside(name));
            let tag = key.seal_in_place_separate_tag(nonce, beside, content).ok()?;
            ticket.extend(tag.as_ref());
            Some(ticket)
        })
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_MAX_BYTES {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, content) = rest.split_first_chunk::<NONCE_LEN>()?;
        self.with_keys(|keys| {
            let Key { name, key } = keys.iter().find(|key| key.name == *name)?;
            let mut content = content.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let plain =
                key.open_in_place(nonce, Aad::from(self.beside(name)), &mut content).ok()?;
            let length = plain.len();
            content.truncate(length);
            Some(content)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(keys: &TicketKeys, policy: &[u8]) -> Tickets {
        Tickets::new(keys.as_fd().try_clone_to_owned().unwrap(), policy).unwrap()
    }

    #[test]
    fn workers_read_tickets_of_their_siblings_and_of_nobody_else() {
        let keys = TicketKeys::new(Instant::from_millis(0)).unwrap();
        let one = worker(&keys, b"x");
        let other = worker(&keys, b"x");
        let ticket = one.encrypt(b"a session").unwrap();
        assert_eq!(other.decrypt(&ticket).unwrap(), b"a session");
        assert_eq!(worker(&keys, b"another policy").decrypt(&ticket), None);
        let others = TicketKeys::new(Instant::from_millis(0)).unwrap();
        assert_eq!(worker(&others, b"x").decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(other.decrypt(&changed), None, "byte {at}");
            assert_eq!(other.decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }

    /// A worker of another user has it opened anew for reading alone, and its size is sealed for all.
    #[test]
    fn ticket_file_keeps_its_size_and_its_content() {
        let mut keys = TicketKeys::new(Instant::from_millis(0)).unwrap();
        assert_eq!(keys.memory.metadata().unwrap().permissions().mode() & 0o777, 0o444);
        for size in [0, 1 << 20] {
            keys.memory.set_len(size).expect_err("its size is sealed");
        }
        let held = worker(&keys, b"");
        held.memory.write_at(b"x", 0).expect_err("it is open for reading");
        keys.rotate(keys.rotate_at());
        worker(&keys, b"").encrypt(b"a session").expect("the keys are there");
    }

    #[test]
    fn tickets_outlive_two_rotations() {
        let mut now = Instant::from_millis(1);
        let mut keys = TicketKeys::new(now).unwrap();
        let ticket = worker(&keys, b"").encrypt(b"a session").unwrap();
        keys.rotate(now);
        assert_eq!(keys.rotate_at(), now.after(ROTATION), "it was not due");
        for is_known in [true, true, false] {
            now = keys.rotate_at();
            keys.rotate(now);
            assert_eq!(worker(&keys, b"").decrypt(&ticket).is_some(), is_known);
        }
    }
}
