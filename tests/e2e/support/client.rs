//! An HTTP client that does what it is told: no redirects, no cookies, a connection for each request.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::raw::RawConnection;
use super::server::{Body, BoxError};
use super::{secrets, within};

/// Where requests go, and how.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    host: String,
    tls: Option<Arc<ClientConfig>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json_as<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_value(self.json()).unwrap()
    }

    /// Every `Set-Cookie`.
    pub(crate) fn set_cookies(&self) -> Vec<&str> {
        self.headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect()
    }

    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        Self::try_read(response).await.expect("the answer is whole")
    }

    /// `None` when it broke off.
    pub(crate) async fn try_read(response: Response<Incoming>) -> Option<Self> {
        let (head, body) = response.into_parts();
        let body = within("the whole answer", body.collect()).await.ok()?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let answer = Self { status: head.status, headers: head.headers, body: body.to_bytes(), trailers };
        answer.set_cookies().iter().for_each(|cookie| secrets::mark_cookie(cookie));
        if !answer.status.is_success() {
            secrets::absent_from("an error page", &answer.body);
        }
        Some(answer)
    }
}

/// A request in the making.
pub(crate) struct Draft<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Body,
}

impl Client {
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, host: address.to_string(), tls: None }
    }

    pub(crate) fn tls(address: SocketAddr, host: &str, config: ClientConfig) -> Self {
        Self { address, host: host.to_owned(), tls: Some(Arc::new(config)) }
    }

    /// A TLS client that trusts the certificates of `pem`.
    pub(crate) fn trusting(address: SocketAddr, host: &str, pem: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        Self::tls(address, host, ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn get(&self, path: &str) -> Draft<'_> {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Draft<'_> {
        self.request(Method::POST, path)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Draft<'_> {
        Draft { client: self, method, path: path.to_owned(), headers: HeaderMap::new(), body: full("") }
    }

    /// A connection of its own for HTTP/1.1, kept alive and open to upgrades.
    pub(crate) async fn http1(&self) -> http1::SendRequest<Body> {
        match &self.tls {
            None => http1_over(TokioIo::new(self.dial().await)).await,
            Some(_) => http1_over(TokioIo::new(self.dial_tls(b"http/1.1").await)).await,
        }
    }

    /// The same over TLS; `None` when nobody accepts it.
    pub(crate) async fn try_http1(&self) -> Option<http1::SendRequest<Body>> {
        let config = ClientConfig::clone(self.tls.as_ref().expect("a client with TLS"));
        let name = ServerName::try_from(self.host.clone()).unwrap();
        let connecting = async {
            let stream = TcpStream::connect(self.address).await.ok()?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            Some(sender)
        };
        within("a connection or a refusal", connecting).await
    }

    /// A connection of its own for HTTP/2.
    pub(crate) async fn http2(&self) -> http2::SendRequest<Body> {
        self.http2_with(|client| client).await
    }

    /// A connection of its own for HTTP/2, with settings of its own.
    pub(crate) async fn http2_with(
        &self,
        change: impl FnOnce(&mut http2::Builder<TokioExecutor>) -> &mut http2::Builder<TokioExecutor>,
    ) -> http2::SendRequest<Body> {
        let stream = TokioIo::new(self.dial_tls(b"h2").await);
        let mut client = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = change(&mut client).handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A TLS connection for bytes of any kind.
    pub(crate) async fn raw(&self) -> RawConnection {
        RawConnection::new(self.dial_tls(b"http/1.1").await)
    }

    /// A TLS connection, for another protocol over HTTP/1.1.
    pub(crate) async fn stream(&self) -> TlsStream<TcpStream> {
        self.dial_tls(b"http/1.1").await
    }

    /// Whether a handshake succeeds and a request is answered at all. (With TLS 1.3 a client certificate is refused
    /// only after the client's side of the handshake is done.)
    pub(crate) async fn is_served(&self) -> bool {
        let asking = async {
            let config = ClientConfig::clone(self.tls.as_ref().expect("a client with TLS"));
            let name = ServerName::try_from(self.host.clone()).unwrap();
            let stream = TlsConnector::from(Arc::new(config)).connect(name, self.dial().await).await.ok()?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            sender.send_request(self.get("/.doorward/jwks.json").into_http1()).await.ok()
        };
        within("an answer or a refusal", asking).await.is_some()
    }

    async fn dial(&self) -> TcpStream {
        let stream = within("a connection", TcpStream::connect(self.address)).await;
        let stream = stream.unwrap_or_else(|error| panic!("{} does not answer: {error}", self.address));
        stream.set_nodelay(true).unwrap();
        stream
    }

    async fn dial_tls(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut config = ClientConfig::clone(self.tls.as_ref().expect("a client with TLS"));
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(self.host.clone()).unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, self.dial().await);
        let stream = within("a TLS handshake", connecting).await.expect("the handshake succeeds");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol), "the server speaks another protocol");
        stream
    }
}

async fn http1_over<S>(stream: S) -> http1::SendRequest<Body>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

impl Draft<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = full(body);
        self
    }

    pub(crate) fn stream(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// As a browser that opens a page.
    pub(crate) fn navigation(self) -> Self {
        self.header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .header("sec-fetch-mode", "navigate")
            .header("sec-fetch-dest", "document")
            .header("sec-fetch-site", "none")
    }

    /// Sends over HTTP/1.1 and reads the whole answer.
    pub(crate) async fn send(self) -> Answer {
        Answer::read(self.begin().await).await
    }

    /// The same over a plain connection; `None` when nobody answers.
    pub(crate) async fn try_send(self) -> Option<Answer> {
        let stream = TcpStream::connect(self.client.address).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let response = within("an answer", sender.send_request(self.into_http1())).await.ok()?;
        Answer::try_read(response).await
    }

    /// Sends over HTTP/1.1 and returns with the answer's head.
    pub(crate) async fn begin(self) -> Response<Incoming> {
        let mut sender = self.client.http1().await;
        within("an answer", sender.send_request(self.into_http1())).await.expect("the request is answered")
    }

    /// Sends over HTTP/2 and reads the whole answer.
    pub(crate) async fn send_http2(self) -> Answer {
        let mut sender = self.client.http2().await;
        let request = self.into_http2();
        let response = within("an answer", sender.send_request(request)).await.expect("the request is answered");
        Answer::read(response).await
    }

    /// In origin form, with `Host`.
    pub(crate) fn into_http1(mut self) -> Request<Body> {
        let host = HeaderValue::from_str(&self.client.host).unwrap();
        self.headers.entry(header::HOST).or_insert(host);
        let target = self.path.clone();
        self.build(&target)
    }

    /// With `:authority`.
    pub(crate) fn into_http2(self) -> Request<Body> {
        let target = format!("https://{}{}", self.client.host, self.path);
        self.build(&target)
    }

    fn build(self, target: &str) -> Request<Body> {
        let mut request = Request::builder().method(self.method).uri(target).body(self.body).unwrap();
        *request.headers_mut() = self.headers;
        request
    }
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| -> BoxError { match never {} }).boxed_unsync()
}
