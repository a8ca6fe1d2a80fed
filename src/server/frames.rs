//! A watch over the frames of HTTP/2 that cost an answer, or a look, and carry nothing.
//!
//! h2 bounds resets, CONTINUATION and empty DATA by itself. It answers every PING and every SETTINGS, and reads every
//! PRIORITY and every frame of an unknown type, for as long as a client likes to send them.

use super::anomaly::Anomaly;

/// Length of the client's preface (RFC 9113 section 3.4), and of a frame's head (section 4.1).
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;

/// Frames without use that a client may send between two sweeps. gRPC measures its link with a PING each round trip, some
/// hundreds a second for a moment.
const IN_A_SWEEP: u32 = 2_000;

/// RFC 9113 section 6. WINDOW_UPDATE is left out: a download needs as many as there are frames of it.
const USEFUL: [u8; 6] = [DATA, HEADERS, RST_STREAM, GOAWAY, WINDOW_UPDATE, CONTINUATION];
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// The frames of one connection, as they come in.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes until the next frame's head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    head_read: usize,
    useless: u32,
    sweep: u64,
    /// The highest stream that the client opened.
    last_stream: u32,
    /// Streams that were opened since [`Frames::take_opened`].
    opened: u32,
}

impl Frames {
    /// Before the client's preface.
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            head_read: 0,
            useless: 0,
            sweep: 0,
            last_stream: 0,
            opened: 0,
        }
    }

    /// Looks at the bytes that came after those it has seen, at the sweep `now`.
    ///
    /// # Errors
    /// [`Anomaly::Flood`].
    pub(super) fn look(&mut self, mut bytes: &[u8], now: u64) -> Result<(), Anomaly> {
        if self.sweep != now {
            (self.sweep, self.useless) = (now, 0);
        }
        loop {
            bytes = match bytes.get(self.skip..) {
                Some(rest) => rest,
                None => {
                    self.skip -= bytes.len();
                    return Ok(());
                }
            };
            self.skip = 0;
            let wanted = self.head.get_mut(self.head_read..).unwrap_or_default();
            let here = wanted.len().min(bytes.len());
            let (head, rest) = bytes.split_at(here);
            if let Some(place) = wanted.get_mut(..here) {
                place.copy_from_slice(head);
            }
            self.head_read += here;
            if self.head_read < HEAD_BYTES {
                return Ok(());
            }
            self.head_read = 0;
            let [high, middle, low, kind, _flags, stream @ ..] = self.head;
            self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            // RFC 9113 section 5.1.1: a new stream's number is the highest so far, and trailers come on an old one.
            let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
            if kind == HEADERS && stream > self.last_stream {
                (self.last_stream, self.opened) = (stream, self.opened.saturating_add(1));
            }
            if !USEFUL.contains(&kind) {
                self.useless += 1;
                if self.useless > IN_A_SWEEP {
                    return Err(Anomaly::Flood);
                }
            }
            bytes = rest;
        }
    }

    /// How many streams were opened since the last call.
    pub(super) fn take_opened(&mut self) -> u32 {
        std::mem::take(&mut self.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        [&[0, 0, length, kind, 0, 0, 0, 0, 0][..], &vec![9; usize::from(length)]].concat()
    }

    fn connection(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
        [vec![0; PREFACE_BYTES], frames.into_iter().flatten().collect()].concat()
    }

    #[test]
    fn frames_of_use_are_free_and_others_are_counted_however_they_are_cut() {
        let most = usize::try_from(IN_A_SWEEP).unwrap();
        let useful = USEFUL.iter().flat_map(|kind| vec![frame(*kind, 5); most]);
        // PING, SETTINGS, PRIORITY and a type to come.
        let useless = [6, 4, 2, 200].iter().flat_map(|kind| vec![frame(*kind, 8); most / 4]);
        let good = connection(useful.chain(useless));
        for size in [1, 7, 9, 1000, good.len()] {
            let mut frames = Frames::new();
            assert!(good.chunks(size).all(|piece| frames.look(piece, 1).is_ok()), "{size}");
            assert_eq!(frames.look(&frame(6, 8), 1), Err(Anomaly::Flood), "{size}");
        }
    }

    #[test]
    fn each_sweep_begins_anew() {
        let mut frames = Frames::new();
        let half = usize::try_from(IN_A_SWEEP / 2).unwrap();
        frames.look(&connection([]), 1).unwrap();
        for sweep in 1..10 {
            frames.look(&vec![frame(6, 8); half].concat(), sweep).unwrap();
        }
    }
}
