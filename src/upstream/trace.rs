//! W3C Trace Context for one hop: the caller's trace is continued with a parent of our own, or a new one begins.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The trace that a request belongs to, and the parent id that its upstream is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 32],
    parent_id: [u8; 16],
    sampled: bool,
    continued: bool,
}

impl TraceContext {
    /// Continues the trace of exactly one well-formed `traceparent`; anything else begins a new, unsampled one.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let caller = match (values.next(), values.next()) {
            (Some(only), None) => parse(only.as_bytes()),
            _ => None,
        };
        let parent_id = hex(random());
        match caller {
            Some((trace_id, sampled)) => Self { trace_id, parent_id, sampled, continued: true },
            None => {
                let mut trace_id = [b'0'; 32];
                let halves = hex(random()).into_iter().chain(hex(random()));
                trace_id.iter_mut().zip(halves).for_each(|(to, from)| *to = from);
                Self { trace_id, parent_id, sampled: false, continued: false }
            }
        }
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        std::str::from_utf8(&self.trace_id).unwrap_or_default()
    }

    /// Whether it is the caller's trace; only then does its `tracestate` go on.
    #[must_use]
    pub const fn is_continued(&self) -> bool {
        self.continued
    }

    /// Appends `traceparent` for the upstream.
    pub(super) fn push_parent(&self, text: &mut String) {
        let parent_id = std::str::from_utf8(&self.parent_id).unwrap_or_default();
        for part in ["00-", self.trace_id(), "-", parent_id, if self.sampled { "-01" } else { "-00" }] {
            text.push_str(part);
        }
    }
}

/// Trace id and sampled flag, by the rules of W3C Trace Context section 3.2: lower-case digits, no zero ids, version
/// `ff` refused, further fields only for versions to come.
fn parse(value: &[u8]) -> Option<([u8; 32], bool)> {
    let (known, rest) = value.split_at_checked(55)?;
    let mut fields = known.split(|byte| *byte == b'-');
    let (version, trace_id) = (fields.next()?, fields.next()?);
    let (parent_id, flags) = (fields.next()?, fields.next()?);
    let digits = |field: &[u8], length| {
        field.len() == length && field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let good = digits(version, 2) && digits(trace_id, 32) && digits(parent_id, 16) && digits(flags, 2);
    let zero = |field: &[u8]| field.iter().all(|byte| *byte == b'0');
    if !good || fields.next().is_some() || version == b"ff" || zero(trace_id) || zero(parent_id) {
        return None;
    }
    if !rest.is_empty() && (version == b"00" || !rest.starts_with(b"-")) {
        return None;
    }
    let sampled = flags.last().is_some_and(|digit| char::from(*digit).to_digit(16).unwrap_or(0) & 1 == 1);
    Some((trace_id.try_into().ok()?, sampled))
}

/// Ids need to differ, not to be secret: a keyed hash over a counter, free of a system call.
fn random() -> u64 {
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    KEYS.get_or_init(RandomState::new).hash_one(count).max(1)
}

fn hex(number: u64) -> [u8; 16] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    std::array::from_fn(|place| {
        let nibble = (number >> (60 - 4 * place)) & 15;
        usize::try_from(nibble).ok().and_then(|nibble| DIGITS.get(nibble).copied()).unwrap_or(b'0')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(values: &[&str]) -> TraceContext {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("traceparent", value.parse().unwrap());
        }
        TraceContext::of(&headers)
    }

    fn parent_of(context: &TraceContext) -> String {
        let mut text = String::new();
        context.push_parent(&mut text);
        text
    }

    #[test]
    fn a_trace_goes_on_under_a_parent_of_our_own() {
        let context = of(&[GOOD]);
        let value = parent_of(&context);
        assert!(context.is_continued() && value.len() == 55);
        assert!(value.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && value.ends_with("-01"));
        assert!(!value.contains("b7ad6b7169203331"), "the parent is ours");
        let later = format!("cc{}-more", GOOD.trim_start_matches("00"));
        assert!(of(&[&later]).is_continued(), "a version to come may carry more fields");
    }

    #[test]
    fn a_malformed_or_doubled_traceparent_begins_a_new_trace() {
        let upper = GOOD.to_uppercase();
        let long = format!("{GOOD}-x");
        let ff = format!("ff{}", GOOD.trim_start_matches("00"));
        let zero_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let zero_parent = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        for bad in [&upper, &long, &ff, zero_trace, zero_parent, "", "00-x"] {
            let context = of(&[bad]);
            assert!(!context.is_continued(), "{bad}");
            assert_ne!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
            assert!(parse(parent_of(&context).as_bytes()).is_some());
        }
        assert!(!of(&[GOOD, GOOD]).is_continued());
        assert!(!of(&[]).is_continued());
    }
}
