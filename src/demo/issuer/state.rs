//! What the development issuer knows: its users, its clients, its one key, and what it has issued.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::AuthorizationRequest;
use super::token::SigningKey;
use crate::clock::{Clock, Timestamp};
use crate::secret::Secret;

/// A person who can sign in, by a click.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct User {
    /// Login name and `sub`.
    pub name: &'static str,
    /// Name for people.
    pub display_name: &'static str,
    /// Groups.
    pub groups: &'static [&'static str],
}

/// The people of the demo. `policies/` speaks of their groups.
pub const USERS: &[User] = &[
    User { name: "alice", display_name: "Alice, billing administrator", groups: &["billing-admins", "staff"] },
    User { name: "bob", display_name: "Bob, engineer", groups: &["engineers", "staff"] },
    User { name: "carol", display_name: "Carol, auditor", groups: &["auditors", "staff"] },
];

/// The program of the demo: it signs in by client credentials.
pub(super) const JOB: &str = "nightly-report";

const CODE_LIFETIME: Duration = Duration::from_secs(60);
const MOST_ISSUED: usize = 10_000;

/// Why the issuer could not start.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// It would be reachable from elsewhere.
    #[error("the development issuer binds loopback only, not {0}")]
    NotLoopback(SocketAddr),
    /// No key could be made.
    #[error("no signing key could be made")]
    Key(#[source] aws_lc_rs::error::Unspecified),
}

/// A code or refresh token that was issued and not yet used.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) user: String,
    pub(super) request: AuthorizationRequest,
    pub(super) authenticated_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// The development issuer.
#[derive(Debug)]
pub struct DevelopmentIssuer {
    url: String,
    pub(super) audience: String,
    pub(super) clock: Clock,
    pub(super) key: SigningKey,
    client_id: String,
    client_secret: Secret,
    redirect_uri: Mutex<Option<String>>,
    job_secret: Secret,
    codes: Mutex<HashMap<String, Issued>>,
    refresh_tokens: Mutex<HashMap<String, Issued>>,
}

impl DevelopmentIssuer {
    pub(super) fn new(url: String, audience: String, clock: Clock) -> Result<Self, IssuerError> {
        let secret = || random().map(Secret::new).map_err(IssuerError::Key);
        Ok(Self {
            url,
            audience,
            clock,
            key: SigningKey::generate().map_err(IssuerError::Key)?,
            client_id: "doorward".to_owned(),
            client_secret: secret()?,
            redirect_uri: Mutex::default(),
            job_secret: secret()?,
            codes: Mutex::default(),
            refresh_tokens: Mutex::default(),
        })
    }

    /// The issuer's URL: its `iss`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Client id and secret of the one browser client.
    #[must_use]
    pub fn client(&self) -> (&str, &Secret) {
        (&self.client_id, &self.client_secret)
    }

    /// Client id and secret of the one program.
    #[must_use]
    pub fn job(&self) -> (&'static str, &Secret) {
        (JOB, &self.job_secret)
    }

    /// Registers where the browser client takes codes.
    pub fn register_redirect_uri(&self, redirect_uri: &str) {
        *self.redirect_uri.lock().unwrap_or_else(PoisonError::into_inner) = Some(redirect_uri.to_owned());
    }

    pub(super) fn check(&self, request: &AuthorizationRequest) -> Result<(), (StatusCode, &'static str)> {
        let registered = self.redirect_uri.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = |text| Err((StatusCode::BAD_REQUEST, text));
        if request.client_id != self.client_id {
            return fault("unknown client_id");
        }
        if registered.as_deref() != Some(request.redirect_uri.as_str()) {
            return fault("redirect_uri is not registered");
        }
        if request.response_type != "code" {
            return fault("response_type must be `code`");
        }
        if request.code_challenge.is_none() || request.code_challenge_method.as_deref() != Some("S256") {
            return fault("PKCE with S256 is required");
        }
        Ok(())
    }

    pub(super) fn is_own_page_of_the_client(&self, page: &str) -> bool {
        let registered = self.redirect_uri.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = |text: &str| url::Url::parse(text).ok().map(|url| url.origin());
        let registered = registered.as_deref().and_then(origin);
        registered.is_some() && registered == origin(page)
    }

    /// Where the browser goes with a new code for `user`; `None` when there is no such user.
    pub(super) fn authorize(&self, request: &AuthorizationRequest, user: &str) -> Option<String> {
        let user = USERS.iter().find(|known| known.name == user)?;
        let now = self.clock.now();
        let issued = Issued {
            user: user.name.to_owned(),
            request: request.clone(),
            authenticated_at: now,
            expires_at: now.plus(CODE_LIFETIME),
        };
        let code = remember(&self.codes, issued, now)?;
        Some(self.back(request, "code", &code))
    }

    /// Where the browser goes with an error.
    pub(super) fn refusal(&self, request: &AuthorizationRequest, error: &str) -> String {
        self.back(request, "error", error)
    }

    fn back(&self, request: &AuthorizationRequest, name: &str, value: &str) -> String {
        let Ok(mut target) = url::Url::parse(&request.redirect_uri) else { return self.url.clone() };
        target.query_pairs_mut().append_pair(name, value).append_pair("iss", &self.url);
        if let Some(state) = &request.state {
            target.query_pairs_mut().append_pair("state", state);
        }
        target.into()
    }

    pub(super) fn take_code(&self, code: &str) -> Option<Issued> {
        self.take(&self.codes, code)
    }

    pub(super) fn take_refresh_token(&self, token: &str) -> Option<Issued> {
        self.take(&self.refresh_tokens, token)
    }

    pub(super) fn new_refresh_token(&self, issued: Issued) -> Option<String> {
        remember(&self.refresh_tokens, issued, self.clock.now())
    }

    fn take(&self, from: &Mutex<HashMap<String, Issued>>, key: &str) -> Option<Issued> {
        let issued = from.lock().unwrap_or_else(PoisonError::into_inner).remove(key)?;
        (issued.expires_at > self.clock.now()).then_some(issued)
    }
}

fn remember(map: &Mutex<HashMap<String, Issued>>, issued: Issued, now: Timestamp) -> Option<String> {
    let key = random().ok()?;
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.retain(|_, known| known.expires_at > now);
    if map.len() >= MOST_ISSUED {
        return None;
    }
    map.insert(key.clone(), issued);
    Some(key)
}

fn random() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
