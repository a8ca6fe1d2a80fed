//! Frames of answers that an HTTP/2 client leaves untaken: one stream can stand still while the socket moves.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many frames of a connection wait for its client, by the sweep at which each was handed on, oldest first.
///
/// No longer than there are sweeps with such frames, and mostly empty: a frame is taken long before the next sweep.
#[derive(Debug, Default)]
pub(super) struct Untaken(Mutex<Vec<(u64, u32)>>);

impl Untaken {
    /// A frame was handed to the connection.
    pub(super) fn handed(&self, now: u64) {
        let mut waiting = self.lock();
        match waiting.last_mut() {
            Some((sweep, frames)) if *sweep == now => *frames += 1,
            _ => waiting.push((now, 1)),
        }
    }

    /// A frame that was handed on at the sweep `since` is with the client, or will never be.
    pub(super) fn taken(&self, since: u64) {
        let mut waiting = self.lock();
        if let Some((_, frames)) = waiting.iter_mut().rfind(|(sweep, _)| *sweep == since) {
            *frames -= 1;
        }
        waiting.retain(|(_, frames)| *frames > 0);
    }

    /// The sweep since which a frame waits.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.lock().iter().map(|(sweep, _)| *sweep).min()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_frame_that_waits_counts() {
        let untaken = Untaken::default();
        assert_eq!(untaken.oldest(), None);
        for sweep in [3, 3, 4, 7] {
            untaken.handed(sweep);
        }
        assert_eq!(untaken.oldest(), Some(3));
        untaken.taken(3);
        assert_eq!(untaken.oldest(), Some(3), "another frame of that sweep waits");
        untaken.taken(3);
        assert_eq!(untaken.oldest(), Some(4));
        untaken.taken(7);
        untaken.taken(4);
        assert_eq!(untaken.oldest(), None);
    }
}
