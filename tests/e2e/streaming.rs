//! Bodies pass as they come, both ways, without being collected.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::Version;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;

use crate::support::{Authority, Gate, ORIGIN, RecordingUpstream, RunningGate, Script, StaticIssuer, within};

const CHUNK: usize = 64 * 1024;

async fn world(change: impl FnOnce(Gate) -> Gate) -> (StaticIssuer, RecordingUpstream, RunningGate) {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = change(Gate::standard(&authority, &issuer, &upstream)).start().await;
    (issuer, upstream, gate)
}

#[tokio::test]
async fn events_arrive_one_by_one_before_the_next_is_sent() {
    let (issuer, upstream, gate) = world(|gate| gate).await;
    let (pieces, script) = Script::pieces("text/event-stream");
    upstream.script("/things/events", script);
    let mut events = gate.get("/things/events").bearer(&issuer.token().mint()).begin().await.into_body();
    for number in 0..5 {
        let event = format!("data: {number}\n\n");
        pieces.send(event.clone().into()).await.unwrap();
        let frame = within("the event", events.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event);
    }
    drop(pieces);
    assert!(within("the end", events.frame()).await.is_none());
}

#[tokio::test]
async fn a_large_upload_passes_whole_in_flat_memory() {
    let limits = json!({ "path": "/things/{*rest}", "limits": { "body": "2GB" } });
    let (issuer, upstream, gate) = world(|gate| gate.route("things", limits)).await;
    let token = issuer.token().groups(&["writers"]).mint();
    gate.post("/things/warm").bearer(&token).body("x").send().await;
    let before = gate.resident_kib();
    let chunks = 256 * 1024 * 1024 / CHUNK;
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    let frames = stream::repeat(chunk).take(chunks).map(|data| Ok(Frame::data(data)));
    let body = BodyExt::boxed_unsync(StreamBody::new(frames));
    let answer = gate.post("/things/large").bearer(&token).stream(body).send().await;
    assert_eq!(answer.status, 200);
    let grown = gate.resident_kib().saturating_sub(before);
    let received = upstream.receives("the upload", |received| received.target == "/things/large").await;
    assert_eq!((received.body_bytes, received.complete), ((chunks * CHUNK) as u64, true));
    assert!(grown < 32 * 1024, "256 MiB grew the gate by {grown} KiB");
}

