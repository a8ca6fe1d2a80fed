//! What a connection did that no request is on record for, and who is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::peer::Peer;

/// Who is told, once a connection: who was connected, and what it did first.
pub type AnomalyHandler = Arc<dyn Fn(&Peer, Anomaly) + Send + Sync>;

/// What a client did that ended its connection. What framed no request is on record by this alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Anomaly {
    /// The request line is no `method SP target SP HTTP/1.x`.
    RequestLine = 1,
    /// A line ends in a LF without a CR, or a CR stands alone.
    LineEnd,
    /// A field line begins with white space, has some before its colon, has no name, or holds a control character.
    Field,
    /// `Content-Length` is malformed, or there are two.
    ContentLength,
    /// `Transfer-Encoding` is not just `chunked`, stands twice, or in HTTP/1.0.
    TransferEncoding,
    /// `Content-Length` and `Transfer-Encoding` in one head.
    TwoFramings,
    /// A chunk's size, its extension or its end is malformed.
    Chunk,
    /// A trailer that frames or routes a message.
    Trailer,
    /// The head, or the trailers, are larger than the limit.
    HeadTooLarge,
    /// What came is no HTTP, or breaks its protocol otherwise.
    Malformed,
    /// Requests taken back one after the other (CVE-2023-44487).
    Flood,
    /// A head that took too long.
    SlowHead,
    /// Answers, or bytes, that the client did not take.
    Untaken,
    /// HTTP/2 streams that became no request: a head too large or malformed, or one stream more than may be open.
    Stream,
}

impl Anomaly {
    const ALL: [Self; 14] = [
        Self::RequestLine,
        Self::LineEnd,
        Self::Field,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::TwoFramings,
        Self::Chunk,
        Self::Trailer,
        Self::HeadTooLarge,
        Self::Malformed,
        Self::Flood,
        Self::SlowHead,
        Self::Untaken,
        Self::Stream,
    ];

    /// Stable code for the record.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::LineEnd => "line_end",
            Self::Field => "field",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::TwoFramings => "two_framings",
            Self::Chunk => "chunk",
            Self::Trailer => "trailer",
            Self::HeadTooLarge => "head_too_large",
            Self::Malformed => "malformed",
            Self::Flood => "flood",
            Self::SlowHead => "slow_head",
            Self::Untaken => "untaken",
            Self::Stream => "stream",
        }
    }
}

/// The first anomaly of a connection.
#[derive(Debug, Default)]
pub(super) struct FirstAnomaly(AtomicU8);

impl FirstAnomaly {
    /// Keeps `anomaly` unless there was one before: what follows from the first tells nothing new.
    pub(super) fn note(&self, anomaly: Anomaly) {
        let _earlier = self.0.compare_exchange(0, anomaly as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<Anomaly> {
        let number = self.0.load(Ordering::Relaxed);
        Anomaly::ALL.into_iter().find(|anomaly| *anomaly as u8 == number)
    }
}
