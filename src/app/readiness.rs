//! What `/readyz` and `/metrics` ask of the running parts.

use std::sync::Arc;

use super::reload::Status;
use crate::admin::{NotReady, Readiness, Refresh};
use crate::audit::Audit;
use crate::config::Runtime;
use crate::server::ServerStats;
use crate::shutdown::Shutdown;
use crate::telemetry::Named;

/// Every reason not to send traffic here.
pub(super) fn readiness(runtime: Arc<Runtime>, audit: Audit, status: Arc<Status>, shutdown: Shutdown) -> Readiness {
    Arc::new(move || {
        let mut reasons = Vec::new();
        let mut note = |part: String, reason: String| reasons.push(NotReady { part, reason });
        if shutdown.is_draining() {
            note("process".to_owned(), "draining".to_owned());
        }
        if let Some(faults) = status.faults() {
            note("configuration".to_owned(), format!("the one on disk is not in force: {faults}"));
        }
        let now = runtime.clock().now();
        for store in runtime.key_stores() {
            if let Err(reason) = store.readiness(now) {
                note(format!("issuer {}", store.settings().name), reason);
            }
        }
        if !audit.writer_healthy() {
            note("audit".to_owned(), "records cannot be written".to_owned());
        }
        reasons
    })
}

/// Brings the gauges up to date.
pub(super) fn refresh(runtime: Arc<Runtime>, audit: Audit, server: Arc<ServerStats>) -> Refresh {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Arc::new(move |metrics| {
        let now = runtime.clock().now();
        for store in runtime.key_stores() {
            if let Ok(keys) = store.readiness(now) {
                let name = store.settings().name.to_string();
                metrics.jwks_age_seconds.get_or_create(&Named { name }).set(keys.age.as_secs_f64());
            }
        }
        for upstream in runtime.upstreams() {
            let (stats, name) = (upstream.stats(), upstream.settings().name.to_string());
            let labels = Named { name };
            metrics.upstream_connections.get_or_create(&labels).set(stats.open as f64);
            metrics.upstream_ejected.get_or_create(&labels).set(stats.ejected as f64);
        }
        metrics.credential_cache_entries.set(runtime.cached_credentials() as i64);
        metrics.audit_queue_depth.set(whole(audit.queue_depth()));
        metrics.audit_lost.set(whole(audit.lost()));
        metrics.audit_written.set(whole(audit.written()));
        metrics.connections.set(whole(server.open()));
        metrics.handshake_failures.set(whole(server.handshake_failures()));
        metrics.protocol_errors.set(whole(server.protocol_errors()));
        metrics.proxy_headers_refused.set(whole(server.refused()));
    })
}
