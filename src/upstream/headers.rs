//! Which headers cross, in both directions.
//!
//! Everything that the caller could use to speak in Doorward's name goes first; what Doorward says itself is set
//! last, so that nothing the caller names in `Connection` can take it away again. Names are compared in a normal
//! form, because many upstreams read `-` and `_` as one.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::credential::Credential;
use crate::peer::{Downstream, push_address};
use crate::route::{Route, aws};
use crate::target::Target;

use super::cookies;
use super::spoofable::is_spoofable;
use super::trace::{self, TraceContext};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Headers that Doorward adds to most requests.
const ADDED: usize = 9;
/// What [`add_said`] writes at most, in bytes, beside the host.
const LONGEST_SAID: usize = 256;

/// Names that only Doorward may set toward any upstream: headers of all credentials and all identity headers.
/// Normal forms, sorted.
#[derive(Clone, Debug, Default)]
pub struct ProtectedHeaders(Vec<Box<str>>);

impl ProtectedHeaders {
    /// Every spelling of these names is protected.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let mut normal: Vec<Box<str>> = names.into_iter().map(|name| normal_form(name.as_str()).into()).collect();
        normal.sort_unstable();
        normal.dedup();
        Self(normal)
    }

    fn contains(&self, normal: &str) -> bool {
        self.0.binary_search_by(|name| (**name).cmp(normal)).is_ok()
    }
}

/// What the caller may not send, and what it may because the route says so.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) protected: Arc<ProtectedHeaders>,
    pub(super) route: Arc<Route>,
    /// The headers of the credential in use.
    pub(super) credential: Arc<[(HeaderName, HeaderValue)]>,
}

/// What Doorward itself says to the upstream.
pub(super) struct Said<'a> {
    pub(super) identity: &'a [(HeaderName, HeaderValue)],
    pub(super) credential: &'a Credential,
    pub(super) downstream: Downstream,
    pub(super) target: &'a Target,
    pub(super) request_id: &'a str,
    pub(super) trace: &'a TraceContext,
    pub(super) upgrade: bool,
}

/// The upstream's request headers, made of the caller's. Framing and `Host` are the connection's own and come later.
pub(super) fn for_upstream(mut headers: HeaderMap, rules: &Rules, said: &Said<'_>) -> Option<HeaderMap> {
    let named = connection_tokens(&headers);
    let wants_trailers = has_token(&headers, &header::TE, "trailers");

    let identity = |normal: &str| said.identity.iter().any(|(name, _)| normal_form(name.as_str()) == normal);
    let goes = |name: &HeaderName| {
        let normal = normal_form(name.as_str());
        rules.forbid(name, &normal) || identity(&normal) || named.iter().any(|named| *named == normal)
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
    cookies::keep_the_callers(&mut headers);
    declare_trailers(&mut headers, |name| rules.allow_trailer(name));
    for secret in [header::AUTHORIZATION, header::COOKIE] {
        if headers.contains_key(&secret)
            && let header::Entry::Occupied(mut values) = headers.entry(secret)
        {
            values.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
    if !said.trace.is_continued() {
        headers.remove(trace::TRACESTATE);
    }
    headers.reserve(ADDED);

    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if said.upgrade {
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    add_said(&mut headers, said)?;
    for (name, value) in said.identity {
        headers.insert(name, value.clone());
    }
    for (name, value) in said.credential.proof.headers().iter() {
        headers.insert(name, value.clone());
    }
    Some(headers)
}

impl Rules {
    /// Whether a header of the caller's stays behind.
    fn forbid(&self, name: &HeaderName, normal: &str) -> bool {
        if *name == header::AUTHORIZATION {
            return self.route.pass_authorization.is_none();
        }
        if *name == header::COOKIE {
            return self.route.pass_cookies.is_none();
        }
        is_hop_by_hop(normal)
            || is_spoofable(normal)
            || (self.route.speaks_aws && normal == aws::SECURITY_TOKEN)
            || self.protected.contains(normal)
            || self.credential.iter().any(|(name, _)| normal_form(name.as_str()) == normal)
            || self.route.identity_headers.as_ref().is_some_and(|names| {
                let names = [&names.subject, &names.issuer, &names.email, &names.groups, &names.roles];
                names.into_iter().flatten().any(|name| normal_form(name.as_str()) == normal)
            })
    }

    /// Whether a trailer of the caller's may cross.
    pub(super) fn allow_trailer(&self, name: &HeaderName) -> bool {
        allow_trailer(name) && !self.forbid(name, &normal_form(name.as_str()))
    }
}

/// Whether a trailer may cross at all: none that a message is framed, routed, authorized or cached by (RFC 9110 6.5.1).
pub(super) fn allow_trailer(name: &HeaderName) -> bool {
    let normal = normal_form(name.as_str());
    let said_in_the_head = matches!(
        &*normal,
        "authorization"
            | "www-authenticate"
            | "cookie"
            | "set-cookie"
            | "content-encoding"
            | "content-type"
            | "content-range"
            | "cache-control"
            | "expires"
            | "age"
            | "date"
            | "location"
            | "retry-after"
            | "vary"
            | "range"
            | "max-forwards"
            | "pragma"
            | "trailer"
            | "strict-transport-security"
    );
    !said_in_the_head
        && !normal.starts_with("if-")
        && !normal.starts_with("access-control-")
        && !is_hop_by_hop(&normal)
        && !is_spoofable(&normal)
}

/// Makes an upstream's headers fit for the caller. `upgraded` is an answer 101 to an upgrade that was asked for.
pub(super) fn for_caller(headers: &mut HeaderMap, upgraded: bool) {
    let named = connection_tokens(headers);
    let goes = |name: &HeaderName| {
        let normal = normal_form(name.as_str());
        // The one length of the answer stays, whatever the upstream names in `Connection`.
        *name != header::CONTENT_LENGTH && (is_hop_by_hop(&normal) || named.iter().any(|named| *named == normal))
    };
    let gone: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
    cookies::drop_sets_of_ours(headers);
    cookies::drop_clearings(headers);
    declare_trailers(headers, allow_trailer);
    if upgraded {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Whether `text` is a token of the list `name`, in any case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, text: &str) -> bool {
    let lines = headers.get_all(name).iter();
    lines.flat_map(tokens).any(|token| token.eq_ignore_ascii_case(text.as_bytes()))
}

/// The one announced length. `Err` says what is wrong with several, malformed or contradicted ones.
pub(super) fn announced_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err("two content lengths");
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err("content length beside transfer encoding");
    }
    let digits = line.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).map(Some).ok_or("malformed content length")
}

fn is_hop_by_hop(normal: &str) -> bool {
    matches!(
        normal,
        "connection"
            | "keep-alive"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "proxy"
            | "content-length"
            | "host"
            | "expect"
    ) || normal.starts_with("proxy-")
}

/// A name as the laxest upstream reads it: CGI makes `_` of whatever is no letter and no digit.
fn normal_form(name: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.bytes().all(plain) {
        return Cow::Borrowed(name);
    }
    let read = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte.to_ascii_lowercase()) } else { '-' };
    Cow::Owned(name.bytes().map(read).collect())
}

