//! The PROXY header of a load balancer.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, ReadBuf};

use super::choice;
use crate::server::read_header;

/// Bytes that come in pieces of this size.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let here = self.size.min(buffer.remaining()).min(self.bytes.len());
        let (piece, rest) = self.bytes.split_at(here);
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// The address and how long the header was; nothing where it is refused.
fn read(bytes: &[u8], size: usize) -> Option<(Option<SocketAddr>, usize)> {
    let mut stream = Pieces { bytes, size };
    let read = read_header(&mut stream).now_or_never().expect("the bytes are here");
    let (address, early) = read.ok()?;
    let rest = [&early, stream.bytes].concat();
    assert!(bytes.ends_with(&rest), "what is left over is what came after the header");
    Some((address, bytes.len() - rest.len()))
}

/// The size of pieces and what comes: however a header comes, it says the same, and what is left over is exactly the bytes
/// after it.
///
/// # Panics
/// When it does not.
pub fn proxy_header(bytes: &[u8]) {
    let Some((size, bytes)) = choice(bytes) else { return };
    let whole = read(bytes, usize::MAX);
    assert_eq!(read(bytes, usize::from(size % 64) + 1), whole, "cut in pieces");
    let Some((address, length)) = whole else { return };
    assert!(length >= 15, "{length} bytes are no header");
    let (header, rest) = bytes.split_at(length);
    for after in [&b""[..], b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"PROXY UNKNOWN\r\n", rest] {
        let again = [header, after].concat();
        assert_eq!(read(&again, usize::MAX), Some((address, length)), "what follows changes nothing");
    }
    for cut in 0..length {
        assert_eq!(read(&header[..cut], usize::MAX), None, "half a header is none");
    }
}
