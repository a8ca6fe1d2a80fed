//! A path's one normal form, and what laxer readers may take it for.

use percent_encoding::{percent_decode, percent_decode_str};

use super::TargetError;

/// The path's normal form: what stands for itself decoded, all else encoded with upper-case digits.
/// `Ok(None)` when the path can be read in two ways.
pub(super) fn normalise(raw: &str) -> Result<Option<String>, TargetError> {
    let bytes = raw.as_bytes();
    if is_plain(bytes) {
        return Ok(Some(raw.to_owned()));
    }
    let mut normal = String::with_capacity(raw.len());
    let mut ambiguous = false;
    let mut decoded_high_byte = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let value = hex_pair(bytes.get(at), bytes.get(at + 1)).ok_or(TargetError::PathMalformed)?;
                at += 2;
                match value {
                    0..=0x1f | 0x7f => return Err(TargetError::PathMalformed),
                    b'/' | b'\\' | b'.' | b';' => {
                        ambiguous = true;
                        push_encoded(&mut normal, value);
                    }
                    _ if stands_for_itself(value) => normal.push(char::from(value)),
                    _ => {
                        decoded_high_byte |= value >= 0x80;
                        push_encoded(&mut normal, value);
                    }
                }
            }
            0..=b' ' | 0x7f.. => return Err(TargetError::PathMalformed),
            b'\\' | b';' => ambiguous = true,
            b'/' if normal.ends_with('/') => ambiguous = true,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => push_encoded(&mut normal, byte),
            _ => normal.push(char::from(byte)),
        }
    }
    if raw.split(['/', '\\']).any(is_dot_segment) || encoded_slash_hides_dots(raw) {
        return Err(TargetError::DotSegment);
    }
    if decoded_high_byte && percent_decode_str(raw).decode_utf8().is_err() {
        return Err(TargetError::PathMalformed);
    }
    // A second decoding would find another escape, also one that the first has put together.
    let escaped = normal.match_indices("%25").any(|(found, escape)| {
        let rest = normal.as_bytes().get(found + escape.len()..).unwrap_or_default();
        hex_pair(rest.first(), rest.get(1)).is_some()
    });
    Ok((!ambiguous && !escaped).then_some(normal))
}

/// Unreserved characters and the delimiters that mean the same escaped or not (RFC 3986 section 2). Not `+`, which some
/// upstreams read as a space, and not `;` and `.`, which are ambiguous when escaped.
const fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b',' | b'=' | b':' | b'@'
        )
}

/// Whether a byte may stand in a path as it is, the one that begins an escape among them (RFC 3986 section 3.3).
pub(super) const fn may_stand(byte: u8) -> bool {
    stands_for_itself(byte) || matches!(byte, b'/' | b'.' | b'%' | b'+' | b';')
}

/// Escapes are undone this often at most.
const UNESCAPED_AT_MOST: usize = 2;
/// Bytes of all readings of one path. Only a long path that is made to be read in many ways has more.
const MOST_READ_BYTES: usize = 256 * 1024;

/// What else an upstream may take `raw` for, in normal form: it unescapes once, twice or not at all, cuts path
/// parameters off before that (as servlets do) or after, perhaps takes `\` for `/`, several slashes for one, and an
/// unescaped `?` for the path's end. `None` when there are too many.
pub(super) fn readings(raw: &str) -> Option<Vec<String>> {
    let mut level = vec![raw.as_bytes().to_vec()];
    add_cuts(&mut level, |path| without_parameters(path, |byte| byte == b'/'));
    let mut left = MOST_READ_BYTES.checked_sub(level.iter().map(Vec::len).sum())?;
    let mut readings = Vec::with_capacity(level.len());
    level.iter().for_each(|path| add_spelled(&mut readings, path, |byte| byte == b'%'));
    for _ in 0..UNESCAPED_AT_MOST {
        let escaped = level.iter().filter(|path| path.contains(&b'%'));
        level = escaped.map(|path| percent_decode(path).collect()).collect();
        add_cuts(&mut level, |path| path.split(|byte| *byte == b'?').next().unwrap_or_default().to_vec());
        add_cuts(&mut level, |path| without_parameters(path, |byte| matches!(byte, b'/' | b'\\')));
        left = left.checked_sub(level.iter().map(Vec::len).sum())?;
        level.iter().for_each(|path| add_spelled(&mut readings, path, |_| false));
    }
    readings.retain(|reading| reading != raw);
    Some(readings)
}

