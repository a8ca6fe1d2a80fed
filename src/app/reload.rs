//! Hot reload: a new snapshot as a whole, or the old one as it was.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::admin::Admin;
use crate::audit::{Audit, OtherEvent};
use crate::config::Runtime;
use crate::config::checked::{self, Checked};
use crate::config::compile::{admin_listener, listeners};
use crate::config::watch::ConfigWatcher;
use crate::proxy::Snapshot;
use crate::server::TlsAcceptorHandle;

/// Whether the configuration on disk is the one in force.
#[derive(Debug, Default)]
pub(super) struct Status {
    faults: Mutex<Option<String>>,
}

impl Status {
    /// Why it is not.
    pub(super) fn faults(&self) -> Option<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, faults: Option<String>) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }
}

/// What is read at the start only.
#[derive(Debug, PartialEq)]
pub(super) struct Fixed {
    listeners: BTreeMap<String, (checked::ListenAddress, bool)>,
    limits: checked::Limits,
    audit: checked::Audit,
    state_dir: Option<PathBuf>,
    rotate_every: Option<Duration>,
    admin: Option<AdminGuard>,
}

/// Where the admin listener is, and whether TLS, client certificates and a token guard it.
type AdminGuard = (checked::ListenAddress, bool, bool, bool);

impl Fixed {
    pub(super) fn of(checked: &Checked) -> Self {
        let listener =
            |listener: &checked::Listener| (listener.name.clone(), (listener.address.clone(), listener.tls.is_some()));
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
    pub(super) tls: BTreeMap<String, TlsAcceptorHandle>,
    pub(super) admin: Option<Arc<Admin>>,
    pub(super) admin_tls: Option<TlsAcceptorHandle>,
    pub(super) audit: Audit,
    pub(super) status: Arc<Status>,
    pub(super) started_with: Fixed,
}

impl Reloader {
    /// Reloads whenever the files change, or by hand.
    pub(super) async fn run(self, mut watcher: ConfigWatcher) {
        while watcher.changed().await {
            self.reload(&watcher).await;
        }
    }

    async fn reload(&self, watcher: &ConfigWatcher) {
        match super::compile(&self.path, &self.runtime).await {
            Ok(Ok((snapshot, checked))) => {
                watcher.follow(checked.referenced.clone());
                match self.replace_certificates(&checked) {
                    Ok(()) => {
                        self.snapshot.store(Arc::new(snapshot));
                        self.replace_admin(&checked);
                        self.announce(&checked);
                    }
                    Err(fault) => self.refuse(&fault),
                }
            }
            Ok(Err(faults)) => {
                // The mend may be in a file that only the faulty configuration names.
                watcher.follow_also(faults.referenced());
                self.refuse(&faults.to_string());
            }
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    /// Certificates of every listener, or of none: a file that cannot be used leaves all as they were.
    fn replace_certificates(&self, checked: &Checked) -> Result<(), String> {
        let settings = listeners(checked)?;
        let admin = checked.admin.as_ref().map(admin_listener).transpose()?;
        let admin = admin.as_ref().and_then(|new| Some((new, self.admin_tls.as_ref()?, new.tls.as_ref()?)));
        let public = || settings.iter().filter_map(|new| Some((new, self.tls.get(&new.name)?, new.tls.as_ref()?)));
        let pairs = || public().chain(admin);
        for (new, _, tls) in pairs() {
            TlsAcceptorHandle::new(tls).map_err(|error| format!("TLS of listener `{}`: {error}", new.name))?;
        }
        for (new, handle, tls) in pairs() {
            handle.replace(tls).map_err(|error| format!("TLS of listener `{}`: {error}", new.name))?;
        }
        Ok(())
    }

    /// The admin listener's token. What guards it was settled at the start: a guard is replaced, never taken away.
    fn replace_admin(&self, checked: &Checked) {
        let Some((admin, configured)) = self.admin.as_ref().zip(checked.admin.as_ref()) else { return };
        if let Some(token) = super::admin_settings(configured).token {
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
        self.status.set(None);
        self.runtime.metrics().config_healthy.set(1);
        self.emit("config.loaded", vec![("snapshot", checked.hash.as_ref().into()), ("restart_needed", waits.into())]);
    }

    fn refuse(&self, faults: &str) {
        tracing::error!("the new configuration has faults and changes nothing:\n{faults}");
        self.status.set(Some(faults.to_owned()));
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
