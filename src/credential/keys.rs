//! Doorward's own signing keys: on disk over a restart, rotated with overlap, published as a key set.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::key_ring::{KeyRing, PUBLISHED_AHEAD, Rotation};
use super::signing_key::{Algorithm, PublicKey, SigningKey};
use crate::clock::Timestamp;

/// Why the signing keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error(
        "signing keys `{}` cannot be read; restore the file, or start again without it to make new keys", .path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read and makes no sense. It is left as it is.
    #[error(
        "signing keys `{}` are damaged: {detail}; restore the file from a backup, or move it away to start with new keys \
         (what the old ones signed then stops verifying)", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, without any of its text.
        detail: String,
    },
    /// Others on this machine may read or write the file.
    #[error(
        "signing keys `{}` are open to others on this machine; close them (`chmod o-rwx`), and if others may have read \
         them move the file away to start with new keys", .path.display()
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
    },
    /// The file or directory cannot be written.
    #[error("signing keys cannot be kept in `{}`", .path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds the directory's lock.
    #[error("another process is changing the signing keys in `{}`", .path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("no {} key could be made", .algorithm.as_str())]
    Generation {
        /// For which algorithm.
        algorithm: Algorithm,
    },
    /// Keys would turn faster than upstreams can learn them.
    #[error("signing keys must be used for at least a day: each is published a day before its first use")]
    RotationTooOften,
}

/// Shortest time between two signing keys: each is published that long before its first use.
pub const SHORTEST_ROTATION: Duration = PUBLISHED_AHEAD;

struct Published {
    rings: Vec<(Algorithm, KeyRing)>,
    elliptic: Option<Arc<SigningKey>>,
    rsa: Option<Arc<SigningKey>>,
    document: Bytes,
}

/// The signing keys of every configured algorithm.
///
/// Processes that share the directory take turns by a lock file and see each other's keys at their next rotation.
pub struct SigningKeys {
    directory: PathBuf,
    rotate_every: Duration,
    published: ArcSwap<Published>,
    changing: Mutex<()>,
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SigningKeys").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl SigningKeys {
    /// Reads the keys below `state_directory`, making its `keys` directory if there is none. Blocks on the disk.
    ///
    /// # Errors
    /// [`KeyError`]; keys that cannot be read are left as they are.
    pub fn open(state_directory: &Path, rotate_every: Duration) -> Result<Self, KeyError> {
        if rotate_every < SHORTEST_ROTATION {
            return Err(KeyError::RotationTooOften);
        }
        let directory = state_directory.join("keys");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.and_then(|()| tighten(&directory, 0o700)).map_err(|source| unwritable(&directory, source))?;
        let mut rings = Vec::new();
        for algorithm in Algorithm::ALL {
            if let Some(ring) = read(&directory, algorithm)? {
                rings.push((algorithm, ring));
            }
        }
        let published = ArcSwap::from_pointee(Published::new(rings));
        Ok(Self { directory, rotate_every, published, changing: Mutex::new(()) })
    }

    /// Makes the first key of `algorithm` unless there is one. Blocks on the disk, and up to a second on RSA.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn ensure(&self, algorithm: Algorithm, now: Timestamp) -> Result<(), KeyError> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.active(algorithm).is_some() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let ring = match read(&self.directory, algorithm)? {
            Some(ring) => ring,
            None => {
                let ring = KeyRing::first(algorithm, now).map_err(|_| KeyError::Generation { algorithm })?;
                write(&self.directory, algorithm, &ring)?;
                ring
            }
        };
        let mut rings = self.published.load().rings.clone();
        rings.push((algorithm, ring));
        self.published.store(Arc::new(Published::new(rings)));
        Ok(())
    }

    /// Does what is due at `now` and says what that was. Every key is on disk before it is published or used.
    /// Blocks like [`SigningKeys::ensure`]; call it every minute or so.
    ///
    /// # Errors
    /// [`KeyError`]; the keys in memory then stay as they were.
    pub fn rotate_if_due(&self, now: Timestamp) -> Result<Vec<Rotation>, KeyError> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = self.lock()?;
        let mut rings = Vec::new();
        let mut changes = Vec::new();
        for (algorithm, _) in &self.published.load().rings {
            let Some(mut ring) = read(&self.directory, *algorithm)? else {
                let path = path_of(&self.directory, *algorithm);
                return Err(KeyError::Unreadable { path, source: io::ErrorKind::NotFound.into() });
            };
            let changed =
                ring.advance(now, self.rotate_every).map_err(|_| KeyError::Generation { algorithm: *algorithm })?;
            if !changed.is_empty() {
                write(&self.directory, *algorithm, &ring)?;
            }
            changes.extend(changed);
            rings.push((*algorithm, ring));
        }
        self.published.store(Arc::new(Published::new(rings)));
        Ok(changes)
    }

    /// The key that signs with `algorithm`; `None` before [`SigningKeys::ensure`].
    #[must_use]
    pub fn active(&self, algorithm: Algorithm) -> Option<Arc<SigningKey>> {
        let published = self.published.load();
        match algorithm {
            Algorithm::Es256 => published.elliptic.clone(),
            Algorithm::Rs256 => published.rsa.clone(),
        }
    }

    /// Algorithms that have keys.
    #[must_use]
    pub fn algorithms(&self) -> Vec<Algorithm> {
        self.published.load().rings.iter().map(|(algorithm, _)| *algorithm).collect()
    }

    /// The key set document (RFC 7517, section 5).
    #[must_use]
    pub fn document(&self) -> Bytes {
        self.published.load().document.clone()
    }

    /// Five seconds: a first RSA key of another process takes one at most.
    fn lock(&self) -> Result<File, KeyError> {
        self.lock_within(250)
    }

    fn lock_within(&self, attempts: u32) -> Result<File, KeyError> {
        let path = self.directory.join("lock");
        let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|source| unwritable(&path, source))?;
        for _ in 0..attempts {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::Error(source)) => return Err(unwritable(&path, source)),
                Err(fs::TryLockError::WouldBlock) => std::thread::park_timeout(Duration::from_millis(20)),
            }
        }
        Err(KeyError::Busy { path: self.directory.clone() })
    }
}

