//! What is remembered of tokens: those that a verifier verified, those it refused, and when the process first saw the
//! rest.
//!
//! Verdicts are keyed by the SHA-256 of the whole token, first sights by that of what its signature covers: whoever has
//! an ECDSA signature (r, s) can write (r, n − s), which is as good, and must not begin anew by it. All is bounded.
//! Refusals have a table of their own, so that a flood of bad tokens pushes out no good one.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::clock::Timestamp;
use crate::identity::{IdentityError, Principal};

/// A verified token is taken on trust this long at most.
const VERIFIED: Duration = Duration::from_secs(5 * 60);

/// So is a refused one.
const REFUSED: Duration = Duration::from_secs(2);

/// A place in the memory of verified tokens. A principal keeps its token's claims, so a longer token takes several: the
/// memory is bounded by the number of tokens and by their bytes.
const PLACE_BYTES: usize = 2 * 1024;

/// Share of the memory that tokens seen more than once keep against newcomers. Nearly all of it, as the cache has it by
/// itself, would leave callers who come after others no place until those have long gone.
const OFTEN_SEEN: f64 = 0.1;

/// Memory of tokens that were pushed out, which would come back among those often seen: none. After a flood of more
/// tokens than there are places, it kept up to half of the callers who came next without a place for good.
const PUSHED_OUT: f64 = 0.0;

/// Which issuer's keys, at which generation, a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Basis {
    pub(super) issuer: usize,
    pub(super) generation: u64,
}

#[derive(Debug)]
struct Entry<T> {
    verdict: T,
    basis: Basis,
    from: Timestamp,
    until: Timestamp,
}

impl<T> Entry<T> {
    fn holds(&self, now: Timestamp, current: &impl Fn(usize) -> Option<u64>) -> bool {
        self.from <= now && now < self.until && current(self.basis.issuer) == Some(self.basis.generation)
    }
}

type Table<T> = Cache<[u8; 32], Arc<Entry<T>>>;

/// A principal, and how many places it takes.
#[derive(Debug)]
struct Kept {
    entry: Entry<Arc<Principal>>,
    places: u64,
}

#[derive(Clone, Copy, Debug)]
struct ByPlaces;

impl Weighter<[u8; 32], Arc<Kept>> for ByPlaces {
    fn weight(&self, _: &[u8; 32], kept: &Arc<Kept>) -> u64 {
        kept.places
    }
}

/// When tokens that state no time were first seen, by the SHA-256 of what their signature covers.
///
/// Role sessions begin there, so it outlives the verifiers: else each new one would begin them again.
#[derive(Debug)]
pub struct FirstSights(Cache<[u8; 32], Timestamp>);

impl FirstSights {
    /// A memory of `capacity` tokens at most.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Cache::new(capacity))
    }

    /// When the token of this SHA-256 was first seen, which may be now.
    pub(super) fn of(&self, signed: [u8; 32], now: Timestamp) -> Timestamp {
        if let Some(seen) = self.0.get(&signed) {
            return seen.min(now);
        }
        self.0.insert(signed, now);
        now
    }
}

/// The memory of one verifier.
#[derive(Debug)]
pub(super) struct Recall {
    verified: Cache<[u8; 32], Arc<Kept>, ByPlaces>,
    refused: Table<IdentityError>,
}

impl Recall {
    /// A memory of `capacity` verified tokens at most, and of `capacity` times 2 KiB of them; and of as many refusals.
    pub(super) fn new(capacity: usize) -> Self {
        let places = u64::try_from(capacity).unwrap_or(u64::MAX);
        let mut options = OptionsBuilder::new();
        options.estimated_items_capacity(capacity).weight_capacity(places);
        options.hot_allocation(OFTEN_SEEN).ghost_allocation(PUSHED_OUT);
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        let verified = match options.build() {
            Ok(options) => Cache::with_options(options, ByPlaces, hasher, lifecycle),
            Err(_) => Cache::with_weighter(capacity, places, ByPlaces),
        };
        Self { verified, refused: Cache::new(capacity) }
    }

    /// The verdict on a token, if one is remembered and holds. `current` is the generation of an issuer's keys now.
    pub(super) fn verdict(
        &self,
        fingerprint: &[u8; 32],
        now: Timestamp,
        current: impl Fn(usize) -> Option<u64>,
    ) -> Option<Result<Arc<Principal>, IdentityError>> {
        if let Some(kept) = self.verified.get(fingerprint)
            && kept.entry.holds(now, &current)
        {
            return Some(Ok(kept.entry.verdict.clone()));
        }
        let entry = self.refused.get(fingerprint)?;
        entry.holds(now, &current).then(|| Err(entry.verdict.clone()))
    }

    /// Remembers a verified token of that length until `ends` at most.
    pub(super) fn verified(
        &self,
        (fingerprint, token_bytes): ([u8; 32], usize),
        principal: Arc<Principal>,
        basis: Basis,
        now: Timestamp,
        ends: Timestamp,
    ) {
        let until = now.plus(VERIFIED).min(ends);
        if now < until {
            let entry = Entry { verdict: principal, basis, from: now, until };
            let places = u64::try_from(token_bytes.div_ceil(PLACE_BYTES).max(1)).unwrap_or(u64::MAX);
            self.verified.insert(fingerprint, Arc::new(Kept { entry, places }));
        }
    }

