//! Opening one connection to one address: name, TCP, TLS, HTTP. Every failure says at which of them.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::TokioIo;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::TlsConnector;

use crate::credential::ClientIdentity;
use crate::peer::Scheme;

use super::body::RequestBody;
use super::error::{ConnectStage, UpstreamError, UpstreamSettingsError};
use super::reads_on::ReadsOn;
use super::settings::{UpstreamAddress, UpstreamProtocol, UpstreamSettings, UpstreamTls};

/// A stream's window toward an upstream; many slow readers must fit into the connection's without blocking others.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// A dead peer of a long quiet stream is found out by the kernel.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// TLS sessions that one identity remembers: those of a few names, eight of each.
const SESSIONS_OF_IDENTITY: usize = 32;

/// The tasks of one connection: aborted, and the connection closed, when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionTasks {
    driver: JoinHandle<()>,
    transport: Option<AbortHandle>,
    /// The other side has refused a write.
    deaf: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
}

impl ConnectionTasks {
    fn new(
        driver: JoinHandle<()>,
        transport: Option<AbortHandle>,
        deaf: Arc<AtomicBool>,
        open: &Arc<AtomicUsize>,
    ) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self { driver, transport, deaf, open: open.clone() }
    }

    /// Whether the connection is over, or takes no request any more.
    pub(super) fn ended(&self) -> bool {
        self.deaf.load(Ordering::Relaxed) || self.driver.is_finished()
    }

    pub(super) fn abort(&self) {
        self.driver.abort();
        if let Some(transport) = &self.transport {
            transport.abort();
        }
    }
}

impl Drop for ConnectionTasks {
    fn drop(&mut self) {
        self.abort();
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What dialling brings.
#[derive(Debug)]
pub(super) enum Dialled {
    Http1(http1::SendRequest<RequestBody>, ConnectionTasks),
    Http2(http2::SendRequest<RequestBody>, ConnectionTasks, Arc<AtomicUsize>),
}

/// Which HTTP a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Http1,
    Http2,
    Either,
}

impl From<UpstreamProtocol> for Wanted {
    fn from(protocol: UpstreamProtocol) -> Self {
        match protocol {
            UpstreamProtocol::Http1 => Self::Http1,
            UpstreamProtocol::Http2 => Self::Http2,
            UpstreamProtocol::Auto => Self::Either,
        }
    }
}

/// Dials the addresses of one upstream.
#[derive(Debug)]
pub(super) struct Connector {
    tls: Option<TlsSetup>,
    timeout: Duration,
}

#[derive(Debug)]
struct TlsSetup {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    pub(super) fn new(settings: &UpstreamSettings) -> Result<Self, UpstreamSettingsError> {
        let tls = match settings.scheme()? {
            Scheme::Http => None,
            Scheme::Https => Some(TlsSetup::new(&settings.tls)?),
        };
        for address in settings.addresses.iter().filter(|_| tls.is_some() && settings.tls.server_name.is_none()) {
            server_name(address.host())?;
        }
        Ok(Self { tls, timeout: settings.connect_timeout })
    }

    /// The same, showing the certificate of `identity` instead of any other. `None` where nothing is shown at all,
    /// because the upstream speaks no TLS.
    pub(super) fn with_identity(&self, identity: &ClientIdentity) -> Option<Self> {
        let tls = self.tls.as_ref()?.with_identity(identity);
        Some(Self { tls: Some(tls), timeout: self.timeout })
    }

    /// One connection to `address`, within the connect timeout. `open` counts it while it lives.
    pub(super) async fn dial(
        &self,
        address: &UpstreamAddress,
        wanted: Wanted,
        open: &Arc<AtomicUsize>,
    ) -> Result<Dialled, UpstreamError> {
        // Boxed: a handshake's state is large, and most requests never need one.
        let dialling = Box::pin(self.stages(address, wanted, open));
        tokio::time::timeout(self.timeout, dialling).await.unwrap_or(Err(UpstreamError::ConnectTimeout))
    }

    async fn stages(
        &self,
        address: &UpstreamAddress,
        wanted: Wanted,
        open: &Arc<AtomicUsize>,
    ) -> Result<Dialled, UpstreamError> {
        let stream = tcp(address).await?;
        let Some(tls) = &self.tls else {
            return match wanted {
                Wanted::Http2 => handshake_http2(TokioIo::new(stream), open).await,
                Wanted::Http1 | Wanted::Either => handshake_http1(stream, open).await,
            };
        };
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => server_name(address.host()).map_err(|error| failed(ConnectStage::Tls, error))?,
        };
        let config = match wanted {
            Wanted::Http1 => &tls.http1,
            Wanted::Http2 => &tls.http2,
            Wanted::Either => &tls.either,
        };
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
        let stream = stream.map_err(|error| failed(ConnectStage::Tls, error))?;
        let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        match (wanted, speaks_http2) {
            (Wanted::Http2 | Wanted::Either, true) => handshake_http2(TokioIo::new(stream), open).await,
            (Wanted::Http1 | Wanted::Either, false) => handshake_http1(stream, open).await,
            (Wanted::Http2, false) | (Wanted::Http1, true) => {
                Err(failed(ConnectStage::Http, "the upstream does not speak the configured version of http"))
            }
        }
    }
}

