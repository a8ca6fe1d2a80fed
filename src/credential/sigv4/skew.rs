//! What time it is at the servers, where their clocks and ours disagree.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::header::DATE;

use crate::clock::Timestamp;

/// A clock that disagrees by more is not followed: what was signed for such a time could be used long after.
const LARGEST_SKEW: Duration = Duration::from_secs(3600);
/// Servers' clocks are read to the second, and answers take their time.
const NO_SKEW: i64 = 5;
/// Servers take requests of clocks that are off by less.
const TAKEN_SKEW_SECONDS: i64 = 240;
/// Codes that a clock can be the reason of.
const ABOUT_THE_TIME: [&str; 4] =
    ["RequestTimeTooSkewed", "RequestExpired", "SignatureDoesNotMatch", "InvalidSignatureException"];

/// How far the servers' clocks are ahead of ours, in seconds, as their last answer showed.
#[derive(Debug, Default)]
pub struct ClockSkew(AtomicI64);

impl ClockSkew {
    /// The servers' time when ours is `now`.
    #[must_use]
    pub fn applied(&self, now: Timestamp) -> Timestamp {
        let ahead = self.0.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 { now.minus(by) } else { now.plus(by) }
    }

    /// Takes note of a server's `Date`.
    pub fn observe(&self, theirs: Timestamp, now: Timestamp) {
        let ahead = theirs.unix_seconds().saturating_sub(now.unix_seconds());
        if ahead.unsigned_abs() <= LARGEST_SKEW.as_secs() {
            let ahead = if ahead.abs() <= NO_SKEW { 0 } else { ahead };
            self.0.store(ahead, Ordering::Relaxed);
        }
    }

    /// Whether a refusal, of a request that was signed by this clock, may come of the clocks alone: its code is one of
    /// those, its `Date` is far off, and is now known.
    pub(in crate::credential) fn is_corrected(&self, code: Option<&str>, headers: &HeaderMap, now: Timestamp) -> bool {
        let theirs = headers.get(DATE).and_then(|value| value.to_str().ok()).and_then(Timestamp::from_http_date);
        let Some(theirs) = theirs.filter(|_| code.is_some_and(|code| ABOUT_THE_TIME.contains(&code))) else {
            return false;
        };
        let signed_at = self.applied(now);
        self.observe(theirs, now);
        let off = theirs.unix_seconds().saturating_sub(signed_at.unix_seconds()).abs();
        off > TAKEN_SKEW_SECONDS && self.applied(now) != signed_at
    }
}
