//! Bytes on the wire, for requests that no client library would send.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::within;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection to the gate on which a test writes what it likes. Dropping it hangs up.
pub(crate) struct RawConnection {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    pending: Vec<u8>,
}

/// An HTTP/1.1 answer, read by its own framing.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl RawConnection {
    pub(crate) fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (reader, writer) = tokio::io::split(Box::new(stream) as Box<dyn Stream>);
        Self { reader, writer, pending: Vec::new() }
    }

    /// Writes; that the other side has hung up already is for the answer to tell.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _hung_up = self.writer.write_all(bytes.as_ref()).await;
        let _hung_up = self.writer.flush().await;
    }

    /// Waits until these bytes came, or the end of the connection.
    pub(crate) async fn hears(&mut self, bytes: &[u8]) {
        let hearing = async { while find(&self.pending, bytes).is_none() && self.fill().await {} };
        within("some bytes, or the end of the connection", hearing).await;
    }

    /// The next answer; `None` when the connection ended instead.
    pub(crate) async fn answer(&mut self) -> Option<RawAnswer> {
        within("an answer or the end of the connection", self.read_answer()).await
    }

    /// Reads to the end of the connection, whatever comes before it.
    pub(crate) async fn hangs_up(&mut self) {
        within("the end of the connection", async { while self.fill().await {} }).await;
    }

    /// Whether the connection is at its end; anything that comes instead is a failure.
    pub(crate) async fn ends(&mut self) {
        let more = within("the end of the connection", self.fill()).await;
        assert!(!more && self.pending.is_empty(), "got {:?}", String::from_utf8_lossy(&self.pending));
    }

    async fn read_answer(&mut self) -> Option<RawAnswer> {
        let head_end = loop {
            if let Some(at) = find(&self.pending, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head = String::from_utf8(self.pending.drain(..head_end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let lower = head.to_ascii_lowercase();
        let body = if let Some(rest) = lower.split("\r\ncontent-length:").nth(1) {
            let length: usize = rest.lines().next().unwrap().trim().parse().unwrap();
            while self.pending.len() < length && self.fill().await {}
            let length = length.min(self.pending.len());
            self.pending.drain(..length).collect()
        } else if lower.contains("\r\ntransfer-encoding: chunked") {
            self.read_chunks().await
        } else {
            Vec::new()
        };
        Some(RawAnswer { status, body })
    }

    async fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let Some(line_end) = find(&self.pending, b"\r\n") else {
                if self.fill().await {
                    continue;
                }
                return body;
            };
            let line = String::from_utf8(self.pending[..line_end].to_vec()).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let end = line_end + 2 + size + 2;
            while self.pending.len() < end {
                if !self.fill().await {
                    return body;
                }
            }
            body.extend_from_slice(&self.pending[line_end + 2..end - 2]);
            self.pending.drain(..end);
            if size == 0 {
                return body;
            }
        }
    }

    async fn fill(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.reader.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.pending.extend_from_slice(&buffer[..count]);
                true
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
