//! A small OIDC issuer for `doorward demo`: loopback only, users without passwords, everything in memory.
//!
//! It speaks what Doorward needs of one: discovery, JWKS, the code flow with PKCE, refresh with rotation, client
//! credentials, RP-initiated logout.

mod state;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::clock::Clock;

pub use state::{DevelopmentIssuer, IssuerError, USERS};

/// What is asked of `/authorize` (OpenID Connect Core 3.1.2.1), and carried through the sign-in form.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
pub struct AuthorizationRequest {
    client_id: String,
    redirect_uri: String,
    response_type: String,
    #[serde(default)]
    scope: String,
    state: Option<String>,
    nonce: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
    acr_values: Option<String>,
    prompt: Option<String>,
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
    #[serde(flatten)]
    request: AuthorizationRequest,
}

/// A request to `/token` (RFC 6749 sections 4.1.3, 4.4.2 and 6).
#[derive(Debug, Deserialize)]
pub struct TokenRequest {
    grant_type: String,
    code: Option<String>,
    redirect_uri: Option<String>,
    code_verifier: Option<String>,
    refresh_token: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct EndSession {
    post_logout_redirect_uri: Option<String>,
    state: Option<String>,
}

impl DevelopmentIssuer {
    /// Serves on a loopback address until the future is dropped.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/authorize", get(sign_in_page).post(sign_in))
            .route("/token", post(token))
            .route("/dev/token/{user}", get(dev_token))
            .route("/end-session", get(end_session))
            .with_state(self);
        axum::serve(listener, routes).await
    }

    /// A new issuer at `http://ADDRESS`.
    ///
    /// # Errors
    /// [`IssuerError`] when the address is not on loopback or no key could be made.
    pub fn at(address: SocketAddr, audience: &str, clock: Clock) -> Result<Self, IssuerError> {
        if !address.ip().is_loopback() {
            return Err(IssuerError::NotLoopback(address));
        }
        Self::new(format!("http://{address}"), audience.to_owned(), clock)
    }
}

async fn discovery(State(issuer): State<Arc<DevelopmentIssuer>>) -> Response {
    let url = issuer.url();
    let document = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "end_session_endpoint": format!("{url}/end-session"),
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "scopes_supported": ["openid", "profile", "email", "groups", "offline_access"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "claims_supported": ["sub", "name", "email", "email_verified", "groups", "auth_time", "acr", "amr"],
    });
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(document)).into_response()
}

async fn jwks(State(issuer): State<Arc<DevelopmentIssuer>>) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(issuer.jwks())).into_response()
}

async fn sign_in_page(
    State(issuer): State<Arc<DevelopmentIssuer>>,
    Query(request): Query<AuthorizationRequest>,
) -> Response {
    if let Err(fault) = issuer.check(&request) {
        return fault.into_response();
    }
    if request.prompt.as_deref() == Some("none") {
        return Redirect::to(&issuer.refusal(&request, "login_required")).into_response();
    }
    let mut pages = minijinja::Environment::new();
    let page = pages
        .add_template("sign-in.html", include_str!("../pages/sign-in.html"))
        .and_then(|()| pages.get_template("sign-in.html"))
        .and_then(|page| {
            let value = serde_json::json!({ "users": USERS, "request": request, "issuer": issuer.url() });
            page.render(minijinja::value::Serde(value))
        });
    match page {
        Ok(html) => ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn sign_in(State(issuer): State<Arc<DevelopmentIssuer>>, Form(form): Form<SignIn>) -> Response {
    if let Err(fault) = issuer.check(&form.request) {
        return fault.into_response();
    }
    match issuer.authorize(&form.request, &form.user) {
        Some(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        None => (StatusCode::BAD_REQUEST, "no such user").into_response(),
    }
}

async fn token(
    State(issuer): State<Arc<DevelopmentIssuer>>,
    headers: HeaderMap,
    Form(request): Form<TokenRequest>,
) -> Response {
    match issuer.exchange(&headers, &request) {
        Ok(document) => ([(header::CACHE_CONTROL, "no-store")], Json(document)).into_response(),
        Err(code) => {
            let status = if code == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            (status, Json(json!({ "error": code }))).into_response()
        }
    }
}

/// A ready token as plain text, so that a `curl` line can hold it in `$( )`.
async fn dev_token(State(issuer): State<Arc<DevelopmentIssuer>>, Path(user): Path<String>) -> Response {
    match issuer.token_for(&user) {
        Some(token) => ([(header::CACHE_CONTROL, "no-store")], token).into_response(),
        None => (StatusCode::NOT_FOUND, "no such user or job").into_response(),
    }
}

async fn end_session(State(issuer): State<Arc<DevelopmentIssuer>>, Query(request): Query<EndSession>) -> Response {
    let Some(target) = request.post_logout_redirect_uri else {
        return Html("<!doctype html><title>Signed out</title><p>Signed out.</p>").into_response();
    };
    if !issuer.is_own_page_of_the_client(&target) {
        return (StatusCode::BAD_REQUEST, "post_logout_redirect_uri is not registered").into_response();
    }
    match url::Url::parse(&target) {
        Ok(mut target) => {
            if let Some(state) = request.state {
                target.query_pairs_mut().append_pair("state", &state);
            }
            Redirect::to(target.as_str()).into_response()
        }
        Err(_) => (StatusCode::BAD_REQUEST, "post_logout_redirect_uri is malformed").into_response(),
    }
}
