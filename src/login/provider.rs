//! The issuer as an OpenID Connect provider: its metadata, and the token endpoint.
//!
//! Metadata is fetched when first needed, and again when it is an hour old. While the issuer is away the last good
//! metadata is used for a day.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod, CoreErrorResponseType,
    CoreGrantType, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode,
    CoreResponseType, CoreSubjectIdentifierType, CoreTokenResponse,
};
use openidconnect::{
    AdditionalProviderMetadata, AuthType, AuthorizationCode, ClientId, ClientSecret, EndpointMaybeSet, EndpointNotSet,
    EndpointSet, ErrorResponse, HttpRequest, HttpResponse, OAuth2TokenResponse, PkceCodeVerifier, ProviderMetadata,
    RedirectUrl, RefreshToken, RequestTokenError,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;
use url::Url;

use super::flight::Flights;
use super::{LoginIssuer, id_token};
use crate::clock::{Clock, Timestamp};
use crate::outbound::{OutboundClient, OutboundError};

const FRESH: Duration = Duration::from_secs(3600);
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// After a failure the next attempt waits this long.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest wait of a request for the issuer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Provider metadata beyond what the library knows.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct FurtherMetadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end_session_endpoint: Option<String>,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for FurtherMetadata {}

/// Metadata of a provider. What keys it names is nothing to us: they are the issuer's key store's.
pub(super) type Metadata = ProviderMetadata<
    FurtherMetadata,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// An OpenID Connect client for a provider whose metadata is known.
pub(super) type ProviderClient =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// What went wrong with a provider.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ProviderError {
    #[error("the issuer cannot be reached: {0}")]
    Unreachable(String),
    #[error("the issuer does not take the code or refresh token any more")]
    InvalidGrant,
    /// What a later attempt may get past.
    #[error("the issuer refuses: {0}")]
    Refused(String),
    /// The token endpoint's last word: only the user can change it, by signing in.
    #[error("the issuer refuses for good: {0}")]
    Denied(String),
    /// The signature may be by a key that is newer than the ones at hand.
    #[error("no key of the issuer signed the ID token")]
    UnknownKey,
    #[error("the ID token does not hold: {detail}")]
    IdToken { code: &'static str, detail: String },
}

/// What the token endpoint gave.
pub(super) struct Tokens {
    /// Verified claims and the ID token itself; a refresh may leave them out.
    pub(super) identity: Option<(Map<String, Value>, String)>,
    pub(super) refresh_token: Option<String>,
    pub(super) expires_in: Option<Duration>,
}

#[derive(Default)]
struct Known {
    metadata: Option<(Arc<Metadata>, Timestamp)>,
    failed: Option<(ProviderError, Timestamp)>,
}

/// Metadata of all providers, by issuer URL.
pub(super) struct Providers {
    clock: Clock,
    known: Arc<Mutex<HashMap<String, Known>>>,
    fetches: Flights<String, Result<Arc<Metadata>, ProviderError>>,
}

impl fmt::Debug for Providers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Providers").finish_non_exhaustive()
    }
}

impl Providers {
    pub(super) fn new(clock: Clock, tasks: TaskTracker) -> Self {
        Self { clock, known: Arc::default(), fetches: Flights::new(tasks) }
    }

    /// The provider's metadata, fetched when it is not fresh.
    pub(super) async fn metadata(&self, issuer: &Arc<LoginIssuer>) -> Result<Arc<Metadata>, ProviderError> {
        match self.at_hand(issuer, FRESH) {
            Some(metadata) => Ok(metadata),
            None => self.fetch(issuer).await,
        }
    }

    /// Metadata that is at hand, without asking the issuer.
    pub(super) fn metadata_at_hand(&self, issuer: &LoginIssuer) -> Option<Arc<Metadata>> {
        self.at_hand(issuer, USABLE)
    }

