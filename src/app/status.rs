//! How the process is beside its requests: what `/readyz` tells and only other tasks know.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::{Clock, Timestamp};
use crate::config::compile::RevocationEnd;

/// How often revocation lists are looked at.
const ROUND: Duration = Duration::from_secs(60);

/// What the tasks in the background found.
#[derive(Debug, Default)]
pub(super) struct Status {
    faults: Mutex<Option<String>>,
    reloads_ended: AtomicBool,
    issuers_answered: AtomicBool,
    revocations: ArcSwap<Vec<RevocationEnd>>,
}

impl Status {
    /// Why the configuration on disk is not the one in force.
    pub(super) fn faults(&self) -> Option<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_faults(&self, faults: Option<String>) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Whether nobody looks for changes of the configuration any more.
    pub(super) fn reloads_ended(&self) -> bool {
        self.reloads_ended.load(Ordering::Relaxed)
    }

    pub(super) fn end_reloads(&self) {
        self.reloads_ended.store(true, Ordering::Relaxed);
    }

    /// Whether every issuer had usable keys at one moment since the start; `now` says that this is one.
    pub(super) fn issuers_answered(&self, now: bool) -> bool {
        if now {
            self.issuers_answered.store(true, Ordering::Relaxed);
        }
        self.issuers_answered.load(Ordering::Relaxed)
    }

    pub(super) fn set_revocations(&self, ends: Vec<RevocationEnd>) {
        self.revocations.store(Arc::new(ends));
    }

    /// Revocation lists that are out of date.
    pub(super) fn outdated_revocations(&self, now: Timestamp) -> Vec<RevocationEnd> {
        self.revocations.load().iter().filter(|list| now >= list.at).cloned().collect()
    }
}

/// Warns of each revocation list when it is out of date.
pub(super) async fn watch_revocations(status: Arc<Status>, clock: Clock) {
    let mut told = BTreeSet::new();
    let mut round = tokio::time::interval(ROUND);
    loop {
        round.tick().await;
        let outdated: BTreeSet<RevocationEnd> = status.outdated_revocations(clock.now()).into_iter().collect();
        for list in outdated.difference(&told) {
            tracing::warn!(listener = %list.listener, "{list}");
        }
        told = outdated;
    }
}
