//! What is asked for: method, host and path, normalised once.
//!
//! Route match, policy and upstream all read the one [`Target`], so what was authorized is what is sent. Anything
//! that two readers could read differently is refused here, never guessed at.

mod canonical;
mod path;

pub use canonical::{canonical, push_canonical};

use http::request::Parts;
use http::{Method, header};

use path::{may_stand, normalise, readings};

/// Why a request's target was refused; always answered with 400, or 405 / 501 for methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No `Host` and no `:authority`.
    #[error("the request names no host")]
    HostMissing,
    /// More than one `Host`, or `Host` and the request line disagree.
    #[error("the request names two hosts")]
    HostTwice,
    /// The host is no host name or address, or carries user information.
    #[error("the request's host is malformed")]
    HostMalformed,
    /// The path is not in origin form or holds bytes that no path may hold.
    #[error("the request's path is malformed")]
    PathMalformed,
    /// A dot segment, plain or encoded.
    #[error("the request's path holds a dot segment")]
    DotSegment,
    /// The path can be read in two ways: encoded slash, backslash, `;`, `//`, double encoding.
    #[error("the request's path can be read in two ways")]
    PathAmbiguous,
    /// The path with one slash more or less at its end is a more exact route's: many upstreams serve both alike.
    #[error("the request's path is another route's but for its last slash")]
    LastSlash,
    /// `CONNECT`, `TRACE`, or a method that no policy can speak of.
    #[error("the request's method is not supported")]
    MethodUnsupported,
}

impl TargetError {
    /// Stable code for answers and audit records.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::HostMissing => "host_missing",
            Self::HostTwice => "host_twice",
            Self::HostMalformed => "host_malformed",
            Self::PathMalformed => "path_malformed",
            Self::DotSegment => "path_dot_segment",
            Self::PathAmbiguous => "path_ambiguous",
            Self::LastSlash => "path_last_slash",
            Self::MethodUnsupported => "method_unsupported",
        }
    }
}

/// The methods that policies can speak of.
pub const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// A request's target before its route is known: the raw path beside its normal form.
///
/// [`crate::route::Router::find`] turns it into a [`Target`] with one path.
#[derive(Clone, Debug)]
pub struct RequestTarget {
    method: Method,
    host: String,
    port: Option<u16>,
    raw_path: String,
    normal_path: Option<String>,
    query: Option<String>,
}

impl RequestTarget {
    /// Reads method, host and path of a request head.
    ///
    /// # Errors
    /// [`TargetError`] for everything that must not travel on, save an ambiguous path, which only a route that
    /// takes opaque paths may accept.
    pub fn of(parts: &Parts) -> Result<Self, TargetError> {
        if !METHODS.contains(&parts.method) {
            return Err(TargetError::MethodUnsupported);
        }
        let (host, port) = host_of(parts)?;
        let raw_path = parts.uri.path();
        if !raw_path.starts_with('/') {
            return Err(TargetError::PathMalformed);
        }
        let normal_path = normalise(raw_path)?;
        let query = parts.uri.query().map(str::to_owned);
        if query.as_deref().is_some_and(|query| query.bytes().any(|byte| byte <= b' ' || byte == 0x7f)) {
            return Err(TargetError::PathMalformed);
        }
        Ok(Self { method: parts.method.clone(), host, port, raw_path: raw_path.to_owned(), normal_path, query })
    }

    /// Host without port, lower case, without a trailing dot.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Request method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path's bytes as they came.
    #[must_use]
    pub fn raw_path(&self) -> &str {
        &self.raw_path
    }

    /// The path's normal form; `None` when the path can be read in two ways.
    #[must_use]
    pub fn normal_path(&self) -> Option<&str> {
        self.normal_path.as_deref()
    }

    /// The query as it came, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// What upstreams less strict than this one may take the path for; empty for a plain path.
    ///
    /// # Errors
    /// [`TargetError::PathAmbiguous`] when there are more readings than anybody looks through.
    pub fn other_readings(&self) -> Result<Vec<String>, TargetError> {
        if !self.raw_path.contains(['%', ';', '\\']) && !self.raw_path.contains("//") {
            return Ok(Vec::new());
        }
        readings(&self.raw_path).ok_or(TargetError::PathAmbiguous)
    }

    /// Settles on the normal form.
    ///
    /// # Errors
    /// [`TargetError::PathAmbiguous`] when there is none.
    pub fn into_normal(self) -> Result<Target, TargetError> {
        let path = self.normal_path.ok_or(TargetError::PathAmbiguous)?;
        Ok(Target { method: self.method, host: self.host, port: self.port, path, query: self.query })
    }

