//! The request path's end of the queue: a slot is taken when a request begins, and its record is written on drop.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{OwnedPermit, Sender};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::writer_state::WriterState;
use super::{AuditEvent, OtherEvent, RequestRecord};

/// What a full queue does to a new request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Refuses it: nothing happens off the record. Every request under way holds a slot, so the queue must be
    /// larger than the number of requests at once.
    #[default]
    Refuse,
    /// Lets it pass, and counts the record that is lost.
    Count,
}

/// The queue has no slot, or nobody reads it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit queue is full")]
pub struct QueueFull;

/// A line that was to be written before something happens was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    /// There was no room for it.
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
    /// Its destination does not take it, or not in time.
    #[error("audit records cannot be written")]
    Stalled,
}

/// How long somebody waits for a line to be written.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Longest path that a record keeps, bytes: what bounds the memory of a full queue.
const LONGEST_PATH_BYTES: usize = 8 * 1024;

/// The queue to the writer. Clones share it.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    sender: Sender<AuditEvent>,
    when_full: WhenFull,
    handed_over: AtomicU64,
    lost: AtomicU64,
    writer: Arc<WriterState>,
}

impl Audit {
    pub(super) fn new(sender: Sender<AuditEvent>, when_full: WhenFull, writer: Arc<WriterState>) -> Self {
        let (handed_over, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Queue { sender, when_full, handed_over, lost, writer }))
    }

    /// Begins a request's record. Its slot is taken now, so that nothing that happens later can lose it.
    ///
    /// # Errors
    /// [`QueueFull`] under [`WhenFull::Refuse`]: the request must not go on. There is no record of it then; the
    /// refusal is counted by [`Audit::lost`].
    pub fn begin(&self, record: RequestRecord) -> Result<AuditEntry, QueueFull> {
        let slot = match (self.0.sender.clone().try_reserve_owned(), self.0.when_full) {
            (Ok(slot), _) => Some(slot),
            (Err(_), WhenFull::Count) => None,
            (Err(_), WhenFull::Refuse) => {
                self.count_loss();
                return Err(QueueFull);
            }
        };
        Ok(AuditEntry { record: Some(Box::new(record)), slot, audit: self.clone(), began: Instant::now() })
    }

    /// Hands over an event that is not a request.
    ///
    /// # Errors
    /// [`QueueFull`] under [`WhenFull::Refuse`]: what the event is about must not happen.
    pub fn emit(&self, event: OtherEvent) -> Result<(), QueueFull> {
        if self.0.sender.try_send(AuditEvent::Other(Box::new(event))).is_ok() {
            self.0.handed_over.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.count_loss();
        match self.0.when_full {
            WhenFull::Refuse => Err(QueueFull),
            WhenFull::Count => Ok(()),
        }
    }

    /// Hands over an event, and waits until its line is the operating system's: the end of this process cannot lose it
    /// any more.
    ///
    /// # Errors
    /// [`Unwritten`]: what the event is about must not happen. At once while the destination takes nothing, after two
    /// seconds at the latest; the line may be written afterwards.
    pub async fn emit_written(&self, event: OtherEvent) -> Result<(), Unwritten> {
        if !self.writer_healthy() {
            return Err(Unwritten::Stalled);
        }
        let (told, written) = oneshot::channel();
        if self.0.sender.try_send(AuditEvent::Awaited(Box::new((event, told)))).is_err() {
            self.count_loss();
            return Err(QueueFull.into());
        }
        self.0.handed_over.fetch_add(1, Ordering::Relaxed);
        self.0.writer.hurry();
        match timeout(LONGEST_WAIT, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unwritten::Stalled),
        }
    }

    /// Records handed over and not yet written.
    #[must_use]
    pub fn queue_depth(&self) -> u64 {
        // Read first, so that a record written meanwhile cannot make the difference negative.
        let written = self.0.writer.written();
        self.0.handed_over.load(Ordering::Relaxed).saturating_sub(written)
    }

    /// Records handed over and not written, or slots of requests under way, whichever is more.
    pub(super) fn unwritten(&self) -> u64 {
        let used = self.0.sender.max_capacity().saturating_sub(self.0.sender.capacity());
        self.queue_depth().max(u64::try_from(used).unwrap_or(u64::MAX))
    }

    /// Slots that are free: neither a record nor a request under way holds them.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.0.sender.capacity()
    }

    /// Records that found no slot: lost under [`WhenFull::Count`], refused under [`WhenFull::Refuse`].
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Records written to the destination.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.writer.written()
    }

    /// Failed attempts to write.
    #[must_use]
    pub fn write_failures(&self) -> u64 {
        self.0.writer.failures()
    }

    /// Whether the writer runs, its last write worked, and none has been under way for seconds.
    #[must_use]
    pub fn writer_healthy(&self) -> bool {
        self.0.writer.is_healthy()
    }

    /// Whether so few slots are free that those of finished records are wanted before the writer's pause is over.
    fn is_tight(&self) -> bool {
        self.0.sender.capacity() < self.0.sender.max_capacity() / 2
    }

    fn count_loss(&self) {
        self.0.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// One request's record under way. Written exactly once, on drop, as it then stands: after an early return, a
/// panic, or a caller that went away too. A record that nobody finished keeps the code `aborted`.
#[derive(Debug)]
pub struct AuditEntry {
    /// Empty only while being dropped.
    record: Option<Box<RequestRecord>>,
    slot: Option<OwnedPermit<AuditEvent>>,
    audit: Audit,
    began: Instant,
}

static NOTHING: LazyLock<RequestRecord> = LazyLock::new(RequestRecord::nothing);

impl Deref for AuditEntry {
    type Target = RequestRecord;

    fn deref(&self) -> &RequestRecord {
        self.record.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for AuditEntry {
    fn deref_mut(&mut self) -> &mut RequestRecord {
        self.record.get_or_insert_with(|| Box::new(RequestRecord::nothing()))
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        record.durations.total.get_or_insert_with(|| self.began.elapsed());
        record.path = shortened(std::mem::take(&mut record.path));
        let event = AuditEvent::Request(record);
        // A slot outlives the writer only when a request outlived the shutdown's deadline.
        let taken = match self.slot.take() {
            Some(slot) => {
                slot.send(event);
                !self.audit.0.writer.is_gone()
            }
            None => self.audit.0.sender.try_send(event).is_ok(),
        };
        if taken {
            self.audit.0.handed_over.fetch_add(1, Ordering::Relaxed);
            if self.audit.is_tight() {
                self.audit.0.writer.hurry();
            }
        } else {
            self.audit.count_loss();
        }
    }
}

/// A path as records hold it.
pub(crate) fn shortened(mut path: String) -> String {
    if path.len() > LONGEST_PATH_BYTES {
        path.truncate(path.floor_char_boundary(LONGEST_PATH_BYTES));
        path.push('…');
        path.shrink_to_fit();
    }
    path
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::audit::testing::{event, record, within};
    use crate::audit::{Decision, Destination, Writer, WriterSettings};

    fn started(queue: usize, when_full: WhenFull) -> (Writer, Audit, Receiver<String>) {
        let (sender, lines) = channel();
        let callback = move |text: &str| {
            text.lines().for_each(|line| sender.send(line.to_owned()).unwrap());
            Ok(())
        };
        let destination = Destination::Callback(Box::new(callback));
        let (writer, audit) = Writer::start(WriterSettings { destination, queue, when_full }).unwrap();
        (writer, audit, lines)
    }

    /// A queue whose writer has hung up.
    async fn without_writer(when_full: WhenFull) -> Audit {
        let (writer, audit, _lines) = started(4, when_full);
        writer.finish(within()).await.unwrap();
        audit
    }

    fn handle(audit: &Audit, how: &str) -> Result<(), QueueFull> {
        let mut entry = audit.begin(record(how))?;
        match how {
            "/early" => return Ok(()),
            "/panic" => panic!("a handler's own fault"),
            _ => {}
        }
        entry.code = "ok";
        entry.decision = Decision::Allow;
        Ok(())
    }

    #[tokio::test]
    async fn there_is_exactly_one_record_whatever_happens() {
        let (writer, audit, lines) = started(16, WhenFull::Refuse);
        handle(&audit, "/done").unwrap();
        handle(&audit, "/early").unwrap();
        let handler = audit.clone();
        tokio::spawn(async move { handle(&handler, "/panic") }).await.unwrap_err();
        let entry = audit.begin(record("/gone")).unwrap();
        let caller = tokio::spawn(async move {
            let _entry = entry;
            std::future::pending::<()>().await;
        });
        caller.abort();
        caller.await.unwrap_err();
        writer.finish(within()).await.unwrap();
        let mut seen: Vec<(String, String)> = lines
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap())
            .map(|line| (line["path"].as_str().unwrap().to_owned(), line["code"].as_str().unwrap().to_owned()))
            .collect();
        seen.sort();
        let expected = [("/done", "ok"), ("/early", "aborted"), ("/gone", "aborted"), ("/panic", "aborted")];
        assert_eq!(seen, expected.map(|(path, code)| (path.to_owned(), code.to_owned())));
        assert_eq!((audit.written(), audit.lost(), audit.queue_depth()), (4, 0, 0));
    }

    #[tokio::test]
    async fn a_request_under_way_holds_a_slot_and_a_full_queue_refuses_the_next() {
        let (writer, audit, lines) = started(2, WhenFull::Refuse);
        let first = audit.begin(record("/1")).unwrap();
        let second = audit.begin(record("/2")).unwrap();
        assert_eq!(audit.free_slots(), 0);
        assert_eq!(audit.begin(record("/3")).unwrap_err(), QueueFull);
        assert_eq!(audit.emit(event("config.loaded")).unwrap_err(), QueueFull);
        assert_eq!(audit.lost(), 2);
        drop((first, second));
        writer.finish(within()).await.unwrap();
        assert_eq!(lines.iter().count(), 2);
    }

    #[tokio::test]
    async fn a_full_queue_that_counts_lets_pass_and_counts_what_is_lost() {
        let audit = without_writer(WhenFull::Count).await;
        drop(audit.begin(record("/")).unwrap());
        audit.emit(event("config.loaded")).unwrap();
        assert_eq!(audit.lost(), 2);
    }

    #[tokio::test]
    async fn a_writer_that_is_gone_refuses_like_a_full_queue() {
        let audit = without_writer(WhenFull::Refuse).await;
        assert_eq!(audit.begin(record("/")).unwrap_err(), QueueFull);
        assert!(!audit.writer_healthy());
    }

    #[tokio::test]
    async fn a_record_that_outlives_the_writer_is_counted_and_reported() {
        let (writer, audit, _lines) = started(4, WhenFull::Refuse);
        let entry = audit.begin(record("/stream")).unwrap();
        let unfinished = writer.finish(std::time::Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(unfinished.unwritten, 1);
        drop(entry);
        assert_eq!(audit.lost(), 1);
    }

    #[tokio::test]
    async fn a_very_long_path_is_shortened_between_characters() {
        let (writer, audit, lines) = started(4, WhenFull::Refuse);
        drop(audit.begin(record(&"ä".repeat(40_000))).unwrap());
        writer.finish(within()).await.unwrap();
        let line: serde_json::Value = serde_json::from_str(&lines.recv().unwrap()).unwrap();
        let path = line["path"].as_str().unwrap();
        assert!(path.len() <= LONGEST_PATH_BYTES + 3 && path.ends_with('…'));
    }
}