    /// Remembers a refused token.
    pub(super) fn refused(&self, fingerprint: [u8; 32], error: IdentityError, basis: Basis, now: Timestamp) {
        let until = now.plus(REFUSED);
        self.refused.insert(fingerprint, Arc::new(Entry { verdict: error, basis, from: now, until }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASIS: Basis = Basis { issuer: 0, generation: 7 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_700_000_000 + seconds)
    }

    fn principal() -> Arc<Principal> {
        Arc::new(Principal::anonymous(at(0)))
    }

    fn remembers(recall: &Recall, seconds: i64, generation: Option<u64>) -> bool {
        recall.verdict(&[1; 32], at(seconds), |_| generation).is_some()
    }

    #[test]
    fn a_verified_token_is_remembered_five_minutes_and_never_past_its_end() {
        let recall = Recall::new(10);
        recall.verified(([1; 32], 1000), principal(), BASIS, at(0), at(3600));
        assert!(remembers(&recall, 299, Some(7)) && !remembers(&recall, 300, Some(7)));
        recall.verified(([1; 32], 1000), principal(), BASIS, at(0), at(60));
        assert!(remembers(&recall, 59, Some(7)) && !remembers(&recall, 60, Some(7)));
        assert!(!remembers(&recall, -1, Some(7)), "a clock that was set back trusts nothing longer");
        let recall = Recall::new(10);
        recall.verified(([1; 32], 1000), principal(), BASIS, at(0), at(0));
        assert!(!remembers(&recall, 0, Some(7)));
    }

    #[test]
    fn a_change_or_loss_of_keys_forgets() {
        let recall = Recall::new(10);
        recall.verified(([1; 32], 1000), principal(), BASIS, at(0), at(3600));
        assert!(!remembers(&recall, 1, Some(8)) && !remembers(&recall, 1, None));
    }

    #[test]
    fn a_refusal_is_remembered_two_seconds() {
        let recall = Recall::new(10);
        recall.refused([1; 32], IdentityError::Missing, BASIS, at(0));
        assert!(remembers(&recall, 1, Some(7)) && !remembers(&recall, 2, Some(7)) && !remembers(&recall, 1, Some(8)));
    }

    #[test]
    fn a_flood_of_refusals_is_bounded_and_pushes_out_no_verified_token() {
        let recall = Recall::new(100);
        recall.verified(([1; 32], 1000), principal(), BASIS, at(0), at(3600));
        for number in 0..10_000_u32 {
            let mut fingerprint = [2; 32];
            fingerprint[..4].copy_from_slice(&number.to_be_bytes());
            recall.refused(fingerprint, IdentityError::Missing, BASIS, at(0));
        }
        assert!(recall.refused.len() <= 200 && remembers(&recall, 1, Some(7)));
    }

    #[test]
    fn callers_who_come_after_others_have_places_of_their_own() {
        let recall = Recall::new(2_000);
        let show = |number: u32| {
            let mut fingerprint = [3; 32];
            fingerprint[..4].copy_from_slice(&number.to_be_bytes());
            let known = recall.verdict(&fingerprint, at(1), |_| Some(7)).is_some();
            if !known {
                recall.verified((fingerprint, 1000), principal(), BASIS, at(0), at(3600));
            }
            known
        };
        // More than are remembered, again and again.
        for _ in 0..4 {
            (0..3_000).for_each(|number| _ = show(number));
        }
        let newcomers = 10_000..11_000;
        let rounds: Vec<usize> = (0..6).map(|_| newcomers.clone().filter(|number| show(*number)).count()).collect();
        // With the cache's own shares it is none at first, and never much more than a half.
        assert!(rounds[1..].iter().all(|known| *known > 900), "{rounds:?} of 1,000");
    }

    #[test]
    fn a_flood_of_verified_tokens_is_bounded_by_their_number_and_by_their_bytes() {
        for (token_bytes, most) in [(0, 1000), (1, 1000), (PLACE_BYTES, 1000), (PLACE_BYTES + 1, 500), (16 * 1024, 125)]
        {
            let recall = Recall::new(1000);
            for number in 0..10_000_u32 {
                let mut fingerprint = [2; 32];
                fingerprint[..4].copy_from_slice(&number.to_be_bytes());
                recall.verified((fingerprint, token_bytes), principal(), BASIS, at(0), at(3600));
            }
            let remembered = recall.verified.len();
            assert!(remembered <= most && remembered >= most / 2, "{token_bytes}: {remembered}");
        }
    }

    #[test]
    fn the_first_sight_of_a_token_stays() {
        let sights = FirstSights::new(10);
        assert_eq!(sights.of([1; 32], at(0)), at(0));
        assert_eq!(sights.of([1; 32], at(100)), at(0));
        assert_eq!(sights.of([2; 32], at(100)), at(100));
    }
}
