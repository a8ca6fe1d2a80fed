//! A client of kept-alive TLS connections, HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One kept-alive connection.
pub enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A TLS configuration that trusts `authority` and offers one protocol.
pub fn tls(authority: &CertificateDer<'static>, version: Version) -> Arc<rustls::ClientConfig> {
    tls_of(authority, version, rustls::crypto::aws_lc_rs::default_provider())
}

/// The same with the one key exchange that every proxy has, so that none is compared by another's choice.
pub fn common_tls(authority: &CertificateDer<'static>, version: Version) -> Arc<rustls::ClientConfig> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.retain(|group| group.name() == rustls::NamedGroup::X25519);
    tls_of(authority, version, provider)
}

fn tls_of(
    authority: &CertificateDer<'static>,
    version: Version,
    mut provider: CryptoProvider,
) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.clone()).expect("the authority is a certificate");
    // One suite for every server, so that none is compared by another's choice.
    provider.cipher_suites.retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if version == Version::HTTP_2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Arc::new(config)
}

/// A finished handshake with `address`.
pub async fn handshake(address: SocketAddr, tls: &Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("the proxy listens");
    stream.set_nodelay(true).expect("nodelay");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(tls.clone()).connect(name, stream).await.expect("the handshake succeeds")
}

impl Connection {
    /// Connects to `address`, with TLS when `tls` is given.
    pub async fn open(address: SocketAddr, tls: Option<&Arc<rustls::ClientConfig>>) -> Self {
        let Some(tls) = tls else {
            let stream = TcpStream::connect(address).await.expect("the upstream listens");
            stream.set_nodelay(true).expect("nodelay");
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            return Self::Http1(sender);
        };
        Self::over(handshake(address, tls).await).await
    }

    /// Speaks HTTP over a finished handshake, in the version that it settled on.
    pub async fn over(stream: TlsStream<TcpStream>) -> Self {
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
            tokio::spawn(connection);
            return Self::Http2(sender);
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self::Http1(sender)
    }

    /// Another stream of the same connection, where it can have several.
    pub fn another(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    /// Sends one request and reads the answer to its end; panics unless it is 200.
    pub async fn request(&mut self, path: &str, token: &str, body: Bytes) -> usize {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let request = Request::builder().method(method).header("authorization", token);
        let request = match self {
            Self::Http1(_) => request.uri(path).header("host", "localhost"),
            Self::Http2(_) => request.uri(format!("https://localhost{path}")),
        };
        let request = request.body(Full::new(body)).expect("a request");
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await.expect("the connection is alive");
                sender.send_request(request).await
            }
            Self::Http2(sender) => sender.send_request(request).await,
        };
        let mut response = response.expect("an answer");
        assert_eq!(response.status(), 200, "{:?}", response.headers());
        let mut length = 0;
        while let Some(frame) = response.frame().await {
            length += frame.expect("the body arrives").data_ref().map_or(0, Bytes::len);
        }
        length
    }
}
