//! The keys of one algorithm and their states: announced, in use, kept for verification.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::signing_key::{Algorithm, PublicKey, Refused, SigningKey};
use crate::clock::Timestamp;

/// How long a key is published before anything is signed with it: a day covers every upstream's cache.
pub(super) const PUBLISHED_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// How long a key is published after the last signature: the longest assertion, the key set's own lifetime in
/// caches, and generously more for clocks that disagree.
pub(super) const RETIRED_KEPT: Duration = Duration::from_secs(3600);

/// What a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// A key was published, to be used later.
    Announced,
    /// A key signs from now on.
    Activated,
    /// A key signs no more, and is still published.
    Retired,
    /// A key is published no more.
    Removed,
}

impl KeyChange {
    /// Word for audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Activated => "activated",
            Self::Retired => "retired",
            Self::Removed => "removed",
        }
    }
}

/// One key's change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The key's algorithm.
    pub algorithm: Algorithm,
    /// The key's identifier.
    pub kid: Arc<str>,
    /// What happened to it.
    pub change: KeyChange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Next,
    Active,
    Retired,
}

#[derive(Clone, Debug)]
struct Held {
    state: State,
    since: Timestamp,
    kid: Arc<str>,
    public: PublicKey,
    /// Of a key that still signs, or did when this process read it.
    certificate: Option<Arc<str>>,
    /// Forgotten when the key retires: what cannot sign cannot leak.
    signing: Option<Arc<SigningKey>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRing {
    version: u32,
    algorithm: Algorithm,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    kid: String,
    state: State,
    since: Timestamp,
    public: PublicKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private: Option<PrivateText>,
}

/// A PKCS#8 document in base64, wiped on drop.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
struct PrivateText(String);

const VERSION: u32 = 1;

/// The keys of one algorithm. Exactly one signs.
#[derive(Clone, Debug)]
pub(super) struct KeyRing {
    algorithm: Algorithm,
    keys: Vec<Held>,
}

impl KeyRing {
    /// A ring with one new key, in use at once: there is nobody yet who could know an older one.
    pub(super) fn first(algorithm: Algorithm, now: Timestamp) -> Result<Self, Refused> {
        Ok(Self { algorithm, keys: vec![Held::new(SigningKey::generate(algorithm)?, State::Active, now)] })
    }

    /// Reads what [`KeyRing::to_json`] wrote, and checks every key against its own identifier.
    ///
    /// The error says what is wrong with the text, without any of it.
    pub(super) fn from_json(algorithm: Algorithm, text: &[u8]) -> Result<Self, String> {
        // A parser's own message may quote the text; its place is enough.
        let stored: StoredRing = serde_json::from_slice(text)
            .map_err(|error| format!("not a key file at line {} column {}", error.line(), error.column()))?;
        if stored.version != VERSION {
            return Err(format!("version {} is not known here", stored.version));
        }
        if stored.algorithm != algorithm {
            return Err(format!("it holds keys for {}", stored.algorithm.as_str()));
        }
        let keys =
            stored.keys.into_iter().map(|key| Held::from_stored(algorithm, key)).collect::<Result<Vec<_>, _>>()?;
        let count = |state| keys.iter().filter(|key| key.state == state).count();
        if count(State::Active) != 1 || count(State::Next) > 1 {
            return Err("exactly one key must be active and at most one next".to_owned());
        }
        if keys.iter().map(|key| &key.kid).collect::<BTreeSet<_>>().len() != keys.len() {
            return Err("it holds one key twice".to_owned());
        }
        Ok(Self { algorithm, keys })
    }

    /// The ring as text, private keys and all.
    pub(super) fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let keys = self.keys.iter().map(Held::to_stored).collect();
        let stored = StoredRing { version: VERSION, algorithm: self.algorithm, keys };
        serde_json::to_vec_pretty(&stored).map(Zeroizing::new)
    }

    /// The key that signs.
    pub(super) fn active(&self) -> Option<Arc<SigningKey>> {
        self.held(State::Active)?.signing.clone()
    }

    /// Identifier, public half and certificate of every key, the one in use first.
    pub(super) fn published(&self) -> impl Iterator<Item = (&str, &PublicKey, Option<&str>)> {
        let (active, others): (Vec<_>, Vec<_>) = self.keys.iter().partition(|key| key.state == State::Active);
        active.into_iter().chain(others).map(|key| (&*key.kid, &key.public, key.certificate.as_deref()))
    }

    /// Does what is due at `now`: removes what nobody can need, puts an announced key to use, announces another.
    pub(super) fn advance(&mut self, now: Timestamp, rotate_every: Duration) -> Result<Vec<Rotation>, Refused> {
        let mut changes = Vec::new();
        let (kept, removed): (Vec<_>, Vec<_>) = std::mem::take(&mut self.keys)
            .into_iter()
            .partition(|key| key.state != State::Retired || now.since(key.since) < RETIRED_KEPT);
        self.keys = kept;
        changes.extend(removed.iter().map(|key| key.rotation(KeyChange::Removed)));

        let age = self.held(State::Active).map_or(Duration::MAX, |key| now.since(key.since));
        let announced = self.held(State::Next).map(|key| now.since(key.since));
        if age >= rotate_every && announced.is_some_and(|announced| announced >= PUBLISHED_AHEAD) {
            for key in &mut self.keys {
                let (state, change) = match key.state {
                    State::Next => (State::Active, KeyChange::Activated),
                    State::Active => (State::Retired, KeyChange::Retired),
                    State::Retired => continue,
                };
                (key.state, key.since) = (state, now);
                if state == State::Retired {
                    key.signing = None;
                }
                changes.push(key.rotation(change));
            }
        } else if announced.is_none() && age.saturating_add(PUBLISHED_AHEAD) >= rotate_every {
            let key = Held::new(SigningKey::generate(self.algorithm)?, State::Next, now);
            changes.push(key.rotation(KeyChange::Announced));
            self.keys.push(key);
        }
        Ok(changes)
    }

