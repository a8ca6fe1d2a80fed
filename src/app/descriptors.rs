//! Open files of the process: every connection is one, and the usual soft limit of 1024 is far below what
//! `limits.connections` promises.

use std::num::NonZeroU64;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Checked;

/// For listeners, certificates, audit files, state, connections to issuers and what the runtime itself holds.
const FILES: u64 = 128;

/// Raises the soft limit of open files to the hard one, and returns it; `None` is no limit.
pub(super) fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            tracing::debug!(from = ?current, to = ?maximum, "the limit of open files is raised");
            maximum
        }
        Err(error) => {
            tracing::warn!(%error, limit = ?current, "the limit of open files cannot be raised");
            current
        }
    }
}

/// What the process may promise: `limits.connections` and `limits.concurrent_requests`, lowered to what it may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promised {
    pub(super) connections: usize,
    pub(super) concurrent_requests: usize,
}

/// What `checked` promises, or less, and says so with numbers: accepting what cannot be served takes the last
/// descriptor from the admin listener, the audit and the issuers.
pub(super) fn fit(limit: Option<u64>, checked: &Checked) -> Promised {
    let (connections, concurrent_requests) = (checked.limits.connections, checked.limits.concurrent_requests);
    let needed = Needed::of(checked);
    let mut promised = Promised { connections, concurrent_requests };
    if let Some(missing) = needed.missing(limit) {
        promised = needed.lowered(limit.unwrap_or_default(), promised);
        tracing::warn!(
            limit,
            needed = needed.sum(),
            missing,
            callers = needed.callers,
            upstreams = needed.upstreams,
            files = FILES,
            connections = promised.connections,
            concurrent_requests = promised.concurrent_requests,
            "the limit of open files is too low for `limits.connections` and `limits.concurrent_requests`: these are \
             lowered; raise the hard limit (`ulimit -Hn`, `LimitNOFILE=`)"
        );
    }
    promised
}

/// Most descriptors that a configuration can come to hold.
#[derive(Debug, PartialEq, Eq)]
struct Needed {
    /// Connections of callers.
    callers: u64,
    /// Connections to upstreams: one for every request under way, and those that wait for the next.
    upstreams: u64,
}

impl Needed {
    fn of(checked: &Checked) -> Self {
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let idle = checked
            .upstreams
            .iter()
            .map(|upstream| wide(upstream.addresses.len()).saturating_mul(wide(upstream.idle_connections)))
            .fold(0, u64::saturating_add);
        let limits = &checked.limits;
        Self { callers: wide(limits.connections), upstreams: wide(limits.concurrent_requests).saturating_add(idle) }
    }

    fn sum(&self) -> u64 {
        self.callers.saturating_add(self.upstreams).saturating_add(FILES)
    }

    /// The same shares of what `limit` leaves, one of each at least.
    fn lowered(&self, limit: u64, promised: Promised) -> Promised {
        let left = limit.saturating_sub(FILES);
        let wanted = self.callers.saturating_add(self.upstreams).max(1);
        let share = |number: usize| {
            let number = u64::try_from(number).unwrap_or(u64::MAX);
            let share = u128::from(number) * u128::from(left) / u128::from(wanted);
            usize::try_from(share).unwrap_or(usize::MAX).max(1)
        };
        Promised { connections: share(promised.connections), concurrent_requests: share(promised.concurrent_requests) }
    }

    /// By how much `limit` is too low.
    fn missing(&self, limit: Option<u64>) -> Option<NonZeroU64> {
        NonZeroU64::new(self.sum().saturating_sub(limit?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted_and_no_limit_is_never_too_low() {
        let needed = Needed { callers: 10_000, upstreams: 10_100 };
        assert_eq!(needed.missing(Some(1024)).map(NonZeroU64::get), Some(10_000 + 10_100 + FILES - 1024));
        assert_eq!(needed.missing(Some(needed.sum())), None);
        assert_eq!(needed.missing(None), None);
    }

    #[test]
    fn what_is_promised_fits_into_what_may_be_opened() {
        let needed = Needed { callers: 10_000, upstreams: 10_100 };
        let promised = Promised { connections: 10_000, concurrent_requests: 10_000 };
        let lowered = needed.lowered(1024, promised);
        assert_eq!(lowered, Promised { connections: 445, concurrent_requests: 445 });
        let least = Promised { connections: 1, concurrent_requests: 1 };
        assert_eq!(needed.lowered(64, promised), least, "one at least");
    }
}
