//! Heads of HTTP/2 that no client library would send, and what would become of them as HTTP/1.1.

use super::World;
use crate::support::frames::{END_HEADERS, END_STREAM, HEADERS, PING, connect, frame, literal};
use crate::support::{HOST, eventually};

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// A good head, whose fields a case changes.
fn good<'a>(token: &'a str) -> Fields<'a> {
    vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", "/things/1"),
        ("authorization", token),
    ]
}

/// One request of these fields on a connection of its own, until it was read.
async fn send(world: &World, fields: &[(&str, &str)]) {
    let authority = world.gate.authority();
    let mut connection = connect(&world.gate, authority).await;
    let bytes: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &bytes)).await;
    // Frames are taken in turn: an answered PING says that what came before it was read.
    connection.send(frame(PING, 0, 0, b"was-read")).await;
    connection.hears(b"was-read").await;
}

#[tokio::test]
async fn a_malformed_head_never_becomes_a_request() {
    let world = World::start().await;
    // A token that fits a short literal: a public key is not needed where nothing may pass.
    let with = |name: &'static str, value: &'static str| {
        let mut fields = good("Bearer x");
        fields.push((name, value));
        fields
    };
    let changed = |name: &str, value: &'static str| -> Fields<'static> {
        let keep = |field: &str, old: &'static str| if field == name { value } else { old };
        good("Bearer x").into_iter().map(|(field, old)| (field, keep(field, old))).collect()
    };
    let without =
        |name: &str| -> Fields<'static> { good("Bearer x").into_iter().filter(|(field, _)| *field != name).collect() };
    let mut late = good("Bearer x");
    late.swap(3, 4);
    let cases: Vec<(&str, Fields<'_>)> = vec![
        ("an uppercase name", with("X-Upper", "1")),
        ("connection", with("connection", "keep-alive")),
        ("keep-alive", with("keep-alive", "timeout=5")),
        ("proxy-connection", with("proxy-connection", "close")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("upgrade", with("upgrade", "h2c")),
        ("te of another value", with("te", "gzip")),
        ("a line break in a value", with("x-split", "a\r\nx-forged: b")),
        ("a line feed in a value", with("x-split", "a\nx-forged: b")),
        ("a NUL in a value", with("x-nul", "a\0b")),
        ("a colon in a name", with("x:y", "1")),
        ("a space in a name", with("x y", "1")),
        ("an empty name", with("", "1")),
        ("an unknown pseudo-header", with(":forged", "1")),
        (":status in a request", with(":status", "200")),
        ("two paths", with(":path", "/things/2")),
        ("two methods", with(":method", "POST")),
        ("a pseudo-header behind a field", late),
        ("no method", without(":method")),
        ("no path", without(":path")),
        ("no scheme", without(":scheme")),
        ("an empty path", changed(":path", "")),
        ("a path that is none", changed(":path", "things/1")),
        ("a space in the path", changed(":path", "/things/1 HTTP/1.1")),
        ("a line break in the path", changed(":path", "/things/1\r\nx: y")),
        ("a method with a space", changed(":method", "GET /admin")),
        ("another host than the authority", with("host", "evil.test")),
        ("a length without its body", with("content-length", "5")),
    ];
    for (what, fields) in &cases {
        send(&world, fields).await;
        let received = world.upstream.received();
        assert!(received.is_empty(), "{what}: {received:#?}");
    }
    // Each is a refused request, or an anomaly of its connection, which comes with its end.
    let accounted = || async {
        let records = world.gate.audit();
        let of = |event: &str| records.iter().filter(|record| record.event() == event).count();
        assert!(records.iter().all(|record| record.event() != "request" || record.text("decision") == "deny"));
        (of("request") + of("anomaly.protocol") >= cases.len()).then_some(())
    };
    eventually("a record of each", accounted).await;

    // The twin: the same fields, as a client sends them.
    let answer = world.gate.get("/things/1").bearer(&world.token).header("te", "trailers").send_http2().await;
    assert_eq!(answer.status, 200);
}
