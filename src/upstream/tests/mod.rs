//! What upstream tests share: a request that is easily bent, and upstreams made of real sockets.

mod connections;
mod hygiene;
mod identities;
mod limits;
mod streams;
mod tls;
mod websocket;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::body::{self as shared_body, Body, BoxError};
use crate::clock::Timestamp;
use crate::credential::Proof;
use crate::identity::Principal;
use crate::route::{Accepts, Access, Cors, HostPattern, LoginRequirement, PathMode, Route, RouteLimits};
use crate::target::RequestTarget;

/// Far longer than anything here takes: a test that reaches it fails.
pub(super) const LONG: Duration = Duration::from_secs(30);
/// For timeouts that a test wants to happen, against a peer that would never do anything.
pub(super) const SHORT: Duration = Duration::from_millis(60);

pub(super) fn route() -> Route {
    Route {
        name: "invoices".into(),
        index: 0,
        host: HostPattern::Any,
        path: "/{*rest}".into(),
        path_mode: PathMode::Normal,
        environment: "test".into(),
        tags: BTreeSet::new(),
        access: Access::Authenticated(Accepts::default()),
        login: LoginRequirement::default(),
        cors: Cors::default(),
        csrf_origins: BTreeSet::new(),
        pass_authorization: None,
        pass_cookies: None,
        speaks_aws: false,
        websocket: false,
        identity_headers: None,
        limits: RouteLimits {
            body_bytes: u64::MAX,
            first_byte: LONG,
            idle: LONG,
            total: None,
            ..RouteLimits::default()
        },
    }
}

/// One request, with everything that a test may want to bend.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) route: Route,
    pub(super) credential: Vec<(HeaderName, HeaderValue)>,
    /// The certificate to be shown; then there are no headers of a credential.
    certificate: Option<Arc<ClientIdentity>>,
    protected: ProtectedHeaders,
    pub(super) identity: Vec<(HeaderName, HeaderValue)>,
    pub(super) downstream: Downstream,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) upgrade: bool,
}

impl Ask {
    pub(super) fn new(method: Method, uri: &str, body: Body) -> Self {
        Self {
            method,
            uri: uri.to_owned(),
            headers: HeaderMap::new(),
            body,
            route: route(),
            credential: Vec::new(),
            certificate: None,
            protected: ProtectedHeaders::default(),
            identity: Vec::new(),
            downstream: Downstream { address: "192.0.2.7".parse().unwrap(), scheme: Scheme::Https },
            expires_at: None,
            upgrade: false,
        }
    }

    pub(super) fn get(uri: &str) -> Self {
        Self::new(Method::GET, uri, shared_body::empty())
    }

    pub(super) fn post(uri: &str, body: Body) -> Self {
        Self::new(Method::POST, uri, body)
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(super) fn by(mut self, certificate: Option<&Arc<ClientIdentity>>) -> Self {
        self.certificate = certificate.cloned();
        self
    }

    pub(super) fn limits(mut self, change: impl FnOnce(&mut RouteLimits)) -> Self {
        change(&mut self.route.limits);
        self
    }

    pub(super) async fn send(self, upstream: &Upstream) -> Result<Forwarded, UpstreamError> {
        self.send_asking(upstream).await.0
    }

    /// Beside the answer, the address that was asked.
    pub(super) async fn send_asking(self, upstream: &Upstream) -> (Result<Forwarded, UpstreamError>, Option<Arc<str>>) {
        let head = Request::builder().method(self.method).uri(&self.uri).header("host", "api.example.com:8443");
        let target = RequestTarget::of(&head.body(()).unwrap().into_parts().0).unwrap().into_normal().unwrap();
        let principal = Arc::new(Principal::anonymous(Timestamp::default()));
        let grant = Grant::for_tests(principal, Arc::new(self.route), Arc::default(), self.expires_at);
        let credential = Credential {
            id: "c".into(),
            name: "c".into(),
            kind: "fixed",
            expires_at: None,
            fresh: true,
            proof: match self.certificate {
                None => Proof::Headers(self.credential.into()),
                Some(certificate) => Proof::Certificate(certificate),
            },
            key: None,
        };
        let trace = TraceContext::of(&self.headers);
        let protected = Arc::new(self.protected);
        let mut asked = None;
        let forward = Forward {
            target: &target,
            headers: self.headers,
            body: self.body,
            downstream: self.downstream,
            request_id: "request-1",
            trace: &trace,
            identity_headers: &self.identity,
            signature: None,
            protected: &protected,
            upgrade: self.upgrade,
        };
        let answer =
            tokio::time::timeout(LONG, upstream.forward(forward, &grant, &credential, &mut asked)).await.unwrap();
        (answer, asked)
    }
}

pub(super) fn settings(addresses: &[SocketAddr]) -> UpstreamSettings {
    let addresses = addresses.iter().map(|address| UpstreamAddress::parse(&format!("http://{address}")).unwrap());
    UpstreamSettings::new("billing", addresses.collect())
}

pub(super) fn upstream(settings: UpstreamSettings) -> Arc<Upstream> {
    Upstream::new(settings, Clock::system()).unwrap()
}

pub(super) fn upstream_at(address: SocketAddr) -> Arc<Upstream> {
    upstream(settings(&[address]))
}

pub(super) async fn read_all(body: Body) -> Result<Bytes, BoxError> {
    Ok(tokio::time::timeout(LONG, body.collect()).await.unwrap()?.to_bytes())
}

pub(super) fn stream_error(error: &BoxError) -> &StreamError {
    error.downcast_ref().unwrap()
}

/// A body whose pieces are sent through a channel; it ends when the sender goes.
pub(super) fn channel() -> (mpsc::Sender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame: Result<Frame<Bytes>, BoxError>| (frame, receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

pub(super) fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A server that hands each connection and its number to `serve`.
pub(super) async fn raw<F, S>(serve: F) -> SocketAddr
where
    F: Fn(usize, TcpStream) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(count, stream));
            count += 1;
        }
    });
    address
}

/// Reads one head, to its blank line.
pub(super) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A server that answers every head on a connection with `answer`.
pub(super) async fn says(answer: &'static str) -> SocketAddr {
    raw(move |_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

/// What a recording upstream received.
pub(super) struct Received {
    pub(super) head: Parts,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Received {
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.head.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

/// An HTTP/1.1 and h2c server that keeps what it received and answers `ok`.
pub(super) async fn recorder() -> (SocketAddr, mpsc::UnboundedReceiver<Received>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let address = raw(move |_, stream| {
        let sender = sender.clone();
        async move { serve(stream, sender).await }
    })
    .await;
    (address, receiver)
}

pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    sender: mpsc::UnboundedSender<Received>,
) {
    let service = service_fn(move |request| record(request, sender.clone()));
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _closed_by_peer = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn record(
    request: Request<Incoming>,
    sender: mpsc::UnboundedSender<Received>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(Response::new(Full::default())) };
    let trailers = body.trailers().cloned();
    let _test_is_over = sender.send(Received { head, body: body.to_bytes(), trailers });
    Ok(Response::new(Full::from("ok")))
}
