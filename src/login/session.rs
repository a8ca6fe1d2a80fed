//! The session cookie as evidence: opened, checked against the server's record, refreshed, projected.
//!
//! The cookie carries the claims, so that a request reads no disk; the server's record decides whether the session
//! lives, and which generation of claims is the newest. A tab that still sends an older generation is served from
//! the newest one and gets its cookie.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use super::cookies::{CookieFault, CookieNames, Joined, MOST_CHUNKS, chunks_of};
use super::provider::PATIENCE;
use super::seal::{self, Sealer};
use super::store::{Entry, Facts, SessionKey};
use super::{Login, LoginIssuer, origin};
use crate::clock::Timestamp;
use crate::identity::{IdentityError, IdentityVerifier, Presented, Principal};
use crate::route::{EvidenceKind, LoginRequirement};

/// A session's cookie is written anew at most this often, and more often where idle sessions end sooner.
const SLIDE: Duration = Duration::from_secs(5 * 60);

/// Claims may be this much older than the issuer said, while it cannot be asked.
pub(super) const STALE: Duration = Duration::from_secs(5 * 60);

/// Longest wait for a refresh while the claims hold: they are served, and the refresh goes on.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Cookies and principals remembered, each.
const REMEMBERED: usize = 10_000;

/// What the cookie holds, sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SessionCookie {
    /// The identifier, whose hash names the session on the server.
    pub(super) id: String,
    pub(super) issuer: Arc<str>,
    pub(super) generation: u64,
    pub(super) sealed_at: Timestamp,
    pub(super) idle_ends_at: Timestamp,
    /// Left out when they do not fit; the server has them.
    pub(super) facts: Option<Arc<Facts>>,
}

/// A cookie that opened.
struct Opened {
    key: SessionKey,
    cookie: SessionCookie,
}

/// What a snapshot remembers about sessions; nothing in it outlives the snapshot or decides alone.
pub(super) struct SessionCaches {
    opened: Cache<[u8; 32], Arc<Opened>>,
    principals: Cache<(SessionKey, u64), Arc<Principal>>,
}

impl Default for SessionCaches {
    fn default() -> Self {
        Self { opened: Cache::new(REMEMBERED), principals: Cache::new(REMEMBERED) }
    }
}

/// A session that may be used at this moment.
struct Live {
    opened: Arc<Opened>,
    entry: Entry,
    issuer: Arc<LoginIssuer>,
}

/// Recognises callers by the session cookie.
#[derive(Clone)]
pub struct SessionVerifier(Arc<Login>);

impl fmt::Debug for SessionVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl SessionVerifier {
    /// A verifier over `login`.
    #[must_use]
    pub fn new(login: Arc<Login>) -> Self {
        Self(login)
    }

    /// The cookies of a request that this verifier recognised, kept until its answer goes out.
    #[must_use]
    pub fn shown(&self, headers: &HeaderMap) -> ShownSession {
        let lines = headers.get_all(header::COOKIE).iter();
        ShownSession(lines.map(|line| (header::COOKIE, line.clone())).collect())
    }

    /// Whether the session that a request showed has not ended, as far as this process knows. Its claims and its idle
    /// time are not asked about: a request that is being answered is use.
    #[must_use]
    pub fn stands(&self, shown: &ShownSession, now: Timestamp) -> bool {
        self.0.has_not_ended(&shown.0, now)
    }

    /// `Set-Cookie` values for an answer that goes out at `now`: none, or the session written anew because it was
    /// refreshed or five minutes have passed. None either where it was replaced or has ended since the request: the
    /// browser may hold a newer session by now.
    #[must_use]
    pub fn set_cookies(&self, shown: &ShownSession, now: Timestamp) -> Vec<HeaderValue> {
        self.0.renewed(&shown.0, now)
    }
}

/// What [`SessionVerifier::shown`] keeps of a request.
#[derive(Clone, Debug)]
pub struct ShownSession(HeaderMap);

