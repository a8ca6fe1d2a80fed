//! Marked secrets: whatever a test mints, is given or writes to the gate's files is looked for, in six encodings, in all
//! that the gate writes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

thread_local! {
    /// Those of the test that runs on this thread.
    static MARKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Shorter ones turn up by chance.
const SHORTEST: usize = 12;

/// Marks a secret of this test.
pub(crate) fn mark(secret: &str) {
    if secret.len() >= SHORTEST {
        MARKED.with_borrow_mut(|marked| marked.insert(secret.to_owned()));
    }
}

/// Marks the value of a `Set-Cookie`, unless it is one that anybody could know.
pub(crate) fn mark_cookie(cookie: &str) {
    let value = cookie.split(';').next().and_then(|pair| pair.split_once('=')).map_or("", |(_, value)| value);
    if value.len() >= 2 * SHORTEST {
        mark(value);
    }
}

/// Marks each line of key material, and each whole file of secrets, below `folder`.
pub(crate) fn mark_files(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            mark_files(&path);
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Ok(bytes) = fs::read(&path) else { continue };
        let is_secret = name.ends_with(".key") || name.ends_with(".secret") || name.ends_with(".token");
        let in_state = path.parent().is_some_and(|parent| parent.ends_with("state") || parent.ends_with("keys"));
        match String::from_utf8(bytes) {
            Ok(text) if text.contains("PRIVATE KEY") => {
                text.lines().filter(|line| line.len() >= 40 && !line.contains("-----")).for_each(mark);
            }
            Ok(text) if is_secret => mark(text.trim()),
            Err(binary) if in_state => mark(&STANDARD.encode(binary.as_bytes()).chars().take(64).collect::<String>()),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Fails if `text`, which came from the gate, holds a marked secret.
pub(crate) fn absent_from(what: &str, text: &[u8]) {
    MARKED.with_borrow(|marked| {
        for secret in marked {
            for (encoding, encoded) in encodings(secret) {
                if let Some(at) = memchr::memmem::find(text, encoded.as_bytes()) {
                    let before = String::from_utf8_lossy(&text[at.saturating_sub(200)..at]);
                    panic!("{what} holds a marked secret, {encoding}, behind {before:?}");
                }
            }
        }
    });
}

/// A secret as it could be written: plain, and in five other ways.
fn encodings(secret: &str) -> [(&'static str, String); 6] {
    let hex = secret.bytes().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    });
    let percent = secret.bytes().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "%{byte:02X}");
        text
    });
    let listed = secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    // Without the last characters, which depend on what follows.
    let whole = secret.get(..secret.len() / 3 * 3).unwrap_or(secret);
    [
        ("plain", secret.to_owned()),
        ("base64", STANDARD.encode(whole)),
        ("base64url", URL_SAFE_NO_PAD.encode(whole)),
        ("hexadecimal", hex),
        ("percent-encoded", percent),
        ("a list of bytes", listed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_secret_is_found_in_each_encoding_and_nothing_else_is() {
        mark("a-secret-of-this-test");
        absent_from("a harmless text", b"GET /things/1 200");
        for (encoding, encoded) in encodings("a-secret-of-this-test") {
            let text = format!("before {encoded} after");
            let found = std::panic::catch_unwind(|| absent_from("a log", text.as_bytes()));
            assert!(found.is_err(), "{encoding} was not found");
        }
    }
}
