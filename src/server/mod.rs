//! Accepting connections: sockets, limits, TLS, HTTP on each connection, and the drain at the end.
//!
//! ```text
//! listener ──▶ proxy_protocol ──▶ tls ──▶ connection (hyper) ──▶ Handler
//! ```
//!
//! Knows nothing of routes, identities or policies: a [`Handler`] gets each request with the [`Peer`] it came from.
//!
//! [`Peer`]: crate::peer::Peer

mod activity;
mod anomaly;
mod certificates;
mod connection;
mod connections;
mod frames;
mod framing;
mod listener;
mod proxy_protocol;
mod service;
mod settings;
mod stats;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod untaken;
mod vouched;

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::shutdown::Shutdown;
use crate::worker::Workers;

use self::activity::{Order, TrackedExecutor};
use self::connection::{ConnectionSettings, head_buffer_bytes, http1_builder, http2_builder};
use self::connections::Connections;
use self::listener::Listener;

pub use self::anomaly::{Anomaly, AnomalyHandler};
#[cfg(any(test, fuzzing))]
pub(crate) use self::framing::{Framing, Refused};
#[cfg(any(test, fuzzing))]
pub(crate) use self::proxy_protocol::read_header;
pub use self::service::Handler;
pub use self::settings::{ListenAddress, ListenerSettings, ServerLimits};
pub use self::stats::ServerStats;
pub use self::tls::{
    CertificateSettings, ClientCertificateMode, ClientCertificateSettings, MinimumVersion, Pem, TlsAcceptorHandle,
    TlsError, TlsSettings,
};

/// How long connections that were cut get to let go of their tasks.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a newcomer waits before more idle connections are closed for it.
const SHED_AGAIN: Duration = Duration::from_millis(50);

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The socket cannot be bound.
    #[error("listener `{listener}` cannot listen on `{address}`")]
    Bind {
        /// The listener.
        listener: String,
        /// Where it should listen.
        address: ListenAddress,
        /// The fault.
        source: io::Error,
    },
    /// The TLS settings cannot be used.
    #[error("TLS of listener `{listener}` cannot be set up")]
    Tls {
        /// The listener.
        listener: String,
        /// The fault.
        source: TlsError,
    },
    /// Two listeners of one name.
    #[error("listener `{listener}` is declared twice")]
    Twice {
        /// The listener.
        listener: String,
    },
    /// Peers of a Unix socket have no address that could be named.
    #[error("listener `{listener}` is a Unix socket and cannot expect the PROXY protocol")]
    ProxyProtocolOnUnix {
        /// The listener.
        listener: String,
    },
}

/// What the drain came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were open when the drain began.
    pub open: usize,
    /// Connections that were still open at its deadline and were dropped.
    pub cut: usize,
}

/// The way to a [`BoundServer`].
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Sets up TLS and binds every listener, or none. Needs the runtime's context.
    ///
    /// # Errors
    /// A listener's TLS is unusable, its address cannot be bound, or its settings contradict each other.
    pub fn bind(
        listeners: Vec<ListenerSettings>,
        limits: ServerLimits,
        handler: Handler,
        anomalies: AnomalyHandler,
        shutdown: Shutdown,
    ) -> Result<BoundServer, ServerError> {
        let stats = Arc::new(ServerStats::default());
        let connections = Arc::new(Connections::new(Arc::clone(&stats)));
        let executor = TrackedExecutor(connections.tracker().clone());
        let (http1, http2) = (http1_builder(&limits), http2_builder(&limits, executor));
        let mut bound = BTreeMap::new();
        for settings in listeners {
            let listener = settings.name.clone();
            if bound.contains_key(&listener) {
                return Err(ServerError::Twice { listener });
            }
            let is_unix = matches!(settings.address, ListenAddress::Unix(_));
            if is_unix && !settings.proxy_protocol_from.is_empty() {
                return Err(ServerError::ProxyProtocolOnUnix { listener });
            }
            let tls = settings.tls.as_ref().map(TlsAcceptorHandle::new).transpose();
            let tls = tls.map_err(|source| ServerError::Tls { listener: listener.clone(), source })?;
            let socket = Listener::bind(&settings.address);
            let socket = socket.and_then(|socket| socket.address().map(|address| (socket, address)));
            let (socket, address) = socket.map_err(|source| ServerError::Bind {
                listener: listener.clone(),
                address: settings.address.clone(),
                source,
            })?;
            let settings = ConnectionSettings {
                listener: listener.as_str().into(),
                tls,
                proxy_protocol_from: settings.proxy_protocol_from,
                handler: Arc::clone(&handler),
                stats: Arc::clone(&stats),
                handshake: limits.handshake,
                anomalies: Arc::clone(&anomalies),
                header_count: limits.header_count,
                head_buffer_bytes: head_buffer_bytes(&limits),
                http1: http1.clone(),
                http2: http2.clone(),
            };
            bound.insert(listener, BoundListener { socket, address, settings: Arc::new(settings) });
        }
        Ok(BoundServer { listeners: bound, limits, connections, stats, shutdown })
    }
}

