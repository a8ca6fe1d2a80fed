//! A strict reader of HTTP/1.1 requests (RFC 9112), of this test alone: it shares no code with Doorward or hyper.
//!
//! The upstream reads with it what Doorward sends. The oracle reads with it what the client sent, to know which requests
//! that was.

use std::fmt;

/// One request, as its bytes say it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) is_http10: bool,
    pub(crate) fields: Vec<Field>,
    pub(crate) body: Vec<u8>,
    /// Whether a chunk has an extension.
    pub(crate) is_extended: bool,
    pub(crate) trailers: Vec<Field>,
}

/// A name as it was spelled, and its value without the white space around it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) value: Vec<u8>,
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {:?} body {}", self.method, self.target, self.fields, self.body.escape_ascii())?;
        write!(formatter, " trailers {:?}", self.trailers)
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.value.escape_ascii())
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// A whole request, and how many bytes it takes.
    Whole(Message, usize),
    /// The beginning of one; with its head, where that is whole.
    Cut(Option<Message>),
    /// Nothing that any request begins with; with the head, where that is whole and its body is at fault.
    Broken(&'static str, Option<Message>),
}

impl Message {
    /// The values of every field of this name.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| &*field.value)
    }

    /// The value of the only field of this name.
    pub(crate) fn only(&self, name: &str) -> Option<&str> {
        let named = self.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let mut values = named.map(|field| &*field.value);
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        std::str::from_utf8(value).ok()
    }
}

/// Digits of a chunk's size, and bytes of its extensions, that any reader has to take.
const SIZE_DIGITS: usize = 15;
const EXTENSION_BYTES: usize = 256;

/// Fields that no trailer may be (RFC 9110 section 6.5.1).
const NO_TRAILERS: [&str; 7] =
    ["content-length", "transfer-encoding", "host", "connection", "te", "trailer", "upgrade"];

/// A place in bytes, and why reading ends there.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

enum Stop {
    Cut,
    Broken(&'static str),
}

/// Reads the request at the beginning of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Read {
    let mut cursor = Cursor { bytes, at: 0 };
    let mut message = Message::default();
    let framing = match head(&mut cursor, &mut message) {
        Ok(framing) => framing,
        Err(Stop::Cut) => return Read::Cut(None),
        Err(Stop::Broken(fault)) => return Read::Broken(fault, None),
    };
    let body = match framing {
        Framing::Length(length) => cursor.take(length, &mut message.body),
        Framing::Chunked => chunks(&mut cursor, &mut message),
    };
    match body {
        Ok(()) => Read::Whole(message, cursor.at),
        Err(Stop::Cut) => Read::Cut(Some(message)),
        Err(Stop::Broken(fault)) => Read::Broken(fault, Some(message)),
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

fn head(cursor: &mut Cursor<'_>, message: &mut Message) -> Result<Framing, Stop> {
    let line = cursor.line()?;
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return Err(Stop::Broken("request line")) };
    message.is_http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(Stop::Broken("version")),
    };
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Stop::Broken("request line"));
    }
    message.method = text(method);
    message.target = text(target);
    let (mut length, mut chunked) = (None, false);
    loop {
        let line = cursor.line()?;
        if line.is_empty() {
            break;
        }
        let field = field(line)?;
        if field.name.eq_ignore_ascii_case("content-length") {
            if length.replace(content_length(&field.value)?).is_some() {
                return Err(Stop::Broken("two lengths"));
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || message.is_http10 || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Stop::Broken("transfer encoding"));
            }
            chunked = true;
        }
        message.fields.push(field);
    }
    match (length, chunked) {
        (Some(_), true) => Err(Stop::Broken("two framings")),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
        (None, true) => Ok(Framing::Chunked),
    }
}

