//! The strict reader of HTTP/1.1: it stands before hyper, sees every byte that a client sends, and lets through only what
//! no two readers could frame differently.
//!
//! hyper alone takes a bare LF for a line's end, drops a `Content-Length` beside a `Transfer-Encoding`, and merges
//! repeated lengths before anybody sees them: behind a load balancer that reads otherwise, each is a way to smuggle a
//! request. The reader follows RFC 9112 where it says MUST, and takes the strict side where it leaves a choice. It keeps
//! nothing but a line that a read has cut in two.

mod head;
#[cfg(test)]
mod tests;

use super::anomaly::Anomaly;

use self::head::{Body, Head};

/// What no request may do, and where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What it is.
    pub(crate) anomaly: Anomaly,
    /// How many of the bytes looked at may pass: those of the messages before.
    pub(crate) passed: usize,
    /// Whether a head is at fault, which hyper has not answered yet; else a body that it is reading, or what came before
    /// the answer to a request for an upgrade, of which nobody can say what it is.
    pub(crate) in_head: bool,
}

/// Bytes of chunk extensions that one chunk may have; nobody needs any.
const EXTENSION_BYTES: usize = 256;
/// Digits of a chunk's size: no more than fit a length.
const SIZE_DIGITS: usize = 15;

/// The reader of one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    /// The beginning of a line whose end was not read yet.
    line: Vec<u8>,
    /// Bytes of the head, or of the trailers, so far.
    section_bytes: usize,
    most_section_bytes: usize,
    /// Whether the request before asked for another protocol.
    may_be_upgraded: bool,
}

#[derive(Debug)]
enum State {
    /// Before a request; one empty line may stand there (RFC 9112 section 2.2).
    Between {
        skipped: bool,
    },
    Fields(Head),
    Content {
        left: u64,
        is_chunk: bool,
    },
    ChunkSize,
    ChunkEnd,
    Trailers,
}

impl Framing {
    /// A reader at the beginning of a connection, whose heads and trailers take at most `most_section_bytes` each.
    pub(crate) fn new(most_section_bytes: usize) -> Self {
        Self {
            state: State::Between { skipped: false },
            line: Vec::new(),
            section_bytes: 0,
            most_section_bytes,
            may_be_upgraded: false,
        }
    }

    /// Looks at the bytes that came after those it has seen.
    ///
    /// # Errors
    /// The first fault. Nothing after it means anything.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        // Where the message begins that is being read; a fault takes back all of it that is here.
        let mut begun = 0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let position = bytes.len() - rest.len();
            if matches!(self.state, State::Between { .. }) && self.line.is_empty() {
                begun = position;
            }
            let is_head = matches!(self.state, State::Between { .. } | State::Fields(_));
            rest = self.step(rest).map_err(|anomaly| {
                let passed = if is_head { begun } else { position };
                Refused { anomaly, passed, in_head: is_head && !self.may_be_upgraded }
            })?;
        }
        Ok(())
    }

    /// Takes the next piece, and answers with what is left.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Anomaly> {
        if let State::Content { left, is_chunk } = &mut self.state {
            let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            *left -= u64::try_from(here).unwrap_or(0);
            if *left == 0 {
                self.state = if *is_chunk { State::ChunkEnd } else { State::Between { skipped: false } };
            }
            return bytes.get(here..).ok_or(Anomaly::Chunk);
        }
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.keep(bytes)?;
            return Ok(&[]);
        };
        let (here, rest) = bytes.split_at(end + 1);
        if self.line.is_empty() {
            self.check_room(here.len())?;
            self.line_ended(here)?;
        } else {
            self.keep(here)?;
            let line = std::mem::take(&mut self.line);
            self.line_ended(&line)?;
        }
        Ok(rest)
    }

    /// Keeps the beginning of a line, within the limit of what it belongs to.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Anomaly> {
        self.check_room(self.line.len().saturating_add(bytes.len()))?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Refuses a line, or its beginning, that is longer than the limit of what it belongs to leaves. Asked before anything
    /// else, so that the verdict does not depend on how the line came.
    fn check_room(&self, length: usize) -> Result<(), Anomaly> {
        let (most, anomaly) = if matches!(self.state, State::ChunkSize | State::ChunkEnd) {
            (SIZE_DIGITS + EXTENSION_BYTES + 2, Anomaly::Chunk)
        } else {
            (self.most_section_bytes.saturating_sub(self.section_bytes), Anomaly::HeadTooLarge)
        };
        if length > most { Err(anomaly) } else { Ok(()) }
    }

    /// A whole line, its end included.
    fn line_ended(&mut self, line: &[u8]) -> Result<(), Anomaly> {
        let line = line.strip_suffix(b"\r\n").ok_or(Anomaly::LineEnd)?;
        // No line may hold a CR, whatever else it is: that is the fault to tell, and not looked for where there is none.
        self.take_line(line).map_err(|anomaly| if line.contains(&b'\r') { Anomaly::LineEnd } else { anomaly })
    }

    /// A whole line, without its end.
    fn take_line(&mut self, line: &[u8]) -> Result<(), Anomaly> {
        self.section_bytes = self.section_bytes.saturating_add(line.len() + 2);
        match &mut self.state {
            State::Between { skipped } => {
                if line.is_empty() && !*skipped {
                    *skipped = true;
                    self.section_bytes = 0;
                    return Ok(());
                }
                self.state = State::Fields(Head::of(line)?);
            }
            State::Fields(head) if line.is_empty() => {
                let body = head.body()?;
                self.may_be_upgraded = head.asks_for_upgrade;
                self.section_bytes = 0;
                self.state = match body {
                    Body::None => State::Between { skipped: false },
                    Body::Length(left) => State::Content { left, is_chunk: false },
                    Body::Chunked => State::ChunkSize,
                };
                return Ok(());
            }
            State::Fields(head) => head.field(line)?,
            State::ChunkSize => {
                self.section_bytes = 0;
                self.state = match chunk_size(line)? {
                    0 => State::Trailers,
                    left => State::Content { left, is_chunk: true },
                };
            }
            State::ChunkEnd => {
                if !line.is_empty() {
                    return Err(Anomaly::Chunk);
                }
                self.section_bytes = 0;
                self.state = State::ChunkSize;
            }
            State::Trailers if line.is_empty() => {
                self.section_bytes = 0;
                self.state = State::Between { skipped: false };
            }
            State::Trailers => head::trailer(line)?,
            State::Content { .. } => {}
        }
        Ok(())
    }
}

/// `chunk-size [ chunk-ext ]` (RFC 9112 section 7.1), without the white space that some tolerate.
fn chunk_size(line: &[u8]) -> Result<u64, Anomaly> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    let is_extension = extension.is_empty() || extension.starts_with(b";");
    if size.is_empty()
        || size.len() > SIZE_DIGITS
        || !is_extension
        || !head::is_field_text(extension)
        || extension.len() > EXTENSION_BYTES
    {
        return Err(Anomaly::Chunk);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    size.ok_or(Anomaly::Chunk)
}
