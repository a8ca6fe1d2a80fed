//! Byte streams: the socket, bytes read too early and played back, TLS on top, and the watch over both ends.

use std::io;
use std::net;
use std::os::unix;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::activity::Activity;
use super::anomaly::Anomaly;
use super::connections::ConnectionGuard;
use super::frames::Frames;
use super::framing::Framing;

/// A socket that no runtime looks after: on its way to another thread.
#[derive(Debug)]
pub(super) enum Detached {
    Tcp(net::TcpStream),
    Unix(unix::net::UnixStream),
}

impl Detached {
    /// Has the runtime of this thread look after it.
    pub(super) fn attached(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Socket::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Socket::Unix),
        }
    }
}

/// An accepted socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Has this thread's runtime look after it no more.
    pub(super) fn detached(self) -> io::Result<Detached> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Detached::Tcp),
            Self::Unix(stream) => stream.into_std().map(Detached::Unix),
        }
    }
}

macro_rules! delegate {
    ($self:ident, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($inner) => $call,
            Self::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

/// A socket that tells its connection's activity whether the client takes what is written to it.
#[derive(Debug)]
pub(super) struct MeteredSocket {
    socket: Socket,
    activity: Arc<Activity>,
}

impl MeteredSocket {
    pub(super) fn new(socket: Socket, activity: Arc<Activity>) -> Self {
        Self { socket, activity }
    }

    fn written(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(_) => self.activity.saw_write(),
            Poll::Pending => self.activity.saw_stall(),
        }
        polled
    }
}

impl AsyncRead for MeteredSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for MeteredSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.written(polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// A stream whose first bytes were read already: reads give those back first.
#[derive(Debug)]
pub(super) struct Replayed<S> {
    first: Bytes,
    inner: S,
}

impl<S> Replayed<S> {
    pub(super) fn new(first: Bytes, inner: S) -> Self {
        Self { first, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buffer);
        }
        let length = this.first.len().min(buffer.remaining());
        buffer.put_slice(&this.first.split_to(length));
        if !this.first.has_remaining() {
            this.first = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// What HTTP is spoken over.
#[derive(Debug)]
pub(super) enum ByteStream {
    Plain(Replayed<MeteredSocket>),
    Tls(Box<TlsStream<Replayed<MeteredSocket>>>),
}

macro_rules! either {
    ($this:expr, $inner:ident => $call:expr) => {
        match $this {
            ByteStream::Plain($inner) => $call,
            ByteStream::Tls($inner) => $call,
        }
    };
}

/// A byte stream that tells its connection's activity what arrives, lets no HTTP/1.1 through that two readers could frame
/// differently, and fails once an upgraded connection is cut.
/// It owns the connection's place among the open ones: the place is free when the stream is gone, even when an
/// upgrade carried it off.
#[derive(Debug)]
pub(super) struct Watched {
    // Dropped first: what the client did is told before the client can see the end.
    guard: ConnectionGuard,
    inner: ByteStream,
    protocol: Protocol,
    /// Set once that reader refused: nothing that the client sends means anything any more.
    refused: Option<Refusal>,
    /// Set once the writing side is closed and the client may still be sending.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// Watches `inner`, on which `protocol` is spoken.
    pub(super) fn new(inner: ByteStream, guard: ConnectionGuard, protocol: Protocol) -> Self {
        Self { guard, inner, protocol, refused: None, lingering: None }
    }
}

/// What is spoken over a byte stream, and who reads along.
#[derive(Debug)]
pub(super) enum Protocol {
    /// Until it is upgraded.
    Http1(Framing),
    Http2(Frames),
}

/// What makes a malformed head of whatever stands before it, and ends it.
const NO_HEAD: &[u8] = b"\0\r\n\r\n";

/// What hyper reads once the strict reader refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// [`NO_HEAD`], and then an error.
    Head,
    /// An error.
    End,
}

/// How long a client may go on sending after an answer that did not wait for its request's end.
const LINGER: Duration = Duration::from_secs(5);

impl Watched {
    /// Lets through what was read of `buffer` past `before`, as far as it may pass.
    fn look(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let activity = self.guard.activity();
        let read = buffer.filled().get(before..).unwrap_or_default();
        let framing = match &mut self.protocol {
            Protocol::Http1(framing) if activity.speaks_http1() => framing,
            Protocol::Http1(_) => return Ok(()),
            Protocol::Http2(frames) => {
                return frames.look(read, activity.now()).map_err(|anomaly| {
                    activity.cut_for(anomaly);
                    io::ErrorKind::InvalidData.into()
                });
            }
        };
        let Err(refused) = framing.look(read) else { return Ok(()) };
        activity.note(refused.anomaly);
        if refused.in_head && refused.anomaly == Anomaly::HeadTooLarge {
            // hyper finds this for itself, and says so.
            self.refused = Some(Refusal::End);
            return Ok(());
        }
        self.refused = Some(if refused.in_head { Refusal::Head } else { Refusal::End });
        buffer.set_filled(before.saturating_add(refused.passed));
        if refused.passed > 0 { Ok(()) } else { self.refuse(buffer) }
    }

    /// Ends what the client says. A head at fault becomes one that hyper refuses in its turn, after what came before; a
    /// body breaks off.
    fn refuse(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        if self.refused.replace(Refusal::End) == Some(Refusal::Head) && buffer.remaining() >= NO_HEAD.len() {
            buffer.put_slice(NO_HEAD);
            return Ok(());
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Reads what nobody wants until the client has seen the end. Closed with bytes unread, the socket would be reset,
    /// and the answer with it lost (RFC 9112 section 9.6).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let socket = match &mut self.inner {
            ByteStream::Plain(stream) => stream,
            ByteStream::Tls(stream) => stream.get_mut().0,
        };
        let mut bytes = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.guard.activity().check_read(cx)?;
        if this.refused.is_some() {
            return Poll::Ready(this.refuse(buffer));
        }
        let before = buffer.filled().len();
        let read = either!(&mut this.inner, inner => Pin::new(inner).poll_read(cx, buffer));
        if read.is_pending()
            && let Protocol::Http2(frames) = &mut this.protocol
        {
            // h2 hands streams on once it has read all there is. Of a client that is gone by then it hands on none.
            this.guard.activity().streams_opened(frames.take_opened());
        }
        ready!(read)?;
        if buffer.filled().len() > before {
            this.guard.activity().saw_read();
            return Poll::Ready(this.look(buffer, before));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.guard.activity().check_write(cx)?;
        either!(&mut this.inner, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.guard.activity().check_write(cx)?;
        either!(&mut this.inner, inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.inner, inner => inner.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.guard.activity().check_write(cx)?;
        either!(&mut this.inner, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.guard.activity().check_write(cx)?;
        if this.lingering.is_none() {
            ready!(either!(&mut this.inner, inner => Pin::new(inner).poll_shutdown(cx)))?;
        }
        if this.guard.activity().has_left_unread() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn bytes_read_too_early_come_first_and_once() {
        let mut stream = Replayed::new(Bytes::from_static(b"first "), &b"then"[..]);
        let mut small = [0; 4];
        stream.read_exact(&mut small).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&small[..], &rest[..]), (&b"firs"[..], &b"t then"[..]));
    }
}
