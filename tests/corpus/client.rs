//! A client: one case after the other, over connections that are kept as long as they hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::answer::{Answer, answer};
use super::forecast::{End, Forecast};
use super::grammar::{Case, Grammar};
use super::http2::Http2;
use super::journal::{Connection, Journal, Told, Turn};
use super::reader::Message;

/// The longest that a case waits for its answers, or for the end of its connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of so many cases, one that is sound goes by HTTP/2.
const HTTP2_EVERY: u64 = 12;

const BEFORE_UPGRADE: &str = "at a fault before an upgrade was answered";

/// What all clients share.
pub(crate) struct Clients {
    pub(crate) gate: SocketAddr,
    pub(crate) grammar: Arc<Grammar>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) connections: AtomicU32,
    /// Cases that are left, as numbers.
    pub(crate) next: AtomicU64,
    pub(crate) end: u64,
}

/// One connection of HTTP/1.1.
struct Line {
    connection: Connection,
    stream: TcpStream,
    pending: Vec<u8>,
    told: Told,
}

impl Clients {
    /// Takes cases until there are none.
    pub(crate) async fn run(self: Arc<Self>) {
        let (mut line, mut http2) = (None, None);
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= self.end || self.journal.is_hopeless() {
                break;
            }
            let case = self.grammar.case(number);
            let forecast = Arc::new(Forecast::of(&case.bytes));
            self.count(&case);
            let turn = Turn { case: number, forecast, is_mutated: !case.mutations.is_empty() };
            let spoken = if number.is_multiple_of(HTTP2_EVERY) && !turn.is_mutated {
                Http2::speak(&self, &mut http2, &turn).await
            } else {
                Ok(false)
            };
            let spoken = match spoken {
                Ok(true) => Ok(()),
                Ok(false) => self.speak(&mut line, &turn, &case).await,
                Err(why) => Err(why),
            };
            if let Err(why) = spoken {
                self.journal.fail(format!("case {number}: {why}\nsent: {}", case.bytes.escape_ascii()));
            }
        }
        if let Some(line) = line {
            self.journal.close(line.connection, line.told);
        }
        if let Some(http2) = http2 {
            self.journal.close(http2.connection, http2.told);
        }
    }

    /// A connection from an address of its own.
    pub(crate) async fn connect(&self) -> (Connection, TcpStream) {
        let connection = Connection(self.connections.fetch_add(1, Ordering::SeqCst));
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((connection.address(), 0).into()).unwrap();
        let stream = socket.connect(self.gate).await.unwrap();
        stream.set_nodelay(true).unwrap();
        (connection, stream)
    }

    async fn speak(&self, kept: &mut Option<Line>, turn: &Turn, case: &Case) -> Result<(), String> {
        let mut line = match kept.take() {
            Some(line) => line,
            None => {
                let (connection, stream) = self.connect().await;
                Line { connection, stream, pending: Vec::new(), told: Told::default() }
            }
        };
        self.journal.begin(line.connection, turn.clone());
        line.told.last_case = turn.case;
        line.told.whole += u32::try_from(turn.forecast.whole.len()).unwrap();
        line.told.partial += u32::from(turn.forecast.partial.is_some());
        let spoken = match tokio::time::timeout(PATIENCE, line.speak(turn, case, &self.journal)).await {
            Ok(spoken) => spoken,
            Err(_) => Err("no answer, and no end of the connection".to_owned()),
        };
        match spoken {
            Ok(true) => *kept = Some(line),
            Ok(false) => self.journal.close(line.connection, line.told),
            Err(why) => {
                let why = format!("{why}; the strict reader has {:?}; {:?}", turn.forecast.end, line.told);
                self.journal.close(line.connection, line.told);
                return Err(why);
            }
        }
        Ok(())
    }

    fn count(&self, case: &Case) {
        self.journal.count_all("productions", &case.productions);
        self.journal.count_all("mutations", &case.mutations);
        self.journal.count("cases", if case.mutations.is_empty() { "as the grammar has it" } else { "mutated" });
    }
}

