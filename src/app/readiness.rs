//! What `/readyz` and `/metrics` ask of the running parts.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::status::Status;
use crate::admin::{NotReady, Readiness, Refresh, Weight};
use crate::audit::Audit;
use crate::config::Runtime;
use crate::server::ServerStats;
use crate::shutdown::Shutdown;
use crate::telemetry::{Named, NamedGauge};

/// Everything that is not as it should be. What another replica would not do better keeps no traffic away: see
/// `docs/decisions/0003-readiness.md`.
pub(super) fn readiness(
    runtime: Arc<Runtime>,
    (audit, audit_refuses): (Audit, bool),
    status: Arc<Status>,
    shutdown: Shutdown,
) -> Readiness {
    Arc::new(move || {
        let mut reasons = Vec::new();
        let mut note = |weight, part: String, reason: String| reasons.push(NotReady { part, reason, weight });
        if shutdown.is_draining() {
            note(Weight::Unready, "process".to_owned(), "draining".to_owned());
        }
        if let Some(faults) = status.faults() {
            let reason = format!("the one on disk is not in force: {faults}");
            note(Weight::Degraded, "configuration".to_owned(), reason);
        }
        if status.reloads_ended() {
            let reason = "nobody looks for its changes any more: start again".to_owned();
            note(Weight::Degraded, "configuration".to_owned(), reason);
        }
        let now = runtime.clock().now();
        let stores = runtime.key_stores();
        let states: Vec<_> = stores.iter().map(|store| (&store.settings().name, store.readiness(now))).collect();
        let usable = states.iter().filter(|(_, state)| state.is_ok()).count();
        let answered = status.issuers_answered(usable == states.len());
        let weight = if answered && usable > 0 { Weight::Degraded } else { Weight::Unready };
        for (name, state) in states {
            match state {
                Err(reason) => note(weight, format!("issuer {name}"), reason),
                Ok(keys) => {
                    if let Some(fault) = keys.fault {
                        let reason = format!("its last good keys serve on: {fault}");
                        note(Weight::Degraded, format!("issuer {name}"), reason);
                    }
                }
            }
        }
        for list in status.outdated_revocations(now) {
            note(Weight::Degraded, format!("listener {}", list.listener), list.to_string());
        }
        if !audit.writer_healthy() {
            let weight = if audit_refuses { Weight::Unready } else { Weight::Degraded };
            note(weight, "audit".to_owned(), "records cannot be written".to_owned());
        }
        reasons
    })
}

/// A gauge of named things that come and go with the configuration.
struct Coming {
    gauge: NamedGauge,
    shown: Mutex<BTreeSet<String>>,
}

impl Coming {
    fn new(gauge: &NamedGauge) -> Self {
        Self { gauge: gauge.clone(), shown: Mutex::default() }
    }

    /// Shows these and no others.
    fn show(&self, values: impl Iterator<Item = (String, f64)>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = BTreeSet::new();
        for (name, value) in values {
            self.gauge.get_or_create(&Named { name: name.clone() }).set(value);
            now.insert(name);
        }
        for gone in shown.difference(&now) {
            self.gauge.remove(&Named { name: gone.clone() });
        }
        *shown = now;
    }
}

/// Brings the gauges up to date.
pub(super) fn refresh(runtime: Arc<Runtime>, audit: Audit, server: Arc<ServerStats>) -> Refresh {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let metrics = runtime.metrics();
    let ages = Coming::new(&metrics.jwks_age_seconds);
    let connections = Coming::new(&metrics.upstream_connections);
    let ejected = Coming::new(&metrics.upstream_ejected);
    Arc::new(move |metrics| {
        let now = runtime.clock().now();
        let stores = runtime.key_stores();
        ages.show(
            stores.iter().filter_map(|store| Some((store.settings().name.to_string(), store.age(now)?.as_secs_f64()))),
        );
        let upstreams = runtime.upstreams();
        let stats: Vec<_> =
            upstreams.iter().map(|upstream| (upstream.settings().name.to_string(), upstream.stats())).collect();
        connections.show(stats.iter().map(|(name, stats)| (name.clone(), stats.open as f64)));
        ejected.show(stats.iter().map(|(name, stats)| (name.clone(), stats.ejected as f64)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_no_longer_names_leaves_the_metrics() {
        let gauge = NamedGauge::default();
        let coming = Coming::new(&gauge);
        coming.show([("old".to_owned(), 1.0), ("both".to_owned(), 2.0)].into_iter());
        coming.show([("both".to_owned(), 3.0), ("new".to_owned(), 4.0)].into_iter());
        let value = |name: &str| gauge.get(&Named { name: name.to_owned() }).map(|gauge| gauge.get());
        assert_eq!([value("old"), value("both"), value("new")], [None, Some(3.0), Some(4.0)]);
    }
}
