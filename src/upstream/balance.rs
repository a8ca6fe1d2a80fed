//! Which address comes next: round robin, past those that were set aside for failing.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::settings::Ejection;

/// Longest time that an address is set aside.
const LONGEST: Duration = Duration::from_secs(300);

/// The turn and the health of every address of one upstream, by position.
#[derive(Debug)]
pub(super) struct Balancer {
    settings: Ejection,
    began: Instant,
    turn: AtomicUsize,
    health: Vec<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: AtomicU32,
    times_ejected: AtomicU32,
    /// Milliseconds after `began`; 0 is never.
    ejected_until: AtomicU64,
}

impl Balancer {
    pub(super) fn new(addresses: usize, settings: Ejection) -> Self {
        let health = (0..addresses).map(|_| Health::default()).collect();
        Self { settings, began: Instant::now(), turn: AtomicUsize::new(0), health }
    }

    /// Position of the next address that is not set aside, other than `except`. When all are set aside, all serve:
    /// a wrong guess about health must not become an outage.
    pub(super) fn next(&self, except: Option<usize>) -> usize {
        let count = self.health.len();
        if count < 2 {
            return 0;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let order = (0..count).map(|step| (turn.wrapping_add(step)) % count).filter(|index| Some(*index) != except);
        let now = self.millis(Instant::now());
        let healthy = |index: &usize| self.health.get(*index).is_some_and(|health| !health.is_ejected(now));
        order.clone().find(healthy).or_else(|| order.clone().next()).unwrap_or(0)
    }

    /// The address answered: it is well, whatever it did before.
    pub(super) fn succeeded(&self, index: usize) {
        let Some(health) = self.health.get(index) else { return };
        for state in [&health.failures, &health.times_ejected] {
            // Written only when it changes, so that the common case shares its cache line.
            if state.load(Ordering::Relaxed) != 0 {
                state.store(0, Ordering::Relaxed);
            }
        }
        if health.ejected_until.load(Ordering::Relaxed) != 0 {
            health.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    /// The address failed. After enough failures in a row it is set aside; after its time one more failure is enough.
    pub(super) fn failed(&self, index: usize) {
        let Some(health) = self.health.get(index) else { return };
        let now = self.millis(Instant::now());
        if health.is_ejected(now) {
            return;
        }
        let failures = health.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures < self.settings.consecutive_failures.max(1) {
            return;
        }
        let times = health.times_ejected.fetch_add(1, Ordering::Relaxed);
        let factor = 2_u32.checked_pow(times).unwrap_or(u32::MAX);
        let aside = self.settings.base.checked_mul(factor).unwrap_or(LONGEST).min(LONGEST);
        let until = now.saturating_add(u64::try_from(aside.as_millis()).unwrap_or(u64::MAX)).max(1);
        health.ejected_until.store(until, Ordering::Relaxed);
    }

    /// How many addresses are set aside now.
    pub(super) fn ejected(&self) -> usize {
        let now = self.millis(Instant::now());
        self.health.iter().filter(|health| health.is_ejected(now)).count()
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Health {
    fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(addresses: usize) -> Balancer {
        Balancer::new(addresses, Ejection { consecutive_failures: 2, base: Duration::from_secs(10) })
    }

    fn turns(balancer: &Balancer, count: usize) -> Vec<usize> {
        (0..count).map(|_| balancer.next(None)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_take_turns() {
        assert_eq!(turns(&balancer(3), 6), [0, 1, 2, 0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_is_set_aside_longer_each_time_and_recovers() {
        let balancer = balancer(2);
        balancer.failed(1);
        assert_eq!(balancer.ejected(), 0, "one failure is not enough");
        balancer.failed(1);
        assert_eq!((balancer.ejected(), turns(&balancer, 4)), (1, vec![0; 4]));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(turns(&balancer, 2).contains(&1), "its time is over");
        balancer.failed(1);
        tokio::time::advance(Duration::from_secs(19)).await;
        assert_eq!(balancer.ejected(), 1, "twice as long the second time");
        tokio::time::advance(Duration::from_secs(1)).await;
        balancer.succeeded(1);
        balancer.failed(1);
        assert_eq!(balancer.ejected(), 0, "a success forgets what was before");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_never_set_aside_for_more_than_five_minutes() {
        let balancer = balancer(2);
        for _ in 0..100 {
            balancer.failed(1);
            balancer.failed(1);
            tokio::time::advance(LONGEST).await;
            assert_eq!(balancer.ejected(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_set_aside_all_serve() {
        let balancer = balancer(2);
        for index in [0, 0, 1, 1] {
            balancer.failed(index);
        }
        assert_eq!((balancer.ejected(), turns(&balancer, 4)), (2, vec![0, 1, 0, 1]));
        assert_eq!(balancer.next(Some(0)), 1, "a retry goes elsewhere all the same");
    }
}
