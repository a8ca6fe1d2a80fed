//! The generated corpus: requests of a grammar, most of them mutated, through the real binary to an upstream that reads
//! strictly and judges for itself what may be there.
//!
//! `make soak` runs a million cases, this suite a share of them. `DOORWARD_CORPUS_SEED` repeats a run,
//! `DOORWARD_CORPUS_CASES` says how many cases it has, and `DOORWARD_CORPUS_CASE` takes one of them alone.
#![allow(missing_docs, reason = "a test's name is its sentence")]

mod answer;
mod client;
mod dice;
mod forecast;
mod grammar;
mod http2;
mod journal;
mod ledger;
mod ledger_tests;
mod lure;
mod mutation;
mod oracle;
mod oracle_tests;
mod policy;
mod reader;
mod report;
#[path = "../e2e/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "it is the harness of the end-to-end tests")]
mod support;
mod tokens;
mod upstream;
mod vocabulary;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Instant;

use serde_json::json;
use tokio::task::JoinSet;

use client::Clients;
use grammar::Grammar;
use journal::Journal;
use lure::Lure;
use oracle::Oracle;
use policy::Place;
use support::{Authority, Gate, RunningGate, StaticIssuer};
use tokens::Tokens;
use upstream::Upstream;

/// Cases of a run that nobody asks for more.
const CASES: u64 = 60_000;

/// Clients at once.
const CLIENTS: usize = 48;

#[expect(clippy::disallowed_methods, reason = "whoever repeats a run says which one")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

async fn gate(issuer: &StaticIssuer, authority: &Arc<Authority>, upstream: &str) -> RunningGate {
    let gate = Gate::new(authority).issuer(issuer).config(json!({
        "listeners": { "public": { "tls": null } },
        "audit": { "destination": { "file": { "path": "audit.jsonl", "rotate_bytes": "64GB" } } },
    }));
    let gate = Place::configure(gate, upstream).start().await;
    gate.becomes_ready(200).await;
    gate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_the_policy_does_not_allow_reaches_the_upstream() {
    let seed = asked("DOORWARD_CORPUS_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let cases = asked("DOORWARD_CORPUS_CASES").unwrap_or(CASES);
    let only = asked("DOORWARD_CORPUS_CASE");
    report::say(&format!("corpus: seed {seed}, {cases} cases"));

    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let lure = Lure::start().await;
    let (listener, address) = upstream::reserve().await;
    let mut gate = gate(&issuer, &authority, &format!("http://{address}")).await;

    let journal = Arc::new(Journal::default());
    // On a thread of its own, where nobody looks for its secrets in what the gate writes: a mutated request may name part
    // of a token as its host, which records hold rightly.
    let tokens = std::thread::scope(|scope| scope.spawn(|| Tokens::mint(&issuer, lure.address)).join().unwrap());
    let grammar = Arc::new(Grammar { seed, tokens, lure: lure.address });
    let upstream = Upstream::start(listener, Arc::new(Oracle { grammar: grammar.clone(), journal: journal.clone() }));
    let clients = Arc::new(Clients {
        gate: gate.address(),
        grammar,
        journal: journal.clone(),
        connections: AtomicU32::default(),
        next: AtomicU64::new(only.unwrap_or(0)),
        end: only.map_or(cases, |only| only + 1),
    });
    if let Some(number) = only {
        report::say(&format!("sent: {}", clients.grammar.case(number).bytes.escape_ascii()));
    }
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..CLIENTS {
        running.spawn(clients.clone().run());
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }

    assert_eq!(gate.metric("doorward_panics_total", &[]).await, 0.0);
    let lost = gate.metric("doorward_audit_lost", &[]).await;
    gate.terminate().await;
    assert!(gate.exit().await.success(), "the process that served did not end well");
    drop(upstream);
    assert!(!gate.log().contains("a fault of Doorward"), "a panic in the log");
    assert_eq!(lost, 0.0);

    let sums = ledger::reconcile(&journal, &gate.path("audit.jsonl"));
    let tables = report::tables(&journal, &sums, issuer.key_fetches(), began.elapsed());
    report::say(&tables);
    let failures = journal.failures();
    assert!(failures.is_empty(), "seed {seed}:\n{}", failures.join("\n\n"));
    assert_eq!(lure.heard(), 0, "somebody followed what a token or a target names");
    let fetches = issuer.key_fetches();
    assert!(fetches < 100, "tokens made the gate fetch keys {fetches} times");
    if only.is_none() {
        let counts = journal.counts();
        let count = |name: &str| counts.get(&("cases", name.to_owned())).copied().unwrap_or(0);
        assert!(count("mutated") * 2 >= cases, "too few are mutated");
        assert!(sums.forwarded * 5 >= cases, "too few are forwarded");
        assert!(count("by HTTP/2") * 200 >= cases, "too few go by HTTP/2");
    }
}