#[derive(Serialize)]
struct Jwk<'a> {
    #[serde(flatten)]
    public: &'a PublicKey,
    kid: &'a str,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5c: Option<[&'a str; 1]>,
}

impl Published {
    fn new(rings: Vec<(Algorithm, KeyRing)>) -> Self {
        let active =
            |wanted| rings.iter().find(|(algorithm, _)| *algorithm == wanted).and_then(|(_, ring)| ring.active());
        let of = |wanted| rings.iter().find(move |(algorithm, _)| *algorithm == wanted).map(|(_, ring)| ring);
        let keys = Algorithm::ALL.into_iter().filter_map(of).flat_map(KeyRing::published);
        let jwk = |(kid, public, certificate): (_, &'_ PublicKey, Option<&'_ str>)| {
            json!(Jwk {
                public,
                kid,
                usage: "sig",
                alg: public.algorithm().as_str(),
                x5c: certificate.map(|certificate| [certificate]),
            })
        };
        let keys: Vec<_> = keys.map(jwk).collect();
        let document = json!({ "keys": keys }).to_string().into();
        Self { elliptic: active(Algorithm::Es256), rsa: active(Algorithm::Rs256), rings, document }
    }
}

fn path_of(directory: &Path, algorithm: Algorithm) -> PathBuf {
    directory.join(format!("{}.json", algorithm.as_str()))
}

fn unwritable(path: &Path, source: io::Error) -> KeyError {
    KeyError::Unwritable { path: path.to_owned(), source }
}

