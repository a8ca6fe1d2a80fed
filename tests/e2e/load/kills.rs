//! SIGKILL under load: what a strict audit never loses, and what the default one may.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::{World, share};

/// The records that are whole: a kill may cut the one that was being written.
fn records(world: &World) -> Vec<Value> {
    let text = fs::read_to_string(world.gate.path("audit.jsonl")).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn paths(records: &[Value], event: &str) -> BTreeSet<String> {
    let of_it = records.iter().filter(|record| record["event"] == event);
    of_it.map(|record| record["path"].as_str().unwrap().to_owned()).collect()
}

/// The world after this many kills under load.
async fn killed(world: World, kills: usize) -> World {
    let World { issuer, upstream, mut gate } = world;
    let token = issuer.token().groups(&["readers", "writers"]).mint();
    let traffic = super::Traffic::start(&gate, &token, 12);
    for kill in 0..kills {
        traffic.flows(50).await;
        // At another moment of the writer's round each time.
        tokio::time::sleep(Duration::from_micros(1700 * u64::try_from(kill % 10).unwrap())).await;
        gate = gate.crash().await;
        gate.becomes_ready(200).await;
    }
    traffic.flows(50).await;
    let asked = traffic.stop().await;
    // Without keys, for a moment after a start, nobody is let in.
    let odd: Vec<_> =
        asked.iter().filter(|asked| asked.status.is_some_and(|status| status != 200 && status != 503)).collect();
    assert!(odd.is_empty(), "{odd:?}");
    gate.settled_lenient().await;
    World { issuer, upstream, gate }
}

#[tokio::test]
async fn a_strict_audit_holds_every_request_that_went_upstream_however_often_the_process_is_killed() {
    let kills = share(20);
    let world = World::start(|gate| gate.config(json!({ "audit": { "mode": "strict" } }))).await;
    let world = killed(world, kills).await;
    let upstream: BTreeSet<String> = world.upstream.asked().into_keys().collect();
    let all = records(&world);
    let (granted, finished) = (paths(&all, "request.granted"), paths(&all, "request"));
    let unknown: Vec<_> = upstream.difference(&granted).collect();
    assert!(unknown.is_empty(), "{} of {} went upstream without a record: {unknown:?}", unknown.len(), upstream.len());
    assert!(finished.len() > upstream.len() / 2, "the record of each request follows");
    println!(
        "{kills} kills: {} requests upstream, {} granted, {} recorded at their end",
        upstream.len(),
        granted.len(),
        finished.len()
    );
}

#[tokio::test]
async fn a_queued_audit_loses_with_the_process_no_more_than_its_queue_held() {
    const QUEUE: usize = 120;
    let kills = share(20);
    let world = World::start(|gate| {
        gate.config(json!({ "audit": { "queue": QUEUE }, "limits": { "concurrent_requests": 100 } }))
    })
    .await;
    let world = killed(world, kills).await;
    let upstream: BTreeSet<String> = world.upstream.asked().into_keys().collect();
    let finished = paths(&records(&world), "request");
    let lost = upstream.difference(&finished).count();
    assert!(lost <= kills * QUEUE, "{lost} records were lost by {kills} kills");
    println!("{kills} kills: {} requests upstream, {lost} without a record; a queue of {QUEUE}", upstream.len());
}
