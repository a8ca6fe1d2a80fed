//! An upstream that keeps what it received and answers as it was told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::authority::Clients;
use super::server::{Body, BoxError, Server};
use super::{Authority, eventually};

/// One request as the upstream saw it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) connection: u64,
    pub(crate) version: Version,
    pub(crate) method: Method,
    /// Path and query, byte for byte.
    pub(crate) target: String,
    /// `Host`, or `:authority`.
    pub(crate) authority: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body_bytes: u64,
    pub(crate) body_sha256: Vec<u8>,
    /// Whether the body came to its proper end; false while it is still coming.
    pub(crate) complete: bool,
}

impl Received {
    /// The only value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "the upstream was given {name} twice: {:?}", self.headers);
        value
    }
}

/// How a path is answered.
pub(crate) enum Script {
    /// 200 with a small HTML page: what every path does that has no script.
    Page,
    /// A status, headers and a body.
    Fixed(StatusCode, Vec<(&'static str, &'static str)>, &'static str),
    /// One answer whose pieces come when the test sends them, and that ends when the sender is dropped.
    Pieces(&'static str, mpsc::Receiver<Bytes>),
    /// A head that promises ten bytes, five of them, and the end of the connection.
    Cut,
    /// No answer, ever.
    Silence,
    /// Accepts a WebSocket and sends every message back.
    WebSocketEcho,
    /// Sends the body back with gRPC trailers.
    Grpc,
}

impl Script {
    /// A stream whose pieces the test sends.
    pub(crate) fn pieces(content_type: &'static str) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self::Pieces(content_type, receiver))
    }
}

/// A real hyper server on a loopback port.
pub(crate) struct RecordingUpstream {
    server: Server,
    scheme: &'static str,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    scripts: Mutex<HashMap<String, Script>>,
    received: Mutex<Vec<Received>>,
}

impl RecordingUpstream {
    /// HTTP/1.1 and h2c.
    pub(crate) async fn start() -> Self {
        Self::with("http", None).await
    }

    /// TLS with the authority's `server.pem`, HTTP/2 by ALPN.
    pub(crate) async fn start_tls(authority: &Authority) -> Self {
        Self::with("https", Some(authority.server_config(Clients::Any))).await
    }

    /// The same, for clients with a certificate of the authority only.
    pub(crate) async fn start_mutual_tls(authority: &Authority) -> Self {
        Self::with("https", Some(authority.server_config(Clients::WithCertificate))).await
    }

    async fn with(scheme: &'static str, tls: Option<ServerConfig>) -> Self {
        let state = Arc::<State>::default();
        let answering = state.clone();
        let handler = move |connection, request| -> BoxFuture<'static, Response<Body>> {
            Box::pin(answering.clone().answer(connection, request))
        };
        let server = Server::reserve(tls, |_| Arc::new(handler));
        server.come_up().await;
        Self { server, scheme, state }
    }

    /// `http://127.0.0.1:…`
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.server.address())
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.address().port()
    }

    pub(crate) async fn go_away(&self) {
        self.server.go_away().await;
    }

    pub(crate) async fn come_up(&self) {
        self.server.come_up().await;
    }

    /// Answers `path` by `script` from now on; streams do so once.
    pub(crate) fn script(&self, path: &str, script: Script) {
        self.state.scripts.lock().unwrap().insert(path.to_owned(), script);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// The only request that came.
    pub(crate) fn only(&self) -> Received {
        let mut received = self.received();
        assert_eq!(received.len(), 1, "the upstream received {received:#?}");
        received.remove(0)
    }

    /// Fails if anything came.
    pub(crate) fn heard_nothing(&self) {
        let received = self.received();
        assert!(received.is_empty(), "the upstream received {received:#?}");
    }

    /// Waits for a request that `is_it` recognises.
    pub(crate) async fn receives(&self, what: &str, is_it: impl Fn(&Received) -> bool) -> Received {
        eventually(what, || async { self.received().into_iter().find(|received| is_it(received)) }).await
    }
}

