//! A hyper server on a loopback port that can go away and come back on the same port.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Answers one request; the number says on which connection it came.
pub(crate) type Handler = Arc<dyn Fn(u64, Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// HTTP/1.1 and HTTP/2 (h2c, or by ALPN) on one loopback port.
pub(crate) struct Server {
    address: SocketAddr,
    service: Service,
    /// Bound but never listening, so that nobody else gets the port during an outage.
    _held: TcpSocket,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Service {
    tls: Option<TlsAcceptor>,
    handler: Handler,
    connections: Arc<AtomicU64>,
}

impl Server {
    /// Takes a port at which nobody answers yet. With a configuration it will speak TLS.
    pub(crate) fn reserve(tls: Option<ServerConfig>, handler: impl FnOnce(SocketAddr) -> Handler) -> Self {
        let held = bound((Ipv4Addr::LOCALHOST, 0).into());
        let address = held.local_addr().unwrap();
        let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        let service = Service { tls, handler: handler(address), connections: Arc::default() };
        Self { address, service, _held: held, accepting: Mutex::default() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn come_up(&self) {
        let listener = bound(self.address).listen(256).unwrap();
        *self.accepting.lock().await = Some(tokio::spawn(self.service.clone().accept(listener)));
    }

    /// A real outage: nobody listens, and open connections end.
    pub(crate) async fn go_away(&self) {
        if let Some(accepting) = self.accepting.lock().await.take() {
            accepting.abort();
            assert!(accepting.await.unwrap_err().is_cancelled(), "the peer had failed before its outage");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.get_mut().take() {
            accepting.abort();
        }
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

impl Service {
    async fn accept(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.unwrap();
                    connections.spawn(self.clone().serve(stream));
                }
                Some(ended) = connections.join_next() => ended.unwrap(),
            }
        }
    }

    async fn serve(self, stream: TcpStream) {
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        stream.set_nodelay(true).unwrap();
        match self.tls.clone() {
            None => self.answer(connection, TokioIo::new(stream)).await,
            // A caller that does not trust the certificate is no failure of the peer.
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    self.answer(connection, TokioIo::new(stream)).await;
                }
            }
        }
    }

    async fn answer<S: Read + Write + Unpin + Send + 'static>(self, connection: u64, stream: S) {
        let handler = self.handler;
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = handler(connection, request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        // Connections end in every way that a test thinks of; the test sees to it, not the peer.
        let _ended = Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(stream, service).await;
    }
}
