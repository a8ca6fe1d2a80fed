//! One login attempt, from the redirect to the callback. It lives in a cookie of its own, so that parallel tabs do
//! not disturb each other, and on the server only as a note that its state was used.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::Login;
use super::store::SessionKey;
use crate::clock::Timestamp;
use crate::hex::hex;

/// An attempt must come back within this.
pub(super) const LONGEST: Duration = Duration::from_secs(600);
const LONGEST_SECONDS: i64 = 600;

const MOST_LIVE: usize = 12;
const MOST_BYTES: usize = 8 * 1024;
/// Cookies above this go first when there are too many: they hold long return paths.
const LONG_BYTES: usize = 1024;

/// Logins in a row, within [`ROW`], after which something is in a circle.
const MOST_IN_A_ROW: u32 = 3;
const ROW: Duration = Duration::from_secs(60);

/// What the cookie holds, sealed. State, nonce and PKCE verifier all follow from `seed`, which keeps it short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Attempt {
    #[serde(rename = "s")]
    seed: String,
    #[serde(rename = "i")]
    pub(super) issuer: Arc<str>,
    #[serde(rename = "r")]
    pub(super) return_to: String,
    #[serde(rename = "t")]
    pub(super) begun_at: Timestamp,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(super) max_age_seconds: Option<u64>,
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) acr_values: Vec<String>,
    /// Whether the user was to authenticate anew in any case.
    #[serde(rename = "p", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) anew: bool,
}

/// How many logins this browser completed in a row.
#[derive(Default, Serialize, Deserialize)]
struct Row {
    #[serde(rename = "c")]
    count: u32,
    #[serde(rename = "t")]
    begun_at: Timestamp,
}

/// 256 random bits, in base64url.
pub(super) fn random() -> Option<String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

impl Attempt {
    pub(super) fn begin(issuer: Arc<str>, return_to: String, begun_at: Timestamp) -> Option<Self> {
        let (max_age_seconds, acr_values, anew) = (None, Vec::new(), false);
        Some(Self { seed: random()?, issuer, return_to, begun_at, max_age_seconds, acr_values, anew })
    }

    pub(super) fn state(&self) -> String {
        self.derive("state")
    }

    pub(super) fn nonce(&self) -> String {
        self.derive("nonce")
    }

    /// PKCE code verifier (RFC 7636): 43 characters.
    pub(super) fn verifier(&self) -> String {
        self.derive("verifier")
    }

    fn derive(&self, what: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.seed.as_bytes());
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, what.as_bytes()))
    }
}

/// Eight hexadecimal digits that name the cookie of a state.
fn short(state: &str) -> String {
    hex(SessionKey::of(state.as_bytes()).0.get(..4).unwrap_or_default())
}

impl Login {
    /// `Set-Cookie` values that keep an attempt, and clear the ones that are too many.
    pub(super) fn keep_attempt(&self, attempt: &Attempt, headers: &HeaderMap) -> Option<Vec<HeaderValue>> {
        let name = self.cookies.login(&short(&attempt.state()));
        let value = self.seal_small(&name, attempt)?;
        let mut cookies: Vec<_> = self.cookies.set(&name, &value, LONGEST_SECONDS).into_iter().collect();
        let mut bytes = name.len() + value.len();
        let mut live = Vec::new();
        for (short, value) in self.cookies.logins(headers) {
            let name = self.cookies.login(short);
            match self.open_small::<Attempt>(&name, value).filter(|attempt| self.is_young(attempt)) {
                Some(attempt) => {
                    bytes += name.len() + value.len();
                    live.push((name.len() + value.len(), attempt.begun_at, name));
                }
                None => cookies.extend(self.cookies.clear(&name)),
            }
        }
        // Last come the ones to drop: long ones, then the oldest.
        live.sort_by_key(|(bytes, begun_at, _)| (*bytes > LONG_BYTES, Reverse(*begun_at)));
        while live.len() >= MOST_LIVE || bytes > MOST_BYTES {
            let Some((dropped, _, name)) = live.pop() else { break };
            bytes -= dropped;
            cookies.extend(self.cookies.clear(&name));
        }
        Some(cookies)
    }

    /// The attempt that a callback's state belongs to, in this browser, in time; and the `Set-Cookie` that clears it.
    pub(super) fn attempt_of(&self, state: &str, headers: &HeaderMap) -> Option<(Attempt, Vec<HeaderValue>)> {
        let name = self.cookies.login(&short(state));
        let attempt: Attempt = self.open_small(&name, self.cookies.value(headers, &name)?)?;
        let own = attempt.state();
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(own.as_bytes(), state.as_bytes()).is_ok();
        (same && self.is_young(&attempt)).then(|| (attempt, self.cookies.clear(&name).into_iter().collect()))
    }

    /// Marks an attempt as used; `false` when it was used before.
    pub(super) fn use_attempt(&self, attempt: &Attempt) -> bool {
        let state = SessionKey::of(attempt.state().as_bytes()).0;
        self.state.use_once(state, attempt.begun_at.plus(LONGEST))
    }

    fn is_young(&self, attempt: &Attempt) -> bool {
        self.state.clock.now().since(attempt.begun_at) < LONGEST
    }

    /// Whether this browser logs in again and again without getting anywhere.
    pub(super) fn goes_in_circles(&self, headers: &HeaderMap) -> bool {
        self.row(headers).count >= MOST_IN_A_ROW
    }

    /// The `Set-Cookie` that counts one more login.
    pub(super) fn count_login(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut row = self.row(headers);
        row.count = row.count.saturating_add(1);
        if row.count == 1 {
            row.begun_at = self.state.clock.now();
        }
        let name = self.cookies.count();
        let value = self.seal_small(&name, &row)?;
        self.cookies.set(&name, &value, i64::try_from(ROW.as_secs()).ok()?)
    }

    fn row(&self, headers: &HeaderMap) -> Row {
        let name = self.cookies.count();
        let row: Option<Row> = self.cookies.value(headers, &name).and_then(|value| self.open_small(&name, value));
        row.filter(|row| self.state.clock.now().since(row.begun_at) < ROW).unwrap_or_default()
    }

    fn seal_small<T: Serialize>(&self, name: &str, value: &T) -> Option<String> {
        let text = serde_json::to_vec(value).ok()?;
        Some(URL_SAFE_NO_PAD.encode(self.state.sealer.seal(&format!("{name}|1"), text).ok()?))
    }

    fn open_small<T: for<'de> Deserialize<'de>>(&self, name: &str, value: &str) -> Option<T> {
        let sealed = URL_SAFE_NO_PAD.decode(value).ok()?;
        serde_json::from_slice(&self.state.sealer.open(&format!("{name}|1"), &sealed).ok()?).ok()
    }
}