impl IdentityVerifier for SessionVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Session
    }

    fn presents(&self, presented: &Presented<'_>) -> Result<bool, IdentityError> {
        match self.0.cookies.session_value(presented.headers) {
            Ok(value) => Ok(value.is_some()),
            Err(CookieFault::Twice) => Err(IdentityError::TwoKinds),
            Err(CookieFault::Malformed) => Ok(true),
        }
    }

    fn verify<'a>(&'a self, presented: Presented<'a>) -> BoxFuture<'a, Result<Arc<Principal>, IdentityError>> {
        Box::pin(self.0.recognise(presented))
    }

    fn recognise_again(&self, principal: &Arc<Principal>, _now: Timestamp) -> Option<Arc<Principal>> {
        let issuer = self.0.issuers.get(&principal.issuer)?;
        if !issuer.gave(&principal.claims) {
            return None;
        }
        let mut identity = (issuer.settings.project)(&principal.claims).ok()?;
        identity.issuer = issuer.name().clone();
        identity.evidence = EvidenceKind::Session;
        (identity.began_at, identity.expires_at) = (principal.began_at, principal.expires_at);
        identity.fingerprint = principal.fingerprint;
        let again = Principal::verified(identity).with_evidence_id(*principal.evidence_id());
        (again.id() == principal.id()).then(|| Arc::new(again))
    }
}

/// Whether a principal's authentication is as strong and as recent as `requirement` asks (RFC 9470), `leeway` being how
/// far its issuer's clock may be off. What the issuer does not say is not met.
///
/// A login is judged by this too before it begins a session: by two rules, one could send a browser in circles.
#[must_use]
pub fn meets(requirement: &LoginRequirement, principal: &Principal, leeway: Duration, now: Timestamp) -> bool {
    let values = &requirement.acr_values;
    is_strong(values, principal.acr.as_deref())
        && is_recent(requirement.max_age, principal.authenticated_at, leeway, now)
}

pub(super) fn is_strong(values: &[String], acr: Option<&str>) -> bool {
    values.is_empty() || acr.is_some_and(|acr| values.iter().any(|value| value == acr))
}

pub(super) fn is_recent(
    longest: Option<Duration>,
    authenticated_at: Option<Timestamp>,
    leeway: Duration,
    now: Timestamp,
) -> bool {
    longest.is_none_or(|longest| authenticated_at.is_some_and(|at| now.since(at) <= longest.saturating_add(leeway)))
}

/// A cookie's text, where it was sealed for a session and came in as many chunks as it was sent in.
pub(super) fn opened_with(sealer: &Sealer, names: &CookieNames, joined: &Joined) -> Option<SessionCookie> {
    let sealed = URL_SAFE_NO_PAD.decode(&joined.text).ok()?;
    let text = sealer.open(&purpose(names), &sealed).ok()?;
    let (chunks, text) = text.split_first()?;
    if usize::from(*chunks) != joined.chunks {
        return None;
    }
    serde_json::from_slice(text).ok()
}

/// The text of a cookie; claims that do not fit stay on the server.
pub(super) fn sealed_with(sealer: &Sealer, names: &CookieNames, cookie: &SessionCookie) -> Option<String> {
    let text = serde_json::to_vec(cookie).ok()?;
    let sealed_bytes = text.len() + 1 + seal::OVERHEAD;
    let chunks = chunks_of((sealed_bytes * 4).div_ceil(3));
    if chunks > MOST_CHUNKS {
        let without = SessionCookie { facts: None, ..cookie.clone() };
        return cookie.facts.is_some().then(|| sealed_with(sealer, names, &without)).flatten();
    }
    let mut plain = vec![u8::try_from(chunks).ok()?];
    plain.extend_from_slice(&text);
    Some(URL_SAFE_NO_PAD.encode(sealer.seal(&purpose(names), plain).ok()?))
}

fn purpose(names: &CookieNames) -> String {
    format!("{}|1", names.session())
}

impl Login {
    async fn recognise(&self, presented: Presented<'_>) -> Result<Arc<Principal>, IdentityError> {
        origin::check(&self.origin, presented.method, presented.headers, presented.route)?;
        let mut live = self.live(presented.headers, presented.now)?;
        if live.entry.needs_refresh(presented.now) {
            // Its tokens are for nobody but who gave them.
            check_giver(&live.issuer, &*self.facts_of(&live).await?)?;
            let patience = if presented.now < live.entry.claims_until { A_MOMENT } else { PATIENCE };
            self.refresh(live.opened.key, &live.issuer, patience).await;
            live = self.live(presented.headers, presented.now)?;
        }
        let entry = &live.entry;
        if presented.now >= entry.usable_until() {
            return Err(if entry.refreshable {
                let detail = "the session could not be refreshed".to_owned();
                IdentityError::Unavailable { issuer: entry.issuer.clone(), detail }
            } else {
                IdentityError::invalid("session_expired", "its claims have expired and cannot be refreshed")
            });
        }
        // Whether this is enough for the route is asked when the principal is on record.
        self.principal_of(&live).await
    }