    /// Settles on the raw bytes, for a route that declares its paths opaque.
    ///
    /// # Errors
    /// [`TargetError::PathMalformed`] when one of them may not stand in a path as it is: nothing escapes it here.
    pub fn into_opaque(self) -> Result<Target, TargetError> {
        if !self.raw_path.bytes().all(may_stand) {
            return Err(TargetError::PathMalformed);
        }
        Ok(Target { method: self.method, host: self.host, port: self.port, path: self.raw_path, query: self.query })
    }
}

/// Method, host and path of one request: the value that route, policy and upstream share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    method: Method,
    host: String,
    port: Option<u16>,
    path: String,
    query: Option<String>,
}

impl Target {
    /// The same target in the one spelling in which it is signed (AWS Signature Version 4); `None` where it has none.
    #[must_use]
    pub fn into_canonical(self) -> Option<Self> {
        let path = canonical(&self.path, b"/")?;
        Some(Self { path, ..self })
    }

    /// Request method, one of [`METHODS`].
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Host without port, lower case, without a trailing dot.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port that the request named, if any.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The one path: begins with `/`, no query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query as it came, without `?`. Policy never reads it and no record holds it.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Path and query, as they go to the upstream.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

fn host_of(parts: &Parts) -> Result<(String, Option<u16>), TargetError> {
    let mut headers = parts.headers.get_all(header::HOST).iter();
    let header = headers.next();
    if headers.next().is_some() {
        return Err(TargetError::HostTwice);
    }
    let header = header.map(|value| value.to_str().map_err(|_| TargetError::HostMalformed)).transpose()?;
    let header = header.map(split_host).transpose()?;
    let authority = parts.uri.authority().map(|authority| split_host(authority.as_str())).transpose()?;
    match (header, authority) {
        (None, None) => Err(TargetError::HostMissing),
        (Some(host), None) | (None, Some(host)) => Ok(host),
        (Some(header), Some(authority)) if header == authority => Ok(header),
        (Some(_), Some(_)) => Err(TargetError::HostTwice),
    }
}

/// Splits `host[:port]`, lower-cases the host and drops one trailing dot.
fn split_host(text: &str) -> Result<(String, Option<u16>), TargetError> {
    let malformed = TargetError::HostMalformed;
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| malformed)?)
        }
        Some(_) => return Err(malformed),
        None => None,
    };
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: std::net::Ipv6Addr = address.parse().map_err(|_| malformed)?;
        return Ok((format!("[{address}]"), port));
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let label_is_good = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if host.len() > 253 || !host.split('.').all(label_is_good) {
        return Err(malformed);
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::path::is_plain;
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    fn target(uri: &str, hosts: &[&str]) -> Result<RequestTarget, TargetError> {
        let mut request = Request::get(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        RequestTarget::of(&request.body(()).unwrap().into_parts().0)
    }

    fn path(path: &str) -> Result<Option<String>, TargetError> {
        normalise(path)
    }

    #[test]
    fn the_host_is_lower_case_without_port_or_trailing_dot() {
        let found = target("/a", &["API.Example.com.:8443"]).unwrap().into_normal().unwrap();
        assert_eq!((found.host(), found.port()), ("api.example.com", Some(8443)));
    }

    #[test]
    fn two_hosts_are_refused() {
        assert_eq!(target("/", &["a", "a"]).unwrap_err(), TargetError::HostTwice);
        assert_eq!(target("http://b/", &["a"]).unwrap_err(), TargetError::HostTwice);
        assert!(target("http://a/", &["A"]).is_ok());
        assert_eq!(target("/", &[]).unwrap_err(), TargetError::HostMissing);
    }

    #[test]
    fn a_malformed_host_is_refused() {
        for host in ["u@a", "a:", "a:x", "a:99999", "a/b", "", "..", "a..b", "[::1", "[zz]", "a b"] {
            assert_eq!(target("/", &[host]).unwrap_err(), TargetError::HostMalformed, "{host}");
        }
    }

    #[test]
    fn unreserved_characters_are_decoded_and_the_rest_encoded_alike() {
        assert_eq!(path("/%61%7e/%c3%a9/a b".replace(' ', "%20").as_str()).unwrap().unwrap(), "/a~/%C3%A9/a%20b");
        assert_eq!(path("/{x}").unwrap().unwrap(), "/%7Bx%7D");
    }

    #[test]
    fn what_can_be_read_in_two_ways_has_no_normal_form() {
        for raw in ["/a%2fb", "/a%5cb", "/a\\b", "/a;b", "//a", "/a//b", "/%252f", "/a%3bb", "/a%2eb"] {
            assert_eq!(path(raw).unwrap(), None, "{raw}");
        }
    }

    #[test]
    fn dot_segments_are_refused_however_they_are_spelled() {
        for raw in [
            "/..",
            "/a/../b",
            "/./a",
            "/%2e%2e/a",
            "/.%2E/a",
            "/a/..;x/b",
            "/%252e%252e/a",
            "/a\\..\\b",
            "/a/%2e%2e%2fb",
        ] {
            assert_eq!(path(raw).unwrap_err(), TargetError::DotSegment, "{raw}");
        }
    }

    #[test]
    fn an_opaque_path_holds_only_bytes_that_may_stand_in_a_path() {
        let opaque = |raw: &str| target(raw, &["a"]).unwrap().into_opaque().map(|target| target.path().to_owned());
        for raw in ["/a%2f%5c%22b;c//@d:e+f", "/-._~!$&'()*,="] {
            assert_eq!(opaque(raw).as_deref(), Ok(raw));
        }
        for raw in ["/a\\b", "/a|b", "/a\"b", "/a{b}", "/a^b", "/a[b]"] {
            assert_eq!(opaque(raw), Err(TargetError::PathMalformed), "{raw}");
        }
    }

    #[test]
    fn control_bytes_and_broken_escapes_are_refused() {
        for raw in ["/%00", "/%0a", "/%7f", "/%", "/%4", "/%zz", "/a\tb", "/%c0%af", "/%ff"] {
            assert_eq!(path(raw).unwrap_err(), TargetError::PathMalformed, "{raw}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_plain_path_is_its_own_normal_form(raw in "/[a-c./~;%!-]{0,8}") {
            // A last character that is not plain forces the long way, and changes nothing else.
            let long_way = path(&format!("{raw}!"));
            if is_plain(raw.as_bytes()) {
                proptest::prop_assert_eq!(long_way, Ok(Some(format!("{raw}!"))));
                proptest::prop_assert_eq!(path(&raw), Ok(Some(raw)));
            }
        }
    }

    #[test]
    fn a_delimiter_has_one_spelling() {
        assert_eq!(path("/v1/keys%3arotate%2Call").unwrap().unwrap(), "/v1/keys:rotate,all");
        assert_eq!(path("/a%40b").unwrap(), path("/a@b").unwrap());
        assert_eq!(path("/a+b%2B").unwrap().unwrap(), "/a+b%2B", "some upstreams read `+` as a space");
    }

    #[test]
    fn a_lax_reader_is_foreseen() {
        for (raw, reading) in [
            ("/npm/admin;x%2fy", "/npm/admin"),
            ("/npm/admin;x%2fy", "/npm/admin/y"),
            ("/npm/admin%3bx/y", "/npm/admin/y"),
            ("/npm/%2561dmin", "/npm/admin"),
            ("/npm//admin", "/npm/admin"),
            ("/npm/%61//b", "/npm/a//b"),
            ("/npm/%61%5Cb", "/npm/a%5Cb"),
            ("/npm/%61%5Cb", "/npm/a/b"),
            ("/npm/admin%3fx", "/npm/admin"),
            ("/npm//a%2fb", "/npm/a%2fb"),
        ] {
            let readings = target(raw, &["a"]).unwrap().other_readings().unwrap();
            assert!(readings.iter().any(|found| found == reading), "{raw}: {readings:?}");
        }
        assert_eq!(target("/a%20b", &["a"]).unwrap().other_readings(), Ok(Vec::new()));
    }

    #[test]
    fn a_long_path_with_too_many_readings_is_ambiguous() {
        let long = format!("/{}", "aaaaaaaaaaaaaaaaaaaaaaaaa%253b;/".repeat(1900));
        let readings = target(&long, &["a"]).unwrap().other_readings();
        assert_eq!(readings.map(|readings| readings.len()), Err(TargetError::PathAmbiguous));
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(raw in "/(%25|%2[0-9a-f]|%[2-7][0-9a-fA-F]|[a-f0-9%:+]){0,12}") {
            if let Ok(Some(normal)) = path(&raw) {
                prop_assert_eq!(path(&normal), Ok(Some(normal.clone())), "{}", raw);
            }
        }
    }

    #[test]
    fn connect_and_trace_are_refused() {
        for method in [Method::CONNECT, Method::TRACE, Method::from_bytes(b"PROPFIND").unwrap()] {
            let request = Request::builder().method(method).uri("/").header("host", "a").body(()).unwrap();
            assert_eq!(RequestTarget::of(&request.into_parts().0).unwrap_err(), TargetError::MethodUnsupported);
        }
    }
}
