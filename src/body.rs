//! The one body type that crosses borders between steps.

use std::convert::Infallible;

use bytes::Bytes;
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

fn absurd(never: Infallible) -> BoxError {
    match never {}
}
