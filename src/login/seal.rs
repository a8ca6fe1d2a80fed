//! Sealing: AES-256-GCM under a small set of keys that survive a restart.
//!
//! The newest key seals, every key of the set opens. A key leaves the set once nothing that it sealed can still
//! be valid.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::disk;
use crate::clock::Timestamp;

const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
const TAG_BYTES: usize = 16;

/// What sealing adds to a plaintext, bytes.
pub(super) const OVERHEAD: usize = KEY_ID_BYTES + NONCE_LEN + TAG_BYTES;

/// Why something could not be sealed or opened, or the keys not kept.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not sealed by any of these keys for this purpose, or altered since.
    #[error("the sealed value does not open")]
    Broken,
    /// The random number generator or the cipher failed.
    #[error("sealing failed")]
    Cipher,
    /// The key file could not be read or written.
    #[error("the sealing keys in `{}` cannot be kept", .path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The key file is no key file.
    #[error("the sealing keys in `{}` cannot be read: the file is malformed", .0.display())]
    Malformed(PathBuf),
}

/// Seals and opens with a set of keys kept in one file.
pub(super) struct Sealer {
    path: PathBuf,
    keys: ArcSwap<Vec<Arc<Key>>>,
    rotation: Mutex<()>,
}

struct Key {
    id: u32,
    created_at: Timestamp,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    cipher: RandomizedNonceKey,
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    keys: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize)]
struct KeyEntry {
    id: u32,
    created_at: Timestamp,
    key: String,
}

impl Drop for KeyEntry {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.load();
        formatter.debug_list().entries(keys.iter().map(|key| (key.id, key.created_at))).finish()
    }
}

impl Sealer {
    /// Reads the keys of `path`, or makes the first one. A file that is there and cannot be read is an error,
    /// never a reason to make new keys: that would log everybody out without a word.
    ///
    /// # Errors
    /// [`SealError`].
    pub(super) fn open_or_create(path: &Path, now: Timestamp) -> Result<Self, SealError> {
        let keys = match std::fs::read(path) {
            Ok(bytes) => parse(&Zeroizing::new(bytes)).ok_or_else(|| SealError::Malformed(path.to_owned()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(SealError::File { path: path.to_owned(), source }),
        };
        let empty = keys.is_empty();
        let sealer = Self { path: path.to_owned(), keys: ArcSwap::from_pointee(keys), rotation: Mutex::new(()) };
        if empty {
            sealer.rotate(now, Duration::ZERO, Duration::ZERO)?;
        }
        Ok(sealer)
    }

    /// A set of one key that is kept nowhere.
    #[cfg(any(test, fuzzing))]
    pub(super) fn in_memory(now: Timestamp) -> Result<Self, SealError> {
        let keys = ArcSwap::from_pointee(vec![Arc::new(Key::generate(now)?)]);
        Ok(Self { path: PathBuf::new(), keys, rotation: Mutex::new(()) })
    }

    /// Makes a new key when the newest is older than `every`, and forgets keys replaced longer than `overlap` ago.
    /// Answers whether the set changed. Blocks on the disk.
    ///
    /// # Errors
    /// [`SealError`]; the old set stays in force.
    pub(super) fn rotate(&self, now: Timestamp, every: Duration, overlap: Duration) -> Result<bool, SealError> {
        let _one_at_a_time = self.rotation.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.keys.load_full();
        let mut keys: Vec<Arc<Key>> = Vec::with_capacity(current.len() + 1);
        if current.first().is_none_or(|newest| now.since(newest.created_at) >= every) {
            keys.push(Arc::new(Key::generate(now)?));
        }
        for key in current.iter() {
            // A key stops sealing when its successor is made.
            let replaced_at = keys.last().map(|successor| successor.created_at);
            if replaced_at.is_none_or(|at| now.since(at) <= overlap) {
                keys.push(key.clone());
            }
        }
        let unchanged = keys.len() == current.len() && keys.iter().zip(current.iter()).all(|(a, b)| a.id == b.id);
        if unchanged {
            return Ok(false);
        }
        let file = KeyFile { keys: keys.iter().map(|key| key.entry()).collect() };
        let text = Zeroizing::new(serde_json::to_vec(&file).map_err(|_| SealError::Cipher)?);
        disk::replace(&self.path, &text).map_err(|source| SealError::File { path: self.path.clone(), source })?;
        self.keys.store(Arc::new(keys));
        Ok(true)
    }

    /// Seals `plaintext` for one `purpose`: what is sealed for another does not open.
    ///
    /// # Errors
    /// [`SealError::Cipher`].
    pub(super) fn seal(&self, purpose: &str, plaintext: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let keys = self.keys.load();
        let key = keys.first().ok_or(SealError::Cipher)?;
        let mut text = plaintext;
        let nonce = key.cipher.seal_in_place_append_tag(Aad::from(purpose.as_bytes()), &mut text);
        let nonce = nonce.map_err(|_| SealError::Cipher)?;
        let mut sealed = Vec::with_capacity(KEY_ID_BYTES + NONCE_LEN + text.len());
        sealed.extend_from_slice(&key.id.to_be_bytes());
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    /// Opens what [`Sealer::seal`] sealed for the same `purpose`.
    ///
    /// # Errors
    /// [`SealError::Broken`].
    pub(super) fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (id, rest) = sealed.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealError::Broken)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Broken)?;
        let (id, keys) = (u32::from_be_bytes(*id), self.keys.load());
        let key = keys.iter().find(|key| key.id == id).ok_or(SealError::Broken)?;
        let mut text = text.to_vec();
        let aad = Aad::from(purpose.as_bytes());
        let opened = key.cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut text);
        let length = opened.map_err(|_| SealError::Broken)?.len();
        text.truncate(length);
        Ok(text)
    }
}

