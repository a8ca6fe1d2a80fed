//! Doorward's own origin, and which requests may use a session cookie (the CSRF rule).

use std::net::IpAddr;

use http::{HeaderMap, Method, header};
use url::{Host, Url};

use super::LoginError;
use crate::identity::IdentityError;
use crate::route::Route;

/// The origin that browsers see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    url: Url,
    text: String,
}

impl Origin {
    /// Parses `external_origin`: `https`, or `http` on a loopback host; no path, query or user.
    pub(super) fn parse(text: &str) -> Result<Self, LoginError> {
        let refuse = |why| LoginError::Origin { origin: text.to_owned(), why };
        let url = Url::parse(text).map_err(|_| refuse("it is no URL"))?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(refuse("plain http is for loopback hosts only")),
            _ => return Err(refuse("its scheme is not https")),
        }
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.username().is_empty() || url.password().is_some() || url.host().is_none() {
            return Err(refuse("it holds more than scheme, host and port"));
        }
        let text = url.origin().ascii_serialization();
        Ok(Self { url, text })
    }

    /// As a browser sends it in `Origin`.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Whether cookies can be `Secure` here.
    pub(super) fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether `host`, normalised, is this origin's host.
    pub(super) fn has_host(&self, host: &str) -> bool {
        self.url.host_str().is_some_and(|own| own.trim_end_matches('.').eq_ignore_ascii_case(host))
    }
}

/// Whether a URL points at this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// Who a request was started by, as the browser says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    /// This origin, or the user directly.
    Own,
    /// Somebody else.
    Other,
    /// The browser does not say.
    Unsaid,
}

fn site(headers: &HeaderMap) -> Site {
    let mut values = headers.get_all("sec-fetch-site").iter();
    match (values.next().map(http::HeaderValue::as_bytes), values.next()) {
        (None, _) => Site::Unsaid,
        (Some(b"same-origin" | b"none"), None) => Site::Own,
        _ => Site::Other,
    }
}

/// The one `Origin`; `Some("null")` when it is twice or unreadable.
fn origin(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::ORIGIN).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { "null" } else { first.to_str().unwrap_or("null") })
}

/// Whether `method` can change something (RFC 9110, 9.2.1, without `TRACE`).
fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a request on `route` may use the session cookie that it carries.
///
/// - Unsafe methods and WebSocket upgrades: `Sec-Fetch-Site` is `same-origin` or `none`; or `Origin` is one of the
///   route's `csrf` origins; or, where the browser sends no `Sec-Fetch-Site`, `Origin` is Doorward's own. Neither
///   header: refused. `Origin: null` is nobody's origin.
/// - Safe methods: free, save that another site may only navigate here, not fetch: such a fetch needs an `Origin`
///   of the route's `csrf` or `cors` origins.
pub(super) fn check(own: &Origin, method: &Method, headers: &HeaderMap, route: &Route) -> Result<(), IdentityError> {
    let (site, origin) = (site(headers), origin(headers));
    if site == Site::Own {
        return Ok(());
    }
    if origin.is_some_and(|origin| origin != "null" && route.csrf_origins.contains(origin)) {
        return Ok(());
    }
    let own_origin = site == Site::Unsaid && origin == Some(own.as_str());
    if is_unsafe(method) || headers.contains_key(header::UPGRADE) {
        return if own_origin { Ok(()) } else { Err(IdentityError::CrossOrigin) };
    }
    let listed = origin.is_some_and(|origin| origin != "null" && route.cors.origins.contains(origin));
    if listed || own_origin {
        return Ok(());
    }
    let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode.as_bytes() == b"navigate");
    match (site, origin) {
        (Site::Unsaid, None) => Ok(()),
        (Site::Other, None) if navigates => Ok(()),
        _ => Err(IdentityError::CrossOrigin),
    }
}

/// Whether a form came from one of our own pages.
pub(super) fn is_own_form(own: &Origin, headers: &HeaderMap) -> bool {
    match site(headers) {
        Site::Own => true,
        Site::Other => false,
        Site::Unsaid => origin(headers) == Some(own.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::login::testing::route;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn allowed(method: Method, pairs: &[(&'static str, &str)]) -> bool {
        let mut route = route();
        route.csrf_origins.insert("https://app.test".into());
        route.cors.origins.insert("https://cors.test".into());
        check(&Origin::parse("https://own.test").unwrap(), &method, &headers(pairs), &route).is_ok()
    }

    #[test]
    fn an_unsafe_method_needs_proof_that_it_came_from_here() {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let allowed = |pairs: &[(&'static str, &str)]| allowed(method.clone(), pairs);
            assert!(allowed(&[("sec-fetch-site", "same-origin")]));
            assert!(allowed(&[("sec-fetch-site", "none")]));
            assert!(allowed(&[("origin", "https://own.test")]));
            assert!(allowed(&[("origin", "https://app.test")]));
            assert!(allowed(&[("origin", "https://app.test"), ("sec-fetch-site", "cross-site")]));
            assert!(!allowed(&[]), "neither header");
            assert!(!allowed(&[("origin", "null")]));
            assert!(!allowed(&[("origin", "https://evil.test")]));
            assert!(!allowed(&[("origin", "https://cors.test")]), "a CORS origin is no CSRF origin");
            assert!(!allowed(&[("origin", "http://own.test")]), "another scheme");
            assert!(!allowed(&[("origin", "https://own.test:8443")]), "another port");
            assert!(!allowed(&[("origin", "https://own.test.evil.test")]));
            assert!(!allowed(&[("sec-fetch-site", "cross-site")]));
            assert!(!allowed(&[("sec-fetch-site", "same-site")]));
            assert!(!allowed(&[("sec-fetch-site", "cross-site"), ("origin", "https://own.test")]));
            assert!(!allowed(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]));
            assert!(!allowed(&[("origin", "https://own.test"), ("origin", "https://evil.test")]));
            assert!(!allowed(&[("sec-fetch-site", "")]));
        }
    }

    #[test]
    fn a_websocket_upgrade_counts_as_unsafe() {
        let upgrade = ("upgrade", "websocket");
        assert!(allowed(Method::GET, &[upgrade, ("origin", "https://own.test")]));
        assert!(allowed(Method::GET, &[upgrade, ("origin", "https://app.test")]));
        assert!(!allowed(Method::GET, &[upgrade, ("origin", "https://evil.test")]));
        assert!(!allowed(Method::GET, &[upgrade]));
        assert!(!allowed(Method::GET, &[upgrade, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
    }

    #[test]
    fn another_site_may_navigate_here_but_not_fetch() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            let allowed = |pairs: &[(&'static str, &str)]| allowed(method.clone(), pairs);
            assert!(allowed(&[]));
            assert!(allowed(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
            assert!(allowed(&[("sec-fetch-site", "same-site"), ("origin", "https://cors.test")]));
            assert!(!allowed(&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")]));
            assert!(!allowed(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]));
            assert!(!allowed(&[("origin", "https://evil.test")]));
        }
    }

    #[test]
    fn plain_http_is_an_origin_on_loopback_only() {
        for good in
            ["https://a.test", "https://a.test:8443/", "http://localhost:1", "http://127.0.0.1", "http://[::1]:2"]
        {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["http://a.test", "https://a.test/x", "https://u@a.test", "ftp://a.test", "a.test", "https://a.test?q"]
        {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }
}
