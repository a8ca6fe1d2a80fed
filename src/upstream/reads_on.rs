//! A stream that reads on when its other side takes no more.
//!
//! An upstream may answer before a request's end and close (RFC 9112 section 9.6): the write that fails then says
//! nothing, and the answer that waits to be read says everything. hyper would report the failed write instead.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose failed writes are left to the reading side to explain.
#[derive(Debug)]
pub(super) struct ReadsOn<S> {
    inner: S,
    deaf: Arc<AtomicBool>,
}

impl<S> ReadsOn<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, deaf: Arc::default() }
    }

    /// Set once the other side has refused a write: the connection may carry no further request.
    pub(super) fn deaf(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.deaf)
    }

    /// Every write after the first that failed is taken and thrown away.
    fn take<T>(&self, polled: io::Result<T>, taken: T) -> Poll<io::Result<T>> {
        match polled {
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                self.deaf.store(true, Ordering::Relaxed);
                Poll::Ready(Ok(taken))
            }
            other => Poll::Ready(other),
        }
    }

    fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::Relaxed)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadsOn<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadsOn<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_deaf() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes));
        this.take(polled, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = || slices.iter().map(|slice| slice.len()).sum();
        if this.is_deaf() {
            return Poll::Ready(Ok(length()));
        }
        let polled = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, slices));
        this.take(polled, length())
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_deaf() {
            return Poll::Ready(Ok(()));
        }
        let polled = ready!(Pin::new(&mut this.inner).poll_flush(cx));
        this.take(polled, ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
