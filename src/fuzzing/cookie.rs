//! The session cookie of a request.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, header};

use super::choice;
use crate::login::probe::CookieProbe;

const ID: &str = "a session of ours";

static PROBE: LazyLock<CookieProbe> = LazyLock::new(|| {
    let probe = CookieProbe::new().expect("keys can be made");
    assert_eq!(probe.opened(&sealed(&probe)).as_deref(), Some(ID), "what was sealed opens");
    probe
});

/// The headers of a request with a cookie of ours.
fn sealed(probe: &CookieProbe) -> HeaderMap {
    let cookies = probe.sealed(ID).expect("it can be sealed");
    let line: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    headers_of(&[line.join("; ").as_bytes()]).expect("a cookie of ours is a header")
}

fn headers_of(lines: &[&[u8]]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(header::COOKIE, HeaderValue::from_bytes(line).ok()?);
    }
    Some(headers)
}

/// `Cookie` lines, sealed bytes, or changes to a cookie of ours, by the first byte: only what was sealed opens.
///
/// # Panics
/// When anything else does.
pub fn cookie(bytes: &[u8]) {
    let Some((kind, rest)) = choice(bytes) else { return };
    match kind {
        b'c' => {
            let lines: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').collect();
            let Some(headers) = headers_of(&lines) else { return };
            assert_eq!(PROBE.opened(&headers), None, "nobody sealed it");
        }
        b's' => {
            for purpose in ["", "__Host-doorward|1", "session"] {
                assert!(!PROBE.opens(purpose, rest), "nobody sealed it");
            }
        }
        _ => changed(rest),
    }
}

/// Each three bytes are a change: where, what, and whether a byte is set, put in or taken away.
fn changed(changes: &[u8]) {
    let headers = sealed(&PROBE);
    let sound = headers.get(header::COOKIE).expect("a cookie of ours").as_bytes();
    let mut line = sound.to_vec();
    for change in changes.chunks_exact(3) {
        let [place, byte, kind] = *change else { return };
        // Half of the places count from the end, where the tag is.
        let distance = usize::from(place / 2);
        let place = if place % 2 == 0 { distance } else { line.len().saturating_sub(distance + 1) };
        match kind % 3 {
            0 if place < line.len() => line[place] = byte,
            1 if place <= line.len() => line.insert(place, byte),
            2 if place < line.len() => drop(line.remove(place)),
            _ => {}
        }
    }
    let Some(headers) = headers_of(&[&line]) else { return };
    match PROBE.opened(&headers) {
        None => assert_ne!(line, sound, "what was sealed opens"),
        Some(id) => {
            assert_eq!(id, ID);
            // Other cookies beside ours, and blanks around them, say nothing of it.
            let value = sound.split(|byte| *byte == b'=').nth(1).expect("it has a value");
            assert!(line.windows(value.len()).any(|window| window == value), "a changed value opens: {line:?}");
        }
    }
}
