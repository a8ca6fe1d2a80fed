//! A request's head, line by line, as far as it frames the message.

use crate::server::anomaly::Anomaly;

/// How the body of a message ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// So many bytes, at least one.
    Length(u64),
    Chunked,
}

/// What is known of a head under way.
#[derive(Debug)]
pub(super) struct Head {
    is_http10: bool,
    length: Option<u64>,
    is_chunked: bool,
    /// Whether it asks for another protocol: what comes next may be no HTTP.
    pub(super) asks_for_upgrade: bool,
}

impl Head {
    /// A head that begins with this request line: `method SP target SP version`, one space each.
    pub(super) fn of(line: &[u8]) -> Result<Self, Anomaly> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next(), parts.next(), parts.next());
        let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next()) else {
            return Err(Anomaly::RequestLine);
        };
        let is_target = !target.is_empty() && all(target, |byte| matches!(byte, b'!'..=b'~'));
        let is_http10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Anomaly::RequestLine),
        };
        if !is_token(method) || !is_target {
            return Err(Anomaly::RequestLine);
        }
        Ok(Self { is_http10, length: None, is_chunked: false, asks_for_upgrade: false })
    }

    /// One field line, without its end.
    pub(super) fn field(&mut self, line: &[u8]) -> Result<(), Anomaly> {
        let (name, value) = split(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = length_of(value).ok_or(Anomaly::ContentLength)?;
            if self.length.replace(length).is_some() {
                return Err(Anomaly::ContentLength);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // Any other coding, or a list, is more than hyper undoes, and a second line is a list too.
            if self.is_chunked || self.is_http10 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Anomaly::TransferEncoding);
            }
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.asks_for_upgrade = true;
        }
        Ok(())
    }

    /// What follows the head.
    pub(super) fn body(&self) -> Result<Body, Anomaly> {
        match (self.is_chunked, self.length) {
            (true, Some(_)) => Err(Anomaly::TwoFramings),
            (true, None) => Ok(Body::Chunked),
            (false, None | Some(0)) => Ok(Body::None),
            (false, Some(length)) => Ok(Body::Length(length)),
        }
    }
}

/// A trailer's line: a field that says nothing of how the message is framed or where it goes (RFC 9110 section 6.5.1).
pub(super) fn trailer(line: &[u8]) -> Result<(), Anomaly> {
    const FRAMING: [&[u8]; 7] =
        [b"content-length", b"transfer-encoding", b"host", b"connection", b"te", b"trailer", b"upgrade"];
    let (name, _) = split(line)?;
    if FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) { Err(Anomaly::Trailer) } else { Ok(()) }
}

/// Name and value, the value without the white space around it.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Anomaly> {
    let colon = memchr::memchr(b':', line).ok_or(Anomaly::Field)?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    if !is_token(name) || !is_field_text(value) {
        return Err(Anomaly::Field);
    }
    Ok((name, value.trim_ascii()))
}

/// Digits alone; no length that hyper would take for something else.
fn length_of(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    i64::try_from(length).is_ok().then_some(length)
}

/// Bytes of a field's value: visible, a space, a tab, or beyond ASCII (RFC 9110 section 5.5).
pub(super) fn is_field_text(bytes: &[u8]) -> bool {
    all(bytes, |byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

/// One byte or more of a token (RFC 9110 section 5.6.2).
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, |byte| TOKEN.get(usize::from(byte)).copied().unwrap_or(false))
}

/// Which bytes may stand in a token.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 127 {
        byte += 1;
        let is_one = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        #[expect(clippy::indexing_slicing, reason = "while compiling; a byte is within 256")]
        {
            table[byte as usize] = is_one;
        }
    }
    table
};

/// Looks at every byte, good or bad: so many are looked at in one instruction.
fn all(bytes: &[u8], is_good: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |good, byte| good & is_good(*byte))
}
