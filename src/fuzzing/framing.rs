//! The strict reader of HTTP/1.1 before hyper.

use super::choice;
use crate::server::{Anomaly, Framing, Refused};

const LIMIT: usize = 512;

/// The fault, how many bytes passed before it, and whether a head has it.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(), Refused> {
    let mut framing = Framing::new(LIMIT);
    let mut before = 0;
    for piece in pieces {
        framing.look(piece).map_err(|refused| Refused { passed: before + refused.passed, ..refused })?;
        before += piece.len();
    }
    Ok(())
}

/// The size of pieces and what comes: the verdict does not depend on how it is cut, and what passes is framed alike by a
/// reader that forgives much.
///
/// # Panics
/// When it is not.
pub fn framing(bytes: &[u8]) {
    let Some((size, bytes)) = choice(bytes) else { return };
    let whole = read(std::iter::once(bytes));
    let sizes = [1, 2, usize::from(size) + 1];
    for size in sizes {
        let cut = read(bytes.chunks(size));
        assert_eq!(cut.map_err(|refused| refused.anomaly), whole.map_err(|refused| refused.anomaly), "by {size}");
        // Of a message that is refused, a piece before may have passed already.
        if let (Err(cut), Err(whole)) = (cut, whole) {
            assert_eq!(cut.in_head, whole.in_head, "by {size}");
            assert!(cut.passed >= whole.passed, "by {size}: {cut:?}, {whole:?}");
        }
    }
    let passed = match whole {
        Ok(()) => bytes,
        Err(refused) => &bytes[..refused.passed],
    };
    let ends = Reader { bare_lf: false }.ends(passed).expect("what passes makes sense");
    assert_eq!(Reader { bare_lf: true }.ends(passed).as_ref(), Some(&ends), "two readers find the same messages");
    // The reader itself finds them there: a line that begins no request is at fault, and nothing before it.
    for end in ends.iter().take(8) {
        let line = [&passed[..end.at], b"\0\r\n"].concat();
        let expected = Refused { anomaly: Anomaly::RequestLine, passed: end.at, in_head: !end.asks_for_upgrade };
        assert_eq!(read(std::iter::once(&line[..])), Err(expected));
    }
}

/// Where a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    at: usize,
    asks_for_upgrade: bool,
}

/// A reader that takes whatever it can make sense of.
struct Reader {
    bare_lf: bool,
}

impl Reader {
    /// Where the messages end that `bytes` hold whole. Nothing where a message makes no sense.
    fn ends(&self, bytes: &[u8]) -> Option<Vec<End>> {
        let mut ends = Vec::new();
        let mut at = 0;
        loop {
            let Some((next, asks_for_upgrade)) = self.message(bytes, at)? else { return Some(ends) };
            ends.push(End { at: next, asks_for_upgrade });
            at = next;
        }
    }

    /// Where the message ends that begins at `at`; nothing within while it is not whole.
    fn message(&self, bytes: &[u8], mut at: usize) -> Option<Option<(usize, bool)>> {
        let Some(mut line) = self.line(bytes, &mut at) else { return Some(None) };
        if line.is_empty() {
            match self.line(bytes, &mut at) {
                Some(next) => line = next,
                None => return Some(None),
            }
        }
        assert_eq!(line.iter().filter(|byte| **byte == b' ').count(), 2, "a request line has three parts");
        let (mut length, mut codings, mut asks_for_upgrade) = (None, 0, false);
        loop {
            let Some(line) = self.line(bytes, &mut at) else { return Some(None) };
            if line.is_empty() {
                break;
            }
            let text = String::from_utf8_lossy(line).to_lowercase();
            let (name, value) = text.split_once(':').expect("a field has a colon");
            assert_eq!(name.trim(), name, "a name stands without blanks");
            match name {
                "content-length" => {
                    assert_eq!(length.replace(value.trim().parse::<usize>().ok()?), None, "two lengths")
                }
                "transfer-encoding" => {
                    assert_eq!(value.trim(), "chunked");
                    codings += 1;
                }
                "upgrade" => asks_for_upgrade = true,
                _ => {}
            }
        }
        assert!(codings <= 1 && (codings == 0 || length.is_none()), "one framing");
        if codings == 0 {
            let end = at.checked_add(length.unwrap_or(0))?;
            return Some((end <= bytes.len()).then_some((end, asks_for_upgrade)));
        }
        Some(self.chunks(bytes, at)?.map(|end| (end, asks_for_upgrade)))
    }

    fn chunks(&self, bytes: &[u8], mut at: usize) -> Option<Option<usize>> {
        loop {
            let Some(line) = self.line(bytes, &mut at) else { return Some(None) };
            let text = str::from_utf8(line.split(|byte| *byte == b';').next()?).ok()?;
            let size = usize::from_str_radix(text.trim(), 16).ok()?;
            if size == 0 {
                break;
            }
            at = at.checked_add(size)?;
            match self.line(bytes, &mut at) {
                Some(line) => assert!(line.is_empty(), "a chunk ends in an empty line"),
                None => return Some(None),
            }
        }
        loop {
            match self.line(bytes, &mut at) {
                None => return Some(None),
                Some([]) => return Some(Some(at)),
                Some(_) => {}
            }
        }
    }

    /// The line that begins at `at`, without its end, where it has one.
    fn line<'a>(&self, bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
        let rest = bytes.get(*at..)?;
        let ends: &[u8] = if self.bare_lf { b"\n" } else { b"\r\n" };
        let end = rest.windows(ends.len()).position(|window| window == ends)?;
        *at += end + ends.len();
        let line = &rest[..end];
        Some(if self.bare_lf { line.strip_suffix(b"\r").unwrap_or(line) } else { line })
    }
}
