//! Exchanges with those who issue credentials: what an answer's status and headers mean for another try.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, StatusCode};

use super::source::SourceError;
use crate::outbound::{OutboundClient, OutboundError};

/// Longest text of an issuer's own that goes on record.
const LONGEST_DETAIL: usize = 300;

/// Sends one request. An answer of any status but those that say "later" comes back.
///
/// # Errors
/// [`SourceError`] when the issuer is out of reach, answers 408, 425, 429 or 5xx, or with a redirect.
pub(super) async fn send(client: &OutboundClient, request: Request<Bytes>) -> Result<Response<Bytes>, SourceError> {
    let answer = client.send(request).await.map_err(|error| {
        let detail = with_causes(&error);
        match error {
            OutboundError::Redirect { .. } | OutboundError::TooLarge { .. } => {
                SourceError::lasting(SourceError::UNREADABLE, detail)
            }
            OutboundError::Authorities(_) | OutboundError::Address { .. } => {
                SourceError::lasting(SourceError::REFUSED, detail)
            }
            OutboundError::Exchange { .. } | OutboundError::Deadline { .. } => {
                SourceError::passing(SourceError::UNAVAILABLE, detail)
            }
        }
    })?;
    let status = answer.status();
    let later = status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if !later {
        return Ok(answer);
    }
    let detail = format!("its issuer answered {}: {}", status.as_u16(), said(answer.body()));
    Err(match retry_after(answer.headers()) {
        Some(pause) => SourceError::busy(detail, pause),
        None => SourceError::passing(SourceError::UNAVAILABLE, detail),
    })
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3); a date is not what these issuers send.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// What an issuer says, fit for a record: one line, not long, and nothing in it that looks like a token.
pub(super) fn said(text: impl AsRef<[u8]>) -> String {
    let text = String::from_utf8_lossy(text.as_ref());
    let words = text.split(|character: char| character.is_whitespace() || character.is_control());
    let mut line = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        if word.contains("eyJ") || word.len() > 160 {
            line.push('…');
        } else {
            line.push_str(word);
        }
        if line.len() > LONGEST_DETAIL {
            let end = (0..=LONGEST_DETAIL).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
            line.truncate(end);
            line.push('…');
            break;
        }
    }
    line
}

/// An error and what it comes of, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_issuer_says_is_one_short_line_without_tokens() {
        assert_eq!(said("a\r\n  b\tc"), "a b c");
        assert_eq!(said("the token [eyJhbGciOi.eyJpc3M.c2ln] is old"), "the token … is old");
        assert!(said("word ".repeat(200)).len() <= LONGEST_DETAIL + '…'.len_utf8());
        assert_eq!(said("x".repeat(161)), "…");
    }
}
