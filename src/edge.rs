//! The edge of the line, and of the admin listener: a panic becomes a 500, is counted, and takes nothing else with it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};

use crate::body::Body;
use crate::peer::{Admission, Peer};
use crate::proxy::{Proxy, panicked};
use crate::telemetry::Metrics;

/// What every connection calls, once a request.
pub type Handler = Arc<dyn Fn(Request<Body>, Arc<Peer>, Admission) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The handler of the line.
#[must_use]
pub fn handler(proxy: Arc<Proxy>) -> Handler {
    Arc::new(move |request, peer, admission| {
        let proxy = Arc::clone(&proxy);
        let metrics = Arc::clone(proxy.metrics());
        caught(metrics, async move { proxy.handle(request, peer, admission).await }).boxed()
    })
}

/// The answer of `line`, or [`panicked`] when it panics: the line's record was written while unwinding, and what it shares
/// with other requests is whole at any moment.
///
/// No `async fn`: the future of one holds what it is given twice, and this one is the whole line's.
pub(crate) fn caught(
    metrics: Arc<Metrics>,
    line: impl Future<Output = Response<Body>>,
) -> impl Future<Output = Response<Body>> {
    AssertUnwindSafe(line).catch_unwind().map(move |answered| {
        answered.unwrap_or_else(|_cause| {
            metrics.panics.inc();
            panicked()
        })
    })
}

#[cfg(test)]
mod tests;
