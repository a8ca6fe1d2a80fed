//! Hot reload: a new snapshot as a whole, or the old one as it was.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::admin::Admin;
use crate::audit::{Audit, OtherEvent};
use crate::config::checked::{self, Checked};
use crate::config::compile::{RevocationEnd, revocation_ends};
use crate::config::watch::ConfigWatcher;
use crate::config::{Faults, Runtime};
use crate::proxy::Snapshot;

use super::AppError;
use super::certificates::{Certificates, Prepared};
use super::status::Status;

/// What is read at the start only.
#[derive(Debug, PartialEq)]
pub(super) struct Fixed {
    listeners: BTreeMap<String, Socket>,
    limits: checked::Limits,
    audit: checked::Audit,
    state_dir: Option<PathBuf>,
    rotate_every: Option<Duration>,
    admin: Option<AdminGuard>,
}

/// Where a listener is, whether it speaks TLS, and who must speak the PROXY protocol.
type Socket = (checked::ListenAddress, bool, Vec<IpNet>);

/// Where the admin listener is, and whether TLS, client certificates and a token guard it.
type AdminGuard = (checked::ListenAddress, bool, bool, bool);

impl Fixed {
    pub(super) fn of(checked: &Checked) -> Self {
        let listener = |listener: &checked::Listener| {
            let checked::Listener { name, address, tls, proxy_protocol } = listener;
            (name.clone(), (address.clone(), tls.is_some(), proxy_protocol.clone()))
        };
        Self {
            listeners: checked.listeners.iter().map(listener).collect(),
            limits: checked.limits.clone(),
            audit: checked.audit.clone(),
            state_dir: checked.state_dir.clone(),
            rotate_every: checked.assertions.as_ref().map(|assertions| assertions.rotate_every),
            admin: checked.admin.as_ref().map(|admin| {
                let certificates = admin.tls.as_ref().is_some_and(|tls| tls.client_certificates.is_some());
                (admin.address.clone(), admin.tls.is_some(), certificates, admin.token.is_some())
            }),
        }
    }
}

/// Puts new configurations in force.
pub(super) struct Reloader {
    pub(super) path: PathBuf,
    pub(super) runtime: Arc<Runtime>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) admin: Option<Arc<Admin>>,
    pub(super) audit: Audit,
    pub(super) status: Arc<Status>,
    pub(super) started_with: Fixed,
}

/// A configuration of which everything is made and nothing is in force.
struct Made {
    snapshot: Snapshot,
    checked: Checked,
    certificates: Prepared,
    revocations: Vec<RevocationEnd>,
}

impl Reloader {
    /// Reloads whenever the files change, or by hand; ends with the watcher.
    pub(super) async fn run(self, mut watcher: ConfigWatcher) {
        while watcher.changed().await {
            self.reload(&watcher).await;
        }
    }

