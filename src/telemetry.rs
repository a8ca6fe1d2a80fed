//! What operators see of a running process: its metrics. Audit never goes through here.
//!
//! Labels name routes, issuers and outcomes, never callers.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A step of the line, as the `step` label of `doorward_step_duration_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Recognising the caller.
    Identify,
    /// Asking policy.
    Authorize,
    /// Getting the credential.
    Credential,
    /// Until the upstream's head.
    Upstream,
    /// Until the answer's last byte.
    Total,
}

const STEPS: [(Step, &str); 5] = [
    (Step::Identify, "identify"),
    (Step::Authorize, "authorize"),
    (Step::Credential, "credential"),
    (Step::Upstream, "upstream"),
    (Step::Total, "total"),
];

/// How a request ended, as the `outcome` label of `doorward_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Forwarded and answered.
    Allowed,
    /// Refused by Doorward: identity or policy.
    Denied,
    /// Malformed, too large, or without a route.
    Rejected,
    /// Permitted, but the upstream or Doorward failed.
    Failed,
    /// Answered by Doorward itself.
    Own,
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Allowed, "allowed"),
    (Outcome::Denied, "denied"),
    (Outcome::Rejected, "rejected"),
    (Outcome::Failed, "failed"),
    (Outcome::Own, "own"),
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CredentialLabels {
    credential: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

/// Labels of a gauge that is about one named thing (an issuer, an upstream, a listener).
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Named {
    /// Configured name.
    pub name: String,
}

/// A gauge for each named thing.
pub type NamedGauge = Family<Named, Gauge<f64, AtomicU64>>;

/// Counters of one route, looked up once when a snapshot is made.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    outcomes: Arc<[Counter; OUTCOMES.len()]>,
}

impl RouteMetrics {
    /// Counts one request.
    pub fn count(&self, outcome: Outcome) {
        for ((known, _), counter) in OUTCOMES.iter().zip(&*self.outcomes) {
            if *known == outcome {
                counter.inc();
            }
        }
    }
}

/// Counters of one credential that others issue.
#[derive(Clone, Debug)]
pub struct CredentialMetrics {
    /// Fetches that brought one.
    pub issued: Counter,
    /// Fetches that did not.
    pub refused: Counter,
    /// Requests that took it from the cache.
    pub reused: Counter,
}

