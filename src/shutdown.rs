//! The signal to stop, in two stages: drain first, cut later.

use tokio_util::sync::CancellationToken;

/// A drain signal. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    deadline: CancellationToken,
}

impl Shutdown {
    /// A signal that nobody has given yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// First stage: accept nothing new, finish what is open.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Second stage: drop whatever is still open. Implies the first.
    pub fn cut(&self) {
        self.draining.cancel();
        self.deadline.cancel();
    }

    /// Whether the first stage has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits for the first stage.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Waits for the second stage.
    pub async fn deadline(&self) {
        self.deadline.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn draining_does_not_cut_what_is_open() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        shutdown.drain();
        assert!(clone.is_draining() && clone.draining().now_or_never().is_some());
        assert!(clone.deadline().now_or_never().is_none());
    }

    #[test]
    fn cutting_begins_the_drain_too() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        shutdown.cut();
        assert!(clone.is_draining() && clone.deadline().now_or_never().is_some());
    }
}
