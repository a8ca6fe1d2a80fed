//! When something short-lived is renewed, and until when it is handed out.

use std::time::Duration;

use crate::clock::Timestamp;

/// A life shorter than this has no room for a fixed margin.
const SHORT_LIFE: Duration = Duration::from_secs(600);
const MARGIN: Duration = Duration::from_secs(300);
/// Nothing is handed out that ends before its request could arrive.
const ARRIVAL: Duration = Duration::from_secs(2);
/// A clock that was set back further than this proves every remembered end wrong.
const SET_BACK: Duration = Duration::from_secs(60);

/// The times of one thing that was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::credential) struct Schedule {
    /// When it was issued, by this process's clock.
    issued_at: Timestamp,
    /// From then on it is renewed beside the requests that use it.
    renew_at: Timestamp,
    /// From then on it is not handed out.
    last_use: Timestamp,
}

impl Schedule {
    /// For a life from `issued_at` to `ends_at`. `advised` is when its issuer would renew it; `jitter`, from 0 to 255,
    /// spreads those that were issued together.
    pub(in crate::credential) fn new(
        issued_at: Timestamp,
        ends_at: Timestamp,
        advised: Option<Timestamp>,
        jitter: u8,
    ) -> Self {
        let life = ends_at.since(issued_at);
        let margin = if life < SHORT_LIFE { life / 4 } else { MARGIN.max(life / 5) };
        // Nine to eleven tenths of the margin.
        let margin = margin * 9 / 10 + margin / 5 * u32::from(jitter) / 255;
        let own = ends_at.minus(margin);
        let renew_at = advised.map_or(own, |advised| advised.min(own)).max(issued_at.plus(life / 10));
        Self { issued_at, renew_at, last_use: ends_at.minus(ARRIVAL.min(life / 10)) }
    }

    /// Whether it may be handed out.
    pub(in crate::credential) fn serves(&self, now: Timestamp) -> bool {
        now < self.last_use && now.plus(SET_BACK) >= self.issued_at
    }

    /// How long ago it was issued.
    pub(in crate::credential) fn age(&self, now: Timestamp) -> Duration {
        now.since(self.issued_at)
    }

    /// Whether it is time for the next one.
    pub(in crate::credential) fn is_due(&self, now: Timestamp) -> bool {
        now >= self.renew_at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn an_hour_is_renewed_twelve_minutes_before_its_end_give_or_take_a_tenth() {
        let (early, late) = (Schedule::new(at(0), at(3600), None, 255), Schedule::new(at(0), at(3600), None, 0));
        assert!(early.is_due(at(3600 - 792)) && !early.is_due(at(3600 - 793)));
        assert!(late.is_due(at(3600 - 648)) && !late.is_due(at(3600 - 649)));
        assert!(early.serves(at(3597)) && !early.serves(at(3598)));
    }

    #[test]
    fn an_issuer_may_ask_for_an_earlier_renewal_and_not_for_a_later_one() {
        assert!(Schedule::new(at(0), at(7200), Some(at(3600)), 0).is_due(at(3600)));
        assert!(Schedule::new(at(0), at(3600), Some(at(3599)), 0).is_due(at(3000)));
        assert!(!Schedule::new(at(0), at(3600), Some(at(0)), 0).is_due(at(359)), "never at each request");
    }

    #[test]
    fn a_clock_that_was_set_back_by_minutes_ends_everything() {
        let schedule = Schedule::new(at(600), at(4200), None, 0);
        assert!(schedule.serves(at(541)) && !schedule.serves(at(539)));
    }

    proptest! {
        #[test]
        fn it_is_due_before_it_ends_and_neither_before_it_was_issued(life in 1_u64..100_000, jitter: u8, advised in 0_u64..200_000) {
            let schedule = Schedule::new(at(0), at(life), Some(at(advised)), jitter);
            prop_assert!(!schedule.serves(at(life)));
            prop_assert!(schedule.renew_at <= schedule.last_use && schedule.renew_at > at(0));
        }
    }
}
