//! The ledger finds what does not add up.

use serde_json::{Value, json};

use super::journal::{Arrival, Connection, Journal, Told};
use super::ledger::reconcile;
use super::policy::{Caller, Place};

const LINE: Connection = Connection(3);

fn record(id: u64, status: u16) -> Value {
    json!({
        "event": "request", "request_id": format!("{:016x}{id:012x}", 7), "peer": LINE.address().to_string(),
        "route": "things", "decision": "allow", "code": "ok", "status": status,
        "principal": { "subject": "reader-1" },
    })
}

fn anomaly() -> Value {
    json!({ "event": "anomaly.protocol", "request_id": null, "peer": LINE.address().to_string(), "code": "field" })
}

fn arrival(id: u64) -> Arrival {
    Arrival { id, connection: LINE, place: Place::Things, caller: Caller::Reader, complete: true }
}

/// What the ledger says of one connection, of what arrived, and of these lines of the audit file.
fn failures(told: Told, arrivals: &[Arrival], lines: &[Value]) -> Vec<String> {
    let (folder, journal) = (tempfile::tempdir().unwrap(), Journal::default());
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(folder.path().join("audit.jsonl"), text).unwrap();
    journal.close(LINE, told);
    arrivals.iter().for_each(|arrival| journal.arrived(arrival.clone()));
    reconcile(&journal, &folder.path().join("audit.jsonl"));
    journal.failures()
}

fn told(answers: &[(u64, u16)], whole: u32) -> Told {
    Told { answers: answers.to_vec(), whole, ..Told::default() }
}

#[test]
fn what_adds_up_is_taken() {
    let broke = Told { broke: true, refusal: Some(400), ..told(&[(1, 200)], 1) };
    for (told, lines) in [
        (told(&[(1, 200)], 1), vec![record(1, 200)]),
        (broke, vec![record(1, 200), anomaly()]),
        (Told { hung_up: true, ..told(&[], 1) }, vec![record(1, 0)]),
        (Told { ended_early: true, ..told(&[(1, 200)], 2) }, vec![record(1, 200)]),
    ] {
        assert_eq!(failures(told, &[arrival(1)], &lines), Vec::<String>::new());
    }
}

#[test]
fn what_does_not_add_up_is_found() {
    let sound = || told(&[(1, 200)], 1);
    let broke = || Told { broke: true, refusal: Some(400), ..sound() };
    let other = |change: &dyn Fn(&mut Arrival)| {
        let mut other = arrival(1);
        change(&mut other);
        vec![other]
    };
    for (told, arrivals, lines, why) in [
        (sound(), vec![], vec![], "has no record"),
        (sound(), vec![], vec![record(1, 403)], "on record as 403"),
        (sound(), vec![], vec![record(1, 200), record(1, 200)], "two records"),
        (sound(), vec![], vec![record(1, 200), record(2, 200)], "more requests on record than were sent"),
        (told(&[(1, 200)], 2), vec![], vec![record(1, 200), record(2, 200)], "on record without an answer"),
        (told(&[(1, 200)], 2), vec![], vec![record(1, 200)], "requests that are not on record"),
        (told(&[(1, 200), (1, 200)], 2), vec![], vec![record(1, 200)], "200 answers 1"),
        (sound(), vec![], vec![record(1, 200), anomaly()], "an anomaly of a sound connection"),
        (broke(), vec![], vec![record(1, 200)], "not one anomaly"),
        (broke(), vec![], vec![record(1, 200), anomaly(), anomaly()], "not one anomaly"),
        (sound(), vec![arrival(1), arrival(1)], vec![record(1, 200)], "is on record for"),
        (sound(), vec![arrival(2)], vec![record(1, 200)], "is not on record"),
        (sound(), other(&|arrival| arrival.place = Place::Tree), vec![record(1, 200)], "is on record for"),
        (sound(), other(&|arrival| arrival.caller = Caller::Both), vec![record(1, 200)], "is on record for"),
        (sound(), other(&|arrival| arrival.connection = Connection(4)), vec![record(1, 200)], "is on record for"),
    ] {
        let found = failures(told, &arrivals, &lines);
        assert!(found.iter().any(|failure| failure.contains(why)), "{found:?} is not: {why}");
    }
    let mut denied = record(1, 200);
    denied["decision"] = json!("deny");
    assert!(!failures(sound(), &[arrival(1)], &[denied]).is_empty(), "what was denied has arrived");
}
