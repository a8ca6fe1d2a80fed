//! Users that an engine makes for a while: `MOUNT/creds/ROLE`, with a lease
//! (<https://openbao.org/api-docs/system/leases/>).
//!
//! A lease is renewed for as long as that extends it, replaced when it does not, and revoked when nothing holds it any
//! more: not the cache, not a request. It never outlives the token that it was issued by.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::cache::Key;
use super::super::leases::{GiveBack, Lease, Leases};
use super::super::source::{Issued, SourceError};
use super::super::{Proof, Template};
use super::login::LoginToken;
use super::server::{Answer, Refusal, VaultServer};
use super::{fits_header, public_text, unfit};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// No lease is believed to live longer.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Dead entries of the book are looked for at every so many.
const SWEPT_AT: usize = 64;

/// A user that an engine makes, and where its name and password go.
#[derive(Clone, Debug)]
pub struct DatabaseSecret {
    /// Where the engine is mounted.
    pub mount: Arc<str>,
    /// Its role.
    pub role: Template,
    /// What carries name and password.
    pub headers: UserHeaders,
}

/// What carries a name and a password.
#[derive(Clone, Debug)]
pub enum UserHeaders {
    /// `Authorization: Basic` (RFC 7617).
    Basic,
    /// A header for each, bare.
    Named {
        /// For the name.
        username: HeaderName,
        /// For the password.
        password: HeaderName,
    },
}

/// Leases of vaults. Clones share it; it lives beside the snapshot, so that a reload goes on renewing.
#[derive(Clone, Debug)]
pub struct VaultLeases {
    leases: Leases,
    book: Arc<Mutex<HashMap<Key, Weak<User>>>>,
}

#[derive(Deserialize)]
struct Pair {
    username: Secret,
    password: Secret,
}

/// A user under a lease. Every header value that names it holds it.
#[derive(Debug)]
struct User {
    id: Arc<str>,
    pair: Pair,
    renewable: bool,
    /// What the engine gives at a time.
    life: Duration,
    token: LoginToken,
    ends_at: Mutex<Timestamp>,
    /// The upstream does not take it any more.
    stale: AtomicBool,
    lease: Lease,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Pair")
    }
}