impl Line {
    /// Sends the case and reads what comes of it; whether the connection can be used again.
    async fn speak(&mut self, turn: &Turn, case: &Case, journal: &Journal) -> Result<bool, String> {
        let (first, rest) = case.bytes.split_at(case.first_write.unwrap_or(case.bytes.len()));
        // That Doorward has hung up already is for the answers to tell.
        let _hung_up = self.stream.write_all(first).await;
        if !rest.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let _hung_up = self.stream.write_all(rest).await;
        }
        let mut answered = 0;
        // Why Doorward may read no further.
        let mut last = None;
        for message in &turn.forecast.whole {
            let Some(answer) = self.answer(message.method == "HEAD").await? else {
                let broke = matches!(turn.forecast.end, End::Broken(_));
                let why = last.or_else(|| excuse(message, broke)).ok_or("the connection ended without an answer")?;
                self.told.broke |= why == BEFORE_UPGRADE;
                journal.count("connections ended before an answer", why);
                self.told.ended_early = true;
                return Ok(false);
            };
            if answer.id.is_none() {
                return self.drain(false).await;
            }
            // What Doorward did not read of a body can end the connection, and says so only by ending it.
            last = if answer.closes {
                Some("behind a last answer")
            } else if message.is_http10 {
                Some("behind HTTP/1.0")
            } else if (answer.status != 200 || is_own(message)) && has_body(message) {
                Some("behind a body that was not read")
            } else {
                last
            };
            answered += 1;
        }
        let to_head = turn.forecast.message(answered).is_some_and(|partial| partial.method == "HEAD");
        match turn.forecast.end {
            End::Clean if last.is_none() && self.pending.is_empty() => Ok(true),
            End::Clean => self.drain(to_head).await,
            End::Broken(_) => {
                self.told.broke = true;
                // Behind a last answer nothing is read; nor is the body of a request that is refused for its head.
                self.told.fault_may_be_unread = last.is_some() || turn.forecast.partial.is_some();
                self.drain(to_head).await
            }
            End::Cut => {
                self.told.hung_up = true;
                self.drain(to_head).await
            }
        }
    }

    /// Reads all that still comes.
    async fn drain(&mut self, to_head: bool) -> Result<bool, String> {
        if !self.told.broke {
            let _hung_up = self.stream.shutdown().await;
        }
        while self.answer(to_head).await?.is_some() {}
        Ok(false)
    }

    async fn answer(&mut self, to_head: bool) -> Result<Option<Answer>, String> {
        let answer = answer(&mut self.stream, &mut self.pending, to_head).await?;
        if let Some(answer) = answer {
            match answer.id {
                Some(id) => self.told.answers.push((id, answer.status)),
                None if self.told.refusal.is_some() => return Err("two answers to no request".to_owned()),
                None => self.told.refusal = Some(answer.status),
            }
        }
        Ok(answer)
    }
}

/// Whether it may be for a document of Doorward's own, which is answered whatever body comes with the request.
fn is_own(message: &Message) -> bool {
    message.target.contains("doorward")
}

fn has_body(message: &Message) -> bool {
    message.values("transfer-encoding").next().is_some()
        || message.only("content-length").is_some_and(|length| length != "0")
}

/// Why a request may have no answer: its head may be larger than the limits, or it asks for an upgrade, and what came
/// before the answer is no HTTP.
fn excuse(message: &Message, broke: bool) -> Option<&'static str> {
    let bytes: usize = message.fields.iter().map(|field| field.name.len() + field.value.len() + 4).sum();
    if message.fields.len() > 100 || bytes > 60_000 {
        Some("at a head beyond the limits")
    } else if broke && message.values("upgrade").next().is_some() {
        Some(BEFORE_UPGRADE)
    } else {
        None
    }
}