    fn has_not_ended(&self, headers: &HeaderMap, now: Timestamp) -> bool {
        let joined = self.cookies.session_value(headers).ok().flatten();
        let opened = joined.and_then(|joined| self.open_cookie(&joined));
        let entry = opened.and_then(|opened| self.state.store.entry(opened.key));
        entry.is_some_and(|entry| entry.is_live(now))
    }

    /// How far the clock of the issuer of this configured name may be off; nothing where it offers no login.
    #[must_use]
    pub fn leeway(&self, issuer: &str) -> Duration {
        self.issuers.get(issuer).map_or(Duration::ZERO, |issuer| issuer.settings.leeway)
    }

    /// The session of these headers, when it may be used. Asks the server's record every time.
    fn live(&self, headers: &HeaderMap, now: Timestamp) -> Result<Live, IdentityError> {
        let broken = || IdentityError::invalid("session_invalid", "the session cookie does not open");
        let joined = self.cookies.session_value(headers).map_err(|_| broken())?.ok_or(IdentityError::Missing)?;
        let opened = self.open_cookie(&joined).ok_or_else(broken)?;
        let issuer = self.issuers.get(&opened.cookie.issuer).ok_or_else(|| {
            IdentityError::invalid("session_invalid", "its issuer is not configured for login any more")
        })?;
        let entry = self.state.store.entry(opened.key).filter(|entry| !entry.ended);
        let entry = entry.ok_or_else(|| IdentityError::invalid("session_ended", "the session has ended"))?;
        // What the configuration of the day allows counts, where it is less than at login.
        let settings = &issuer.settings;
        let idle_ends_at = opened.cookie.idle_ends_at.min(opened.cookie.sealed_at.plus(settings.idle));
        let ends_at = entry.ends_at.min(entry.started_at.plus(settings.longest));
        if now >= idle_ends_at || now >= ends_at {
            return Err(IdentityError::invalid("session_expired", "the session is past its idle or longest time"));
        }
        if entry.issuer != opened.cookie.issuer || opened.cookie.generation > entry.generation {
            return Err(IdentityError::invalid("session_invalid", "the cookie and the server's record disagree"));
        }
        Ok(Live { entry, issuer: issuer.clone(), opened })
    }

    fn open_cookie(&self, joined: &Joined) -> Option<Arc<Opened>> {
        let digest = SessionKey::of(joined.text.as_bytes()).0;
        if let Some(opened) = self.caches.opened.get(&digest) {
            return Some(opened);
        }
        let cookie = opened_with(&self.state.sealer, &self.cookies, joined)?;
        let opened = Arc::new(Opened { key: SessionKey::of(cookie.id.as_bytes()), cookie });
        self.caches.opened.insert(digest, opened.clone());
        Some(opened)
    }

    /// Seals a cookie.
    pub(super) fn seal_cookie(&self, cookie: &SessionCookie) -> Option<String> {
        sealed_with(&self.state.sealer, &self.cookies, cookie)
    }

    /// The newest claims of a session: from its cookie, from memory, or from its file.
    async fn facts_of(&self, live: &Live) -> Result<Arc<Facts>, IdentityError> {
        let (key, generation) = (live.opened.key, live.entry.generation);
        if live.opened.cookie.generation == generation
            && let Some(facts) = &live.opened.cookie.facts
        {
            return Ok(facts.clone());
        }
        if let Some(facts) = self.state.store.facts_at_hand(key, generation) {
            return Ok(facts);
        }
        let lost = |detail: String| IdentityError::Unavailable { issuer: live.entry.issuer.clone(), detail };
        let record = self.state.store.load(key).await.map_err(|error| lost(error.to_string()))?;
        if record.ended {
            return Err(IdentityError::invalid("session_ended", "the session has ended"));
        }
        let facts = record.facts.ok_or_else(|| lost("the session's record holds no claims".to_owned()))?;
        let facts = Arc::new(facts);
        self.state.store.remember(key, record.generation, facts.clone());
        Ok(facts)
    }

