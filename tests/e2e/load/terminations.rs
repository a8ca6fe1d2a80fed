//! SIGTERM under load: what was taken is answered.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::{World, share};

#[tokio::test]
async fn no_request_that_was_taken_is_cut_by_the_end_of_the_process() {
    let rounds = share(100);
    let world = World::start(|gate| gate.config(json!({ "audit": { "mode": "strict" } }))).await;
    let super::World { issuer, upstream, mut gate } = world;
    let token = issuer.token().groups(&["readers", "writers"]).mint();
    let traffic = super::Traffic::start(&gate, &token, 8);
    for _ in 0..rounds {
        traffic.flows(30).await;
        gate = gate.restart().await;
        gate.becomes_ready(200).await;
    }
    traffic.flows(30).await;
    let asked = traffic.stop().await;
    gate.settled_lenient().await;

    // A request that crossed the close of its idle connection was never taken: nobody has heard of it.
    let unanswered: BTreeSet<_> =
        asked.iter().filter(|asked| asked.status.is_none()).map(|asked| &asked.path).collect();
    let text = fs::read_to_string(gate.path("audit.jsonl")).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recorded: BTreeSet<_> = records
        .iter()
        .filter(|record| record["event"] == "request")
        .map(|record| record["path"].as_str().unwrap())
        .collect();
    let upstream = upstream.asked();
    for path in &unanswered {
        assert!(!upstream.contains_key(*path), "{path} was cut");
        assert!(!recorded.contains(path.as_str()), "{path} was taken and not answered");
    }
    let answered: Vec<_> = asked.iter().filter(|asked| asked.status.is_some()).collect();
    for asked in &answered {
        assert!(asked.status.is_some_and(|status| status == 200), "{asked:?}");
        assert!(recorded.contains(asked.path.as_str()), "{} has no record", asked.path);
    }
    assert_eq!(answered.len(), upstream.len(), "each went upstream");
    println!("{rounds} terminations: {} answered, {} never taken, none cut", answered.len(), unanswered.len());
}