    /// A provider's client.
    pub(super) fn client(issuer: &LoginIssuer, metadata: &Metadata) -> ProviderClient {
        let secret = issuer.settings.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose().to_owned()));
        let id = ClientId::new(issuer.settings.client_id.clone());
        let client = CoreClient::from_provider_metadata(metadata.clone(), id, secret);
        let methods = metadata.token_endpoint_auth_methods_supported();
        let only_post = methods.is_some_and(|methods| {
            !methods.contains(&CoreClientAuthMethod::ClientSecretBasic)
                && methods.contains(&CoreClientAuthMethod::ClientSecretPost)
        });
        if only_post { client.set_auth_type(AuthType::RequestBody) } else { client }
    }

    /// Exchanges an authorization code and verifies the ID token, which must carry `nonce`.
    pub(super) async fn exchange_code(
        &self,
        issuer: &Arc<LoginIssuer>,
        code: String,
        verifier: String,
        nonce: &str,
        redirect: String,
    ) -> Result<Tokens, ProviderError> {
        let metadata = self.metadata(issuer).await?;
        let redirect = RedirectUrl::new(redirect).map_err(|error| ProviderError::Refused(error.to_string()))?;
        let client = Self::client(issuer, &metadata).set_redirect_uri(redirect);
        let request = client.exchange_code(AuthorizationCode::new(code)).map_err(no_endpoint)?;
        let http = http(&issuer.settings.outbound);
        let answer = request.set_pkce_verifier(PkceCodeVerifier::new(verifier)).request_async(&http).await;
        let tokens = self.tokens(issuer, &answer.map_err(|error| refusal(&error))?, Some(nonce)).await?;
        if tokens.identity.is_none() {
            return Err(ProviderError::IdToken { code: "id_token_missing", detail: "there is none".to_owned() });
        }
        Ok(tokens)
    }

    /// Exchanges a refresh token, and verifies nothing yet: an issuer that rotates refresh tokens has spent the old
    /// one by now, so the caller keeps the new one before it waits for anything else.
    pub(super) async fn exchange_refresh(
        &self,
        issuer: &Arc<LoginIssuer>,
        refresh_token: String,
    ) -> Result<CoreTokenResponse, ProviderError> {
        let metadata = self.metadata(issuer).await?;
        let (client, token) = (Self::client(issuer, &metadata), RefreshToken::new(refresh_token));
        let request = client.exchange_refresh_token(&token).map_err(no_endpoint)?;
        request.request_async(&http(&issuer.settings.outbound)).await.map_err(|error| refusal(&error))
    }

    /// What an answer of the token endpoint gives, its ID token verified if it holds one; at login with `nonce`.
    pub(super) async fn tokens(
        &self,
        issuer: &LoginIssuer,
        answer: &CoreTokenResponse,
        nonce: Option<&str>,
    ) -> Result<Tokens, ProviderError> {
        Ok(Tokens {
            identity: id_token::verify(issuer, answer, nonce, self.clock.now()).await?,
            refresh_token: answer.refresh_token().map(|token| token.secret().clone()),
            expires_in: answer.expires_in(),
        })
    }

    fn at_hand(&self, issuer: &LoginIssuer, within: Duration) -> Option<Arc<Metadata>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (metadata, at) = known.get(issuer.url.as_str())?.metadata.as_ref()?;
        (self.clock.now().since(*at) < within).then(|| metadata.clone())
    }

    /// Fetches unless what is known is fresh by now, or the last attempt has just failed.
    async fn fetch(&self, issuer: &Arc<LoginIssuer>) -> Result<Arc<Metadata>, ProviderError> {
        let just_failed = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let failed = known.get(issuer.url.as_str()).and_then(|known| known.failed.clone());
            failed.filter(|(_, at)| self.clock.now().since(*at) < PAUSE).map(|(error, _)| error)
        };
        let fetched = match just_failed {
            Some(error) => Err(error),
            None => {
                let needed = || self.at_hand(issuer, FRESH).is_none();
                let work = || fetch(issuer.clone(), self.known.clone(), self.clock.clone());
                let answer = self.fetches.join(issuer.url.to_string(), PATIENCE, needed, work).await;
                answer.unwrap_or_else(|| Err(ProviderError::Unreachable("no answer in time".to_owned())))
            }
        };
        fetched.or_else(|error| self.at_hand(issuer, USABLE).ok_or(error))
    }
}

