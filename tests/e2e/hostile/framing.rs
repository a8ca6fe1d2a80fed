//! Message framing that two readers could read differently (request smuggling), and heads that never end.

use http::StatusCode;
use serde_json::json;

use super::World;
use crate::support::Script;

/// A POST with these header lines and this body; the body's tail would be a second request to a careless reader.
fn post(lines: &str, body: &str) -> String {
    format!("POST /things/1 HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {{token}}\r\n{lines}\r\n{body}")
}

/// What a careless reader would take for a request, and a good one: nothing but the framing keeps it from passing.
const SMUGGLED: &str = "GET /things/smuggled HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n\r\n";

#[tokio::test]
async fn ambiguous_framing_reaches_no_upstream() {
    let world = World::start().await;
    for lines in [
        "Content-Length: +0\r\n",
        "Content-Length: -1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0, 5\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length : 0\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        ": nameless\r\nContent-Length: 0\r\n",
        " Folded: x\r\nContent-Length: 0\r\n",
        "Nul: a\0b\r\nContent-Length: 0\r\n",
        "Bare: a\rb\r\nContent-Length: 0\r\n",
    ] {
        world.refuses(&post(lines, SMUGGLED)).await;
    }
    world.passes(&post("Content-Length: 2\r\n", "{}")).await;
}

#[tokio::test]
async fn broken_chunks_never_become_a_whole_body() {
    let world = World::start().await;
    for body in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "3\r\nabcX0\r\n\r\n",
        "3;a=\n5\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
    ] {
        let status = world.status_of(&post("Transfer-Encoding: chunked\r\n", body)).await;
        assert_ne!(status, Some(200), "{body:?}");
    }
    assert!(world.upstream.received().iter().all(|received| !received.complete), "{:#?}", world.upstream.received());
}

#[tokio::test]
async fn both_framings_at_once_never_smuggle_a_second_request() {
    let world = World::start().await;
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        world.status_of(&post(lines, &format!("0\r\n\r\n{SMUGGLED}"))).await;
        world.gate.settled_audit().await;
        let smuggled = world.upstream.received().iter().any(|received| received.target.contains("smuggled"));
        assert!(!smuggled, "{lines:?}");
    }
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_never_read_as_the_next_request() {
    let world = World::start().await;
    let mut connection = world.gate.raw().await;
    let smuggled = SMUGGLED.replace("{token}", &world.token);
    let length = smuggled.len();
    connection
        .send(format!("POST /things/1 HTTP/1.1\r\nHost: gate.test\r\nContent-Length: {length}\r\n\r\n{smuggled}"))
        .await;
    assert_eq!(connection.answer().await.unwrap().status, 401);
    world.gate.settled_audit().await;
    world.upstream.heard_nothing();
}

#[tokio::test]
async fn a_get_with_a_body_is_one_request() {
    let world = World::start().await;
    let length = SMUGGLED.replace("{token}", &world.token).len();
    let request = format!(
        "GET /things/1 HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {{token}}\r\nContent-Length: {length}\r\n\r\n"
    );
    world.status_of(&format!("{request}{SMUGGLED}")).await;
    world.gate.settled_audit().await;
    assert!(world.upstream.received().iter().all(|received| received.target == "/things/1"));
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let limits = json!({ "limits": { "header_read": "500ms" } });
    let world = World::changed(|gate| gate.config(limits)).await;
    let mut connection = world.gate.raw().await;
    connection.send("GET /things/1 HTTP/1.1\r\nHost: gate.test\r\nX-Slow: ").await;
    let answer = connection.answer().await;
    assert!(answer.is_none_or(|answer| answer.status == 408));
}

#[tokio::test]
async fn a_head_too_large_or_with_too_many_fields_is_refused() {
    let world = World::start().await;
    let large = format!("X-Large: {}\r\nContent-Length: 0\r\n", "x".repeat(100 * 1024));
    world.refuses(&post(&large, "")).await;
    let many = (0..200).map(|number| format!("X-{number}: x\r\n")).collect::<String>();
    world.refuses(&post(&format!("{many}Content-Length: 0\r\n"), "")).await;
    world.passes(&post("Content-Length: 0\r\n", "")).await;
}

#[tokio::test]
async fn http_1_0_never_leaves_a_connection_in_doubt() {
    let world = World::start().await;
    let mut connection = world.gate.raw().await;
    let request = format!(
        "GET /things/1 HTTP/1.0\r\nHost: gate.test\r\nAuthorization: Bearer {{token}}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
    );
    let request = request.replace("{token}", &world.token);
    connection.send(request).await;
    connection.answer().await;
    connection.ends().await;
    assert!(world.upstream.received().iter().all(|received| !received.target.contains("smuggled")));
}

