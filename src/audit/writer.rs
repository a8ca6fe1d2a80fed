//! The one thread that turns records into lines and lines into writes.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as TokioInstant, sleep, timeout_at};

use super::AuditEvent;
use super::destination::{Destination, Sink};
use super::entry::{Audit, WhenFull};
use super::line::LineWriter;
use super::writer_state::{Alive, WriterState};

/// Pause after a batch. Records that come meanwhile wake nobody, and share the next write.
const PACE: Duration = Duration::from_millis(10);
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// How records are written.
#[derive(Debug)]
pub struct WriterSettings {
    /// Where lines go.
    pub destination: Destination,
    /// Slots of the queue.
    pub queue: usize,
    /// What a full queue does.
    pub when_full: WhenFull,
}

/// Why the last records may not have been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{unwritten} audit records were not written in time")]
pub struct Unfinished {
    /// Records handed over and not known to be written.
    pub unwritten: u64,
}

/// The writer's thread. Dropping it finishes it without waiting; [`Writer::finish`] waits.
#[derive(Debug)]
pub struct Writer {
    audit: Audit,
    state: Arc<WriterState>,
    finished: oneshot::Receiver<()>,
}

impl Writer {
    /// Opens the destination and starts the thread.
    ///
    /// # Errors
    /// The destination cannot be opened, or the thread cannot be started.
    pub fn start(settings: WriterSettings) -> io::Result<(Self, Audit)> {
        let sink = Sink::open(settings.destination)?;
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        let (sender, receiver) = mpsc::channel(settings.queue.clamp(1, MOST_SLOTS));
        let (done, finished) = oneshot::channel();
        let state = Arc::new(WriterState::default());
        let alive = Alive::new(state.clone());
        let mut work = Work {
            sink,
            lines: String::new(),
            records: 0,
            awaited: Vec::new(),
            writer: LineWriter::default(),
            state: state.clone(),
        };
        thread::Builder::new().name("audit".to_owned()).spawn(move || {
            runtime.block_on(work.run(receiver));
            drop(alive);
            let _nobody_waits = done.send(());
        })?;
        let audit = Audit::new(sender, settings.when_full, state.clone());
        Ok((Self { audit: audit.clone(), state, finished }, audit))
    }

    /// Takes no new records, and waits until those handed over, and those of requests that end in time, are
    /// written.
    ///
    /// # Errors
    /// [`Unfinished`] when that takes longer than `within`.
    pub async fn finish(mut self, within: Duration) -> Result<(), Unfinished> {
        let deadline = TokioInstant::now() + within;
        self.state.stop_by(within);
        // The thread keeps the deadline itself; the margin is for the last sync of the file.
        let margin = deadline + Duration::from_millis(500);
        let in_time = timeout_at(margin, &mut self.finished).await.is_ok();
        match self.audit.unwritten() {
            0 if in_time => Ok(()),
            unwritten => Err(Unfinished { unwritten }),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.state.stop_by(Duration::ZERO);
    }
}

const MOST_SLOTS: usize = 10_000_000;

/// The thread's own: nothing here is shared but `state`.
struct Work {
    sink: Sink,
    lines: String,
    records: u64,
    /// Whoever waits for a line of the batch.
    awaited: Vec<oneshot::Sender<()>>,
    writer: LineWriter,
    state: Arc<WriterState>,
}

impl Work {
    async fn run(&mut self, mut queue: mpsc::Receiver<AuditEvent>) {
        loop {
            let event = tokio::select! {
                biased;
                () = self.state.stop_asked() => break,
                event = queue.recv() => event,
            };
            let Some(event) = event else { break };
            self.take(event);
            // While records keep coming, look for them at a steady pace instead of being woken by each.
            while self.records > 0 {
                self.drain(&mut queue);
                if !self.flush().await {
                    return;
                }
                if self.state.is_stopping() {
                    break;
                }
                self.drain(&mut queue);
                if self.lines.len() < self.sink.batch_bytes() {
                    tokio::select! {
                        () = sleep(PACE) => {}
                        () = self.state.hurried() => {}
                    }
                    self.drain(&mut queue);
                }
            }
        }
        self.last_records(queue).await;
    }

    /// Takes what is still handed over until every slot is returned or time is up.
    async fn last_records(&mut self, mut queue: mpsc::Receiver<AuditEvent>) {
        queue.close();
        loop {
            self.drain(&mut queue);
            if !self.flush().await {
                return;
            }
            let left = self.state.time_left().unwrap_or_default();
            match tokio::time::timeout(left, queue.recv()).await {
                Ok(Some(event)) => self.take(event),
                Ok(None) | Err(_) => break,
            }
        }
        // Whoever hands over from here on counts its record as lost; whoever did before is still heard.
        self.state.goes();
        self.drain(&mut queue);
        if self.flush().await {
            let _best_effort = self.sink.finish();
        }
    }

    fn take(&mut self, event: AuditEvent) {
        self.writer.write(&mut self.lines, &event);
        self.records = self.records.saturating_add(1);
        if let AuditEvent::Awaited(awaited) = event {
            self.awaited.push(awaited.1);
        }
    }

    fn drain(&mut self, queue: &mut mpsc::Receiver<AuditEvent>) {
        while self.lines.len() < self.sink.batch_bytes()
            && let Ok(event) = queue.try_recv()
        {
            self.take(event);
        }
    }

