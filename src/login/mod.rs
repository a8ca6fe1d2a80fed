//! What only browsers need: the code flow, the session that it begins, its cookie, and its end.
//!
//! [`LoginState`] lives as long as the process: sealing keys, sessions, provider metadata. A [`Login`] is made for
//! each configuration snapshot over the same state. [`SessionVerifier`] recognises callers by the session cookie.

mod ages;
mod attempt;
mod cookies;
mod disk;
mod flight;
mod flow;
mod id_token;
mod logout;
mod navigation;
mod origin;
pub mod pages;
#[cfg(any(test, fuzzing))]
pub(crate) mod probe;
mod provider;
mod query;
mod refresh;
mod return_to;
mod seal;
mod session;
mod state;
mod store;

pub use cookies::is_own_cookie;
pub use navigation::LoginReason;
pub use refresh::LONGEST_REFRESH;
pub use seal::SealError;
pub use session::{SessionVerifier, ShownSession, meets};
pub use state::{LoginState, LoginStateSettings};

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, Response, header};
use openidconnect::IssuerUrl;
use serde_json::{Map, Value};

use crate::body::Body;
use crate::clock::Timestamp;
use crate::identity::jwt::Algorithm;
use crate::identity::keys::KeyStore;
use crate::identity::{IdentityError, Principal, VerifiedIdentity};
use crate::outbound::OutboundClient;
use crate::secret::Secret;
use cookies::CookieNames;
use origin::Origin;
use session::SessionCaches;

/// Where issuers send browsers back to: the redirect URI is the external origin and this path.
pub const CALLBACK_PATH: &str = "/.doorward/callback";

const LOGIN: &str = "/.doorward/login";
const CALLBACK: &str = CALLBACK_PATH;
const LOGOUT: &str = "/.doorward/logout";
const SIGNED_OUT: &str = "/.doorward/signed-out";

/// Parameter of the login page: an issuer to choose from, once for each that the route accepts.
const AMONG: &str = "among";

/// Turns verified ID token claims into an identity: subject, groups, attributes, as the issuer's entry says.
pub type ClaimsToIdentity = Arc<dyn Fn(&Map<String, Value>) -> Result<VerifiedIdentity, IdentityError> + Send + Sync>;

/// Where session events go. Called on the request path: it must not block. [`EventRefused`] where what has no record
/// must not happen: then there is no login.
pub type SessionEvents = Arc<dyn Fn(SessionEvent) -> Result<(), EventRefused> + Send + Sync>;

/// An event that found no place on record, although it must have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event cannot be recorded")]
pub struct EventRefused;

/// What browsers see, and the issuers that they may log in at.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// Origin that browsers see, such as `https://api.example.com`; `http` on loopback hosts only.
    pub external_origin: String,
    /// Issuers that browsers use.
    pub issuers: Vec<LoginIssuerSettings>,
}

/// One issuer that browsers use.
#[derive(Clone)]
pub struct LoginIssuerSettings {
    /// Configured name.
    pub name: Arc<str>,
    /// Exact `iss`; discovery is below it.
    pub issuer_url: String,
    /// Our name at the issuer.
    pub client_id: String,
    /// Our secret there; `None` is a public client.
    pub client_secret: Option<Secret>,
    /// Scopes to ask for; `openid` is added.
    pub scopes: Vec<String>,
    /// Further parameters of the authorization request, such as `access_type=offline`.
    pub parameters: Vec<(String, String)>,
    /// Names of the signature algorithms of ID tokens, asymmetric ones only.
    pub algorithms: Vec<String>,
    /// The issuer's keys.
    pub keys: Arc<KeyStore>,
    /// Clock difference that is forgiven.
    pub leeway: Duration,
    /// A session without a request for this long is over.
    pub idle: Duration,
    /// A session is over after this long, whatever happens.
    pub longest: Duration,
    /// What the claims mean.
    pub project: ClaimsToIdentity,
    /// Client for the issuer's endpoints.
    pub outbound: OutboundClient,
}

impl fmt::Debug for LoginIssuerSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("LoginIssuerSettings");
        text.field("name", &self.name).field("issuer_url", &self.issuer_url).field("client_id", &self.client_id);
        text.finish_non_exhaustive()
    }
}

/// Why login cannot be set up. For operators.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The external origin will not do.
    #[error("external origin `{origin}` cannot be used: {why}")]
    Origin {
        /// As configured.
        origin: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An issuer's entry will not do.
    #[error("issuer `{issuer}` cannot be used for login: {why}")]
    Issuer {
        /// Configured name.
        issuer: Arc<str>,
        /// What is wrong with it.
        why: String,
    },
    /// The sealing keys.
    #[error("the sealing keys are out of reach")]
    Seal(#[from] SealError),
    /// The state directory.
    #[error("the state directory `{}` cannot be used", .path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEventKind {
    /// Somebody logged in.
    Started,
    /// The issuer confirmed a session and gave newer claims.
    Refreshed,
    /// A session ended before its time.
    Ended,
    /// A login came back and was refused.
    Refused,
}

impl SessionEventKind {
    /// Name in audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "session.started",
            Self::Refreshed => "session.refreshed",
            Self::Ended => "session.ended",
            Self::Refused => "session.refused",
        }
    }
}

