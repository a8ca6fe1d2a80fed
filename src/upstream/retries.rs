//! How many requests may try a second address: when every address is in trouble, trying again is more of it.

use std::sync::atomic::{AtomicU32, Ordering};

/// A try costs what five requests earn.
const COST: u32 = 5;
/// Most that is saved: a hundred tries at once.
const MOST: u32 = 100 * COST;

/// At most one request in five tries again, and a hundred beyond that at once.
#[derive(Debug)]
pub(super) struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(MOST))
    }
}

impl RetryBudget {
    /// A request was sent for the first time.
    pub(super) fn earn(&self) {
        // Full is what it nearly always is: then nothing is written that other threads read.
        if self.0.load(Ordering::Relaxed) < MOST {
            let _full = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
                (saved < MOST).then(|| saved.saturating_add(1))
            });
        }
    }

    /// Whether one may try again.
    pub(super) fn spend(&self) -> bool {
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(COST));
        spent.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_spent_once_and_then_one_in_five_tries_again() {
        let budget = RetryBudget::default();
        budget.earn();
        let at_once = (0..1000).filter(|_| budget.spend()).count();
        assert_eq!(at_once, 100, "no more than is saved");
        let later = (0..1000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(later.count(), 200);
    }
}