async fn fetch(
    issuer: Arc<LoginIssuer>,
    known: Arc<Mutex<HashMap<String, Known>>>,
    clock: Clock,
) -> Result<Arc<Metadata>, ProviderError> {
    let http = http(&issuer.settings.outbound);
    let asked = Metadata::discover_async(issuer.url.clone(), &http);
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let fetched = match answer {
        Err(_) => Err(ProviderError::Unreachable("discovery took too long".to_owned())),
        Ok(Err(error)) => Err(ProviderError::Unreachable(with_causes(&error))),
        Ok(Ok(metadata)) => usable(&issuer, metadata).map(Arc::new),
    };
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = known.entry(issuer.url.to_string()).or_default();
    match &fetched {
        Ok(metadata) => {
            entry.metadata = Some((metadata.clone(), clock.now()));
            entry.failed = None;
        }
        Err(error) => {
            tracing::warn!(issuer = %issuer.name(), %error, "discovery failed");
            entry.failed = Some((error.clone(), clock.now()));
        }
    }
    fetched
}

/// Refuses metadata whose endpoints are not as protected as the issuer itself.
fn usable(issuer: &LoginIssuer, metadata: Metadata) -> Result<Metadata, ProviderError> {
    let plain = issuer.url.url().scheme() == "http";
    let safe = |url: &Url| url.scheme() == "https" || (plain && url.scheme() == "http");
    let Some(token) = metadata.token_endpoint() else {
        return Err(ProviderError::Refused("the metadata names no token endpoint".to_owned()));
    };
    if safe(metadata.authorization_endpoint().url()) && safe(token.url()) && safe(metadata.jwks_uri().url()) {
        Ok(metadata)
    } else {
        Err(ProviderError::Refused("the metadata names an endpoint that is not https".to_owned()))
    }
}

/// Where to end the session at the issuer, if it says and the address is one for browsers.
pub(super) fn end_session_endpoint(issuer: &LoginIssuer, metadata: &Metadata) -> Option<Url> {
    let url = Url::parse(metadata.additional_metadata().end_session_endpoint.as_deref()?).ok()?;
    let plain = issuer.url.url().scheme() == "http";
    (url.scheme() == "https" || (plain && url.scheme() == "http")).then_some(url)
}

type Answer = BoxFuture<'static, Result<HttpResponse, Unanswered>>;

/// An exchange that says nothing about what was asked.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("it answered with status {0}")]
    Status(StatusCode),
}

/// The project's own client, as the library calls it.
fn http(outbound: &OutboundClient) -> impl Fn(HttpRequest) -> Answer + Send + Sync + 'static {
    let outbound = outbound.clone();
    move |request| {
        let outbound = outbound.clone();
        Box::pin(async move {
            let response = outbound.send(request.map(Bytes::from)).await?;
            // Whatever the body says: an issuer in trouble, or one that is asked too often, has decided nothing.
            if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS {
                return Err(Unanswered::Status(response.status()));
            }
            Ok(response.map(Vec::from))
        })
    }
}

fn no_endpoint(error: openidconnect::ConfigurationError) -> ProviderError {
    ProviderError::Refused(error.to_string())
}

fn refusal<E, T>(error: &RequestTokenError<E, T>) -> ProviderError
where
    E: std::error::Error + 'static,
    T: ErrorResponse + TokenRefusal + 'static,
{
    match error {
        RequestTokenError::ServerResponse(answer) => answer.refusal(),
        RequestTokenError::Request(_) => ProviderError::Unreachable(with_causes(error)),
        RequestTokenError::Parse(cause, _) => {
            ProviderError::Unreachable(printable(&format!("its answer is malformed at `{}`", cause.path())))
        }
        RequestTokenError::Other(_) => ProviderError::Unreachable("its answer is malformed".to_owned()),
    }
}

/// An OAuth error answer (RFC 6749, 5.2).
trait TokenRefusal {
    fn refusal(&self) -> ProviderError;
}

impl TokenRefusal for openidconnect::StandardErrorResponse<CoreErrorResponseType> {
    fn refusal(&self) -> ProviderError {
        let code = self.error().as_ref();
        match code {
            "invalid_grant" => ProviderError::InvalidGrant,
            // Ours to mend, or the issuer's own trouble.
            "invalid_client" | "server_error" | "temporarily_unavailable" => ProviderError::Refused(printable(code)),
            _ => ProviderError::Denied(printable(code)),
        }
    }
}

/// An error with its causes: the library keeps the telling part in `source`.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    printable(&text)
}

/// Text from outside, fit for one line of a log.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(300).collect()
}