    fn held(&self, state: State) -> Option<&Held> {
        self.keys.iter().find(|key| key.state == state)
    }
}

impl Held {
    fn new(key: SigningKey, state: State, since: Timestamp) -> Self {
        let (kid, public, certificate) = (key.kid().clone(), key.public().clone(), key.certificate().map(Arc::from));
        Self { state, since, kid, public, certificate, signing: Some(Arc::new(key)) }
    }

    fn rotation(&self, change: KeyChange) -> Rotation {
        Rotation { algorithm: self.public.algorithm(), kid: self.kid.clone(), change }
    }

    fn to_stored(&self) -> StoredKey {
        StoredKey {
            kid: self.kid.to_string(),
            state: self.state,
            since: self.since,
            public: self.public.clone(),
            private: self.signing.as_ref().map(|key| PrivateText(STANDARD.encode(key.private()))),
        }
    }

    fn from_stored(algorithm: Algorithm, stored: StoredKey) -> Result<Self, String> {
        let StoredKey { kid, state, since, public, private } = stored;
        if public.algorithm() != algorithm || public.thumbprint() != kid {
            return Err(format!("key `{kid}` does not match its own identifier"));
        }
        let signing: Option<Arc<SigningKey>> = match (state, private) {
            (State::Retired, _) => None,
            (State::Next | State::Active, None) => return Err(format!("key `{kid}` has lost its private half")),
            (State::Next | State::Active, Some(text)) => {
                let bytes = STANDARD.decode(text.0.as_bytes()).map(Zeroizing::new);
                let bytes = bytes.map_err(|_| format!("the private half of key `{kid}` is not base64"))?;
                let key = SigningKey::from_pkcs8(algorithm, bytes);
                let key = key.map_err(|_| format!("the private half of key `{kid}` is no key"))?;
                if *key.public() != public {
                    return Err(format!("the halves of key `{kid}` do not belong together"));
                }
                Some(Arc::new(key))
            }
        };
        let certificate = signing.as_ref().and_then(|key| key.certificate()).map(Arc::from);
        Ok(Self { state, since, kid: kid.into(), public, certificate, signing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

    fn kids(ring: &KeyRing) -> Vec<String> {
        ring.published().map(|(kid, ..)| kid.to_owned()).collect()
    }

    fn changes(ring: &mut KeyRing, now: Timestamp) -> Vec<KeyChange> {
        ring.advance(now, MONTH).unwrap().into_iter().map(|rotation| rotation.change).collect()
    }

    #[test]
    fn a_key_is_announced_a_day_ahead_and_kept_after_its_last_use() {
        let start = Timestamp::from_unix_seconds(1_800_000_000);
        let mut ring = KeyRing::first(Algorithm::Es256, start).unwrap();
        let first = kids(&ring);
        assert_eq!(changes(&mut ring, start.plus(MONTH - PUBLISHED_AHEAD * 2)), []);

        let announced = start.plus(MONTH - PUBLISHED_AHEAD);
        assert_eq!(changes(&mut ring, announced), [KeyChange::Announced]);
        assert_eq!(kids(&ring).len(), 2);
        assert_eq!(kids(&ring).first(), first.first(), "the old key signs on");
        assert_eq!(changes(&mut ring, announced.plus(Duration::from_secs(3600))), []);

        let turned = start.plus(MONTH);
        assert_eq!(changes(&mut ring, turned), [KeyChange::Retired, KeyChange::Activated]);
        assert_ne!(kids(&ring).first(), first.first());
        assert!(kids(&ring).contains(&first[0]), "what the old key signed still verifies");

        assert_eq!(changes(&mut ring, turned.plus(RETIRED_KEPT - Duration::from_secs(1))), []);
        assert_eq!(changes(&mut ring, turned.plus(RETIRED_KEPT)), [KeyChange::Removed]);
        assert_eq!(kids(&ring).len(), 1);
    }

    #[test]
    fn a_ring_that_slept_past_its_turn_still_announces_a_day_ahead() {
        let start = Timestamp::from_unix_seconds(1_800_000_000);
        let mut ring = KeyRing::first(Algorithm::Es256, start).unwrap();
        let first = ring.active().unwrap().kid().clone();
        let late = start.plus(MONTH * 5);
        assert_eq!(changes(&mut ring, late), [KeyChange::Announced]);
        assert_eq!(changes(&mut ring, late.plus(PUBLISHED_AHEAD - Duration::from_secs(1))), []);
        assert_eq!(*ring.active().unwrap().kid(), first);
        assert_eq!(changes(&mut ring, late.plus(PUBLISHED_AHEAD)), [KeyChange::Retired, KeyChange::Activated]);
    }

    #[test]
    fn a_retired_key_forgets_its_private_half() {
        let start = Timestamp::from_unix_seconds(1_800_000_000);
        let mut ring = KeyRing::first(Algorithm::Es256, start).unwrap();
        let private = STANDARD.encode(ring.active().unwrap().private());
        let text = |ring: &KeyRing| String::from_utf8(ring.to_json().unwrap().to_vec()).unwrap();
        assert!(text(&ring).contains(&private));
        changes(&mut ring, start.plus(MONTH));
        changes(&mut ring, start.plus(MONTH + PUBLISHED_AHEAD));
        assert_eq!(kids(&ring).len(), 2);
        assert!(!text(&ring).contains(&private));
    }
}
