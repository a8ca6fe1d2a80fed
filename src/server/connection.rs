//! One connection: PROXY header, TLS, the choice of protocol, and HTTP until it ends.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::io::AsyncReadExt;

use crate::peer::{Peer, Transport};

use super::activity::{Activity, TrackedExecutor, obey};
use super::anomaly::{Anomaly, AnomalyHandler};
use super::connections::ConnectionGuard;
use super::frames::Frames;
use super::framing::Framing;
use super::proxy_protocol::{ProxyProtocolError, read_header, required_from};
use super::service::{Handler, Requests};
use super::settings::ServerLimits;
use super::stats::ServerStats;
use super::stream::{ByteStream, MeteredSocket, Protocol, Replayed, Socket, Watched};
use super::tls::TlsAcceptorHandle;
use super::vouched::Vouched;

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client may have in flight before the handler reads it, a stream and a connection.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What one stream's answer may hold in memory.
const SEND_BUFFER: usize = 256 * 1024;

/// hyper asserts that its read buffer is no smaller.
const SMALLEST_READ_BUFFER: usize = 8192;

/// Streams reset by the client before the handler saw them, and streams that the client made us reset
/// (CVE-2023-44487, CVE-2025-8671): more of either ends the connection.
const PENDING_RESETS: usize = 20;
const RESETS_BY_ERROR: usize = 100;

const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What the connections of one listener share.
pub(super) struct ConnectionSettings {
    pub(super) listener: Arc<str>,
    pub(super) tls: Option<TlsAcceptorHandle>,
    pub(super) proxy_protocol_from: Vec<IpNet>,
    pub(super) handler: Handler,
    pub(super) stats: Arc<ServerStats>,
    pub(super) handshake: Duration,
    pub(super) anomalies: AnomalyHandler,
    pub(super) header_count: usize,
    pub(super) head_buffer_bytes: usize,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<TrackedExecutor>,
}

impl fmt::Debug for ConnectionSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectionSettings").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// What hyper holds of a head at most, one that is still not whole then is too large. It knows no smaller buffer.
pub(super) fn head_buffer_bytes(limits: &ServerLimits) -> usize {
    usize::try_from(limits.header_bytes).unwrap_or(usize::MAX).max(SMALLEST_READ_BUFFER)
}

/// HTTP/1.1 within `limits`.
pub(super) fn http1_builder(limits: &ServerLimits) -> http1::Builder {
    let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    let mut builder = http1::Builder::new();
    // hyper's own time-out would also end idle connections: the sweep of `activity` knows the difference.
    builder.header_read_timeout(None);
    builder.max_header_size(header_bytes).max_buf_size(head_buffer_bytes(limits));
    // hyper's own default, on the stack; naming any number moves it to the heap for every request.
    if limits.header_count != 100 {
        builder.max_headers(limits.header_count);
    }
    builder.half_close(false).pipeline_flush(false).title_case_headers(false);
    builder
}

/// HTTP/2 within `limits`.
pub(super) fn http2_builder(limits: &ServerLimits, executor: TrackedExecutor) -> http2::Builder<TrackedExecutor> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.header_bytes)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(RESETS_BY_ERROR)
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A connection past its handshake.
struct Established {
    stream: ByteStream,
    peer: Peer,
    http2: bool,
    /// Where the listener takes client certificates.
    vouched: Option<Vouched>,
}

/// Serves one connection to its end, or to the moment when it is upgraded.
pub(super) async fn serve(
    socket: Socket,
    socket_address: SocketAddr,
    mut guard: ConnectionGuard,
    settings: Arc<ConnectionSettings>,
) {
    // Boxed: what the handshake needs shall not weigh on an idle connection.
    let opening = Box::pin(open(socket, socket_address, &guard, &settings)).await;
    let Some(Established { stream, peer, http2, vouched }) = opening else { return };
    let (activity, peer) = (Arc::clone(guard.activity()), Arc::new(peer));
    let requests = Requests {
        handler: Arc::clone(&settings.handler),
        peer: Arc::clone(&peer),
        activity: Arc::clone(&activity),
        header_count: settings.header_count,
        vouched,
        stats: Arc::clone(&settings.stats),
    };
    guard.tell(peer, Arc::clone(&settings.anomalies));
    // The stream that it owns tells what is noted here, so that is done before it is dropped.
    if http2 {
        activity.begin_http2();
        let io = TokioIo::new(Watched::new(stream, guard, Protocol::Http2(Frames::new())));
        let mut connection = Box::pin(settings.http2.serve_connection(io, requests));
        let ended = obey(&activity, connection.as_mut(), |connection| connection.graceful_shutdown()).await;
        note(&activity, ended);
        if activity.has_unserved_streams() {
            activity.note(Anomaly::Stream);
        }
    } else {
        activity.begin_http1();
        let framing = Framing::new(settings.head_buffer_bytes.saturating_sub(1));
        let io = TokioIo::new(Watched::new(stream, guard, Protocol::Http1(framing)));
        let mut connection = Box::pin(settings.http1.serve_connection(io, requests).with_upgrades());
        let ended = obey(&activity, connection.as_mut(), |connection| connection.graceful_shutdown()).await;
        note(&activity, ended);
    }
}

