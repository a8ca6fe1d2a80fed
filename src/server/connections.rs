//! The open connections of a server, and the sweep that judges them all.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::peer::Peer;
use crate::worker::Place;

use super::activity::{Activity, NEVER, Order};
use super::anomaly::AnomalyHandler;
use super::settings::ServerLimits;
use super::stats::ServerStats;

/// Most of the idle connections that make room for newcomers in one go.
const SHED_AT_ONCE: usize = 64;

/// The open connections of a server.
#[derive(Debug)]
pub(super) struct Connections {
    open: DashMap<u64, Arc<Activity>>,
    next: AtomicU64,
    sweeps: Arc<AtomicU64>,
    stats: Arc<ServerStats>,
    tracker: TaskTracker,
}

impl Connections {
    pub(super) fn new(stats: Arc<ServerStats>) -> Self {
        let (next, sweeps) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
        Self { open: DashMap::new(), next, sweeps, stats, tracker: TaskTracker::new() }
    }

    /// Enters a new connection; it is open until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>, permit: OwnedSemaphorePermit, place: Place) -> ConnectionGuard {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let activity = Arc::new(Activity::new(Arc::clone(&self.sweeps)));
        self.open.insert(id, Arc::clone(&activity));
        self.stats.count_accepted();
        let token = self.tracker.token();
        let connections = Arc::clone(self);
        ConnectionGuard { id, activity, connections, told: None, _permit: permit, _place: place, _token: token }
    }

    /// Owner of every task that serves a connection or a stream.
    pub(super) fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// How many connections are open.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Gives every open connection an order.
    pub(super) fn command(&self, order: Order) {
        for connection in &self.open {
            connection.command(order);
        }
    }

    /// Makes room for a newcomer: a share of the connections that were longest without a request is closed, and those
    /// that were told to leave before, and stay, are cut.
    pub(super) fn shed_idle(&self) {
        let now = self.sweeps.load(Ordering::Relaxed);
        let mut idle = Vec::new();
        for open in &self.open {
            if open.overstays(now) {
                open.command(Order::Cut);
            } else if let Some(since) = open.idle_since(now) {
                idle.push((since, Arc::clone(&open)));
            }
        }
        let share = (idle.len() / 8).clamp(1, SHED_AT_ONCE);
        idle.sort_unstable_by_key(|(since, _)| *since);
        for (_, activity) in idle.into_iter().take(share) {
            activity.command(Order::Close);
        }
    }

    /// Waits until every connection, upgraded ones too, and every task is gone.
    pub(super) async fn gone(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Sweeps for ever: the limits of time hold while this runs.
    pub(super) async fn sweep(&self, limits: &ServerLimits) {
        let shortest = limits.header_read.min(limits.connection_idle);
        let pause = (shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let in_sweeps = |limit: Duration| u64::try_from(limit.as_millis().div_ceil(pause.as_millis())).unwrap_or(NEVER);
        let (header_read, idle) = (in_sweeps(limits.header_read), in_sweeps(limits.connection_idle));
        loop {
            tokio::time::sleep(pause).await;
            let now = self.sweeps.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            for connection in &self.open {
                connection.sweep(now, header_read, idle);
            }
        }
    }
}

/// A connection's place among the open ones.
pub(super) struct ConnectionGuard {
    id: u64,
    activity: Arc<Activity>,
    connections: Arc<Connections>,
    /// Who connected, and who is told what it did.
    told: Option<(Arc<Peer>, AnomalyHandler)>,
    _permit: OwnedSemaphorePermit,
    _place: Place,
    _token: TaskTrackerToken,
}

impl ConnectionGuard {
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Has `handler` told what `peer` does.
    pub(super) fn tell(&mut self, peer: Arc<Peer>, handler: AnomalyHandler) {
        self.told = Some((peer, handler));
    }
}

impl fmt::Debug for ConnectionGuard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectionGuard").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if let Some(anomaly) = self.activity.anomaly() {
            self.connections.stats.count_protocol_error();
            if let Some((peer, handler)) = &self.told {
                handler(peer, anomaly);
            }
        }
        self.connections.open.remove(&self.id);
        self.connections.stats.count_closed();
    }
}