/// A session event; it holds no secret.
#[derive(Clone, Debug)]
pub struct SessionEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: SessionEventKind,
    /// Configured name of the issuer; empty when it is not known.
    pub issuer: Arc<str>,
    /// About whom, where that is known.
    pub principal: Option<Arc<Principal>>,
    /// Tells sessions apart in records; worth nothing in a cookie.
    pub session: Option<String>,
    /// Stable code: why it ended or was refused, `ok` otherwise.
    pub reason: &'static str,
    /// The request during which it happened.
    pub request_id: Option<Arc<str>>,
}

/// An issuer with what its settings mean.
pub(crate) struct LoginIssuer {
    settings: LoginIssuerSettings,
    url: IssuerUrl,
    algorithms: Vec<Algorithm>,
}

/// Browser login under one configuration snapshot.
pub struct Login {
    state: Arc<LoginState>,
    origin: Origin,
    cookies: CookieNames,
    issuers: BTreeMap<Arc<str>, Arc<LoginIssuer>>,
    caches: SessionCaches,
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("Login");
        text.field("origin", &self.origin.as_str()).field("issuers", &self.issuers.keys()).finish_non_exhaustive()
    }
}

impl Login {
    /// Login as `settings` say, over state that outlives them.
    ///
    /// # Errors
    /// [`LoginError`] for settings that cannot be used.
    pub fn new(settings: LoginSettings, state: Arc<LoginState>) -> Result<Self, LoginError> {
        let origin = Origin::parse(&settings.external_origin)?;
        let mut issuers = BTreeMap::new();
        for issuer in settings.issuers {
            let issuer = LoginIssuer::new(issuer)?;
            state.lasts(issuer.settings.longest);
            issuers.insert(issuer.settings.name.clone(), Arc::new(issuer));
        }
        let cookies = CookieNames::of(&origin);
        Ok(Self { state, origin, cookies, issuers, caches: SessionCaches::default() })
    }

    /// Whether a path is login's; everything else under `/.doorward/` is not.
    #[must_use]
    pub fn owns(path: &str) -> bool {
        matches!(path, LOGIN | CALLBACK | LOGOUT | SIGNED_OUT)
    }

    /// Answers a request for a path that login owns. No path here reads a body.
    pub async fn handle(&self, head: &Parts, request_id: &Arc<str>) -> Response<Body> {
        let (get, post) = (matches!(head.method, Method::GET | Method::HEAD), head.method == Method::POST);
        match head.uri.path() {
            LOGIN if get => self.begin(head, request_id).await,
            CALLBACK if get => self.complete(head, request_id).await,
            LOGOUT if get => self.ask_logout(head).await,
            LOGOUT if post => self.logout(head, request_id).await,
            SIGNED_OUT if get => self.signed_out(),
            LOGIN | CALLBACK | SIGNED_OUT => pages::method_not_allowed("GET, HEAD", request_id),
            LOGOUT => pages::method_not_allowed("GET, HEAD, POST", request_id),
            _ => pages::error_response(http::StatusCode::NOT_FOUND, "not_found", "There is nothing here.", request_id),
        }
    }

    fn callback_url(&self) -> String {
        format!("{}{CALLBACK}", self.origin.as_str())
    }
}

impl LoginIssuer {
    fn new(settings: LoginIssuerSettings) -> Result<Self, LoginError> {
        let refuse = |why: String| LoginError::Issuer { issuer: settings.name.clone(), why };
        let url = IssuerUrl::new(settings.issuer_url.clone()).map_err(|_| refuse("its URL is malformed".to_owned()))?;
        if url.url().scheme() != "https" && !(url.url().scheme() == "http" && origin::is_loopback(url.url())) {
            return Err(refuse("its URL is not https".to_owned()));
        }
        let algorithms: Result<Vec<_>, _> =
            settings.algorithms.iter().map(|name| name.parse().map_err(|_| refuse(unusable(name)))).collect();
        let algorithms = algorithms?;
        if algorithms.is_empty() {
            return Err(refuse("it names no signature algorithm".to_owned()));
        }
        Ok(Self { url, algorithms, settings })
    }

    fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    /// Whether verified claims are of this very issuer and for this client: a name in the configuration can come to
    /// stand for another tenant, whose users are other people.
    fn gave(&self, claims: &Map<String, Value>) -> bool {
        let client_id = self.settings.client_id.as_str();
        let is_for_us = match claims.get("aud") {
            Some(Value::String(audience)) => audience == client_id,
            Some(Value::Array(audiences)) => audiences.iter().any(|audience| audience == client_id),
            _ => false,
        };
        is_for_us && claims.get("iss").and_then(Value::as_str) == Some(self.settings.issuer_url.as_str())
    }
}

fn unusable(name: &str) -> String {
    format!("signature algorithm `{name}` cannot be verified here")
}

/// A redirect that no cache keeps.
fn redirect(to: &str, cookies: Vec<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(crate::body::empty());
    *response.status_mut() = http::StatusCode::SEE_OTHER;
    let Ok(to) = HeaderValue::from_str(to) else {
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    };
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, to);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