#[tokio::test]
async fn pipelined_requests_each_get_their_own_answer_and_each_is_judged() {
    let world = World::start().await;
    for (path, body) in [("/things/1", "one"), ("/things/2", "two")] {
        world.upstream.script(path, Script::Fixed(StatusCode::OK, Vec::new(), body));
    }
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {}\r\n\r\n", world.token);
    let mut connection = world.gate.raw().await;
    let anonymous = "GET /things/3 HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    connection.send(get("/things/1") + &get("/things/2") + anonymous).await;
    for body in ["one", "two"] {
        assert_eq!(connection.answer().await.unwrap().body, body.as_bytes());
    }
    assert_eq!(connection.answer().await.unwrap().status, 401, "a connection is no evidence");
}

#[tokio::test]
async fn an_aborted_request_never_leaves_its_answer_to_the_next_one() {
    let world = World::changed(|gate| gate.workers(1)).await;
    let (pieces, script) = Script::pieces("text/plain");
    world.upstream.script("/things/slow", script);
    world.upstream.script("/things/next", Script::Fixed(StatusCode::OK, Vec::new(), "next"));
    let slow = world.gate.get("/things/slow").bearer(&world.token).begin().await;
    drop(slow);
    let aborted = world.upstream.received()[0].connection;
    let next = world.gate.get("/things/next").bearer(&world.token).send().await;
    assert_eq!(next.text(), "next");
    assert_ne!(world.upstream.received()[1].connection, aborted, "half an answer was still due on that connection");
    let again = world.gate.get("/things/next").bearer(&world.token).send().await;
    assert_eq!(again.text(), "next");
    let received = world.upstream.received();
    assert_eq!(received[1].connection, received[2].connection, "a connection in order is used again");
    drop(pieces);
}

#[tokio::test]
async fn what_hyper_would_take_and_another_reader_otherwise_is_answered_400_and_closed() {
    let world = World::start().await;
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "X-Bare: a\nContent-Length: 5\r\n",
        "X-Bare: a\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\n",
    ] {
        let mut connection = world.gate.raw().await;
        connection.send(post(lines, &format!("0\r\n\r\n{SMUGGLED}")).replace("{token}", &world.token)).await;
        assert_eq!(connection.answer().await.map(|answer| answer.status), Some(400), "{lines:?}");
        assert!(connection.answer().await.is_none(), "{lines:?}: the connection goes on");
        world.upstream.heard_nothing();
    }
}

#[tokio::test]
async fn a_value_with_a_bare_line_feed_hides_no_framing_from_a_front_that_passes_it_on() {
    let world = World::start().await;
    // To a front that keeps LF in values this is one field, and the body is the second caller's request.
    let first = "POST /things/1 HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n\
                 X-Note: a\nContent-Length: 200\r\n\r\n";
    world.refuses(&format!("{first}{SMUGGLED}")).await;
}

#[tokio::test]
async fn a_connection_at_fault_is_on_record_once_and_its_good_requests_too() {
    let world = World::start().await;
    let good = "GET /things/good HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n\r\n";
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    let mut connection = world.gate.raw().await;
    let bytes = format!("{good}{}", post(both, &format!("0\r\n\r\n{SMUGGLED}"))).replace("{token}", &world.token);
    connection.send(bytes).await;
    for status in [200, 400] {
        assert_eq!(connection.answer().await.map(|answer| answer.status), Some(status));
    }
    let anomaly = world.gate.audited("the anomaly", |record| record.event() == "anomaly.protocol").await;
    assert_eq!((anomaly.text("code"), anomaly.text("peer")), ("two_framings", "127.0.0.1"));
    assert_eq!((anomaly.text("source"), anomaly.text("listener")), ("127.0.0.1", "public"));
    let records = world.gate.settled_audit().await;
    assert_eq!(records.iter().filter(|record| record.event() == "anomaly.protocol").count(), 1);
    let requests = |path| records.iter().filter(|record| record.is_request_to(path)).count();
    assert_eq!((requests("/things/good"), requests("/things/1"), requests("/things/smuggled")), (1, 0, 0));
}

#[tokio::test]
async fn trailers_that_frame_or_route_end_the_request() {
    let world = World::start().await;
    world.passes(&post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\nChecksum: x\r\n\r\n")).await;
    for trailer in
        ["Content-Length: 5", "Transfer-Encoding: chunked", "Host: evil.test", "Connection: close", " folded"]
    {
        let body = format!("3\r\nabc\r\n0\r\n{trailer}\r\n\r\n");
        let status = world.status_of(&post("Transfer-Encoding: chunked\r\n", &body)).await;
        assert_ne!(status, Some(200), "{trailer:?}");
    }
    let whole = world.upstream.received().iter().filter(|received| received.complete).count();
    assert_eq!(whole, 1, "{:#?}", world.upstream.received());
}

#[tokio::test]
async fn a_get_with_chunks_arrives_with_its_body() {
    let world = World::start().await;
    world
        .passes(
            "GET /things/1 HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        .await;
    let received = world.upstream.only();
    assert_eq!((received.body_bytes, received.complete), (5, true));
}