/// Takes access from everybody but the owner: volumes are often handed over open to their group.
fn tighten(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn read(directory: &Path, algorithm: Algorithm) -> Result<Option<KeyRing>, KeyError> {
    let path = path_of(directory, algorithm);
    let mode = match fs::metadata(&path) {
        Ok(found) => found.permissions().mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(KeyError::Unreadable { path, source }),
    };
    if mode & 0o007 != 0 {
        return Err(KeyError::Exposed { path });
    }
    let text = tighten(&path, 0o600).and_then(|()| fs::read(&path)).map(Zeroizing::new);
    let text = text.map_err(|source| KeyError::Unreadable { path: path.clone(), source })?;
    KeyRing::from_json(algorithm, &text).map(Some).map_err(|detail| KeyError::Damaged { path, detail })
}

/// Writes beside, makes durable, then renames: a reader sees the old file or the new one, a power cut too.
fn write(directory: &Path, algorithm: Algorithm, ring: &KeyRing) -> Result<(), KeyError> {
    let (path, beside) = (path_of(directory, algorithm), directory.join(format!(".{}.new", algorithm.as_str())));
    let replace = || -> io::Result<()> {
        let text = ring.to_json()?;
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(directory)?.sync_all()
    };
    replace().map_err(|source| unwritable(&path, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::KeyChange;
    use crate::credential::testing::{MONTH, now};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_survive_a_restart_and_are_nobody_elses_business() {
        let state = tempfile::tempdir().unwrap();
        let before = SigningKeys::open(state.path(), MONTH).unwrap();
        assert!(before.active(Algorithm::Es256).is_none(), "no key before it is asked for");
        before.ensure(Algorithm::Es256, now()).unwrap();
        let after = SigningKeys::open(state.path(), MONTH).unwrap();
        after.ensure(Algorithm::Es256, now()).unwrap();
        let kid = |keys: &SigningKeys| keys.active(Algorithm::Es256).unwrap().kid().clone();
        assert_eq!(kid(&before), kid(&after));
        assert_eq!(before.document(), after.document());
        assert!(after.active(Algorithm::Rs256).is_none());
        let directory = state.path().join("keys");
        assert_eq!((mode(&directory), mode(&directory.join("ES256.json"))), (0o700, 0o600));
    }

    #[test]
    fn a_rotation_is_on_disk_and_overlaps_over_a_restart() {
        let (state, start) = (tempfile::tempdir().unwrap(), now());
        let keys = SigningKeys::open(state.path(), MONTH).unwrap();
        keys.ensure(Algorithm::Es256, start).unwrap();
        let first = keys.active(Algorithm::Es256).unwrap();
        assert_eq!(keys.rotate_if_due(start).unwrap(), []);
        let announced = keys.rotate_if_due(start.plus(MONTH)).unwrap();
        assert_eq!(announced.iter().map(|rotation| rotation.change).collect::<Vec<_>>(), [KeyChange::Announced]);

        let keys = SigningKeys::open(state.path(), MONTH).unwrap();
        assert_eq!(keys.active(Algorithm::Es256).unwrap().kid(), first.kid());
        keys.rotate_if_due(start.plus(MONTH + PUBLISHED_AHEAD)).unwrap();
        let second = keys.active(Algorithm::Es256).unwrap();
        assert_eq!(announced[0].kid, *second.kid());
        let document = String::from_utf8(keys.document().to_vec()).unwrap();
        assert!(document.contains(&**first.kid()) && document.contains(&**second.kid()), "{document}");
    }

    #[test]
    fn processes_that_share_a_directory_use_one_key() {
        let state = tempfile::tempdir().unwrap();
        let (one, two) =
            (SigningKeys::open(state.path(), MONTH).unwrap(), SigningKeys::open(state.path(), MONTH).unwrap());
        one.ensure(Algorithm::Es256, now()).unwrap();
        two.ensure(Algorithm::Es256, now()).unwrap();
        assert_eq!(one.document(), two.document());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it_and_stays_as_it_is() {
        let state = tempfile::tempdir().unwrap();
        SigningKeys::open(state.path(), MONTH).unwrap().ensure(Algorithm::Es256, now()).unwrap();
        let path = state.path().join("keys/ES256.json");
        let good = fs::read_to_string(&path).unwrap();
        let (head, tail) = good.split_at(good.len() / 2);
        let swapped = good.replace("\"x\"", "\"z\"").replace("\"y\"", "\"x\"").replace("\"z\"", "\"y\"");
        for damaged in ["", "{}", head, tail, &good.replace("active", "retired"), &swapped] {
            fs::write(&path, damaged).unwrap();
            let error = SigningKeys::open(state.path(), MONTH).unwrap_err();
            assert!(matches!(error, KeyError::Damaged { .. }), "{error}");
            let message = error.to_string();
            assert!(message.contains("keys/ES256.json") && message.contains("move it away"), "{message}");
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn a_file_that_vanishes_while_running_is_an_error_and_no_new_key() {
        let state = tempfile::tempdir().unwrap();
        let keys = SigningKeys::open(state.path(), MONTH).unwrap();
        keys.ensure(Algorithm::Es256, now()).unwrap();
        let kid = keys.active(Algorithm::Es256).unwrap().kid().clone();
        fs::remove_file(state.path().join("keys/ES256.json")).unwrap();
        assert!(matches!(keys.rotate_if_due(now()).unwrap_err(), KeyError::Unreadable { .. }));
        assert_eq!(*keys.active(Algorithm::Es256).unwrap().kid(), kid);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_and_one_of_the_group_is_closed() {
        let state = tempfile::tempdir().unwrap();
        SigningKeys::open(state.path(), MONTH).unwrap().ensure(Algorithm::Es256, now()).unwrap();
        let path = state.path().join("keys/ES256.json");
        fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
        SigningKeys::open(state.path(), MONTH).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(SigningKeys::open(state.path(), MONTH).unwrap_err(), KeyError::Exposed { .. }));
    }

    #[test]
    fn keys_cannot_turn_faster_than_upstreams_learn_them() {
        let state = tempfile::tempdir().unwrap();
        let hourly = SigningKeys::open(state.path(), Duration::from_secs(3600)).unwrap_err();
        assert!(matches!(hourly, KeyError::RotationTooOften));
    }

    #[test]
    fn a_lock_that_another_process_holds_is_not_waited_for_without_end() {
        let state = tempfile::tempdir().unwrap();
        let keys = SigningKeys::open(state.path(), MONTH).unwrap();
        let held = keys.lock_within(1).unwrap();
        assert!(matches!(keys.lock_within(1), Err(KeyError::Busy { .. })));
        drop(held);
        assert!(keys.lock_within(1).is_ok());
    }
}
