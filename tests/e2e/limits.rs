//! Limits of connections, heads and requests at once.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{Answer, AuditRecord, HOST, RawConnection, Script, World, eventually, frames, within};

async fn with(limits: serde_json::Value) -> World {
    World::start(|gate| gate.config(json!({ "limits": limits }))).await
}

#[tokio::test]
async fn a_head_with_too_many_fields_is_refused_by_both_protocols() {
    let world = with(json!({ "header_count": 30 })).await;
    let token = world.token();
    let draft =
        |count: usize| (0..count).fold(world.gate.get("/things/1").bearer(&token), |draft, _| draft.header("x-a", "b"));
    // `Host` and `Authorization` count too.
    assert_eq!(draft(28).send().await.status, 200);
    assert_eq!(draft(29).send().await.status, 431);
    assert_eq!(draft(29).send_http2().await.status, 200, "`:authority` is no field");
    assert_eq!(draft(30).send_http2().await.status, 431);
    assert_eq!(world.upstream.received().len(), 2);
    // Over HTTP/1.1 the head is refused while it is read, and never becomes a request.
    let records = world.gate.settled_audit().await;
    let refused: Vec<_> =
        records.iter().filter(|record| record.is_request_to("/things/1") && record.number("status") == 431).collect();
    assert_eq!(refused.len(), 1, "{records:#?}");
    assert_eq!(refused[0].verdict(), ("deny", "header_fields_too_many"));
    assert!(world.gate.metric("doorward_protocol_errors", &[]).await >= 2.0);
}

