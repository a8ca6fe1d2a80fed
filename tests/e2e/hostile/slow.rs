//! Clients that take their time on purpose.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::support::{HOST, Script, World, eventually, within};

#[tokio::test]
async fn a_head_that_drips_is_cut_off_at_its_deadline_and_is_no_request() {
    let world = World::start(|gate| gate.config(json!({ "limits": { "header_read": "1s" } }))).await;
    let mut connection = world.gate.raw().await;
    connection.send(format!("GET /things/drip HTTP/1.1\r\nHost: {HOST}\r\n")).await;
    // Each byte alone would be in time; together they never are.
    let dripping = async {
        loop {
            connection.send("X-A: b\r\n").await;
            tokio::select! {
                () = connection.hangs_up() => break,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    };
    within("the gate to hang up", Box::pin(dripping)).await;
    let records = world.gate.settled_audit().await;
    assert!(!records.iter().any(|record| record.is_request_to("/things/drip")), "{records:#?}");
    assert!(world.gate.metric("doorward_protocol_errors", &[]).await >= 1.0);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_a_timeout_on_record() {
    let route = json!({ "path": "/things/{*rest}", "limits": { "idle": "1s" } });
    let world = World::start(|gate| gate.route("things", route)).await;
    let mut connection = world.gate.raw().await;
    let token = world.token();
    connection
        .send(format!(
            "POST /things/slow HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nContent-Length: 100\r\n\r\nhalf"
        ))
        .await;
    let answer = connection.answer().await.expect("an answer before the end");
    assert_eq!(answer.status, 408);
    let record = world.gate.only_record_of("/things/slow").await;
    assert_eq!((record.text("code"), record.number("status")), ("request_body_idle", 408));
    assert!(world.upstream.received().iter().all(|received| !received.complete));
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_off_and_its_upstream_let_go() {
    let world = World::start(|gate| gate.config(json!({ "limits": { "connection_idle": "1s" } }))).await;
    let (pieces, script) = Script::pieces("application/octet-stream");
    world.upstream.script("/things/endless", script);
    let mut connection = world.gate.raw().await;
    let token = world.token();
    connection
        .send(format!("GET /things/endless HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n"))
        .await;
    let chunk = Bytes::from(vec![0; 256 * 1024]);
    // Nobody reads, so at some point nothing is taken any more, and then the upstream is let go.
    within("the upstream to be let go", async { while pieces.send(chunk.clone()).await.is_ok() {} }).await;
    let record = world.gate.only_record_of("/things/endless").await;
    assert_eq!(record.verdict(), ("allow", "caller_gone"));
    drop(connection);
}

#[tokio::test]
async fn answers_that_no_http2_client_takes_hold_no_place_among_the_requests() {
    let world = World::start(|gate| gate.config(json!({ "limits": { "concurrent_requests": 1 } }))).await;
    let mut sender = world.gate.http2_with(|client| client.initial_stream_window_size(0)).await;
    let mut untaken = Vec::new();
    for number in 0..20 {
        let request = world.gate.get(&format!("/things/{number}")).into_http2();
        let answer = within("a head", sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), 401);
        untaken.push(answer);
        assert_eq!(
            world.gate.only_record_of(&format!("/things/{number}")).await.verdict(),
            ("deny", "unauthenticated")
        );
    }
    assert_eq!(world.gate.get("/things/good").bearer(&world.token()).send().await.status, 200);
}

#[tokio::test]
async fn a_large_answer_that_no_http2_client_takes_is_cut_and_its_upstream_let_go() {
    let world = World::start(|gate| gate.config(json!({ "limits": { "connection_idle": "1s" } }))).await;
    let (pieces, script) = Script::pieces("application/octet-stream");
    world.upstream.script("/things/endless", script);
    let mut sender = world.gate.http2_with(|client| client.initial_stream_window_size(0)).await;
    let request = world.gate.get("/things/endless").bearer(&world.token()).into_http2();
    let answer = within("a head", sender.send_request(request)).await.unwrap();
    let chunk = Bytes::from(vec![0; 256 * 1024]);
    within("the upstream to be let go", async { while pieces.send(chunk.clone()).await.is_ok() {} }).await;
    assert_eq!(world.gate.only_record_of("/things/endless").await.verdict(), ("allow", "caller_gone"));
    drop(answer);
}

#[tokio::test]
async fn many_slow_clients_take_nothing_from_a_good_one() {
    let world = World::start(|gate| gate.config(json!({ "limits": { "header_read": "1s" } }))).await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut connection = world.gate.raw().await;
        connection.send("GET /things/1 HTT").await;
        slow.push(connection);
    }
    assert_eq!(world.gate.get("/things/1").bearer(&world.token()).send().await.status, 200);
    for connection in &mut slow {
        connection.hangs_up().await;
    }
    eventually("their places to be free", || async {
        (world.gate.metric("doorward_connections", &[]).await < 10.0).then_some(())
    })
    .await;
}
