//! The one spelling of a path or of a part of a query (RFC 3986 section 6.2.2): each byte either plain or `%XX`, one way only.

use std::fmt::Write;

/// Whether the byte stands for itself (RFC 3986 section 2.3).
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Adds `byte` as it is written in one way only: plain where it is unreserved, else `%XX`.
pub fn push_canonical(text: &mut String, byte: u8) {
    if is_unreserved(byte) {
        text.push(char::from(byte));
    } else {
        // A `String` takes whatever is written.
        let _ = write!(text, "%{byte:02X}");
    }
}

/// The one way of writing `text`; `kept` bytes stand as they are. `None` for a `%` without two hexadecimal digits.
#[must_use]
pub fn canonical(text: &str, kept: &[u8]) -> Option<String> {
    let bytes = text.as_bytes();
    let mut recoded = String::with_capacity(bytes.len() + 16);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == b'%' {
            let digit = |at: usize| bytes.get(at).and_then(|&byte| char::from(byte).to_digit(16));
            let value = digit(at)? * 16 + digit(at + 1)?;
            push_canonical(&mut recoded, u8::try_from(value).ok()?);
            at += 2;
        } else if kept.contains(&byte) {
            recoded.push(char::from(byte));
        } else {
            push_canonical(&mut recoded, byte);
        }
    }
    Some(recoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_the_same_is_written_in_one_way() {
        for (spelt, written) in
            [("/p%72iv%61te", "/private"), ("/a!b", "/a%21b"), ("/a%2fb", "/a%2Fb"), ("/~%7e", "/~~")]
        {
            assert_eq!(canonical(spelt, b"/").as_deref(), Some(written));
            assert_eq!(canonical(written, b"/").as_deref(), Some(written), "written again, it stays");
        }
        assert_eq!(canonical("/%4", b"/"), None);
    }
}