    /// Writes the batch, however often it takes: while the destination fails, records wait here and in the queue.
    /// `false` is: told to stop, and out of time.
    async fn flush(&mut self) -> bool {
        let mut offset = 0;
        let mut begun = false;
        let mut retry = FIRST_RETRY;
        while let Some(rest) = self.lines.as_bytes().get(offset..).filter(|rest| !rest.is_empty()) {
            self.state.write_begins();
            let outcome = match begun {
                true => self.sink.write(rest),
                false => self.sink.begin(rest.len()).and_then(|()| self.sink.write(rest)),
            };
            match outcome {
                Ok(written) if written > 0 => {
                    begun = true;
                    offset = offset.saturating_add(written);
                    retry = FIRST_RETRY;
                    self.state.write_worked();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A reader that is slow for a moment is no fault; one that stays slow is a write under way for long.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => self.state.write_failed(),
            }
            if begun && !self.sink.is_in_place() {
                // What was begun went with the file: its last line begins anew in the one that takes its name.
                let written = self.lines.as_bytes().get(..offset).unwrap_or_default();
                offset = memchr::memrchr(b'\n', written).map_or(0, |end| end.saturating_add(1));
                begun = false;
            }
            if self.state.time_left().is_some_and(|left| left.is_zero()) {
                return false;
            }
            sleep(retry.min(self.state.time_left().unwrap_or(retry))).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
        self.lines.clear();
        self.state.has_written(std::mem::take(&mut self.records));
        for waiter in self.awaited.drain(..) {
            let _gone_meanwhile = waiter.send(());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};
    use std::time::Instant;

    use super::*;
    use crate::audit::testing::{record, within};

    fn started(destination: Destination, queue: usize) -> (Writer, Audit) {
        Writer::start(WriterSettings { destination, queue, when_full: WhenFull::Refuse }).unwrap()
    }

    #[tokio::test]
    async fn a_stalled_destination_stalls_no_request_until_the_queue_is_full() {
        let (entered, stalled) = sync_channel(1);
        let (release, released) = channel::<()>();
        let callback = move |_: &str| {
            let _told = entered.try_send(());
            released.recv().map_err(io::Error::other)
        };
        let (writer, audit) = started(Destination::Callback(Box::new(callback)), 8);
        drop(audit.begin(record("/first")).unwrap());
        stalled.recv().unwrap();
        for _ in 0..8 {
            drop(audit.begin(record("/")).unwrap());
        }
        assert!(audit.begin(record("/")).is_err());
        assert_eq!(audit.queue_depth(), 9);
        for _ in 0..9 {
            release.send(()).unwrap();
        }
        writer.finish(within()).await.unwrap();
        assert_eq!((audit.written(), audit.queue_depth()), (9, 0));
    }

    #[tokio::test]
    async fn records_that_trickle_in_share_writes_instead_of_waking_the_writer_each() {
        let (sender, writes) = channel();
        let callback = move |text: &str| sender.send(text.lines().count()).map_err(io::Error::other);
        let began = Instant::now();
        let (writer, audit) = started(Destination::Callback(Box::new(callback)), 10_000);
        for _ in 0..200 {
            drop(audit.begin(record("/")).unwrap());
            sleep(Duration::from_millis(1)).await;
        }
        writer.finish(within()).await.unwrap();
        let writes: Vec<usize> = writes.iter().collect();
        assert_eq!(writes.iter().sum::<usize>(), 200);
        let pauses = began.elapsed().as_millis() / PACE.as_millis();
        assert!(writes.len() as u128 <= pauses + 3, "{} writes in {pauses} pauses", writes.len());
    }

    #[tokio::test]
    async fn a_failing_destination_is_tried_again_and_nothing_is_lost_or_doubled() {
        let (sender, lines) = channel();
        let mut failures = 3;
        let callback = move |text: &str| {
            if failures > 0 {
                failures -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            sender.send(text.to_owned()).map_err(io::Error::other)
        };
        let (writer, audit) = started(Destination::Callback(Box::new(callback)), 16);
        for path in ["/1", "/2", "/3"] {
            drop(audit.begin(record(path)).unwrap());
        }
        writer.finish(within()).await.unwrap();
        assert_eq!(lines.iter().flat_map(|text| text.lines().map(str::len).collect::<Vec<_>>()).count(), 3);
        assert_eq!((audit.written(), audit.write_failures()), (3, 3));
    }

    #[tokio::test]
    async fn a_destination_that_never_works_is_unhealthy_and_ends_in_time() {
        let (sender, tried) = channel();
        let callback = move |_: &str| {
            let _told = sender.send(());
            Err(io::ErrorKind::BrokenPipe.into())
        };
        let (writer, audit) = started(Destination::Callback(Box::new(callback)), 16);
        assert!(audit.writer_healthy());
        drop(audit.begin(record("/")).unwrap());
        tried.recv().unwrap();
        // The second attempt comes after the first was noted.
        tried.recv().unwrap();
        assert!(!audit.writer_healthy());
        assert_eq!(writer.finish(Duration::from_millis(100)).await, Err(Unfinished { unwritten: 1 }));
    }

    #[tokio::test]
    async fn a_full_channel_is_waited_for() {
        let (sender, mut lines) = mpsc::channel(1);
        let (writer, audit) = started(Destination::Channel(sender), 16);
        for path in ["/1", "/2", "/3"] {
            drop(audit.begin(record(path)).unwrap());
        }
        assert_eq!((audit.write_failures(), audit.writer_healthy()), (0, true));
        for path in ["/1", "/2", "/3"] {
            let line = tokio::time::timeout(within(), lines.recv()).await.unwrap().unwrap();
            assert!(line.contains(path) && !line.contains('\n'), "{line}");
        }
        writer.finish(within()).await.unwrap();
    }
}
