//! Floods of HTTP/2 frames, and of requests.

use crate::support::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, connect, frame, head, literal,
};
use crate::support::{Script, World, eventually};

async fn serves_on(world: &World) {
    assert_eq!(world.gate.get("/things/after").bearer(&world.token()).send_http2().await.status, 200);
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let world = World::start(|gate| gate).await;
    let before = world.gate.resident_kib();
    let mut connection = connect(&world.gate, &world.authority).await;
    connection.send(frame(HEADERS, END_STREAM, 1, &head("/things/1"))).await;
    let filler: Vec<u8> = (0..100).flat_map(|_| literal("x-filler", &"a".repeat(100))).collect();
    for _ in 0..1000 {
        connection.send(frame(CONTINUATION, 0, 1, &filler)).await;
    }
    connection.hangs_up().await;
    world.upstream.heard_nothing();
    serves_on(&world).await;
    let grown = world.gate.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "10 MB of continuations grew the gate by {grown} KiB");
}

#[tokio::test]
async fn a_flood_of_requests_taken_back_ends_the_connection_and_each_request_has_its_record() {
    let world = World::start(|gate| gate).await;
    let mut connection = connect(&world.gate, &world.authority).await;
    for number in 0..5000 {
        let stream = 2 * number + 1;
        connection.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("/things/flood"))).await;
        connection.send(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
    }
    connection.hangs_up().await;
    serves_on(&world).await;
    let records = world.gate.settled_audit().await;
    let of_it: Vec<_> = records.iter().filter(|record| record.is_request_to("/things/flood")).collect();
    let mut ids: Vec<&str> = of_it.iter().map(|record| record.text("request_id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), of_it.len(), "a request has two records");
    assert!(of_it.len() < 1000, "{} requests were let in", of_it.len());
    world.upstream.received().iter().for_each(|received| assert_eq!(received.target, "/things/after"));
}

#[tokio::test]
async fn a_small_head_that_unpacks_to_a_large_one_is_refused() {
    let world = World::start(|gate| gate).await;
    let before = world.gate.resident_kib();
    let mut connection = connect(&world.gate, &world.authority).await;
    // One field of 3 kB into the dynamic table, then a byte for each time it is meant again.
    let value = "a".repeat(3000);
    let mut fields = head("/things/bomb");
    fields.extend([0x40, 1, b'x', 0x7f]);
    let rest = value.len() - 127;
    fields.extend([u8::try_from(rest % 128).unwrap() | 0x80, u8::try_from(rest / 128).unwrap()]);
    fields.extend(value.as_bytes());
    fields.extend(vec![0x80 | 62; 10_000]);
    connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields)).await;
    // Who hangs up before it was read has done nothing yet.
    connection.send(frame(PING, 0, 0, &[7; 8])).await;
    connection.hears(&frame(PING, 1, 0, &[7; 8])).await;
    let request = world.gate.get("/things/after").bearer(&world.token());
    assert_eq!(request.send_http2().await.status, 200);
    assert_eq!(world.upstream.only().target, "/things/after");
    let grown = world.gate.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "30 MB of fields in 13 kB grew the gate by {grown} KiB");
    // It became no request: what stands for it is its connection's anomaly.
    drop(connection);
    world.gate.audited("the anomaly", |record| record.event() == "anomaly.protocol").await;
    let of_it = |record: &crate::support::AuditRecord| record.text("path").contains("bomb");
    assert!(!world.gate.settled_audit().await.iter().any(of_it));
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_and_those_within_are_served() {
    let world = World::start(|gate| gate.config(serde_json::json!({ "limits": { "concurrent_requests": 20 } }))).await;
    world.upstream.script("/things/silent", Script::Silence);
    let token = world.token();
    let mut sender = world.gate.http2().await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let request = world.gate.get("/things/silent").bearer(&token).into_http2();
        waiting.push(tokio::spawn(sender.send_request(request)));
    }
    eventually("all of them to wait", || async { (world.upstream.received().len() == 20).then_some(()) }).await;
    for _ in 0..50 {
        let refused = world.gate.get("/things/over").bearer(&token).send().await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
    }
    assert_eq!(world.upstream.received().len(), 20);
    for request in &waiting {
        request.abort();
    }
    drop(sender);
    let served = || async { (world.gate.get("/things/1").bearer(&token).send().await.status == 200).then_some(()) };
    eventually("room again", served).await;
}
