//! Paths and queries as every reader of a signature writes them: each byte either plain or `%XX`, one way only.
//!
//! What is signed is what is sent: the wire form is made canonical first, so that a server which signs the bytes that
//! it received and one which decodes and encodes them again come to the same text.

use percent_encoding::percent_decode_str;

use crate::target::{canonical, push_canonical};

/// Parameters of a presigned request: a signature of the caller's own, which is worth nothing here.
const PRESIGNED: [&str; 7] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
];

/// A path on the wire. Nothing is resolved and no slash joined: S3 keys may hold `//` and `.`.
pub(super) fn path(raw: &str) -> Option<String> {
    canonical(raw, b"/")
}

/// Whether the path has a slash as `%2F`: S3 takes both for one and signs the plain one, which is a path of other segments.
pub(super) fn encodes_a_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(|window| window.eq_ignore_ascii_case(b"%2F"))
}

/// A wire path as services other than S3 sign it: encoded once more.
pub(super) fn twice(path: &str) -> String {
    let mut text = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if byte == b'/' { text.push('/') } else { push_canonical(&mut text, byte) }
    }
    text
}

/// A query on the wire, in its own order, without a caller's presigned parameters. `+` is a space to whoever reads
/// forms, so it is written as one.
pub(super) fn query(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len() + 16);
    for parameter in raw.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').map_or((parameter, None), |(name, value)| (name, Some(value)));
        let part = |part: &str| canonical(&part.replace('+', "%20"), b"");
        let name = part(name)?;
        let decoded = percent_decode_str(&name).decode_utf8_lossy().to_ascii_lowercase();
        if PRESIGNED.contains(&&*decoded) {
            continue;
        }
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(&name);
        if let Some(value) = value {
            text.push('=');
            text.push_str(&part(value)?);
        }
    }
    Some(text)
}

/// A wire query as it is signed: sorted, and `=` after every name.
pub(super) fn canonical_query(query: &str) -> String {
    let mut parameters: Vec<(&str, &str)> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .collect();
    parameters.sort_unstable();
    let mut text = String::with_capacity(query.len() + parameters.len());
    for (name, value) in parameters {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_in_one_way() {
        for (raw, written) in [
            ("/b/k%201/%c3%a9+~.txt", "/b/k%201/%C3%A9%2B~.txt"),
            ("/b//a/./x", "/b//a/./x"),
            ("/b/%7Eme/%2F", "/b/~me/%2F"),
            ("/b/a=b(c)'d", "/b/a%3Db%28c%29%27d"),
        ] {
            assert_eq!(path(raw).as_deref(), Some(written), "{raw}");
            assert_eq!(path(written).as_deref(), Some(written), "written again, it stays");
        }
        assert_eq!(twice("/b/k%201"), "/b/k%25201");
        for broken in ["/%", "/%4", "/%zz", "/a%"] {
            assert_eq!(path(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_query_keeps_its_order_on_the_wire_and_loses_it_in_the_signature() {
        let wire = query("prefix=a+b/%2f&uploads&list-type=2&&X-Amz-Signature=00&x%2Damz-credential=AK").unwrap();
        assert_eq!(wire, "prefix=a%20b%2F%2F&uploads&list-type=2");
        assert_eq!(canonical_query(&wire), "list-type=2&prefix=a%20b%2F%2F&uploads=");
        assert_eq!(query("a=%"), None);
    }
}
