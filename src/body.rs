//! The one body type that crosses borders between steps.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

/// An error of any kind, boxed at a border.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streamed body, boxed.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// No body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(absurd).boxed_unsync()
}

/// A body of these bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(absurd).boxed_unsync()
}

/// Leaves the answer to a `HEAD` without its body, and says how long that would be (RFC 9110 section 9.3.2). Over HTTP/2
/// nobody else does.
pub fn keep_head_only(response: &mut Response<Body>) {
    if response.body().is_end_stream() {
        return;
    }
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    *response.body_mut() = empty();
}

fn absurd(never: Infallible) -> BoxError {
    match never {}
}
