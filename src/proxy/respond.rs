//! How a refusal looks: a page for browsers, RFC 9457 problem JSON for programs, a status for gRPC.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::body::{self, Body};
use crate::identity::IdentityError;
use crate::login::{LoginReason, pages};
use crate::policy::DenyReason;
use crate::proxy::ProxyError;
use crate::route::Route;

/// In which form a caller can read an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// A person at a browser.
    Browser,
    /// A gRPC client.
    Grpc,
    /// Any other program.
    Program,
}

impl Audience {
    /// Reads the request's own words about what it can take.
    #[must_use]
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let starts_with = |name: header::HeaderName, prefix: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.starts_with(prefix))
        };
        if starts_with(header::CONTENT_TYPE, "application/grpc") {
            return Self::Grpc;
        }
        let takes_html = headers
            .get_all(header::ACCEPT)
            .iter()
            .any(|value| value.to_str().is_ok_and(|value| value.contains("text/html")));
        if takes_html { Self::Browser } else { Self::Program }
    }
}

/// What a refusal is about.
#[derive(Debug)]
pub(super) struct Refusal<'a> {
    /// Why.
    pub(super) error: &'a ProxyError,
    /// Who reads it.
    pub(super) audience: Audience,
    /// The request's id, so that the caller can name it to an operator.
    pub(super) request_id: &'a str,
    /// Whether the caller is a person with a session.
    pub(super) signed_in: bool,
    /// The route, if one was found.
    pub(super) route: Option<&'a Route>,
}

/// The answer to a request that did not pass.
#[must_use]
pub(super) fn refuse(refusal: &Refusal<'_>) -> Response<Body> {
    let error = refusal.error;
    let mut response = match refusal.audience {
        Audience::Grpc => return grpc(refusal),
        Audience::Browser => {
            let is_denied = error.status() == StatusCode::FORBIDDEN && refusal.signed_in;
            let page = if is_denied { pages::denied_response } else { pages::error_response };
            page(error.status(), error.code(), error.sentence(), refusal.request_id)
        }
        Audience::Program => problem(refusal),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(challenge) = challenge(refusal) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(wait) = error.retry_after() {
        // Whole seconds (RFC 9110 section 10.2.3), and never too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if error.status() == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"));
    }
    response
}

/// RFC 9457.
fn problem(refusal: &Refusal<'_>) -> Response<Body> {
    let error = refusal.error;
    let document = serde_json::json!({
        "type": "about:blank",
        "title": error.status().canonical_reason().unwrap_or("Refused"),
        "status": error.status().as_u16(),
        "detail": error.sentence(),
        "code": error.code(),
        "request_id": refusal.request_id,
    });
    let mut response = Response::new(body::full(document.to_string()));
    *response.status_mut() = error.status();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// A trailers-only answer, <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
fn grpc(refusal: &Refusal<'_>) -> Response<Body> {
    let error = refusal.error;
    // doc/statuscodes.md of the gRPC project: what each HTTP status means to a gRPC client.
    let status = match error.status() {
        StatusCode::BAD_REQUEST => "3",
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::FORBIDDEN => "7",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "12",
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => "8",
        StatusCode::GATEWAY_TIMEOUT => "4",
        StatusCode::INTERNAL_SERVER_ERROR => "13",
        _ => "14",
    };
    let mut response = Response::new(body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(status));
    let message = format!("{} {} ({})", error.code(), error.sentence(), refusal.request_id);
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert("grpc-message", message);
    }
    response
}

/// `WWW-Authenticate` of RFC 6750 section 3 and RFC 9470 section 3.
fn challenge(refusal: &Refusal<'_>) -> Option<HeaderValue> {
    if refusal.error.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    let mut text = String::from("Bearer realm=\"doorward\"");
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other refusal has the plain challenge")]
    match refusal.error {
        ProxyError::Identity(IdentityError::StepUp) => {
            text.push_str(", error=\"insufficient_user_authentication\"");
            if let Some(login) = refusal.route.map(|route| &route.login) {
                if !login.acr_values.is_empty() {
                    text.push_str(&format!(", acr_values=\"{}\"", login.acr_values.join(" ")));
                }
                if let Some(max_age) = login.max_age {
                    text.push_str(&format!(", max_age=\"{}\"", max_age.as_secs()));
                }
            }
        }
        ProxyError::Identity(IdentityError::Invalid { .. }) => text.push_str(", error=\"invalid_token\""),
        // <https://learn.microsoft.com/entra/identity-platform/claims-challenge>: the claims in base64.
        ProxyError::Credential(error) => {
            text.push_str(", error=\"insufficient_claims\"");
            if let Some(claims) = &error.claims {
                text.push_str(&format!(", claims=\"{}\"", STANDARD.encode(&**claims)));
            }
        }
        ProxyError::Denied(denied) if denied.reason == DenyReason::RoleSessionExpired => {
            text.push_str(", error=\"invalid_token\", error_description=\"the role session has ended\"");
        }
        _ => {}
    }
    HeaderValue::from_str(&text).ok()
}

/// Why a browser should be sent to sign in for this refusal; `None` when signing in cannot help.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "signing in helps against these alone")]
pub(super) fn login_reason(error: &ProxyError) -> Option<LoginReason> {
    match error {
        ProxyError::Identity(IdentityError::Missing | IdentityError::Invalid { .. }) => {
            Some(LoginReason::Unauthenticated)
        }
        ProxyError::Identity(IdentityError::StepUp) => Some(LoginReason::StepUp),
        ProxyError::Identity(IdentityError::Unavailable { .. }) => Some(LoginReason::Unconfirmed),
        ProxyError::Denied(denied) if denied.reason == DenyReason::RoleSessionExpired => {
            Some(LoginReason::Reauthenticate)
        }
        _ => None,
    }
}

/// Keeps an answer that carries a session cookie out of every cache: whoever were given it again would be somebody else.
pub(super) fn keep_from_caches(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Caches that obey these obey `Cache-Control` no more (RFC 9213).
    for name in ["cdn-cache-control", "surrogate-control"] {
        headers.remove(name);
    }
}

/// Where a caller reads its request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request id as a header value.
#[must_use]
pub(super) fn request_id_header(request_id: &str) -> HeaderValue {
    HeaderValue::from_str(request_id).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Whether the head asks for a WebSocket: both fields say so (RFC 6455 section 4.2.1).
#[must_use]
pub(super) fn asks_for_websocket(parts: &Parts) -> bool {
    let says = |name: header::HeaderName, wanted: &[u8]| {
        let lines = parts.headers.get_all(name).iter();
        let mut tokens = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted))
    };
    says(header::UPGRADE, b"websocket") && says(header::CONNECTION, b"upgrade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_with_a_session_cookie_is_kept_out_of_every_cache() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("cache-control", "public, max-age=600"), ("cdn-cache-control", "max-age=600"), ("surrogate-control", "x")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        keep_from_caches(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["cache-control"], "no-store");
    }

    #[test]
    fn a_session_that_cannot_be_confirmed_may_be_begun_anew() {
        let away = IdentityError::Unavailable { issuer: "okta".into(), detail: String::new() };
        assert_eq!(login_reason(&away.into()), Some(LoginReason::Unconfirmed));
    }
}