#[derive(Debug)]
struct BoundListener {
    socket: Listener,
    address: ListenAddress,
    settings: Arc<ConnectionSettings>,
}

/// A server whose sockets listen; connections wait in their queues until it runs.
#[derive(Debug)]
pub struct BoundServer {
    listeners: BTreeMap<String, BoundListener>,
    limits: ServerLimits,
    connections: Arc<Connections>,
    stats: Arc<ServerStats>,
    shutdown: Shutdown,
}

impl BoundServer {
    /// The address of each listener, by name; with port 0, the port that the system chose.
    #[must_use]
    pub fn addresses(&self) -> BTreeMap<String, ListenAddress> {
        self.listeners.iter().map(|(name, listener)| (name.clone(), listener.address.clone())).collect()
    }

    /// The TLS of each listener that has it, by name.
    #[must_use]
    pub fn tls(&self) -> BTreeMap<String, TlsAcceptorHandle> {
        let with_tls =
            |(name, listener): (&String, &BoundListener)| listener.settings.tls.clone().map(|tls| (name.clone(), tls));
        self.listeners.iter().filter_map(with_tls).collect()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Arc<ServerStats> {
        Arc::clone(&self.stats)
    }

    /// Serves until the shutdown signal, then drains: the sockets close, HTTP/2 gets GOAWAY, HTTP/1 answers carry
    /// `Connection: close`, open requests and upgraded streams go on. At [`ServerLimits::drain`], or the signal's own
    /// deadline if that comes first, what is left is cut. Connections are accepted here and served by `workers`.
    pub async fn run(self, workers: Arc<Workers>) -> DrainReport {
        let Self { listeners, limits, connections, shutdown, .. } = self;
        let sweeping = {
            let (connections, limits) = (Arc::clone(&connections), limits.clone());
            async move { connections.sweep(&limits).await }
        };
        let _rest = CutOnDrop(Arc::clone(&connections));
        let mut sweeper = JoinSet::new();
        sweeper.spawn(sweeping);

        let slots = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let mut accepting = JoinSet::new();
        for listener in listeners.into_values() {
            let to = (Arc::clone(&connections), Arc::clone(&workers));
            accepting.spawn(accept(listener, Arc::clone(&slots), to, shutdown.clone()));
        }
        shutdown.draining().await;
        while accepting.join_next().await.is_some() {}

        let open = connections.count();
        connections.command(Order::Close);
        let mut gone = pin!(connections.gone());
        let deadline = async {
            tokio::select! {
                () = tokio::time::sleep(limits.drain) => {}
                () = shutdown.deadline() => {}
            }
        };
        tokio::select! {
            () = &mut gone => return DrainReport { open, cut: 0 },
            () = deadline => {}
        }
        let cut = connections.count();
        shutdown.cut();
        connections.command(Order::Cut);
        if tokio::time::timeout(LAST_WORDS, gone).await.is_err() {
            tracing::warn!(connections = connections.count(), "connections did not end when they were cut");
        }
        DrainReport { open, cut }
    }
}

/// Nobody serves on when the server's future is dropped before its end.
struct CutOnDrop(Arc<Connections>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.command(Order::Cut);
    }
}

/// Accepts until the drain. At the limit of connections the longest idle ones are closed for the next one; while all are
/// in use it waits for its turn, and behind it the queue.
async fn accept(
    listener: BoundListener,
    slots: Arc<Semaphore>,
    (connections, workers): (Arc<Connections>, Arc<Workers>),
    shutdown: Shutdown,
) {
    let BoundListener { socket: listener, settings, .. } = listener;
    let accepting = async {
        loop {
            let (socket, address) = listener.accept().await;
            let Some(slot) = place(&slots, &connections).await else { return };
            let place = workers.place();
            let worker = place.worker().cloned();
            let (guard, settings) = (connections.enter(slot, place), Arc::clone(&settings));
            let Some(worker) = worker else {
                drop(connections.tracker().spawn(connection::serve(socket, address, guard, settings)));
                continue;
            };
            // Fails only on a connection that is gone already.
            let Ok(socket) = socket.detached() else { continue };
            let serving = async move {
                let Ok(socket) = socket.attached() else { return };
                connection::serve(socket, address, guard, settings).await;
            };
            drop(connections.tracker().spawn_on(serving, &worker));
        }
    };
    tokio::select! {
        biased;
        () = shutdown.draining() => {}
        () = accepting => {}
    }
}

/// A place among the open connections; `None` once there are none to be had.
async fn place(slots: &Arc<Semaphore>, connections: &Connections) -> Option<OwnedSemaphorePermit> {
    if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
        return Some(slot);
    }
    let mut waiting = pin!(Arc::clone(slots).acquire_owned());
    loop {
        connections.shed_idle();
        if let Ok(slot) = tokio::time::timeout(SHED_AGAIN, waiting.as_mut()).await {
            return slot.ok();
        }
    }
}