fn chunks(cursor: &mut Cursor<'_>, message: &mut Message) -> Result<(), Stop> {
    loop {
        if cursor.rest().len() > SIZE_DIGITS + EXTENSION_BYTES + 2
            && !cursor.rest()[..SIZE_DIGITS + EXTENSION_BYTES + 2].contains(&b'\n')
        {
            return Err(Stop::Broken("chunk line too long"));
        }
        let line = cursor.line()?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let is_extension = extension.is_empty() || (extension[0] == b';' && extension.iter().all(is_text));
        if digits == 0 || digits > SIZE_DIGITS || !is_extension || extension.len() > EXTENSION_BYTES {
            return Err(Stop::Broken("chunk size"));
        }
        message.is_extended |= !extension.is_empty();
        let size = usize::from_str_radix(&text(size), 16).map_err(|_| Stop::Broken("chunk size"))?;
        if size == 0 {
            break;
        }
        cursor.take(size, &mut message.body)?;
        if !cursor.line()?.is_empty() {
            return Err(Stop::Broken("chunk end"));
        }
    }
    loop {
        let line = cursor.line()?;
        if line.is_empty() {
            return Ok(());
        }
        let trailer = field(line)?;
        if NO_TRAILERS.iter().any(|name| trailer.name.eq_ignore_ascii_case(name)) {
            return Err(Stop::Broken("trailer"));
        }
        message.trailers.push(trailer);
    }
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The next line, without its CR LF.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = self.rest();
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Stop::Cut)?;
        let line = rest[..end].strip_suffix(b"\r").ok_or(Stop::Broken("line end"))?;
        if line.contains(&b'\r') {
            return Err(Stop::Broken("line end"));
        }
        self.at += end + 1;
        Ok(line)
    }

    /// Puts so many bytes into `body`, or what there is of them.
    fn take(&mut self, length: usize, body: &mut Vec<u8>) -> Result<(), Stop> {
        let taken = &self.rest()[..length.min(self.rest().len())];
        body.extend_from_slice(taken);
        self.at += taken.len();
        if taken.len() == length { Ok(()) } else { Err(Stop::Cut) }
    }
}

fn field(line: &[u8]) -> Result<Field, Stop> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Stop::Broken("field"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) || !value.iter().all(is_text) {
        return Err(Stop::Broken("field"));
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    Ok(Field { name: text(name), value: value[start..end].to_vec() })
}

fn content_length(value: &[u8]) -> Result<usize, Stop> {
    let fault = Stop::Broken("content length");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(fault);
    }
    text(value).parse::<i64>().ok().and_then(|length| usize::try_from(length).ok()).ok_or(fault)
}

fn is_token(bytes: &[u8]) -> bool {
    let is_mark = |byte: &u8| b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// A byte of a field's value (RFC 9110 section 5.5).
fn is_text(byte: &u8) -> bool {
    *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_whole_request_is_read_as_it_is() {
    let bytes = b"POST /a?b HTTP/1.1\r\nHost: a\r\nX:\t y \r\ntransfer-encoding: Chunked\r\n\r\n\
                  3;x=1\r\na\r\n\r\n0A\r\n0123456789\r\n0\r\nSum: 7\r\n\r\nGET";
    let Read::Whole(message, used) = read(bytes) else { panic!("{:?}", read(bytes)) };
    assert_eq!((&*message.method, &*message.target, used), ("POST", "/a?b", bytes.len() - 3));
    assert_eq!(
        (&*message.body, message.only("x"), message.only("host")),
        (&b"a\r\n0123456789"[..], Some("y"), Some("a"))
    );
    assert_eq!(message.trailers[0].value, b"7");
    for end in 0..used {
        assert!(matches!(read(&bytes[..end]), Read::Cut(_)), "{end}");
    }
}

#[test]
fn every_ill_formed_message_is_found() {
    for (bytes, fault) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", "line end"),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", "line end"),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "line end"),
        ("\r\nGET / HTTP/1.1\r\n\r\n", "request line"),
        ("GET  / HTTP/1.1\r\n\r\n", "request line"),
        ("GET / a HTTP/1.1\r\n\r\n", "request line"),
        ("G(T / HTTP/1.1\r\n\r\n", "request line"),
        ("GET /\u{e9} HTTP/1.1\r\n\r\n", "request line"),
        ("GET / HTTP/2.0\r\n\r\n", "version"),
        ("GET / http/1.1\r\n\r\n", "version"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "field"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "field"),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", "field"),
        ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", "field"),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", "two lengths"),
        ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", "content length"),
        ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\na", "content length"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "transfer encoding"),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "transfer encoding"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "two framings"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n", "chunk size"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n", "chunk size"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", "chunk end"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", "line end"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n", "trailer"),
    ] {
        let found = read(bytes.as_bytes());
        assert!(matches!(&found, Read::Broken(found, _) if *found == fault), "{bytes:?}: {found:?}");
    }
}