#[tokio::test]
async fn a_head_with_too_many_bytes_is_refused_by_both_protocols() {
    let world = with(json!({ "header_bytes": "16KiB" })).await;
    let token = world.token();
    let large = "x".repeat(20 * 1024);
    let mut connection = world.gate.raw().await;
    connection
        .send(format!(
            "GET /things/1 HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nX-A: {large}\r\n\r\n"
        ))
        .await;
    let status = connection.answer().await.map(|answer| answer.status);
    assert!(status.is_none_or(|status| status == 431), "{status:?}");
    let mut sender = world.gate.http2().await;
    let request = world.gate.get("/things/1").bearer(&token).header("x-a", &large).into_http2();
    assert_eq!(within("an answer", sender.send_request(request)).await.unwrap().status(), 431);
    world.upstream.heard_nothing();
    drop(sender);
    // Neither became a request: each connection's anomaly stands for it.
    for code in ["head_too_large", "stream"] {
        let is_it = |record: &AuditRecord| record.event() == "anomaly.protocol" && record.text("code") == code;
        world.gate.audited(code, is_it).await;
    }
    assert_eq!(world.gate.get("/things/1").bearer(&token).send().await.status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not() {
    let world = with(json!({ "connection_idle": "1s", "header_read": "1s" })).await;
    let token = world.token();
    let (pieces, script) = Script::pieces("text/plain");
    world.upstream.script("/things/slow", script);
    let answer = world.gate.get("/things/slow").bearer(&token).begin().await;
    // The idle ones live out their whole time one after the other, which is longer than the limit.
    for _ in 0..2 {
        world.gate.raw().await.ends().await;
    }
    pieces.send("whole".into()).await.unwrap();
    drop(pieces);
    assert_eq!(Answer::read(answer).await.text(), "whole");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_its_turn_while_the_others_are_in_use() {
    let world = with(json!({ "connections": 2 })).await;
    let token = world.token();
    let ask = |path: &str| world.gate.get(path).bearer(&token).into_http2();
    let (_pieces, script) = Script::pieces("text/event-stream");
    world.upstream.script("/things/events", script);
    let (_more_pieces, script) = Script::pieces("text/event-stream");
    world.upstream.script("/things/more-events", script);
    let mut first = world.gate.http2().await;
    let _events = first.send_request(ask("/things/events")).await.unwrap();
    let second = world.gate.get("/things/more-events").bearer(&token).begin().await;
    let gate = &world.gate;
    let third = async { gate.get("/things/third").bearer(&token).send().await.status };
    tokio::pin!(third);
    for _ in 0..5 {
        tokio::select! {
            biased;
            _ = &mut third => panic!("a third connection was served"),
            answer = first.send_request(ask("/things/1")) => { Answer::read(answer.unwrap()).await; }
        }
    }
    drop(second);
    assert_eq!(within("the third", third).await, 200);
}

#[tokio::test]
async fn a_stream_beyond_the_limit_of_its_connection_waits_for_its_turn() {
    let world = with(json!({ "streams_per_connection": 2 })).await;
    world.upstream.script("/things/silent", Script::Silence);
    let token = world.token();
    let request = |path: &str| world.gate.get(path).bearer(&token).into_http2();
    let mut sender = world.gate.http2().await;
    // The first answer shows that the gate's settings have arrived.
    Answer::read(sender.send_request(request("/things/1")).await.unwrap()).await;
    let silent = [0, 1].map(|_| tokio::spawn(sender.send_request(request("/things/silent"))));
    eventually("two streams", || async { (world.upstream.received().len() == 3).then_some(()) }).await;
    let third = tokio::spawn(sender.send_request(request("/things/third")));
    for _ in 0..5 {
        assert_eq!(world.gate.get("/things/other").bearer(&token).send().await.status, 200);
    }
    assert!(!world.upstream.received().iter().any(|received| received.target == "/things/third"));
    silent[0].abort();
    assert_eq!(within("the third", third).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_counts_among_the_requests_at_once_until_its_end() {
    let world = with(json!({ "concurrent_requests": 1 })).await;
    let token = world.token();
    let (pieces, script) = Script::pieces("text/event-stream");
    world.upstream.script("/things/events", script);
    let events = world.gate.get("/things/events").bearer(&token).begin().await;

    let refused = world.gate.get("/things/over").bearer(&token).send().await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["code"], "overloaded");
    drop(pieces);
    Answer::read(events).await;
    eventually("room for the next", || async {
        (world.gate.get("/things/next").bearer(&token).send().await.status == 200).then_some(())
    })
    .await;
    let record = world.gate.audited("the refusal", |record| record.is_request_to("/things/over")).await;
    assert_eq!((record.verdict(), record.number("status")), (("deny", "overloaded"), 503));
}

#[tokio::test]
async fn a_websocket_counts_among_the_requests_at_once_until_it_closes() {
    let world = World::start(|gate| {
        gate.route("things", json!({ "path": "/things/{*rest}", "websocket": true }))
            .config(json!({ "limits": { "concurrent_requests": 1 } }))
    })
    .await;
    world.upstream.script("/things/socket", Script::WebSocketEcho);
    let token = world.token();
    let mut request = format!("wss://{HOST}/things/socket").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let handshake = Box::pin(tokio_tungstenite::client_async(request, world.gate.stream().await));
    let (mut socket, _) = within("the handshake", handshake).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    within("the echo", socket.next()).await.unwrap().unwrap();
    assert_eq!(world.gate.get("/things/over").bearer(&token).send().await.status, 503);
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the end", socket.next()).await {}
    drop(socket);
    eventually("room for the next", || async {
        (world.gate.get("/things/next").bearer(&token).send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_could_not_hold_every_request_refuses_to_start() {
    let (code, told) = World::refused(|gate| gate.config(json!({ "audit": { "queue": 100 } }))).await;
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("audit queue of 100 is too small") && told.contains("limits.concurrent_requests"), "{told}");
}

#[tokio::test]
async fn a_connection_that_never_shakes_hands_is_hung_up_on() {
    let world = with(json!({ "handshake": "1s" })).await;
    let mut silent = RawConnection::new(TcpStream::connect(world.gate.address()).await.unwrap());
    silent.ends().await;
    let mut halfway = RawConnection::new(TcpStream::connect(world.gate.address()).await.unwrap());
    halfway.send(b"\x16\x03\x01\x02\x00\x01").await;
    halfway.hangs_up().await;
    eventually("both to be counted", || async {
        (world.gate.metric("doorward_handshake_failures", &[]).await >= 2.0).then_some(())
    })
    .await;
}

/// Three requests an hour: what a test sends in a few seconds uses it up.
const THREE: &str = r#"{ "requests": 3, "per": "1h" }"#;

async fn with_rate(of: &str) -> World {
    let three: serde_json::Value = serde_json::from_str(THREE).unwrap();
    World::start(|gate| {
        let rate = json!({ of: three });
        gate.route("things", json!({ "path": "/things/{*rest}", "limits": { "rate": rate } }))
            .route("other", json!({ "path": "/other/{*rest}" }))
            .config(json!({ "trusted_proxies": ["127.0.0.1/32"] }))
    })
    .await
}

#[tokio::test]
async fn a_principal_beyond_its_rate_is_told_when_to_come_again_and_others_are_served() {
    let world = with_rate("principal").await;
    let (one, other) = (world.issuer.token().subject("one").mint(), world.issuer.token().subject("other").mint());
    for number in 0..3 {
        assert_eq!(world.gate.get(&format!("/things/{number}")).bearer(&one).send().await.status, 200);
    }
    let refused = world.gate.get("/things/fourth").bearer(&one).send().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (429, &json!("rate_limited")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1100..=1200).contains(&wait), "a third of an hour, less what passed since: {wait}");
    assert_eq!(world.gate.get("/things/other").bearer(&other).send().await.status, 200);
    assert_eq!(world.gate.get("/other/1").bearer(&one).send().await.status, 200, "another route has no rate");
    assert_eq!(world.upstream.received().len(), 5);
    let record = world.gate.only_record_of("/things/fourth").await;
    assert_eq!(record.verdict(), ("deny", "rate_limited"));
    assert_eq!(
        (record.text("detail"), record.text("principal.subject")),
        ("the rate of the principal is used up", "one")
    );
}

#[tokio::test]
async fn a_source_beyond_its_rate_is_refused_before_it_is_asked_who_it_is() {
    let world = with_rate("source").await;
    let from = |address: &str| world.gate.get("/things/1").header("x-forwarded-for", address);
    for _ in 0..3 {
        assert_eq!(from("203.0.113.1").bearer("no token").send().await.status, 401);
    }
    let good = world.token();
    assert_eq!(from("203.0.113.1").bearer(&good).send().await.status, 429);
    assert_eq!(from("203.0.113.2").bearer(&good).send().await.status, 200);
}

#[tokio::test]
async fn a_routes_rate_is_used_up_by_who_is_let_in_alone_and_outlives_a_reload() {
    let world = with_rate("route").await;
    let good = world.token();
    for _ in 0..5 {
        assert_eq!(world.gate.get("/things/1").bearer("no token").send().await.status, 401);
    }
    for _ in 0..3 {
        assert_eq!(world.gate.get("/things/1").bearer(&good).send().await.status, 200);
    }
    assert_eq!(world.gate.get("/things/1").bearer(&good).send().await.status, 429);
    let rules = world.gate.read("policies/rules.cedar");
    world.gate.write("policies/rules.cedar", &format!("{rules}\n// more\n"));
    let loads = || async {
        let loaded = world.gate.audit().iter().filter(|record| record.event() == "config.loaded").count();
        (loaded > 1).then_some(())
    };
    eventually("the reload", loads).await;
    assert_eq!(world.gate.get("/things/1").bearer(&good).send().await.status, 429);
}

#[tokio::test]
async fn preflights_are_counted_by_a_routes_rate() {
    let three: serde_json::Value = serde_json::from_str(THREE).unwrap();
    let origin = "https://app.example.test";
    let route = json!({
        "path": "/things/{*rest}", "cors": { "origins": [origin] }, "limits": { "rate": { "route": three } },
    });
    let world = World::start(|gate| gate.route("things", route)).await;
    for expected in [200, 200, 200, 429] {
        let preflight = world.gate.request(http::Method::OPTIONS, "/things/1").header("origin", origin);
        let answer = preflight.header("access-control-request-method", "GET").send().await;
        assert_eq!(answer.status, expected);
    }
}

#[tokio::test]
async fn a_client_that_leaves_without_a_word_is_no_anomaly() {
    let world = with(json!({})).await;
    world.gate.becomes_ready(200).await;
    let token = world.token();
    for path in ["/things/1", "/things/2"] {
        // The connection is dropped as it stands, without TLS's `close_notify`.
        let http2 = world.gate.get(path).bearer(&token).send_http2().await;
        assert_eq!(
            (http2.status.as_u16(), world.gate.get(path).bearer(&token).send().await.status.as_u16()),
            (200, 200)
        );
        drop(frames::connect(&world.gate, &world.authority).await);
    }
    for _ in 0..20 {
        // Nor is one that is gone before its request is taken up.
        let mut connection = frames::connect(&world.gate, &world.authority).await;
        let head = frames::head("/things/gone");
        connection.send(frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 1, &head)).await;
        drop(connection);
    }
    let open = || async { (world.gate.metric("doorward_connections", &[]).await < 1.0).then_some(()) };
    crate::support::eventually("all connections to end", open).await;
    let records = world.gate.settled_audit().await;
    assert!(!records.iter().any(|record| record.event() == "anomaly.protocol"), "{records:#?}");
}

#[tokio::test]
async fn a_source_that_holds_its_share_of_places_keeps_nobody_else_out() {
    let settings = json!({
        "limits": { "concurrent_requests": 20, "requests_per_source": 5 },
        "trusted_proxies": ["127.0.0.1/32"],
    });
    let world = World::start(|gate| gate.config(settings)).await;
    world.gate.becomes_ready(200).await;
    world.upstream.script("/things/silent", Script::Silence);
    let token = world.token();
    let ask = |path: &str, source: &str| {
        let draft = world.gate.get(path).bearer(&token).header("x-forwarded-for", source);
        draft.into_http2()
    };
    let mut sender = world.gate.http2().await;
    let waiting: Vec<_> =
        (0..5).map(|_| tokio::spawn(sender.send_request(ask("/things/silent", "192.0.2.1")))).collect();
    eventually("all of them to wait", || async { (world.upstream.received().len() == 5).then_some(()) }).await;
    let refused = Answer::read(sender.send_request(ask("/things/1", "192.0.2.1")).await.unwrap()).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["code"], "source_overloaded");
    assert_eq!(sender.send_request(ask("/things/1", "192.0.2.2")).await.unwrap().status(), 200);
    for request in waiting {
        request.abort();
    }
    let again = || {
        let sent = sender.send_request(ask("/things/1", "192.0.2.1"));
        async { (sent.await.unwrap().status() == 200).then_some(()) }
    };
    eventually("its places to be given back", again).await;
}