#[tokio::test]
async fn a_body_past_its_limit_is_refused_and_its_end_never_reaches_the_upstream() {
    let limits = json!({ "path": "/things/{*rest}", "limits": { "body": "64KiB" } });
    let (issuer, upstream, gate) = world(|gate| gate.route("things", limits)).await;
    let token = issuer.token().groups(&["writers"]).mint();
    let told = gate.post("/things/told").bearer(&token).body(vec![0; 2 * CHUNK]).send().await;
    assert_eq!(told.status, 413);
    upstream.heard_nothing();
    let frames = stream::repeat(Bytes::from(vec![0; CHUNK])).take(3).map(|data| Ok(Frame::data(data)));
    let body = BodyExt::boxed_unsync(StreamBody::new(frames));
    let untold = gate.post("/things/untold").bearer(&token).stream(body).send().await;
    assert_eq!(untold.status, 413);
    assert_eq!(gate.only_record_of("/things/untold").await.number("status"), 413);
    assert!(upstream.received().iter().all(|received| !received.complete), "{:?}", upstream.received());
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_caller_too() {
    let (issuer, upstream, gate) = world(|gate| gate).await;
    upstream.script("/things/cut", Script::Cut);
    let token = issuer.token().mint();
    let answer = gate.get("/things/cut").bearer(&token).begin().await;
    assert_eq!(answer.status(), 200);
    within("the end", answer.into_body().collect()).await.expect_err("half an answer must not look whole");
    let record = gate.only_record_of("/things/cut").await;
    assert_ne!(record.text("code"), "ok");
    assert_eq!(gate.get("/things/1").bearer(&token).send().await.status, 200, "the gate serves on");
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_one_record_and_frees_the_upstream() {
    let (issuer, upstream, gate) = world(|gate| gate).await;
    let (pieces, script) = Script::pieces("text/event-stream");
    upstream.script("/things/events", script);
    let answer = gate.get("/things/events").bearer(&issuer.token().mint()).begin().await;
    pieces.send("data: 1\n\n".into()).await.unwrap();
    drop(answer);
    within("the upstream to be let go", pieces.closed()).await;
    gate.audited("the request", |record| record.is_request_to("/things/events")).await;
    assert_eq!(gate.only_record_of("/things/events").await.text("decision"), "allow");
}

#[tokio::test]
async fn a_silent_upstream_is_a_timeout_and_an_absent_one_a_bad_gateway() {
    let limits = json!({ "path": "/things/{*rest}", "limits": { "first_byte": "300ms" } });
    let (issuer, upstream, gate) = world(|gate| gate.route("things", limits)).await;
    upstream.script("/things/silent", Script::Silence);
    let token = issuer.token().mint();
    assert_eq!(gate.get("/things/silent").bearer(&token).send().await.status, 504);
    upstream.go_away().await;
    let absent = gate.get("/things/absent").bearer(&token).send().await.status.as_u16();
    assert!(matches!(absent, 502 | 503), "{absent}");
    upstream.come_up().await;
    crate::support::eventually("the upstream to be used again", || async {
        (gate.get("/things/again").bearer(&token).send().await.status == 200).then_some(())
    })
    .await;
}

pub(crate) async fn open_socket(
    gate: &RunningGate,
    path: &str,
    token: Option<&str>,
) -> Result<tokio_tungstenite::WebSocketStream<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>, Error> {
    let mut request = format!("wss://{}{path}", crate::support::HOST).into_client_request().unwrap();
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let stream = gate.stream().await;
    let handshake = Box::pin(tokio_tungstenite::client_async(request, stream));
    within("the handshake", handshake).await.map(|(socket, _)| socket)
}

#[tokio::test]
async fn a_websocket_passes_messages_both_ways() {
    let route = json!({ "path": "/things/{*rest}", "websocket": true });
    let (issuer, upstream, gate) = world(|gate| gate.route("things", route)).await;
    upstream.script("/things/socket", Script::WebSocketEcho);
    let token = issuer.token().mint();
    let mut socket = open_socket(&gate, "/things/socket", Some(&token)).await.unwrap();
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(within("the echo", socket.next()).await.unwrap().unwrap(), Message::text(text));
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the end", socket.next()).await {}
    drop(socket);
    gate.audited("the socket", |record| record.is_request_to("/things/socket")).await;
    assert_eq!(gate.only_record_of("/things/socket").await.number("status"), 101);
}

#[tokio::test]
async fn a_websocket_without_identity_is_refused_and_so_is_one_that_the_route_does_not_take() {
    let (issuer, upstream, gate) = world(|gate| gate).await;
    upstream.script("/things/socket", Script::WebSocketEcho);
    let status = |error: Error| {
        let Error::Http(answer) = error else { panic!("{error}") };
        answer.status().as_u16()
    };
    let anonymous = open_socket(&gate, "/things/socket", None).await.map(|_| ()).unwrap_err();
    assert_eq!(status(anonymous), 401);
    let token = issuer.token().mint();
    let closed = status(open_socket(&gate, "/things/socket", Some(&token)).await.map(|_| ()).unwrap_err());
    assert!((400..500).contains(&closed), "{closed}");
    upstream.heard_nothing();
}

#[tokio::test]
async fn a_websocket_ends_with_the_token_that_opened_it() {
    let route = json!({ "path": "/things/{*rest}", "websocket": true });
    let (issuer, upstream, gate) =
        world(|gate| gate.route("things", route).config(json!({ "issuers": { "machines": { "leeway": "1s" } } })))
            .await;
    upstream.script("/things/socket", Script::WebSocketEcho);
    let token = issuer.token().claim("exp", crate::support::now() + 6).mint();
    let mut socket = open_socket(&gate, "/things/socket", Some(&token)).await.unwrap();
    socket.send(Message::text("still good")).await.unwrap();
    assert!(within("the echo", socket.next()).await.unwrap().is_ok());
    let ended = tokio::time::timeout(Duration::from_secs(20), async { while let Some(Ok(_)) = socket.next().await {} });
    ended.await.expect("the socket outlives its grant");
    gate.audited("the socket", |record| record.is_request_to("/things/socket")).await;
    assert_eq!(gate.only_record_of("/things/socket").await.verdict(), ("allow", "grant_ended"));
}

#[tokio::test]
async fn grpc_passes_with_its_trailers_over_http2() {
    let config = json!({ "upstreams": { "api": { "protocol": "http2" } } });
    let route = json!({ "path": "/things.Service/{*rest}" });
    let (issuer, upstream, gate) = world(|gate| gate.config(config).route("grpc", route)).await;
    upstream.script("/things.Service/Call", Script::Grpc);
    let token = issuer.token().groups(&["writers"]).mint();
    let call = |token: &str| {
        let call =
            gate.post("/things.Service/Call").header("content-type", "application/grpc").header("te", "trailers");
        call.bearer(token).body(Bytes::from_static(b"\0\0\0\0\x02hi"))
    };
    let answer = call(&token).send_http2().await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"\0\0\0\0\x02hi"[..]));
    assert_eq!(answer.trailers["grpc-status"], "0");
    let received = upstream.only();
    assert_eq!((received.version, received.header("te")), (Version::HTTP_2, Some("trailers")));

    let refused = call("no token").send_http2().await;
    let status = refused.headers.get("grpc-status").or_else(|| refused.trailers.get("grpc-status"));
    assert_eq!(status.map(|status| status.to_str().unwrap()), Some("16"), "UNAUTHENTICATED: {refused:?}");
}

#[tokio::test]
async fn the_upstream_is_told_who_asked_and_where() {
    let (issuer, upstream, gate) = world(|gate| gate).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = gate
        .get("/things/1")
        .header("traceparent", trace)
        .header("x-forwarded-for", "203.0.113.9")
        .header("forwarded", "for=203.0.113.9")
        .bearer(&issuer.token().mint())
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let received = upstream.only();
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"), "nobody is believed who is not named");
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert_eq!(received.header("x-forwarded-host"), ORIGIN.strip_prefix("https://"));
    assert!(!received.header("forwarded").unwrap().contains("203.0.113.9"));
    assert!(received.header("traceparent").unwrap().contains("0af7651916cd43dd8448eb211c80319c"));
    assert!(received.header("x-request-id").is_some());
}