impl TlsSetup {
    fn new(settings: &UpstreamTls) -> Result<Self, UpstreamSettingsError> {
        let roots = match &settings.authorities {
            None => native_roots()?,
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority.clone()).map_err(UpstreamSettingsError::Authority)?;
                }
                if roots.is_empty() {
                    return Err(UpstreamSettingsError::NoAuthorities);
                }
                Arc::new(roots)
            }
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(UpstreamSettingsError::Tls)?.with_root_certificates(roots);
        let config = match &settings.certificate {
            None => config.with_no_client_auth(),
            Some(own) => config
                .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
                .map_err(UpstreamSettingsError::Certificate)?,
        };
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            http1: offering(&[b"http/1.1"]),
            http2: offering(&[b"h2"]),
            either: offering(&[b"h2", b"http/1.1"]),
            server_name: settings.server_name.as_deref().map(server_name).transpose()?,
        })
    }

    /// The same trust, and sessions of its own: an upstream takes whoever resumes a session for the one who began it.
    fn with_identity(&self, identity: &ClientIdentity) -> Self {
        let certificate: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(identity.certified().clone()));
        let sessions = Resumption::in_memory_sessions(SESSIONS_OF_IDENTITY);
        let showing = |config: &ClientConfig| {
            let mut config = config.clone();
            config.client_auth_cert_resolver = certificate.clone();
            config.resumption = sessions.clone();
            Arc::new(config)
        };
        Self {
            http1: showing(&self.http1),
            http2: showing(&self.http2),
            either: showing(&self.either),
            server_name: self.server_name.clone(),
        }
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, UpstreamSettingsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| UpstreamSettingsError::ServerName(host.to_owned()))
}

/// The operating system's authorities, read once.
fn native_roots() -> Result<Arc<RootCertStore>, UpstreamSettingsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() { Err(UpstreamSettingsError::NoAuthorities) } else { Ok(roots.clone()) }
}

/// Tries every address that the name has now, each dial beginning at the next one.
async fn tcp(address: &UpstreamAddress) -> Result<TcpStream, UpstreamError> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let found: Vec<SocketAddr> = match address.host().parse::<IpAddr>() {
        Ok(literal) => vec![SocketAddr::new(literal, address.port())],
        Err(_) => {
            let found = tokio::net::lookup_host((address.host(), address.port())).await;
            found.map_err(|error| failed(ConnectStage::Name, error))?.collect()
        }
    };
    let first = TURN.fetch_add(1, Ordering::Relaxed) % found.len().max(1);
    let mut fault = failed(ConnectStage::Name, "the name has no address");
    for socket in found.iter().cycle().skip(first).take(found.len()) {
        match TcpStream::connect(socket).await {
            Ok(stream) => {
                tune(&stream).map_err(|error| failed(ConnectStage::Tcp, error))?;
                return Ok(stream);
            }
            // No fault of the address, and no other would do better.
            Err(error) if is_ours(&error) => return Err(UpstreamError::Exhausted(error)),
            Err(error) => fault = failed(ConnectStage::Tcp, error),
        }
    }
    Err(fault)
}

/// Whether it is this machine that lacks what a connection takes.
fn is_ours(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno))
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

async fn handshake_http1<S>(stream: S, open: &Arc<AtomicUsize>) -> Result<Dialled, UpstreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = ReadsOn::new(stream);
    let deaf = stream.deaf();
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(ConnectStage::Http, error))?;
    // What becomes of the connection shows in the exchange that it carries.
    let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(Dialled::Http1(sender, ConnectionTasks::new(driver, None, deaf, open)))
}

async fn handshake_http2<T>(io: T, open: &Arc<AtomicUsize>) -> Result<Dialled, UpstreamError>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let executor = Tasks::default();
    let handshake = http2::Builder::new(executor.clone())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(io)
        .await;
    let (sender, mut connection) = handshake.map_err(|error| failed(ConnectStage::Http, error))?;
    let most_streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    let seen = most_streams.clone();
    let driver = tokio::spawn(async move {
        let driven = std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut connection).poll(context);
            seen.store(connection.current_max_send_streams(), Ordering::Relaxed);
            polled
        });
        drop(driven.await);
    });
    let tasks = ConnectionTasks::new(driver, executor.transport.get().cloned(), Arc::default(), open);
    Ok(Dialled::Http2(sender, tasks, most_streams))
}

/// Runs what hyper spawns for one HTTP/2 connection. Its first task is the transport, and all others end with it.
#[derive(Clone, Debug, Default)]
struct Tasks {
    transport: Arc<OnceLock<AbortHandle>>,
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let task = tokio::spawn(future);
        self.transport.get_or_init(|| task.abort_handle());
    }
}

fn failed(stage: ConnectStage, source: impl Into<crate::body::BoxError>) -> UpstreamError {
    UpstreamError::Connect { stage, source: source.into() }
}