/// Beside each path what `cut` leaves of it, where that is new.
fn add_cuts(paths: &mut Vec<Vec<u8>>, cut: impl Fn(&[u8]) -> Vec<u8>) {
    for at in 0..paths.len() {
        let Some(cut) = paths.get(at).map(|path| cut(path)) else { return };
        if !paths.contains(&cut) {
            paths.push(cut);
        }
    }
}

fn without_parameters(path: &[u8], is_separator: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut in_parameters = false;
    let stays = |byte: &u8| {
        in_parameters = (in_parameters || *byte == b';') && !is_separator(*byte);
        !in_parameters
    };
    path.iter().copied().filter(stays).collect()
}

/// `path` by each way of reading slashes.
fn add_spelled(readings: &mut Vec<String>, path: &[u8], is_kept: impl Fn(u8) -> bool) {
    let mut add = |path: &[u8]| {
        let reading = spelled(path, &is_kept);
        if !readings.contains(&reading) {
            readings.push(reading);
        }
    };
    add(path);
    let mut slashed: Vec<u8> = path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
    add(&slashed);
    slashed.dedup_by(|one, other| *one == b'/' && *other == b'/');
    add(&slashed);
}

/// The normal form of unescaped bytes, but for those that are kept.
fn spelled(path: &[u8], is_kept: impl Fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'/' | b'.' | b'+' | b';' => text.push(char::from(byte)),
            _ if stands_for_itself(byte) || is_kept(byte) => text.push(char::from(byte)),
            _ => push_encoded(&mut text, byte),
        }
    }
    text
}

/// Whether every reader reads the path alike: unreserved characters without a dot at a segment's start, and single
/// slashes between them. Dot segments and all that is encoded need the long way.
pub(super) fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    path.iter().all(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
            after_slash = false;
            true
        }
        b'.' => !after_slash,
        b'/' => !std::mem::replace(&mut after_slash, true),
        _ => false,
    })
}

fn is_dot_segment(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or(segment);
    if !name.contains('%') {
        return name == "." || name == "..";
    }
    let mut plain: Vec<u8> = percent_decode_str(name).collect();
    // A second decoding must not find one either.
    if plain.contains(&b'%') {
        plain = percent_decode_str(&String::from_utf8_lossy(&plain)).collect();
    }
    let plain = plain.split(|byte| *byte == b';').next().unwrap_or_default();
    plain == b"." || plain == b".."
}

/// `%2e%2e%2f`, `..%5c` and their like: dot segments between separators that are themselves encoded.
fn encoded_slash_hides_dots(raw: &str) -> bool {
    if !raw.contains('%') {
        return false;
    }
    let once: Vec<u8> = percent_decode_str(raw).collect();
    let once = String::from_utf8_lossy(&once);
    let twice: Vec<u8> = percent_decode_str(&once).collect();
    let twice = String::from_utf8_lossy(&twice);
    once.split(['/', '\\']).chain(twice.split(['/', '\\'])).any(is_dot_segment)
}

fn hex_pair(high: Option<&u8>, low: Option<&u8>) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let value = digit(high?)? * 16 + digit(low?)?;
    u8::try_from(value).ok()
}

fn push_encoded(text: &mut String, byte: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    text.push('%');
    for nibble in [byte >> 4, byte & 15] {
        text.extend(DIGITS.get(usize::from(nibble)));
    }
}
