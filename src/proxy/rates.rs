//! Rates: how many requests a source, a principal or a route may make in a time, counted in this process alone.
//!
//! The generic cell rate algorithm (ITU-T I.371): for each who is counted, one number says until when its past requests
//! are spread at the even pace of the rate. A request may come as long as that is no further ahead than the rate's time,
//! so a whole rate may come at once, and then one at each of its even steps.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use super::ProxyError;
use crate::route::{Rate, Route};

/// Most sources, principals and routes that are counted at once. The least used give way, and begin anew.
const COUNTED: usize = 100_000;

/// Who is counted on a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// The caller's address: of IPv6, the 64 bits that a network gives to one site.
    Source(IpAddr),
    /// The principal, by its id.
    Principal(Arc<str>),
    /// Every granted request.
    Route,
}

impl Counted {
    pub(super) fn source(address: IpAddr) -> Self {
        Self::Source(source_of(address))
    }

    const fn as_str(&self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::Principal(_) => "principal",
            Self::Route => "route",
        }
    }
}

/// The address by which a source is counted.
pub(super) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => (address.to_bits() >> 64 << 64).to_be_bytes().into(),
    }
}

/// What has been counted, over reloads.
#[derive(Debug)]
pub(super) struct Rates {
    began: Instant,
    /// Nanoseconds since `began` until which requests are spread.
    spread: Cache<(Arc<str>, Counted), Arc<AtomicU64>>,
}

impl Default for Rates {
    fn default() -> Self {
        Self { began: Instant::now(), spread: Cache::new(COUNTED) }
    }
}

impl Rates {
    /// Counts a request on `route` at `now`, where it has a rate for this.
    ///
    /// # Errors
    /// [`ProxyError::RateLimited`]; then it is not counted.
    pub(super) fn take(
        &self,
        route: &Route,
        rate: Option<Rate>,
        counted: impl FnOnce() -> Counted,
        now: Instant,
    ) -> Result<(), ProxyError> {
        let Some(rate) = rate else { return Ok(()) };
        let counted = counted();
        let by = counted.as_str();
        let spread = self.spread.get_or_insert_with(&(route.name.clone(), counted), || Ok::<_, ()>(Arc::default()));
        let spread = spread.unwrap_or_default();
        let now = nanos(now.saturating_duration_since(self.began));
        let (step, most) = (nanos(rate.per) / u64::from(rate.requests.max(1)), nanos(rate.per));
        let end = now.saturating_add(most);
        // No further ahead than this rate lets it be: it may have been another before a reload.
        let next = |until: u64| until.clamp(now, end).saturating_add(step);
        let counted = spread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
            Some(if next(until) <= end { next(until) } else { until.min(end) })
        });
        let until = counted.unwrap_or_else(|until| until);
        if next(until) <= end {
            return Ok(());
        }
        Err(ProxyError::RateLimited { by, wait: Duration::from_nanos(next(until).saturating_sub(end)) })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::route;

    const TEN_A_SECOND: Option<Rate> = Some(Rate { requests: 10, per: Duration::from_secs(1) });

    fn source() -> Counted {
        Counted::source("192.0.2.1".parse().unwrap())
    }

    /// How many of `count` requests may come `after` the beginning, and how long the first refused one is to wait.
    fn come(rates: &Rates, who: &Counted, count: usize, after: Duration) -> (usize, Option<Duration>) {
        let mut waits = (0..count).map(|_| rates.take(&route(), TEN_A_SECOND, || who.clone(), rates.began + after));
        let passed = waits.by_ref().take_while(Result::is_ok).count();
        let refused = rates.take(&route(), TEN_A_SECOND, || who.clone(), rates.began + after);
        let wait = refused.err().map(|error| {
            let ProxyError::RateLimited { by: "source", wait } = error else { panic!("{error:?}") };
            wait
        });
        (passed, wait)
    }

    #[test]
    fn a_whole_rate_may_come_at_once_and_then_one_at_each_step() {
        let rates = Rates::default();
        let millis = Duration::from_millis;
        assert_eq!(come(&rates, &source(), 20, millis(0)), (10, Some(millis(100))));
        assert_eq!(come(&rates, &source(), 20, millis(99)), (0, Some(millis(1))), "what was refused is not counted");
        assert_eq!(come(&rates, &source(), 1, millis(100)), (1, Some(millis(100))));
        assert_eq!(come(&rates, &source(), 20, millis(450)), (3, Some(millis(50))));
        assert_eq!(come(&rates, &source(), 20, millis(60_000)), (10, Some(millis(100))), "no more for waiting longer");
    }

    #[test]
    fn a_shorter_rate_after_a_reload_holds_at_once() {
        let rates = Rates::default();
        let hourly = Some(Rate { requests: 10, per: Duration::from_secs(3600) });
        for _ in 0..10 {
            rates.take(&route(), hourly, source, rates.began).unwrap();
        }
        assert_eq!(come(&rates, &source(), 20, Duration::ZERO), (0, Some(Duration::from_millis(100))));
        assert_eq!(come(&rates, &source(), 20, Duration::from_secs(1)).0, 10);
    }

    #[test]
    fn each_is_counted_for_itself_and_without_a_rate_nobody_is() {
        let rates = Rates::default();
        let other = Counted::source("192.0.2.2".parse().unwrap());
        assert_eq!(come(&rates, &source(), 20, Duration::ZERO).0, 10);
        assert_eq!(come(&rates, &other, 20, Duration::ZERO).0, 10);
        for _ in 0..100 {
            rates.take(&route(), None, || panic!("nobody asks who it is"), rates.began).unwrap();
        }
    }

    #[test]
    fn an_ipv6_site_is_one_source_and_a_mapped_address_is_the_address_it_maps() {
        let source = |text: &str| Counted::source(text.parse().unwrap());
        assert_eq!(source("2001:db8:1:2:aaaa::1"), source("2001:db8:1:2:bbbb::2"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }
}