impl Key {
    fn new(id: u32, created_at: Timestamp, bytes: Zeroizing<[u8; KEY_BYTES]>) -> Option<Self> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, bytes.as_slice()).ok()?;
        Some(Self { id, created_at, bytes, cipher })
    }

    fn generate(now: Timestamp) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let mut id = [0; KEY_ID_BYTES];
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| SealError::Cipher)?;
        aws_lc_rs::rand::fill(&mut id).map_err(|_| SealError::Cipher)?;
        Self::new(u32::from_be_bytes(id), now, bytes).ok_or(SealError::Cipher)
    }

    fn entry(&self) -> KeyEntry {
        KeyEntry { id: self.id, created_at: self.created_at, key: STANDARD.encode(self.bytes.as_slice()) }
    }
}

fn parse(text: &[u8]) -> Option<Vec<Arc<Key>>> {
    let file: KeyFile = serde_json::from_slice(text).ok()?;
    let keys: Option<Vec<_>> = file.keys.iter().map(key_of).collect();
    keys.filter(|keys| !keys.is_empty())
}

fn key_of(entry: &KeyEntry) -> Option<Arc<Key>> {
    let decoded = Zeroizing::new(STANDARD.decode(entry.key.as_bytes()).ok()?);
    let bytes = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(decoded.as_slice()).ok()?);
    Key::new(entry.id, entry.created_at, bytes).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(days: i64) -> Timestamp {
        Timestamp::from_unix_seconds(days * 86_400)
    }

    #[test]
    fn a_restart_opens_what_was_sealed_before_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys.json");
        let sealed = Sealer::open_or_create(&path, at(0)).unwrap().seal("a", b"text".to_vec()).unwrap();
        assert_eq!(sealed.len(), 4 + OVERHEAD);
        assert_eq!(Sealer::open_or_create(&path, at(1)).unwrap().open("a", &sealed).unwrap(), b"text");
    }

    #[test]
    fn what_is_sealed_for_one_purpose_does_not_open_for_another() {
        let home = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_or_create(&home.path().join("keys.json"), at(0)).unwrap();
        let sealed = sealer.seal("a", b"text".to_vec()).unwrap();
        assert!(sealer.open("b", &sealed).is_err());
    }

    #[test]
    fn any_flipped_bit_and_any_shorter_value_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_or_create(&home.path().join("keys.json"), at(0)).unwrap();
        let sealed = sealer.seal("a", b"text".to_vec()).unwrap();
        for position in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[position] ^= 1;
            assert!(sealer.open("a", &altered).is_err(), "byte {position}");
            assert!(sealer.open("a", &sealed[..position]).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn old_keys_open_until_the_overlap_has_passed() {
        let home = tempfile::tempdir().unwrap();
        let sealer = Sealer::open_or_create(&home.path().join("keys.json"), at(0)).unwrap();
        let old = sealer.seal("a", b"old".to_vec()).unwrap();
        assert!(!sealer.rotate(at(6), 7 * DAY, DAY).unwrap(), "not yet due");
        assert!(sealer.rotate(at(7), 7 * DAY, DAY).unwrap());
        assert_eq!(sealer.open("a", &old).unwrap(), b"old");
        let new = sealer.seal("a", b"new".to_vec()).unwrap();
        assert_ne!(old[..4], new[..4], "the newest key seals");
        assert!(sealer.rotate(at(9), 7 * DAY, DAY).unwrap());
        assert!(sealer.open("a", &old).is_err());
        assert_eq!(sealer.open("a", &new).unwrap(), b"new");
    }

    #[test]
    fn a_damaged_key_file_is_an_error_and_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys.json");
        for text in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"id":1,"created_at":0,"key":"AAAA"}]}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Sealer::open_or_create(&path, at(0)), Err(SealError::Malformed(_))), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