    async fn reload(&self, watcher: &ConfigWatcher) {
        match self.make().await {
            Ok(Ok(Made { snapshot, checked, certificates, revocations })) => {
                watcher.loaded(&checked.hash, checked.referenced.clone());
                self.certificates.install(certificates);
                self.snapshot.store(Arc::new(snapshot));
                self.runtime.take_into_use(&checked);
                self.status.set_revocations(revocations);
                self.replace_admin(&checked);
                self.announce(&checked);
            }
            Ok(Err(faults)) => {
                // The mend may be in a file that only the faulty configuration names.
                watcher.refused(faults.hash(), faults.referenced());
                self.refuse(&faults.to_string());
            }
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    /// Off the async threads: reading files, parsing keys and setting up TLS block.
    async fn make(&self) -> Result<Result<Made, Faults>, AppError> {
        let certificates = self.certificates.clone();
        let finish = move |snapshot, checked: Checked| {
            let prepared = certificates.prepare(&checked);
            let certificates =
                prepared.map_err(|faults| faults.referring_to(checked.referenced.clone()).of(checked.hash.clone()))?;
            let revocations = revocation_ends(&checked);
            Ok(Made { snapshot, checked, certificates, revocations })
        };
        super::compile(&self.path, &self.runtime, finish).await
    }

    /// The admin listener's token. What guards it was settled at the start: a guard is replaced, never taken away.
    fn replace_admin(&self, checked: &Checked) {
        let Some((admin, configured)) = self.admin.as_ref().zip(checked.admin.as_ref()) else { return };
        if let Some(token) = super::guard(configured).token {
            admin.replace_token(token);
        }
    }

    /// Says that `checked` is in force.
    pub(super) fn announce(&self, checked: &Checked) {
        let waits = self.started_with != Fixed::of(checked);
        if waits {
            tracing::warn!(
                "listeners, limits, audit, state, admin and assertions.rotate_every are read at the start only: start \
                 again for them"
            );
        }
        tracing::info!(snapshot = %checked.hash, routes = checked.routes.len(), "configuration in force");
        self.status.set_faults(None);
        self.runtime.metrics().config_healthy.set(1);
        self.emit("config.loaded", vec![("snapshot", checked.hash.as_ref().into()), ("restart_needed", waits.into())]);
    }

    fn refuse(&self, faults: &str) {
        tracing::error!("the new configuration has faults and changes nothing:\n{faults}");
        self.status.set_faults(Some(faults.to_owned()));
        self.runtime.metrics().config_healthy.set(0);
        self.runtime.metrics().config_failures.inc();
        self.emit("config.refused", vec![("faults", faults.into())]);
    }

    fn emit(&self, name: &'static str, fields: Vec<(&'static str, serde_json::Value)>) {
        let at = self.runtime.clock().now();
        // A full queue counts the loss itself.
        let _counted = self.audit.emit(OtherEvent { at, name, request_id: None, principal: None, fields });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_with};

    const CONFIG: &str = "\
external_origin: https://api.example.com
trusted_proxies: [10.0.0.0/8]
state: { dir: state }
listeners:
  public:
    address: 127.0.0.1:8443
    tls: { certificates: [{ certificate: own.pem, key: file:own.key }] }
    proxy_protocol: { from: [10.0.0.5/32] }
  plain: { address: 127.0.0.1:8080 }
limits: { drain: 10s }
credentials: { none: { none: { reason: nothing to show } } }
upstreams: { api: { addresses: [\"http://127.0.0.1:9\"] } }
audit: { when_full: refuse }
admin:
  address: 127.0.0.1:9901
  token: file:token
  tls:
    certificates: [{ certificate: own.pem, key: file:own.key }]
    client_certificates: { mode: required, authorities: own.pem }
";

    fn fixed_with(from: &str, to: &str) -> Fixed {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        std::fs::create_dir(directory.path().join("policies")).unwrap();
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAA==\n-----END {label}-----\n");
        for (name, text) in [("own.pem", pem("CERTIFICATE")), ("other.pem", pem("CERTIFICATE"))] {
            write(name, &text);
        }
        write("own.key", &pem("PRIVATE KEY"));
        write("token", "t0ken\n");
        write("other-token", "0ther\n");
        assert_eq!(CONFIG.matches(from).count(), 1, "`{from}`");
        write("doorward.yaml", &CONFIG.replace(from, to));
        let checked = load_with(&directory.path().join("doorward.yaml"), &Environment::of(|_| None));
        let mut fixed = Fixed::of(&checked.unwrap_or_else(|faults| panic!("{faults}")));
        fixed.state_dir = fixed.state_dir.map(|path| path.strip_prefix(directory.path()).unwrap().to_owned());
        fixed
    }

    #[test]
    fn what_is_read_at_the_start_only_is_known_by_every_row() {
        let before = fixed_with("admin:", "admin:");
        for (from, to) in [
            ("  plain: {", "  other: {"),
            ("127.0.0.1:8080", "127.0.0.1:8081"),
            ("10.0.0.5/32", "10.0.0.6/32"),
            ("    proxy_protocol: { from: [10.0.0.5/32] }\n", ""),
            ("  plain: { address: 127.0.0.1:8080 }\n", ""),
            ("8443\n    tls: { certificates: [{ certificate: own.pem, key: file:own.key }] }", "8443"),
            ("drain: 10s", "drain: 11s"),
            ("drain: 10s", "connections: 9"),
            ("refuse", "count"),
            ("dir: state", "dir: elsewhere"),
            ("127.0.0.1:9901", "127.0.0.1:9902"),
            ("  token: file:token\n", ""),
            ("    client_certificates: { mode: required, authorities: own.pem }\n", ""),
        ] {
            assert_ne!(fixed_with(from, to), before, "`{from}` became `{to}`");
        }
    }

    #[test]
    fn what_takes_effect_at_once_asks_for_no_restart() {
        let before = fixed_with("admin:", "admin:");
        for (from, to) in [
            ("10.0.0.0/8", "10.0.0.0/9"),
            ("https://api.example.com", "https://other.example.com"),
            ("file:token", "file:other-token"),
            ("authorities: own.pem", "authorities: other.pem"),
            ("http://127.0.0.1:9", "http://127.0.0.1:10"),
            ("nothing to show", "nothing at all"),
        ] {
            assert_eq!(fixed_with(from, to), before, "`{from}` became `{to}`");
        }
    }
}
