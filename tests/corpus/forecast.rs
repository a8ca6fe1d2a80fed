//! What a strict reader finds in the bytes that a client sends: the requests that Doorward may make of them, and no others.

use super::reader::{Message, Read, read};

/// The requests of one turn on a connection.
#[derive(Debug)]
pub(crate) struct Forecast {
    /// Whole requests, in their order.
    pub(crate) whole: Vec<Message>,
    /// The head of one more, whose body never ends or is at fault.
    pub(crate) partial: Option<Message>,
    pub(crate) end: End,
}

/// Where reading comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Between two requests.
    Clean,
    /// Within one, or behind an empty line.
    Cut,
    /// At what no request may be.
    Broken(&'static str),
}

impl Forecast {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut forecast = Self { whole: Vec::new(), partial: None, end: End::Clean };
        let mut rest = bytes;
        while !rest.is_empty() {
            // One empty line may stand before a request (RFC 9112 section 2.2).
            let begun = rest.strip_prefix(b"\r\n").unwrap_or(rest);
            match read(begun) {
                Read::Whole(message, used) => {
                    forecast.whole.push(message);
                    rest = &begun[used..];
                }
                Read::Cut(partial) => {
                    (forecast.partial, forecast.end) = (partial, End::Cut);
                    return forecast;
                }
                Read::Broken(fault, partial) => {
                    (forecast.partial, forecast.end) = (partial, End::Broken(fault));
                    return forecast;
                }
            }
        }
        forecast
    }

    /// The request of this place, the partial one last.
    pub(crate) fn message(&self, index: usize) -> Option<&Message> {
        self.whole.get(index).or_else(|| self.partial.as_ref().filter(|_| index == self.whole.len()))
    }
}

#[test]
fn the_requests_of_some_bytes_are_those_before_the_fault() {
    let good = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    for (bytes, whole, end) in [
        (format!("{good}\r\n{good}"), 2, End::Clean),
        (format!("{good}\r\n"), 1, End::Cut),
        (format!("{good}GET"), 1, End::Cut),
        (format!("{good}GET\r\n"), 1, End::Broken("request line")),
        (format!("\r\n\r\n{good}"), 0, End::Broken("request line")),
    ] {
        let forecast = Forecast::of(bytes.as_bytes());
        assert_eq!((forecast.whole.len(), forecast.end), (whole, end), "{bytes:?}");
    }
}
