//! Answers, as a client reads them from its connection.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// An answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What Doorward counts in its request id; none in an answer to what is no request.
    pub(crate) id: Option<u64>,
    /// Whether the connection ends behind it.
    pub(crate) closes: bool,
}

/// Reads the next final answer; `None` at the end of the connection.
///
/// # Errors
/// What is wrong with the answer.
pub(crate) async fn answer(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    to_head: bool,
) -> Result<Option<Answer>, String> {
    loop {
        let Some(end) = head_end(bytes) else {
            if fill(stream, bytes).await {
                continue;
            }
            return if bytes.is_empty() { Ok(None) } else { Err("an answer that breaks off in its head".to_owned()) };
        };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text")?.to_owned();
        bytes.drain(..end);
        let status: u16 = head.get(9..12).and_then(|status| status.parse().ok()).ok_or("no status")?;
        if !head.starts_with("HTTP/1.1 ") && !head.starts_with("HTTP/1.0 ") {
            return Err(format!("no answer: {head:?}"));
        }
        if (100..200).contains(&status) {
            continue;
        }
        let value = |name: &str| {
            let named = |line: &&str| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
            head.lines().skip(1).find(named).map(|line| line[name.len() + 1..].trim())
        };
        let length = value("content-length").map(|length| length.parse::<usize>().map_err(|_| "a strange length"));
        let length = length.transpose()?;
        let mut closes = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !to_head && status != 204 && status != 304 {
            match length {
                Some(length) => body(stream, bytes, length).await?,
                None if value("transfer-encoding").is_some() => return Err(format!("an answer in chunks: {head:?}")),
                None => {
                    closes = true;
                    while fill(stream, bytes).await {}
                    bytes.clear();
                }
            }
        }
        let id = value("x-request-id").map(|id| u64::from_str_radix(id.get(16..).unwrap_or_default(), 16));
        let id = id.transpose().map_err(|_| "a strange request id")?;
        return Ok(Some(Answer { status, id, closes }));
    }
}

async fn body(stream: &mut TcpStream, bytes: &mut Vec<u8>, length: usize) -> Result<(), String> {
    while bytes.len() < length {
        if !fill(stream, bytes).await {
            return Err("an answer that breaks off in its body".to_owned());
        }
    }
    bytes.drain(..length);
    Ok(())
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

async fn fill(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(bytes).await, Ok(1..))
}
