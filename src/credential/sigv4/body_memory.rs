//! Memory for bodies that are held until they are hashed: bounded, and no caller has all of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of all requests together.
const HELD_BYTES: usize = 64 * 1024 * 1024;
/// Of the requests of one principal: room for the longest body that a configuration may allow.
const HELD_BYTES_OF_ONE: usize = HELD_BYTES / 2;

/// Memory for bodies that are held. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct BodyMemory(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_holder: HashMap<Arc<str>, usize>,
}

/// Room for a body, given back on drop.
#[derive(Debug)]
pub(super) struct Room {
    memory: BodyMemory,
    holder: Arc<str>,
    bytes: usize,
}

impl BodyMemory {
    /// Room for a body of this principal's, none of it taken yet.
    pub(super) fn room(&self, holder: &Arc<str>) -> Room {
        Room { memory: self.clone(), holder: holder.clone(), bytes: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Makes it as large as `bytes`. Whether there was so much left.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut taken = self.memory.lock();
        let of_holder = taken.by_holder.get(&self.holder).copied().unwrap_or_default();
        if taken.all + more > HELD_BYTES || of_holder + more > HELD_BYTES_OF_ONE {
            return false;
        }
        taken.all += more;
        taken.by_holder.insert(self.holder.clone(), of_holder + more);
        self.bytes += more;
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.memory.lock();
        taken.all = taken.all.saturating_sub(self.bytes);
        if let Some(of_holder) = taken.by_holder.get_mut(&self.holder) {
            *of_holder = of_holder.saturating_sub(self.bytes);
            if *of_holder == 0 {
                taken.by_holder.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_caller_has_more_than_half_and_what_is_given_back_is_there_again() {
        let memory = BodyMemory::default();
        let room = |holder: &str, bytes| {
            let mut room = memory.room(&holder.into());
            room.grow(bytes).then_some(room)
        };
        let half = room("ada", HELD_BYTES_OF_ONE).unwrap();
        assert!(room("ada", 1).is_none());
        let mut other = room("bob", 1).unwrap();
        assert!(other.grow(HELD_BYTES_OF_ONE) && !other.grow(HELD_BYTES_OF_ONE + 1));
        assert!(room("eve", 1).is_none(), "all is taken");
        drop(half);
        assert!(room("eve", HELD_BYTES_OF_ONE).is_some());
        drop(other);
        assert!(memory.lock().by_holder.is_empty() && memory.lock().all == 0);
    }
}
