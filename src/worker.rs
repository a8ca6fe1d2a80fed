//! The threads that serve, each with a runtime of its own.
//!
//! What begins on a worker stays there: a connection, its requests, and the upstream connections that those use. So a
//! request wakes no other thread, and what it keeps for the next one is not fought over.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Stack of each thread; only what is used of it is memory. Rules are judged as deep as they are written.
pub const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Most workers that any set of this process has.
static MOST: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread among the workers, counted from 1; 0 is any other thread.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// A set of workers, or none: then everything runs on the runtime that asks. Dropped, they end, and with them whatever
/// still runs there.
#[derive(Debug, Default)]
pub struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    busy: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped.
    _running: oneshot::Sender<()>,
}

/// A place on a worker, which is as busy as it has places taken.
#[derive(Debug)]
pub struct Place(Option<(Handle, Arc<AtomicUsize>)>);

impl Workers {
    /// Starts `count` of them.
    ///
    /// # Errors
    /// A thread or its runtime cannot be had.
    pub fn start(count: usize) -> io::Result<Self> {
        MOST.fetch_max(count, Ordering::Relaxed);
        Self::of(count)
    }

    fn of(count: usize) -> io::Result<Self> {
        (1..=count).map(Worker::start).collect::<io::Result<_>>().map(Self)
    }

    /// A place on the least busy one.
    #[must_use]
    pub fn place(&self) -> Place {
        let least = self.0.iter().min_by_key(|worker| worker.busy.load(Ordering::Relaxed));
        Place(least.map(|worker| {
            worker.busy.fetch_add(1, Ordering::Relaxed);
            (worker.runtime.clone(), Arc::clone(&worker.busy))
        }))
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().thread_stack_size(STACK_BYTES).enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        thread::Builder::new().name(format!("worker-{number}")).stack_size(STACK_BYTES).spawn(move || {
            NUMBER.set(number);
            let _dropped = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, busy: Arc::default(), _running: running })
    }
}

impl Place {
    /// Where to spawn; `None` is here, because there are no workers.
    #[must_use]
    pub fn worker(&self) -> Option<&Handle> {
        self.0.as_ref().map(|(runtime, _)| runtime)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((_, busy)) = &self.0 {
            busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// One of a thing for each worker, and one for all other threads together.
pub struct PerWorker<T> {
    elsewhere: T,
    workers: Box<[T]>,
}

impl<T: Default> Default for PerWorker<T> {
    fn default() -> Self {
        Self::of(MOST.load(Ordering::Relaxed))
    }
}

impl<T: Default> PerWorker<T> {
    fn of(workers: usize) -> Self {
        Self { elsewhere: T::default(), workers: (0..workers).map(|_| T::default()).collect() }
    }
}

impl<T> PerWorker<T> {
    /// This thread's own.
    #[must_use]
    pub fn own(&self) -> &T {
        let number = NUMBER.get();
        number.checked_sub(1).and_then(|index| self.workers.get(index)).unwrap_or(&self.elsewhere)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.workers.iter().chain([&self.elsewhere])
    }

    /// One worker's share of `most`, so that all together have no less.
    #[must_use]
    pub fn share(&self, most: usize) -> usize {
        most.div_ceil(self.workers.len().max(1))
    }
}

impl<T: fmt::Debug> fmt::Debug for PerWorker<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.all()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_least_busy_worker_is_next_and_each_has_its_own() {
        let workers = Workers::of(3).unwrap();
        let own = Arc::new(PerWorker::<AtomicUsize>::of(3));
        let places: Vec<Place> = (0..9).map(|_| workers.place()).collect();
        for place in &places {
            let own = own.clone();
            place.worker().unwrap().spawn(async move { own.own().fetch_add(1, Ordering::Relaxed) }).await.unwrap();
        }
        let counts = || own.all().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(counts()[..3], [3, 3, 3]);
        own.own().fetch_add(1, Ordering::Relaxed);
        assert_eq!(counts().last(), Some(&1), "any other thread");

        // Whoever leaves makes room on its own worker.
        let left = places.into_iter().step_by(3).collect::<Vec<_>>();
        drop(left);
        let again = workers.place();
        assert_eq!(again.0.as_ref().unwrap().1.load(Ordering::Relaxed), 1);
        assert_eq!((own.share(256), own.share(0)), (86, 0));
    }

    #[test]
    fn without_workers_everything_stays_where_it_is() {
        assert!(Workers::default().place().worker().is_none());
    }
}