impl State {
    async fn answer(self: Arc<Self>, connection: u64, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let index = self.record_head(connection, &request);
        let script = self.script_of(&path);
        match script {
            Script::WebSocketEcho => return accept_websocket(request),
            Script::Silence => return std::future::pending().await,
            Script::Grpc => {
                let body = self.read(index, request.into_body(), true).await;
                return grpc(body);
            }
            Script::Page | Script::Fixed(..) | Script::Pieces(..) | Script::Cut => {}
        }
        self.read(index, request.into_body(), false).await;
        match script {
            Script::Fixed(status, headers, body) => {
                let mut answer = Response::builder().status(status);
                for (name, value) in headers {
                    answer = answer.header(name, value);
                }
                answer.body(full(body)).unwrap()
            }
            Script::Pieces(content_type, pieces) => {
                let frames = stream::unfold(pieces, |mut pieces| async move {
                    let piece = pieces.recv().await?;
                    Some((Ok::<_, BoxError>(Frame::data(piece)), pieces))
                });
                let body = BodyExt::boxed_unsync(StreamBody::new(frames));
                Response::builder().header(header::CONTENT_TYPE, content_type).body(body).unwrap()
            }
            Script::Cut => {
                let begun = stream::once(async { Ok(Frame::data(Bytes::from_static(b"five "))) });
                // One pause, in which the server sends what it has.
                let cut = stream::once(tokio::task::yield_now()).map(|()| Err("cut".into()));
                let body = BodyExt::boxed_unsync(StreamBody::new(begun.chain(cut)));
                Response::builder().header(header::CONTENT_LENGTH, 10).body(body).unwrap()
            }
            Script::Page | Script::Silence | Script::WebSocketEcho | Script::Grpc => {
                let page = "<!doctype html><title>Upstream</title><h1>The upstream answers</h1>";
                Response::builder().header(header::CONTENT_TYPE, "text/html; charset=utf-8").body(full(page)).unwrap()
            }
        }
    }

    fn script_of(&self, path: &str) -> Script {
        let mut scripts = self.scripts.lock().unwrap();
        match scripts.get(path) {
            None | Some(Script::Page) => Script::Page,
            Some(Script::Fixed(status, headers, body)) => Script::Fixed(*status, headers.clone(), body),
            Some(Script::Cut) => Script::Cut,
            Some(Script::Silence) => Script::Silence,
            Some(Script::WebSocketEcho) => Script::WebSocketEcho,
            Some(Script::Grpc) => Script::Grpc,
            Some(Script::Pieces(..)) => scripts.remove(path).unwrap(),
        }
    }

    fn record_head(&self, connection: u64, request: &Request<Incoming>) -> usize {
        let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap().to_owned());
        let received = Received {
            connection,
            version: request.version(),
            method: request.method().clone(),
            target: request.uri().path_and_query().unwrap().to_string(),
            authority: request.uri().authority().map(ToString::to_string).or(host),
            headers: request.headers().clone(),
            body_bytes: 0,
            body_sha256: Vec::new(),
            complete: false,
        };
        let mut all = self.received.lock().unwrap();
        all.push(received);
        all.len() - 1
    }

    /// Reads the body to its end, keeping its length and hash, and itself only if asked.
    async fn read(&self, index: usize, mut body: Incoming, keep: bool) -> Bytes {
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut kept = BytesMut::new();
        let mut complete = true;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                complete = false;
                break;
            };
            if let Some(data) = frame.data_ref() {
                hash.update(data);
                self.received.lock().unwrap()[index].body_bytes += data.len() as u64;
                if keep {
                    kept.extend_from_slice(data);
                }
            }
        }
        let received = &mut self.received.lock().unwrap()[index];
        received.body_sha256 = hash.finish().as_ref().to_vec();
        received.complete = complete;
        kept.freeze()
    }
}

fn full(text: &'static str) -> Body {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

fn grpc(body: Bytes) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", "well received".parse().unwrap());
    let frames = [Ok::<_, BoxError>(Frame::data(body)), Ok(Frame::trailers(trailers))];
    let body = BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames)));
    Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body).unwrap()
}

fn accept_websocket(mut request: Request<Incoming>) -> Response<Body> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).expect("a WebSocket key reaches the upstream");
    let accept = derive_accept_key(key.as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    // Owned by the connection: it ends when either side does.
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(full(""))
        .unwrap()
}
