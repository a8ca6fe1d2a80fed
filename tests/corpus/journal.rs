//! What happened: who was on which connection with which case, what arrived, and what was found wrong.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::forecast::Forecast;
use super::policy::{Caller, Place};

/// A connection of a client. Each has a source address of its own, by which records and the upstream tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Connection(pub(crate) u32);

/// All of 127.0.0.0/8 is this machine; the first addresses are left to other peers.
const FIRST_ADDRESS: u32 = 0x7f01_0000;
const LAST_ADDRESS: u32 = 0x7ffe_ffff;

impl Connection {
    pub(crate) fn address(self) -> Ipv4Addr {
        let address = FIRST_ADDRESS + self.0;
        assert!(address <= LAST_ADDRESS, "no more addresses");
        Ipv4Addr::from(address)
    }

    pub(crate) fn of(address: &str) -> Option<Self> {
        let address: u32 = address.parse::<Ipv4Addr>().ok()?.into();
        (FIRST_ADDRESS..=LAST_ADDRESS).contains(&address).then(|| Self(address - FIRST_ADDRESS))
    }
}

/// A request that arrived at the upstream and may be there.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) id: u64,
    pub(crate) connection: Connection,
    pub(crate) place: Place,
    pub(crate) caller: Caller,
    pub(crate) complete: bool,
}

/// What a client knows of one of its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) last_case: u64,
    /// Requests that it sent whole, and those of which only a part could be read.
    pub(crate) whole: u32,
    pub(crate) partial: u32,
    /// Answers to requests: the id that Doorward gave, and the status.
    pub(crate) answers: Vec<(u64, u16)>,
    /// Status of an answer to what is no request.
    pub(crate) refusal: Option<u16>,
    /// Whether bytes were sent that are no HTTP, and read up to them.
    pub(crate) broke: bool,
    /// Whether Doorward may have ended the connection without having read that far.
    pub(crate) fault_may_be_unread: bool,
    /// Whether the client hung up within a request.
    pub(crate) hung_up: bool,
    /// Whether Doorward ended it before all whole requests were answered.
    pub(crate) ended_early: bool,
}

/// One turn: the case that a connection is at.
#[derive(Clone)]
pub(crate) struct Turn {
    pub(crate) case: u64,
    pub(crate) forecast: Arc<Forecast>,
    pub(crate) is_mutated: bool,
}

#[derive(Default)]
pub(crate) struct Journal {
    turns: Mutex<Turns>,
    told: Mutex<HashMap<Connection, Told>>,
    arrivals: Mutex<Vec<Arrival>>,
    counts: Mutex<BTreeMap<(&'static str, String), u64>>,
    failures: Mutex<Vec<String>>,
    failed: AtomicUsize,
}

#[derive(Default)]
struct Turns {
    /// Beside each turn, how many of its requests have arrived or been passed by.
    at: HashMap<Connection, (Turn, usize)>,
    closed: VecDeque<Connection>,
}

/// Turns of closed connections that are kept for what arrives late.
const KEPT_TURNS: usize = 10_000;

/// Failures that are told.
const MOST_FAILURES: usize = 8;

impl Journal {
    pub(crate) fn begin(&self, connection: Connection, turn: Turn) {
        self.turns.lock().unwrap().at.insert(connection, (turn, 0));
    }

    /// The turn that `connection` is at, and the first request of it, from the next one on, that `is_it`.
    pub(crate) fn next(
        &self,
        connection: Connection,
        is_it: impl Fn(usize, &Turn) -> bool,
    ) -> Option<(Turn, Option<usize>)> {
        let mut turns = self.turns.lock().unwrap();
        let (turn, next) = turns.at.get_mut(&connection)?;
        let last = turn.forecast.whole.len();
        let found = (*next..=last).find(|index| is_it(*index, turn));
        if let Some(found) = found {
            *next = found + 1;
        }
        Some((turn.clone(), found))
    }

    pub(crate) fn close(&self, connection: Connection, told: Told) {
        self.told.lock().unwrap().insert(connection, told);
        let mut turns = self.turns.lock().unwrap();
        turns.closed.push_back(connection);
        if turns.closed.len() > KEPT_TURNS
            && let Some(oldest) = turns.closed.pop_front()
        {
            turns.at.remove(&oldest);
        }
    }

    pub(crate) fn arrived(&self, arrival: Arrival) {
        self.arrivals.lock().unwrap().push(arrival);
    }

    pub(crate) fn count(&self, table: &'static str, name: impl Into<String>) {
        *self.counts.lock().unwrap().entry((table, name.into())).or_default() += 1;
    }

    /// Counts every word of a case at once.
    pub(crate) fn count_all(&self, table: &'static str, names: &[&'static str]) {
        let mut counts = self.counts.lock().unwrap();
        for name in names {
            *counts.entry((table, (*name).to_owned())).or_default() += 1;
        }
    }

    pub(crate) fn fail(&self, failure: String) {
        self.failed.fetch_add(1, Ordering::SeqCst);
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < MOST_FAILURES {
            failures.push(failure);
        }
    }

    /// Whether there is no use in going on.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.failed.load(Ordering::SeqCst) >= MOST_FAILURES
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    pub(crate) fn told(&self) -> HashMap<Connection, Told> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        std::mem::take(&mut *self.arrivals.lock().unwrap())
    }

    pub(crate) fn counts(&self) -> BTreeMap<(&'static str, String), u64> {
        self.counts.lock().unwrap().clone()
    }
}