    async fn principal_of(&self, live: &Live) -> Result<Arc<Principal>, IdentityError> {
        let (key, generation) = (live.opened.key, live.entry.generation);
        if let Some(principal) = self.caches.principals.get(&(key, generation)) {
            return Ok(principal);
        }
        let facts = self.facts_of(live).await?;
        let principal = Arc::new(project(&live.issuer, key, &live.entry, &facts)?);
        self.caches.principals.insert((key, generation), principal.clone());
        Ok(principal)
    }

    fn renewed(&self, headers: &HeaderMap, now: Timestamp) -> Vec<HeaderValue> {
        let Ok(live) = self.live(headers, now) else { return Vec::new() };
        let (cookie, entry) = (&live.opened.cookie, &live.entry);
        if entry.replaced {
            return Vec::new();
        }
        let newer = entry.generation > cookie.generation;
        if !newer && now.since(cookie.sealed_at) < SLIDE.min(live.issuer.settings.idle / 4) {
            return Vec::new();
        }
        let at_hand = || self.state.store.facts_at_hand(live.opened.key, entry.generation);
        let facts = if newer { at_hand() } else { cookie.facts.clone() };
        let id = cookie.id.clone();
        self.session_cookies(id, &live.issuer, entry, facts, headers, now)
    }

    /// `Set-Cookie` values of a session as it stands.
    pub(super) fn session_cookies(
        &self,
        id: String,
        issuer: &LoginIssuer,
        entry: &Entry,
        facts: Option<Arc<Facts>>,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Vec<HeaderValue> {
        let idle_ends_at = now.plus(issuer.settings.idle).min(entry.ends_at);
        let (issuer, generation) = (issuer.name().clone(), entry.generation);
        let cookie = SessionCookie { id, issuer, generation, sealed_at: now, idle_ends_at, facts };
        let seconds = i64::try_from(idle_ends_at.since(now).as_secs()).unwrap_or(0);
        match self.seal_cookie(&cookie) {
            Some(text) => self.cookies.set_session(&text, seconds, headers),
            None => Vec::new(),
        }
    }

    /// The session that a request names, live or not; for its end, and for what comes after it.
    pub(super) fn session_named(&self, headers: &HeaderMap) -> Option<(SessionKey, Arc<str>)> {
        let joined = self.cookies.session_value(headers).ok()??;
        let opened = self.open_cookie(&joined)?;
        Some((opened.key, opened.cookie.issuer.clone()))
    }
}

fn check_giver(issuer: &LoginIssuer, facts: &Facts) -> Result<(), IdentityError> {
    if issuer.gave(&facts.claims) {
        return Ok(());
    }
    let detail = "it began at another issuer, or by another client, than the ones configured now";
    Err(IdentityError::invalid("session_invalid", detail))
}

/// The principal that a session's claims name under the configuration of the day.
pub(super) fn project(
    issuer: &LoginIssuer,
    key: SessionKey,
    entry: &Entry,
    facts: &Facts,
) -> Result<Principal, IdentityError> {
    check_giver(issuer, facts)?;
    let mut identity = (issuer.settings.project)(&facts.claims)?;
    identity.issuer = issuer.name().clone();
    identity.evidence = EvidenceKind::Session;
    identity.began_at = facts.began_at;
    let ends_at = entry.ends_at.min(entry.started_at.plus(issuer.settings.longest));
    identity.expires_at = Some(ends_at.min(entry.usable_until()));
    let mut text = key.0.to_vec();
    text.extend_from_slice(&entry.generation.to_be_bytes());
    identity.fingerprint = SessionKey::of(&text).0;
    Ok(Principal::verified(identity).with_evidence_id(key.0))
}

impl Entry {
    /// A minute before the claims end, or half-way where they are given for less than two.
    fn refresh_at(&self) -> Timestamp {
        let half = self.claims_until.since(self.claims_from) / 2;
        self.claims_until.minus(Duration::from_secs(60)).max(self.claims_from.plus(half)).max(self.retry_at)
    }

    pub(super) fn needs_refresh(&self, now: Timestamp) -> bool {
        !self.ended && self.refreshable && now >= self.refresh_at()
    }

    /// When the claims are of no use any more: with a refresh token a little later than the issuer said, for as
    /// long as the issuer cannot be asked.
    fn usable_until(&self) -> Timestamp {
        if self.refreshable { self.claims_until.plus(STALE) } else { self.claims_until }
    }
}