fn connection_tokens(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(header::CONNECTION).iter();
    let texts = lines.flat_map(tokens).filter_map(|token| std::str::from_utf8(token).ok());
    texts.map(|token| normal_form(token).into_owned()).collect()
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Keeps in `Trailer` what may follow: HTTP/1.1 sends only trailers that are named there.
fn declare_trailers(headers: &mut HeaderMap, allowed: impl Fn(&HeaderName) -> bool) {
    if !headers.contains_key(header::TRAILER) {
        return;
    }
    let lines = headers.get_all(header::TRAILER).iter();
    let names = lines.flat_map(tokens).filter_map(|token| HeaderName::from_bytes(token).ok());
    let kept: Vec<String> = names.filter(|name| allowed(name)).map(|name| name.to_string()).collect();
    headers.remove(header::TRAILER);
    if let (false, Some(kept)) = (kept.is_empty(), value(&kept.join(", "))) {
        headers.insert(header::TRAILER, kept);
    }
}

/// `X-Forwarded-*`, `Forwarded` (RFC 7239), the request's id and its trace, as parts of one text. The caller's address
/// alone: whoever stood between is not the upstream's concern, and a list of unverified hops is what others were fooled by.
fn add_said(headers: &mut HeaderMap, said: &Said<'_>) -> Option<()> {
    let scheme = said.downstream.scheme.as_str();
    let mut text = String::with_capacity(LONGEST_SAID + said.target.host().len());
    text.push_str(said.request_id);
    let request_id = 0..text.len();
    said.trace.push_parent(&mut text);
    let trace = request_id.end..text.len();
    let (before, after) = if said.downstream.address.is_ipv4() { ("", "") } else { ("\"[", "]\"") };
    text.push_str("for=");
    text.push_str(before);
    let mut address = text.len()..text.len();
    push_address(&mut text, said.downstream.address);
    address.end = text.len();
    for part in [after, ";proto=", scheme, ";host=\""] {
        text.push_str(part);
    }
    let mut host = text.len()..text.len();
    text.push_str(said.target.host());
    if let Some(port) = said.target.port() {
        write!(text, ":{port}").ok()?;
    }
    host.end = text.len();
    text.push('"');
    let forwarded = trace.end..text.len();

    let text = Bytes::from(text);
    let value = |part: Range<usize>| HeaderValue::from_maybe_shared(text.slice(part)).ok();
    headers.insert(X_REQUEST_ID, value(request_id)?);
    headers.insert(trace::TRACEPARENT, value(trace)?);
    headers.insert(header::FORWARDED, value(forwarded)?);
    headers.insert(X_FORWARDED_FOR, value(address)?);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.insert(X_FORWARDED_HOST, value(host)?);
    Some(())
}

fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}
