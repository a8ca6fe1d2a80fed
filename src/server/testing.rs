//! A small world for tests: certificates minted as they run, a server, and clients over loopback.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::body::{self, Body};
use crate::peer::{Admission, Peer};
use crate::secret::Secret;
use crate::shutdown::Shutdown;

use super::tls::{
    CertificateSettings, ClientCertificateMode, ClientCertificateSettings, MinimumVersion, Pem, TlsAcceptorHandle,
    TlsSettings,
};
use super::{
    Anomaly, AnomalyHandler, DrainReport, Handler, ListenAddress, ListenerSettings, Server, ServerLimits, ServerStats,
};

/// A self-signed certificate for `names`.
pub(super) fn self_signed(names: &[&str]) -> CertificateSettings {
    let key = KeyPair::generate().unwrap();
    let certificate = params(names).self_signed(&key).unwrap();
    settings_of(certificate.pem(), &key)
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn settings_of(pem: String, key: &KeyPair) -> CertificateSettings {
    CertificateSettings {
        certificate: Pem { name: "server.pem".into(), text: pem },
        key_name: "server.key".into(),
        key: Secret::new(key.serialize_pem()),
    }
}

/// A certificate authority.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A client's certificate and key.
pub(super) struct ClientIdentity {
    pub(super) certificate: rcgen::Certificate,
    pub(super) key: KeyPair,
    pub(super) serial: SerialNumber,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> Pem {
        Pem { name: "authority.pem".into(), text: self.0.pem() }
    }

    pub(super) fn server(&self, names: &[&str]) -> CertificateSettings {
        let key = KeyPair::generate().unwrap();
        settings_of(params(names).signed_by(&key, &self.0).unwrap().pem(), &key)
    }

    pub(super) fn client(&self, serial: u64, not_after: OffsetDateTime) -> ClientIdentity {
        let (key, serial) = (KeyPair::generate().unwrap(), SerialNumber::from(serial));
        let mut params = params(&["workload.example"]);
        params.serial_number = Some(serial.clone());
        params.not_after = not_after;
        ClientIdentity { certificate: params.signed_by(&key, &self.0).unwrap(), key, serial }
    }

    /// A revocation list that is due again at `next_update`.
    pub(super) fn revocations(&self, revoked: &[&ClientIdentity], next_update: OffsetDateTime) -> Pem {
        let revoked_certs = revoked.iter().map(|client| RevokedCertParams {
            serial_number: client.serial.clone(),
            revocation_time: now() - time::Duration::hours(1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now() - time::Duration::hours(2),
            next_update,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Pem { name: "clients.crl".into(), text: list.signed_by(&self.0).unwrap().pem().unwrap() }
    }

    /// A TLS client that trusts this authority.
    pub(super) fn trusted(&self, identity: Option<&ClientIdentity>, alpn: &[&str]) -> ClientConfig {
        self.trusted_by_version(identity, alpn, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    pub(super) fn trusted_by_version(
        &self,
        identity: Option<&ClientIdentity>,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(ClientIdentity { certificate, key, .. }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }
}

/// A test that waits in vain shall fail, not hang; what passes never comes near this.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("nothing happened within 30 seconds")
}

pub(super) fn now() -> OffsetDateTime {
    let millis = crate::clock::Clock::system().now().unix_millis();
    OffsetDateTime::from_unix_timestamp(millis / 1000).unwrap()
}

pub(super) fn tomorrow() -> OffsetDateTime {
    now() + time::Duration::days(1)
}

pub(super) fn tls(certificates: Vec<CertificateSettings>) -> TlsSettings {
    TlsSettings { certificates, minimum_version: MinimumVersion::Tls12, client_certificates: None }
}

pub(super) fn clients(mode: ClientCertificateMode, authority: &Authority) -> ClientCertificateSettings {
    ClientCertificateSettings { mode, authorities: authority.pem(), revocations: None }
}

/// Limits under which nothing ends by time unless the test says so.
pub(super) fn patient() -> ServerLimits {
    let hour = Duration::from_secs(3600);
    ServerLimits { header_read: hour, connection_idle: hour, handshake: hour, drain: hour, ..ServerLimits::default() }
}

/// A running server. `/` tells about the peer; `/gated` answers, and `/streamed` ends its body, when the gate opens.
pub(super) struct World {
    pub(super) addresses: BTreeMap<String, ListenAddress>,
    pub(super) tls: BTreeMap<String, TlsAcceptorHandle>,
    pub(super) stats: Arc<ServerStats>,
    pub(super) shutdown: Shutdown,
    pub(super) gate: Arc<Semaphore>,
    /// Path of each request when its handler begins.
    pub(super) entered: mpsc::UnboundedReceiver<String>,
    /// What connections did that nobody may.
    pub(super) told: mpsc::UnboundedReceiver<Anomaly>,
    pub(super) running: JoinHandle<DrainReport>,
}

pub(super) fn listener(name: &str, tls: Option<TlsSettings>) -> ListenerSettings {
    let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    ListenerSettings { name: name.into(), address, tls, proxy_protocol_from: Vec::new() }
}

impl World {
    /// One listener named `public`.
    pub(super) fn start(tls: Option<TlsSettings>, limits: ServerLimits) -> Self {
        Self::start_all(vec![listener("public", tls)], limits)
    }

    pub(super) fn start_all(listeners: Vec<ListenerSettings>, limits: ServerLimits) -> Self {
        let (gate, shutdown) = (Arc::new(Semaphore::new(0)), Shutdown::new());
        let (enter, entered) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::unbounded_channel();
        let anomalies: AnomalyHandler = Arc::new(move |_, anomaly| {
            // The test may have ended.
            let _ = tell.send(anomaly);
        });
        let handler = handler(Arc::clone(&gate), enter);
        let server = Server::bind(listeners, limits, handler, anomalies, shutdown.clone()).unwrap();
        let (addresses, tls, stats) = (server.addresses(), server.tls(), server.stats());
        World {
            addresses,
            tls,
            stats,
            shutdown,
            gate,
            entered,
            told,
            running: tokio::spawn(server.run(Arc::default())),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self.addresses.get("public") {
            Some(ListenAddress::Tcp(address)) => *address,
            other => panic!("no TCP listener `public`: {other:?}"),
        }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    pub(super) async fn connect_tls(&self, name: &str, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        shake_hands(self.connect().await, name, config).await
    }
}

pub(super) async fn shake_hands(
    stream: TcpStream,
    name: &str,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn handler(gate: Arc<Semaphore>, entered: mpsc::UnboundedSender<String>) -> Handler {
    Arc::new(move |request, peer, admission| {
        let (gate, entered) = (Arc::clone(&gate), entered.clone());
        Box::pin(async move {
            if admission != Admission::Admitted {
                return refused(admission);
            }
            let path = request.uri().path().to_owned();
            // The test may have stopped listening.
            let _ = entered.send(path.clone());
            match path.as_str() {
                "/gated" => {
                    gate.acquire().await.unwrap().forget();
                    Response::new(body::full("through"))
                }
                "/streamed" => Response::new(streamed(gate)),
                "/endless" => Response::new(endless(Farewell(entered))),
                "/upgraded" => upgraded(request),
                _ => Response::new(body::full(describe(&peer))),
            }
        })
    })
}

/// A first chunk at once, and a last one when the gate opens.
fn streamed(gate: Arc<Semaphore>) -> Body {
    let chunks = stream::unfold(Some(0), move |state| {
        let gate = Arc::clone(&gate);
        async move {
            match state? {
                0 => Some((Ok(Frame::data(Bytes::from_static(b"first "))), Some(1))),
                _ => {
                    gate.acquire().await.unwrap().forget();
                    Some((Ok(Frame::data(Bytes::from_static(b"last"))), None))
                }
            }
        }
    });
    StreamBody::new(chunks).boxed_unsync()
}

/// A body without end; its drop shows as one more request entered.
fn endless(farewell: Farewell) -> Body {
    let chunk = Bytes::from_static(&[b'x'; 64 * 1024]);
    let chunks = stream::repeat_with(move || {
        let _kept = &farewell;
        Ok(Frame::data(chunk.clone()))
    });
    StreamBody::new(chunks).boxed_unsync()
}

struct Farewell(mpsc::UnboundedSender<String>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.0.send("/endless dropped".into());
    }
}

fn refused(admission: Admission) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = match admission {
        Admission::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Admission::Admitted | Admission::CertificateBarred => StatusCode::FORBIDDEN,
    };
    response
}

/// An upgraded stream that gives back what it gets.
fn upgraded(mut request: Request<Body>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        tokio::io::copy(&mut read, &mut write).await
    });
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
    response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
    response
}

fn describe(peer: &Peer) -> String {
    let tls = peer.tls.as_ref();
    let certificate = peer.certificate.as_ref().map(|certificate| certificate.sha256);
    format!(
        "address={} transport={:?} version={:?} name={:?} group={:?} certificate={certificate:?}",
        peer.address.ip(),
        peer.transport,
        tls.map(|tls| tls.version),
        tls.and_then(|tls| tls.server_name.as_deref()),
        tls.and_then(|tls| tls.key_exchange_group.as_deref()),
    )
}

pub(super) type Sender1 = http1::SendRequest<Empty<Bytes>>;
pub(super) type Sender2 = http2::SendRequest<Empty<Bytes>>;

/// An HTTP/1.1 client connection and the task that drives it.
pub(super) async fn http1<S>(stream: S) -> (Sender1, JoinHandle<hyper::Result<()>>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(async move { connection.with_upgrades().await }))
}

/// An HTTP/2 client connection and the task that drives it.
pub(super) async fn http2<S>(stream: S) -> (Sender2, JoinHandle<hyper::Result<()>>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

pub(super) fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).header(header::HOST, "test").body(Empty::new()).unwrap()
}

/// A request as HTTP/2 wants it.
pub(super) fn get2(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://test{path}")).body(Empty::new()).unwrap()
}

pub(super) async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
