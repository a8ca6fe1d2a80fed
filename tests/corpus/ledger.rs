//! The reconciliation: requests sent, answers, records, anomalies and arrivals are of one another.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use super::journal::{Connection, Journal};

/// What is read of a line of the audit file.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    peer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    route: Option<Cow<'a, str>>,
    #[serde(borrow)]
    decision: Option<Cow<'a, str>>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    status: Option<u16>,
    principal: Option<Principal<'a>>,
}

#[derive(Deserialize)]
struct Principal<'a> {
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
}

/// A record of a request.
struct Record {
    connection: Connection,
    status: u16,
    is_allowed: bool,
    route: String,
    subject: String,
    is_answered: bool,
    has_arrived: bool,
}

/// What is on record of a connection.
#[derive(Default)]
struct OnRecord {
    requests: u32,
    anomalies: u32,
}

/// The sums.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) sent_whole: u64,
    pub(crate) sent_partial: u64,
    pub(crate) answers: u64,
    pub(crate) records: u64,
    /// Requests on record whose client hung up, or broke off, before it had an answer.
    pub(crate) records_without_answer: u64,
    /// Whole requests behind one after which Doorward ended the connection, and behind what is no HTTP.
    pub(crate) never_read: u64,
    pub(crate) anomalies: u64,
    pub(crate) connections: u64,
    pub(crate) arrived: u64,
    pub(crate) forwarded: u64,
}

/// Reads the audit file, and tells the journal of everything that does not add up.
pub(crate) fn reconcile(journal: &Journal, audit: &Path) -> Sums {
    let (mut records, mut connections) = (HashMap::new(), HashMap::<Connection, OnRecord>::new());
    let mut reader = BufReader::with_capacity(1 << 20, File::open(audit).unwrap());
    let mut text = String::new();
    while reader.read_line(&mut text).unwrap() > 0 {
        let line: Line<'_> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        if let Some(connection) = line.peer.as_deref().and_then(Connection::of) {
            take(journal, &mut records, connections.entry(connection).or_default(), connection, &line);
        }
        text.clear();
    }
    let mut sums = Sums { records: records.len().try_into().unwrap(), ..Sums::default() };
    arrivals(journal, &mut records, &mut sums);
    told(journal, &mut records, &connections, &mut sums);
    sums
}

fn take(
    journal: &Journal,
    records: &mut HashMap<u64, Record>,
    on_record: &mut OnRecord,
    connection: Connection,
    line: &Line<'_>,
) {
    let code = line.code.as_deref().unwrap_or_default();
    match &*line.event {
        "request" => {
            on_record.requests += 1;
            journal.count("records", format!("{} {code}", line.status.unwrap_or(0)));
            let id = line.request_id.as_deref().and_then(|id| u64::from_str_radix(id.get(16..)?, 16).ok());
            let subject = line.principal.as_ref().and_then(|principal| principal.subject.as_deref());
            let record = Record {
                connection,
                status: line.status.unwrap_or(0),
                is_allowed: line.decision.as_deref() == Some("allow"),
                route: line.route.as_deref().unwrap_or_default().to_owned(),
                subject: subject.unwrap_or_default().to_owned(),
                is_answered: false,
                has_arrived: false,
            };
            if records.insert(id.expect("a request id"), record).is_some() {
                journal.fail(format!("two records of {:?}", line.request_id));
            }
        }
        "anomaly.protocol" => {
            on_record.anomalies += 1;
            journal.count("anomalies", code);
        }
        other => journal.count("other events of clients", other),
    }
}

/// Everything that arrived is on record as allowed, on its route, for its caller, once.
fn arrivals(journal: &Journal, records: &mut HashMap<u64, Record>, sums: &mut Sums) {
    for arrival in journal.arrivals() {
        sums.arrived += 1;
        sums.forwarded += u64::from(arrival.complete);
        let Some(record) = records.get_mut(&arrival.id) else {
            journal.fail(format!("{arrival:?} is not on record"));
            continue;
        };
        let is_it = record.connection == arrival.connection
            && record.is_allowed
            && record.route == arrival.place.route()
            && record.subject == arrival.caller.subject()
            && !record.has_arrived;
        if !is_it {
            journal.fail(format!("{arrival:?} is on record for {} at {}", record.subject, record.route));
        }
        record.has_arrived = true;
    }
}

/// What clients know is what is on record, connection by connection.
fn told(
    journal: &Journal,
    records: &mut HashMap<u64, Record>,
    connections: &HashMap<Connection, OnRecord>,
    sums: &mut Sums,
) {
    for (connection, told) in journal.told() {
        let none = OnRecord::default();
        let on_record = connections.get(&connection).unwrap_or(&none);
        let answers = u32::try_from(told.answers.len()).unwrap();
        sums.connections += 1;
        sums.sent_whole += u64::from(told.whole);
        sums.sent_partial += u64::from(told.partial);
        sums.answers += u64::from(answers);
        sums.anomalies += u64::from(on_record.anomalies);
        for (id, status) in &told.answers {
            match records.get_mut(id) {
                Some(record) if record.connection == connection && record.status == *status && !record.is_answered => {
                    record.is_answered = true;
                }
                Some(record) => {
                    journal.fail(format!("{status} answers {id}, on record as {}: {told:?}", record.status))
                }
                None => journal.fail(format!("the answer {id} has no record: {told:?}")),
            }
        }
        let unanswered = on_record.requests.saturating_sub(answers);
        sums.records_without_answer += u64::from(unanswered);
        let became_none = (told.whole + told.partial).saturating_sub(on_record.requests);
        sums.never_read += u64::from(became_none);
        let is_at_fault = told.refusal.is_some() || (told.broke && !told.fault_may_be_unread);
        let may_be_unanswered = told.hung_up || told.broke || told.ended_early;
        let why = if on_record.requests > told.whole + told.partial {
            "more requests on record than were sent"
        } else if unanswered > 0 && !may_be_unanswered {
            "requests on record without an answer"
        } else if became_none > 0 && !(is_at_fault || may_be_unanswered) {
            "requests that are not on record"
        } else if on_record.anomalies > 1 || (is_at_fault && on_record.anomalies == 0) {
            "not one anomaly for what is no request"
        } else if on_record.anomalies == 1 && !is_at_fault && !may_be_unanswered {
            "an anomaly of a sound connection"
        } else {
            continue;
        };
        journal.fail(format!(
            "{why}: {connection:?} has {} requests and {} anomalies on record; {told:?}",
            on_record.requests, on_record.anomalies
        ));
    }
}
