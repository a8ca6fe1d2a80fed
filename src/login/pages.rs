//! The few pages that Doorward shows by itself. No script, nothing from elsewhere; every text is escaped.

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use url::form_urlencoded;

use super::{LOGIN, LOGOUT};
use crate::body::{self, Body};

const STYLE: &str = include_str!("pages/style.css");

static PAGES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut pages = Environment::new();
    for (name, text) in [
        ("base.html", include_str!("pages/base.html")),
        ("message.html", include_str!("pages/message.html")),
        ("choice.html", include_str!("pages/choice.html")),
        ("logout.html", include_str!("pages/logout.html")),
        ("signed-out.html", include_str!("pages/signed-out.html")),
    ] {
        if let Err(error) = pages.add_template(name, text) {
            tracing::error!(%error, page = name, "a page's template is malformed");
        }
    }
    pages
});

/// The style is the same on every page, so its hash admits it and nothing else.
static STYLE_HASH: LazyLock<String> = LazyLock::new(|| {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
    format!("sha256-{}", STANDARD.encode(digest))
});

/// The page for an answer that refuses: status, stable code, one sentence, request id. Send it with
/// [`set_page_headers`].
#[must_use]
pub fn error_page(status: StatusCode, code: &str, sentence: &str, request_id: &str) -> String {
    message(&Message { title: title_of(status), sentence, said: None, code, request_id, link: None })
}

/// The page of [`error_response`] for a person who is signed in, and may wish to be somebody else.
#[must_use]
pub fn denied_response(status: StatusCode, code: &str, sentence: &str, request_id: &str) -> Response<Body> {
    let link = Some(Link { to: LOGOUT, text: "Sign out", quiet: true });
    page(status, message(&Message { title: title_of(status), sentence, said: None, code, request_id, link }), None)
}

/// The page of [`error_page`] as a whole answer.
#[must_use]
pub fn error_response(status: StatusCode, code: &str, sentence: &str, request_id: &str) -> Response<Body> {
    page(status, error_page(status, code, sentence, request_id), None)
}

/// Headers of every page: no script, no frame, no cache, no referrer.
pub fn set_page_headers(headers: &mut HeaderMap) {
    set_headers(headers, None);
}

fn set_headers(headers: &mut HeaderMap, form_target: Option<&str>) {
    let forms = form_target.map(|origin| format!(" {origin}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src '{}'; form-action 'self'{forms}; base-uri 'none'; frame-ancestors 'none'",
        *STYLE_HASH
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[derive(Serialize)]
struct Message<'a> {
    title: &'a str,
    sentence: &'a str,
    said: Option<&'a str>,
    code: &'a str,
    request_id: &'a str,
    link: Option<Link<'a>>,
}

#[derive(Serialize)]
struct Link<'a> {
    to: &'a str,
    text: &'a str,
    /// Whether it is beside the point of the page.
    quiet: bool,
}

fn message(message: &Message<'_>) -> String {
    render("message.html", message)
}

fn render(name: &str, values: impl Serialize) -> String {
    let page = PAGES
        .get_template(name)
        .and_then(|page| page.render(context! { style => STYLE, page => Value::from(Serde(values)) }));
    page.unwrap_or_else(|error| {
        tracing::error!(%error, page = name, "a page could not be rendered");
        "This page could not be shown.".to_owned()
    })
}

fn page(status: StatusCode, html: String, form_target: Option<&str>) -> Response<Body> {
    let mut response = Response::new(body::full(html));
    *response.status_mut() = status;
    set_headers(response.headers_mut(), form_target);
    response
}

fn title_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "That did not work",
        StatusCode::UNAUTHORIZED => "Please sign in",
        StatusCode::FORBIDDEN => "You may not do this",
        StatusCode::NOT_FOUND => "There is nothing here",
        StatusCode::METHOD_NOT_ALLOWED => "Not in this way",
        StatusCode::TOO_MANY_REQUESTS => "Too often",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => "Not available",
        _ => "Something went wrong",
    }
}

/// A method that the path does not know.
pub(super) fn method_not_allowed(allow: &'static str, request_id: &str) -> Response<Body> {
    let (status, sentence) = (StatusCode::METHOD_NOT_ALLOWED, "This address does not take that method.");
    let mut response = error_response(status, "method_not_allowed", sentence, request_id);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// An error that the user can leave by a link.
pub(super) fn dead_end(
    status: StatusCode,
    code: &'static str,
    sentence: &'static str,
    again: &str,
    request_id: &str,
) -> Response<Body> {
    Refused { status, code, sentence }.response(None, again, request_id)
}

/// A login that came back and is refused.
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) sentence: &'static str,
}

impl Refused {
    /// The page; `said` is the issuer's own text.
    pub(super) fn response(&self, said: Option<&str>, again: &str, request_id: &str) -> Response<Body> {
        let (title, link) = ("You are not signed in", Some(Link { to: again, text: "Try again", quiet: false }));
        let text = Message { title, sentence: self.sentence, said, code: self.code, request_id, link };
        page(self.status, message(&text), None)
    }
}

/// Where to sign in, when there are several places. Further parameters of the request are kept.
pub(super) fn choice<'a>(
    issuers: impl Iterator<Item = &'a Arc<str>>,
    parameters: &[(String, String)],
) -> Response<Body> {
    let links: Vec<_> = issuers
        .map(|name| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("issuer", name).extend_pairs(parameters);
            (name.to_string(), format!("{LOGIN}?{}", query.finish()))
        })
        .collect();
    page(StatusCode::OK, render("choice.html", context! { links }), None)
}

/// Asks whether to sign out; the form's answer redirects to `issuer_origin`.
pub(super) fn ask_logout(issuer_origin: Option<&str>) -> Response<Body> {
    let mut response =
        page(StatusCode::OK, render("logout.html", context! { action => LOGOUT, home => "/" }), issuer_origin);
    // Under `no-referrer` a form sends `Origin: null`, and a browser without Fetch Metadata could not sign out.
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Signed out.
pub(super) fn signed_out() -> Response<Body> {
    page(StatusCode::OK, render("signed-out.html", context! { home => "/" }), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_an_issuer_says_is_text_and_never_markup() {
        let refused = Refused { status: StatusCode::FORBIDDEN, code: "login_denied", sentence: "No." };
        let said = r#"<script>alert(1)</script>"'&"#;
        let html = text(refused.response(Some(said), "/\"><b>", "id-1")).await;
        assert!(!html.contains("<script>") && !html.contains("<b>"), "{html}");
        assert!(html.contains("&lt;script&gt;") && html.contains("id-1") && html.contains("login_denied"));
    }

    #[tokio::test]
    async fn every_page_renders_with_its_style_admitted_by_hash() {
        let names: [Arc<str>; 2] = ["okta".into(), "<x>".into()];
        let choice = choice(names.iter(), &[("return_to".into(), "/a&b=\"c".into())]);
        let pages = [choice, ask_logout(Some("https://idp.test")), signed_out(), method_not_allowed("GET", "id")];
        for response in pages {
            let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            assert_eq!(response.headers()[header::X_FRAME_OPTIONS], "DENY");
            let html = text(response).await;
            assert!(html.starts_with("<!doctype html>") && html.contains("<main"), "{html}");
            assert!(html.contains(&format!("<style>{STYLE}</style>")));
            assert!(policy.contains(&*STYLE_HASH) && policy.contains("default-src 'none'"));
            assert!(!html.contains("<x>") && !html.contains("http:") && !html.contains("https:"));
        }
    }
}