/// The bytes of a header value, wiped when its last copy is dropped; until then the user is kept.
struct Held {
    text: Zeroizing<String>,
    _user: Arc<User>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl VaultLeases {
    /// Leases that are given back by way of `leases`.
    #[must_use]
    pub fn new(leases: Leases) -> Self {
        Self { leases, book: Arc::default() }
    }

    /// The upstream finds that what has this identifier does not hold any more: it is replaced, not renewed.
    pub(super) fn mark_stale(&self, id: &str) {
        for user in self.book().values().filter_map(Weak::upgrade).filter(|user| *user.id == *id) {
            user.stale.store(true, Ordering::Relaxed);
        }
    }

    fn current(&self, key: &Key) -> Option<Arc<User>> {
        self.book().get(key)?.upgrade()
    }

    fn enter(&self, key: Key, user: &Arc<User>) {
        let mut book = self.book();
        if book.len() % SWEPT_AT == SWEPT_AT - 1 {
            book.retain(|_, user| user.strong_count() > 0);
        }
        book.insert(key, Arc::downgrade(user));
    }

    fn book(&self) -> MutexGuard<'_, HashMap<Key, Weak<User>>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DatabaseSecret {
    /// Where the API has users of `role`.
    pub(super) fn api_path(&self, role: &str) -> Arc<str> {
        format!("{}/creds/{role}", self.mount).into()
    }

    pub(super) fn header_names(&self) -> Vec<HeaderName> {
        match &self.headers {
            UserHeaders::Basic => vec![AUTHORIZATION],
            UserHeaders::Named { username, password } => vec![username.clone(), password.clone()],
        }
    }

    /// The user that `key` has, for longer. `None` where there is none, or where it cannot be had for much longer.
    pub(super) async fn renewed(
        &self,
        server: &VaultServer,
        leases: &VaultLeases,
        path: &str,
        key: &Key,
    ) -> Result<Option<Issued>, SourceError> {
        let asked_at = server.clock.now();
        let Some(user) = leases.current(key) else { return Ok(None) };
        // Less would have it renewed again at once.
        let enough = asked_at.plus(user.life / 2);
        let is_over = user.ends_at() <= asked_at || user.stale.load(Ordering::Relaxed);
        if is_over || !user.renewable || user.token.ends_at < enough {
            return Ok(None);
        }
        let body = json!({ "lease_id": &*user.id });
        let answered = server.write::<IgnoredAny>("sys/leases/renew", Some(&user.token.header), &body).await;
        let answer = match answered.map_err(SourceError::from) {
            Ok(answer) => answer,
            Err(error) if error.may_pass() => return Err(error),
            Err(error) => {
                tracing::debug!(lease = %user.id, %error, "a lease cannot be renewed, and is replaced");
                return Ok(None);
            }
        };
        let life = Duration::from_secs(answer.lease_duration).min(LONGEST_LIFE);
        let ends_at = asked_at.plus(life).min(user.token.ends_at);
        if ends_at < enough {
            return Ok(None);
        }
        user.extend(ends_at);
        Ok(Some(self.issued(&user, asked_at, path, true)?))
    }

    /// A new user, in the place of the one that `key` has.
    pub(super) async fn made(
        &self,
        server: &Arc<VaultServer>,
        leases: &VaultLeases,
        (name, path, key): (&Arc<str>, &str, Key),
        token: &LoginToken,
    ) -> Result<Issued, Refusal> {
        let asked_at = server.clock.now();
        let answer: Answer<Pair> = server.read(path, &token.header).await?;
        let id: Arc<str> = public_text(answer.lease_id).ok_or_else(|| unfit(path, "gives no lease"))?.into();
        let life = Duration::from_secs(answer.lease_duration).min(LONGEST_LIFE);
        let ends_at = asked_at.plus(life).min(token.ends_at);
        // From here on it is revoked if anything goes wrong.
        let give_back = revocation(server.clone(), token.clone(), id.clone());
        let lease = leases.leases.hold(name.clone(), id.clone(), ends_at, give_back);
        let pair = answer.data.ok_or_else(|| unfit(path, "gives no `username` and `password`"))?;
        let (ends_at, stale) = (Mutex::new(ends_at), AtomicBool::new(false));
        let (renewable, token) = (answer.renewable, token.clone());
        let user = Arc::new(User { id, pair, renewable, life, token, ends_at, stale, lease });
        let issued = self.issued(&user, asked_at, path, false)?;
        leases.enter(key, &user);
        Ok(issued)
    }

    fn issued(&self, user: &Arc<User>, now: Timestamp, path: &str, renewed: bool) -> Result<Issued, Refusal> {
        let (username, password) = (user.pair.username.expose(), user.pair.password.expose());
        let unsound = |what: &str| unfit(path, what);
        let held = |text: Zeroizing<String>| {
            let bytes = Bytes::from_owner(Held { text, _user: user.clone() });
            let mut value = HeaderValue::from_maybe_shared(bytes).map_err(|_| unsound("gives what fits no header"))?;
            value.set_sensitive(true);
            Ok::<_, Refusal>(value)
        };
        let headers: Arc<[_]> = match &self.headers {
            UserHeaders::Basic => {
                // RFC 7617 section 2: the first colon ends the name.
                if username.is_empty() || username.contains(':') {
                    return Err(unsound("gives a name that fits no `Authorization`"));
                }
                let pair = Zeroizing::new(format!("{username}:{password}"));
                let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
                Arc::from([(AUTHORIZATION, held(Zeroizing::new(format!("Basic {}", &*pair)))?)])
            }
            UserHeaders::Named { username: name, password: secret } => {
                if !fits_header(username) || !fits_header(password) {
                    return Err(unsound("gives a name or a password that fits no header"));
                }
                let text = |text: &str| held(Zeroizing::new(text.to_owned()));
                Arc::from([(name.clone(), text(username)?), (secret.clone(), text(password)?)])
            }
        };
        let expires_at = user.ends_at();
        let mut facts = vec![("path", Value::from(path)), ("renewed", renewed.into())];
        if let Some(username) = public_text(username.to_owned()) {
            facts.push(("username", username.into()));
        }
        Ok(Issued {
            id: user.id.clone(),
            proof: Proof::Headers(headers),
            expires_at,
            renew_at: Some(now.plus(expires_at.since(now) * 2 / 3)),
            facts,
        })
    }
}

impl User {
    fn ends_at(&self) -> Timestamp {
        *self.ends_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, ends_at: Timestamp) {
        *self.ends_at.lock().unwrap_or_else(PoisonError::into_inner) = ends_at;
        self.lease.extend(ends_at);
    }
}

/// Revokes a lease by the token that it was issued by: that one ends no sooner.
fn revocation(server: Arc<VaultServer>, token: LoginToken, id: Arc<str>) -> GiveBack {
    Arc::new(move || {
        let (server, token, body) = (server.clone(), token.clone(), json!({ "lease_id": &*id }));
        async move { Ok(server.order("sys/leases/revoke", &token.header, &body).await?) }.boxed()
    })
}
