//! WebSocket: once both sides have switched protocols, bytes go both ways until somebody ends it.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::body::Ends;
use super::error::StreamError;
use super::pool::Lease;

/// Longest wait for either side's connection after both agreed to switch.
const SWITCH_LIMIT: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 16 * 1024;

/// An upstream that agreed to switch protocols, with the limits of its grant and route.
#[derive(Debug)]
pub struct Upgrade {
    pub(super) upstream: OnUpgrade,
    pub(super) lease: Lease,
    pub(super) idle: Duration,
    pub(super) ends: Ends,
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Either side closed it.
    Closed,
    /// Either side's connection broke.
    Broken,
    /// Neither side said anything for the route's idle time.
    Idle,
    /// The route's total time is over.
    Total,
    /// The grant ended.
    GrantEnded,
    /// It was cut from outside: shutdown.
    Cut,
}

impl TunnelEnd {
    /// Stable code for audit records.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Closed => "ok",
            Self::Broken => "stream_broken",
            Self::Idle => "stream_idle_timeout",
            Self::Total => "total_timeout",
            Self::GrantEnded => "grant_ended",
            Self::Cut => "stream_cut",
        }
    }
}

/// What went through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnelled {
    /// Bytes from the caller to the upstream.
    pub bytes_up: u64,
    /// Bytes from the upstream to the caller.
    pub bytes_down: u64,
    /// Why it ended.
    pub end: TunnelEnd,
}

/// Bytes one way, and when anything moved either way.
#[derive(Debug)]
struct Meter {
    began: Instant,
    up: AtomicU64,
    down: AtomicU64,
    moved_after_millis: AtomicU64,
}

impl Meter {
    fn moved(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_after_millis.store(millis, Ordering::Relaxed);
    }

    fn moved_at(&self) -> Instant {
        self.began + Duration::from_millis(self.moved_after_millis.load(Ordering::Relaxed))
    }
}

/// Carries bytes both ways until a side closes, nothing moves for the route's idle time, the grant ends, or `cut`
/// resolves with what ends it. To be called once the answer 101 is on its way to the caller.
pub async fn tunnel(downstream: OnUpgrade, upgrade: Upgrade, cut: impl Future<Output = TunnelEnd>) -> Tunnelled {
    let Upgrade { upstream, lease, idle, ends } = upgrade;
    let meter = Meter {
        began: Instant::now(),
        up: AtomicU64::new(0),
        down: AtomicU64::new(0),
        moved_after_millis: AtomicU64::new(0),
    };
    let end = tokio::select! {
        biased;
        end = cut => end,
        end = watch(&meter, idle, ends) => end,
        end = carry(downstream, upstream, &meter) => end,
    };
    drop(lease);
    Tunnelled { bytes_up: meter.up.load(Ordering::Relaxed), bytes_down: meter.down.load(Ordering::Relaxed), end }
}

async fn watch(meter: &Meter, idle: Duration, ends: Ends) -> TunnelEnd {
    loop {
        let now = Instant::now();
        match ends.come(now) {
            Some(StreamError::Total) => return TunnelEnd::Total,
            Some(_) => return TunnelEnd::GrantEnded,
            None => {}
        }
        let silent = meter.moved_at() + idle;
        if silent <= now {
            return TunnelEnd::Idle;
        }
        tokio::time::sleep_until(ends.first().map_or(silent, |end| end.min(silent))).await;
    }
}

async fn carry(downstream: OnUpgrade, upstream: OnUpgrade, meter: &Meter) -> TunnelEnd {
    let switched = tokio::time::timeout(SWITCH_LIMIT, async { tokio::try_join!(downstream, upstream) }).await;
    let Ok(Ok((downstream, upstream))) = switched else { return TunnelEnd::Broken };
    meter.moved();
    let (from_caller, to_caller) = tokio::io::split(TokioIo::<Upgraded>::new(downstream));
    let (from_upstream, to_upstream) = tokio::io::split(TokioIo::<Upgraded>::new(upstream));
    let up = pump(from_caller, to_upstream, &meter.up, meter);
    let down = pump(from_upstream, to_caller, &meter.down, meter);
    match tokio::try_join!(up, down) {
        Ok(_) => TunnelEnd::Closed,
        Err(_) => TunnelEnd::Broken,
    }
}

/// Carries bytes one way; the end of one way is told to the other side, which may still finish what it says.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes: &AtomicU64,
    meter: &Meter,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        meter.moved();
        to.write_all(read).await?;
        to.flush().await?;
        bytes.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }
    to.shutdown().await
}