/// How HTTP came to its end on a connection; `None` is: it was cut.
fn note(activity: &Activity, ended: Option<hyper::Result<()>>) {
    activity.begin_upgraded();
    if let Some(Err(error)) = ended {
        tracing::debug!(%error, "connection ended");
        if is_protocol_error(&error) {
            activity.note(if error.is_parse_too_large() { Anomaly::HeadTooLarge } else { Anomaly::Malformed });
        }
    }
}

/// Handshakes, within their deadline, then the choice of protocol; `None` when the connection ends here.
async fn open(
    socket: Socket,
    socket_address: SocketAddr,
    guard: &ConnectionGuard,
    settings: &ConnectionSettings,
) -> Option<Established> {
    let activity = guard.activity();
    let is_unix = matches!(socket, Socket::Unix(_));
    let socket = MeteredSocket::new(socket, Arc::clone(activity));
    let shaking = tokio::time::timeout(settings.handshake, shake_hands(socket, socket_address, is_unix, settings));
    match activity.unless_closing(shaking).await? {
        Ok(Ok(Opened::Tls(established))) => Some(established),
        Ok(Ok(Opened::Plain { socket, first, peer })) => {
            activity.begin_http1();
            let sniffing = sniff(socket, first, || activity.saw_read());
            let (http2, stream) = activity.unless_closing(sniffing).await?.ok()?;
            Some(Established { stream: ByteStream::Plain(stream), peer, http2, vouched: None })
        }
        Ok(Err(OpenError::Proxy(error))) => {
            settings.stats.count_refused();
            tracing::debug!(%error, peer = %socket_address, "connection refused");
            None
        }
        Ok(Err(OpenError::Tls(error))) => {
            settings.stats.count_handshake_failure();
            tracing::debug!(%error, peer = %socket_address, "TLS handshake failed");
            None
        }
        Err(_late) => {
            settings.stats.count_handshake_failure();
            tracing::debug!(peer = %socket_address, "handshake took too long");
            None
        }
    }
}

enum Opened {
    Tls(Established),
    Plain { socket: MeteredSocket, first: Bytes, peer: Peer },
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("the PROXY header was refused")]
    Proxy(#[from] ProxyProtocolError),
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
}

async fn shake_hands(
    mut socket: MeteredSocket,
    socket_address: SocketAddr,
    is_unix: bool,
    settings: &ConnectionSettings,
) -> Result<Opened, OpenError> {
    let (mut address, mut first) = (socket_address, Bytes::new());
    let transport = if is_unix { Transport::Unix } else { Transport::Plain };
    if !is_unix && required_from(&settings.proxy_protocol_from, socket_address.ip()) {
        let (proxied, rest) = read_header(&mut socket).await?;
        address = proxied.map_or(address, |client| SocketAddr::new(client.ip().to_canonical(), client.port()));
        first = rest;
    }
    let listener = Arc::clone(&settings.listener);
    let mut peer = Peer { address, socket_address, listener, transport, tls: None, certificate: None };
    let Some(tls) = &settings.tls else {
        return Ok(Opened::Plain { socket, first, peer });
    };
    let handshake = tls.accept(Replayed::new(first, socket)).await.map_err(OpenError::Tls)?;
    peer.transport = Transport::Tls;
    peer.tls = Some(Arc::new(handshake.facts));
    peer.certificate = handshake.certificate.map(Arc::new);
    let vouched = Vouched::new(tls.clone(), handshake.chain, handshake.configuration);
    let stream = ByteStream::Tls(Box::new(handshake.stream));
    Ok(Opened::Tls(Established { stream, peer, http2: handshake.http2, vouched: Some(vouched) }))
}

/// Whether a plain connection opens with the preface of HTTP/2 (prior knowledge, RFC 9113 section 3.3).
async fn sniff(
    mut socket: MeteredSocket,
    first: Bytes,
    saw_read: impl Fn(),
) -> io::Result<(bool, Replayed<MeteredSocket>)> {
    let mut seen = BytesMut::from(first);
    if !seen.is_empty() {
        saw_read();
    }
    loop {
        if seen.starts_with(HTTP2_PREFACE) {
            return Ok((true, Replayed::new(seen.freeze(), socket)));
        }
        if !HTTP2_PREFACE.starts_with(&seen) {
            return Ok((false, Replayed::new(seen.freeze(), socket)));
        }
        let room = HTTP2_PREFACE.len().saturating_sub(seen.len());
        let mut more = (&mut socket).take(u64::try_from(room).unwrap_or(0));
        if more.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        saw_read();
    }
}

/// Whether the client is to blame, rather than the network or a client that left.
fn is_protocol_error(error: &hyper::Error) -> bool {
    use std::error::Error;

    let by_network = error.source().is_some_and(|cause| {
        cause.is::<io::Error>() || cause.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_io)
    });
    error.is_parse() || !(by_network || error.is_incomplete_message() || error.is_canceled() || error.is_closed())
}
