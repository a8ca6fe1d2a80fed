//! Single flight: one piece of work for any number of callers who want the same answer at the same time.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

type Running<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// Work in progress, by key. The work runs in a task of its own: a caller that hangs up does not stop it.
pub(super) struct Flights<K, V> {
    running: Running<K, V>,
    tasks: TaskTracker,
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Flights").finish_non_exhaustive()
    }
}

/// Takes the work's key away when the work ends, by a panic too.
struct Landing<K: Hash + Eq, V>(Running<K, V>, K);

impl<K: Hash + Eq, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Hash + Eq + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Tasks are counted by `tasks`, whose owner awaits them.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { running: Arc::default(), tasks }
    }

    /// The answer of the work under `key`: of the one that runs, or of a new one. `needed` is asked under the lock
    /// before a new one starts, so that a caller who looked before the last work ended does not start another.
    /// `None`: not needed any more, or no answer within `deadline`.
    pub(super) async fn join<F>(
        &self,
        key: K,
        deadline: Duration,
        needed: impl FnOnce() -> bool,
        work: impl FnOnce() -> F,
    ) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut answer = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            match running.get(&key) {
                Some(answer) => answer.clone(),
                None if !needed() => return None,
                None => {
                    let (sender, answer) = watch::channel(None);
                    running.insert(key.clone(), answer.clone());
                    let (landing, work) = (Landing(self.running.clone(), key), work());
                    self.tasks.spawn(async move {
                        let value = work.await;
                        drop(landing);
                        sender.send_replace(Some(value));
                    });
                    answer
                }
            }
        };
        let waited = tokio::time::timeout(deadline, answer.wait_for(Option::is_some)).await;
        waited.ok()?.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn many_callers_share_one_piece_of_work_even_when_the_first_hangs_up() {
        let flights: Flights<u8, u32> = Flights::new(TaskTracker::new());
        let (starts, (open, gate)) = (Arc::new(AtomicUsize::new(0)), oneshot::channel::<()>());
        let counted = starts.clone();
        let work = || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let _opened = gate.await;
            7
        };
        let hung_up = tokio::time::timeout(Duration::ZERO, flights.join(1, LONG, || true, work)).await;
        assert!(hung_up.is_err());
        let others = (0..50).map(|_| flights.join(1, LONG, || true, || async { 8 }));
        let (answers, _) = tokio::join!(futures_util::future::join_all(others), async { open.send(()).unwrap() });
        assert!(answers.iter().all(|answer| *answer == Some(7)));
        assert_eq!(starts.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn work_that_is_not_needed_any_more_does_not_start() {
        let flights: Flights<u8, u32> = Flights::new(TaskTracker::new());
        assert_eq!(flights.join(1, LONG, || false, || async { 8 }).await, None);
        assert_eq!(flights.join(1, LONG, || true, || async { 8 }).await, Some(8));
    }
}
