//! What operators and orchestrators ask a running process: is it alive, is it ready and if not why, its metrics.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;

use crate::body::{self, Body};
use crate::peer::{Admission, Peer};
use crate::secret::Secret;
use crate::telemetry::Metrics;

/// Whether a part that is not as it should be keeps traffic away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Somebody has to look, but requests are served.
    Degraded,
    /// No traffic should come here.
    Unready,
}

/// A part that is not as it should be, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotReady {
    /// The part, such as `issuer okta`.
    pub part: String,
    /// Why, for an operator.
    pub reason: String,
    /// Whether it keeps traffic away.
    #[serde(skip)]
    pub weight: Weight,
}

/// Asks every part how it is; empty when all are well.
pub type Readiness = Arc<dyn Fn() -> Vec<NotReady> + Send + Sync>;

/// Brings the gauges up to date before they are shown.
pub type Refresh = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// Settings of the admin listener's answers.
pub struct AdminSettings {
    /// Bearer token that every request must show, where one is configured.
    pub token: Option<Secret>,
    /// Whether a verified client certificate stands in for the token.
    pub certificate_suffices: bool,
}

impl fmt::Debug for AdminSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AdminSettings").field("has_token", &self.token.is_some()).finish_non_exhaustive()
    }
}

/// Answers `/livez`, `/readyz` and `/metrics`.
pub struct Admin {
    token: ArcSwapOption<Secret>,
    certificate_suffices: bool,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    refresh: Refresh,
}

impl fmt::Debug for Admin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Admin")
            .field("certificate_suffices", &self.certificate_suffices)
            .finish_non_exhaustive()
    }
}

impl Admin {
    /// Answers from these parts.
    #[must_use]
    pub fn new(settings: AdminSettings, metrics: Arc<Metrics>, readiness: Readiness, refresh: Refresh) -> Self {
        let token = ArcSwapOption::from(settings.token.map(Arc::new));
        Self { token, certificate_suffices: settings.certificate_suffices, metrics, readiness, refresh }
    }

    /// Asks for another token from now on. Where none was asked for, none is: that was settled at the start.
    pub fn replace_token(&self, token: Secret) {
        if self.token.load().is_some() {
            self.token.store(Some(Arc::new(token)));
        }
    }

    /// Answers one request.
    #[must_use]
    pub fn handle<B>(&self, request: &Request<B>, peer: &Peer, admission: Admission) -> Response<Body> {
        let mut response = self.answer(request, peer, admission);
        if *request.method() == Method::HEAD {
            body::keep_head_only(&mut response);
        }
        response
    }

    fn answer<B>(&self, request: &Request<B>, peer: &Peer, admission: Admission) -> Response<Body> {
        match admission {
            Admission::Admitted => {}
            Admission::CertificateBarred => {
                return text(StatusCode::FORBIDDEN, "the client certificate no longer holds\n");
            }
            Admission::TooManyFields => {
                return text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields\n");
            }
        }
        if !self.may_ask(request.headers(), peer) {
            let mut response = text(StatusCode::UNAUTHORIZED, "a bearer token or a client certificate is required\n");
            let challenge = HeaderValue::from_static("Bearer realm=\"doorward admin\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return response;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "here are /livez, /readyz and /metrics\n"),
        }
    }

    fn may_ask(&self, headers: &HeaderMap, peer: &Peer) -> bool {
        if self.certificate_suffices && peer.certificate.is_some() {
            return true;
        }
        let token = self.token.load();
        let Some(token) = &*token else { return !self.certificate_suffices };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let first = given.next().and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        given.next().is_none()
            && first.is_some_and(|shown| verify_slices_are_equal(shown, token.expose().as_bytes()).is_ok())
    }

    fn ready(&self) -> Response<Body> {
        let reasons = (self.readiness)();
        let ready = reasons.iter().all(|reason| reason.weight == Weight::Degraded);
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let degraded = !reasons.is_empty();
        let document = serde_json::json!({ "ready": ready, "degraded": degraded, "reasons": reasons });
        let mut response = text(status, &format!("{document}\n"));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn metrics(&self) -> Response<Body> {
        (self.refresh)(&self.metrics);
        let Ok(rendered) = self.metrics.render() else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be rendered\n");
        };
        let mut response = text(StatusCode::OK, &rendered);
        let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(body::full(text.to_owned()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{ClientCertificate, Transport};

    fn admin(token: Option<&str>, certificate_suffices: bool, reasons: Vec<NotReady>) -> Admin {
        let settings = AdminSettings { token: token.map(Secret::new), certificate_suffices };
        Admin::new(settings, Arc::default(), Arc::new(move || reasons.clone()), Arc::new(|_| {}))
    }

    fn status(admin: &Admin, path: &str, tokens: &[&str], certificate: bool) -> u16 {
        let address = "192.0.2.1:1".parse().unwrap();
        let certificate = certificate.then(|| Arc::new(ClientCertificate { der: Vec::new(), sha256: [0; 32] }));
        let transport = Transport::Tls;
        let peer =
            Peer { address, socket_address: address, listener: "admin".into(), transport, tls: None, certificate };
        let mut request = Request::get(path);
        for token in tokens {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        admin.handle(&request.body(()).unwrap(), &peer, Admission::Admitted).status().as_u16()
    }

    #[test]
    fn readiness_is_refused_with_reasons() {
        let of = |weight| NotReady { part: "issuer okta".into(), reason: "no keys yet".into(), weight };
        let (degraded, unready) = (of(Weight::Degraded), of(Weight::Unready));
        assert_eq!(status(&admin(None, false, vec![degraded.clone()]), "/readyz", &[], false), 200);
        assert_eq!(status(&admin(None, false, vec![degraded, unready]), "/readyz", &[], false), 503);
        assert_eq!(status(&admin(None, false, Vec::new()), "/readyz", &[], false), 200);
    }

    #[test]
    fn a_configured_token_is_required_exactly_once() {
        let admin = admin(Some("right"), false, Vec::new());
        for (tokens, expected) in
            [(vec![], 401), (vec!["wrong"], 401), (vec!["right", "right"], 401), (vec!["right"], 200)]
        {
            assert_eq!(status(&admin, "/metrics", &tokens, false), expected, "{tokens:?}");
        }
        assert_eq!(status(&admin, "/livez", &[], true), 401, "a certificate is nothing where a token is asked");
    }

    #[test]
    fn a_certificate_suffices_where_configured() {
        let admin = admin(None, true, Vec::new());
        assert_eq!(status(&admin, "/livez", &[], false), 401);
        assert_eq!(status(&admin, "/livez", &[], true), 200);
        assert_eq!(status(&admin, "/other", &[], true), 404);
    }
}
