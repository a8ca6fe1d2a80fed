//! A source's places among the requests at once, so that no single one can hold them all: with uploads that trickle,
//! answers that it does not take, or sockets that it keeps open.

use std::net::IpAddr;
use std::sync::Arc;

use dashmap::DashMap;

use super::ProxyError;
use super::rates::source_of;

/// Which source holds how many places. Bounded by the requests at once.
#[derive(Debug)]
pub(super) struct Places {
    most: Option<usize>,
    held: DashMap<IpAddr, usize>,
}

impl Places {
    /// At most `most` for each source; `None` sets no bound.
    pub(super) fn new(most: Option<usize>) -> Arc<Self> {
        Arc::new(Self { most, held: DashMap::new() })
    }

    /// Takes a place for a request of `address`.
    ///
    /// # Errors
    /// [`ProxyError::SourceOverloaded`].
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Option<Place>, ProxyError> {
        let Some(most) = self.most else { return Ok(None) };
        let source = source_of(address);
        let mut held = self.held.entry(source).or_default();
        if *held >= most {
            return Err(ProxyError::SourceOverloaded);
        }
        *held += 1;
        drop(held);
        Ok(Some(Place { source, places: Arc::clone(self) }))
    }
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    source: IpAddr,
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held.remove_if_mut(&self.source, |_, held| {
            *held = held.saturating_sub(1);
            *held == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_holds_its_share_and_no_more_and_nothing_is_kept_of_who_left() {
        let places = Places::new(Some(2));
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = places.enter(one).unwrap();
        let _second = places.enter(one).unwrap();
        assert!(matches!(places.enter(one), Err(ProxyError::SourceOverloaded)));
        let of_another = places.enter(other).unwrap();
        drop(first);
        let again = places.enter(one).unwrap();
        assert!(places.enter(one).is_err());
        drop((again, of_another));
        assert_eq!(places.held.len(), 1, "one place of one source is left");
    }

    #[test]
    fn without_a_bound_nobody_is_counted() {
        let places = Places::new(None);
        assert!(places.enter("192.0.2.1".parse().unwrap()).unwrap().is_none());
        assert!(places.held.is_empty());
    }
}