/// The process's metrics. They live beside the snapshot and survive a reload.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    credentials: Family<CredentialLabels, Counter>,
    unrouted: RouteMetrics,
    steps: [Histogram; STEPS.len()],
    /// Requests being served.
    pub requests_in_flight: Gauge<i64, AtomicI64>,
    /// Panics that were caught.
    pub panics: Counter,
    /// Configuration loads that failed since the start.
    pub config_failures: Counter,
    /// 1 when the last configuration load succeeded.
    pub config_healthy: Gauge<i64, AtomicI64>,
    /// 1 while somebody looks for changes of the configuration.
    pub config_watched: Gauge<i64, AtomicI64>,
    /// Seconds since an issuer's keys were fetched, by issuer.
    pub jwks_age_seconds: NamedGauge,
    /// Assertions in cache.
    pub credential_cache_entries: Gauge<i64, AtomicI64>,
    /// Records waiting for the writer.
    pub audit_queue_depth: Gauge<i64, AtomicI64>,
    /// Records that were lost because the queue was full.
    pub audit_lost: Gauge<i64, AtomicI64>,
    /// Records written.
    pub audit_written: Gauge<i64, AtomicI64>,
    /// Open downstream connections.
    pub connections: Gauge<i64, AtomicI64>,
    /// TLS handshakes that failed or took too long.
    pub handshake_failures: Gauge<i64, AtomicI64>,
    /// Connections that ended because what came was no HTTP, too large, too slow or a flood.
    pub protocol_errors: Gauge<i64, AtomicI64>,
    /// Connections refused for a bad or missing PROXY header.
    pub proxy_headers_refused: Gauge<i64, AtomicI64>,
    /// Open upstream connections, by upstream.
    pub upstream_connections: NamedGauge,
    /// Upstream addresses that are ejected, by upstream.
    pub upstream_ejected: NamedGauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        // From 10 µs to 10 s: a warm step takes single microseconds, a slow upstream takes seconds.
        const BOUNDS: [f64; 13] =
            [0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
        let mut registry = Registry::with_prefix("doorward");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("requests", "Requests by route and outcome", requests.clone());
        let credentials = Family::<CredentialLabels, Counter>::default();
        registry.register("credentials", "Credentials of other issuers, by name and outcome", credentials.clone());
        let durations =
            Family::<StepLabels, Histogram, fn() -> Histogram>::new_with_constructor(|| Histogram::new(BOUNDS));
        registry.register("step_duration_seconds", "Duration of each step of the line", durations.clone());
        let steps = STEPS.map(|(_, step)| durations.get_or_create_owned(&StepLabels { step }));
        let metrics = Self {
            unrouted: route_metrics(&requests, ""),
            requests,
            credentials,
            steps,
            requests_in_flight: Gauge::default(),
            panics: Counter::default(),
            config_failures: Counter::default(),
            config_healthy: Gauge::default(),
            config_watched: Gauge::default(),
            jwks_age_seconds: NamedGauge::default(),
            credential_cache_entries: Gauge::default(),
            audit_queue_depth: Gauge::default(),
            audit_lost: Gauge::default(),
            audit_written: Gauge::default(),
            connections: Gauge::default(),
            handshake_failures: Gauge::default(),
            protocol_errors: Gauge::default(),
            proxy_headers_refused: Gauge::default(),
            upstream_connections: NamedGauge::default(),
            upstream_ejected: NamedGauge::default(),
            registry: Mutex::default(),
        };
        registry.register("requests_in_flight", "Requests being served", metrics.requests_in_flight.clone());
        registry.register("panics", "Panics caught on the request path", metrics.panics.clone());
        registry.register("config_failures", "Configuration loads that failed", metrics.config_failures.clone());
        registry.register(
            "config_healthy",
            "1 when the configuration on disk is the one in force",
            metrics.config_healthy.clone(),
        );
        let watched = metrics.config_watched.clone();
        registry.register("config_watched", "1 while changes of the configuration are looked for", watched);
        registry.register(
            "jwks_age_seconds",
            "Seconds since an issuer's keys were fetched",
            metrics.jwks_age_seconds.clone(),
        );
        registry.register("credential_cache_entries", "Credentials in cache", metrics.credential_cache_entries.clone());
        registry.register("audit_queue_depth", "Audit records waiting", metrics.audit_queue_depth.clone());
        registry.register("audit_lost", "Audit records lost to a full queue", metrics.audit_lost.clone());
        registry.register("audit_written", "Audit records written", metrics.audit_written.clone());
        registry.register("connections", "Open downstream connections", metrics.connections.clone());
        let handshakes = metrics.handshake_failures.clone();
        registry.register("handshake_failures", "TLS handshakes that failed or took too long", handshakes);
        let errors = metrics.protocol_errors.clone();
        registry.register("protocol_errors", "Connections ended for bytes that are no HTTP, slow or a flood", errors);
        let refused = metrics.proxy_headers_refused.clone();
        registry.register("proxy_headers_refused", "Connections refused for their PROXY header", refused);
        registry.register("upstream_connections", "Open upstream connections", metrics.upstream_connections.clone());
        registry.register("upstream_ejected", "Ejected upstream addresses", metrics.upstream_ejected.clone());
        Self { registry: Mutex::new(registry), ..metrics }
    }

    /// Handles for one route; a route that comes back after a reload goes on counting.
    #[must_use]
    pub fn route(&self, name: &str) -> RouteMetrics {
        route_metrics(&self.requests, name)
    }

    /// Handles for one credential that others issue.
    #[must_use]
    pub fn credential(&self, name: &str) -> CredentialMetrics {
        let counter =
            |outcome| self.credentials.get_or_create_owned(&CredentialLabels { credential: name.to_owned(), outcome });
        CredentialMetrics { issued: counter("issued"), refused: counter("refused"), reused: counter("reused") }
    }

    /// Counts a request that reached no route.
    pub fn unrouted(&self, outcome: Outcome) {
        self.unrouted.count(outcome);
    }

    /// Records how long a step took.
    pub fn observe(&self, step: Step, took: Duration) {
        for ((known, _), histogram) in STEPS.iter().zip(&self.steps) {
            if *known == step {
                histogram.observe(took.as_secs_f64());
            }
        }
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// [`fmt::Error`] when the text could not be formed.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn route_metrics(requests: &Family<RequestLabels, Counter>, route: &str) -> RouteMetrics {
    let counter = |outcome| requests.get_or_create_owned(&RequestLabels { route: route.to_owned(), outcome });
    RouteMetrics { outcomes: Arc::new(OUTCOMES.map(|(_, name)| counter(name))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_goes_on_counting_after_its_handles_are_made_again() {
        let metrics = Metrics::new();
        metrics.route("invoices").count(Outcome::Denied);
        metrics.route("invoices").count(Outcome::Denied);
        metrics.observe(Step::Authorize, Duration::from_micros(7));
        let text = metrics.render().unwrap();
        assert!(text.contains(r#"doorward_requests_total{route="invoices",outcome="denied"} 2"#), "{text}");
        assert!(text.contains(r#"doorward_step_duration_seconds_count{step="authorize"} 1"#), "{text}");
    }
}
