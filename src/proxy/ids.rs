//! Request ids.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;

const LONGEST_ID: usize = 64;
/// Of the counter: enough for a million requests a second over eight years.
const COUNTER_DIGITS: usize = 12;
const PREFIX_DIGITS: usize = 16;

/// The request's id: what a trusted load balancer named it, else a new one.
///
/// A new id is 16 hexadecimal digits drawn at the process's start and a counter: unique, and cheap enough to make for
/// every request. It identifies; it authorizes nothing.
#[must_use]
pub(super) fn request_id(headers: &HeaderMap, from_trusted: bool) -> Arc<str> {
    if from_trusted && let Some(given) = headers.get("x-request-id").and_then(|value| value.to_str().ok()) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !given.is_empty() && given.len() <= LONGEST_ID && given.bytes().all(is_plain) {
            return given.into();
        }
    }
    static PREFIX: OnceLock<String> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let prefix = PREFIX.get_or_init(|| uuid::Uuid::new_v4().simple().to_string().chars().take(PREFIX_DIGITS).collect());
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut id = [b'0'; PREFIX_DIGITS + COUNTER_DIGITS];
    let digits = prefix.bytes().chain((0..COUNTER_DIGITS).rev().map(|place| digit(count >> (4 * place))));
    id.iter_mut().zip(digits).for_each(|(to, from)| *to = from);
    std::str::from_utf8(&id).unwrap_or_default().into()
}

/// The lowest four bits as a hexadecimal digit.
fn digit(number: u64) -> u8 {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    DIGITS.get(usize::from(number.to_le_bytes()[0] & 15)).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn only_a_trusted_load_balancer_names_requests() {
        let given = headers("x-request-id", "abc-1");
        assert_eq!(&*request_id(&given, true), "abc-1");
        assert_ne!(&*request_id(&given, false), "abc-1");
        assert_ne!(request_id(&given, false), request_id(&given, false));
        assert_ne!(&*request_id(&headers("x-request-id", "a b"), true), "a b");
    }
}
