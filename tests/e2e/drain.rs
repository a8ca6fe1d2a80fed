//! SIGTERM: what is under way ends well, nothing new begins, and the deadline holds.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{
    Answer, Authority, Gate, HOST, RecordingUpstream, Script, StaticIssuer, World, eventually, within,
};

#[tokio::test]
async fn a_request_in_flight_is_answered_in_full_before_the_gate_ends() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let mut gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    let (pieces, script) = Script::pieces("text/plain");
    upstream.script("/things/slow", script);
    let answer = gate.get("/things/slow").bearer(&issuer.token().mint()).begin().await;
    pieces.send("first ".into()).await.unwrap();

    gate.terminate().await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], gate.port()));
    eventually("the listener to close", || async { tokio::net::TcpStream::connect(address).await.err() }).await;
    pieces.send("last".into()).await.unwrap();
    drop(pieces);
    assert_eq!(Answer::read(answer).await.text(), "first last");
    assert!(gate.exit().await.success());
    let records = gate.audit();
    let of_it: Vec<_> = records.iter().filter(|record| record.is_request_to("/things/slow")).collect();
    assert_eq!(of_it.len(), 1, "{records:#?}");
    assert_eq!(of_it[0].verdict(), ("allow", "ok"));
}

#[tokio::test]
async fn an_http2_connection_is_told_to_go_away_and_finishes_its_stream() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let mut gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    let (pieces, script) = Script::pieces("text/plain");
    upstream.script("/things/slow", script);
    let token = issuer.token().mint();
    let mut connection = gate.http2().await;
    let request = gate.get("/things/slow").bearer(&token).into_http2();
    let answer = within("the answer's head", connection.send_request(request)).await.unwrap();

    gate.terminate().await;
    eventually("GOAWAY", || {
        let sent = connection.send_request(gate.get("/things/new").bearer(&token).into_http2());
        async { sent.await.err() }
    })
    .await;
    pieces.send("whole".into()).await.unwrap();
    drop(pieces);
    assert_eq!(Answer::read(answer).await.text(), "whole");
    assert!(gate.exit().await.success());
}

#[tokio::test]
async fn a_stream_without_end_is_cut_at_the_deadline() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let mut gate =
        Gate::standard(&authority, &issuer, &upstream).config(json!({ "limits": { "drain": "1s" } })).start().await;
    let (pieces, script) = Script::pieces("text/event-stream");
    upstream.script("/things/events", script);
    let _answer = gate.get("/things/events").bearer(&issuer.token().mint()).begin().await;
    pieces.send("data: 1\n\n".into()).await.unwrap();
    gate.terminate().await;
    gate.exit().await;
    let records = gate.audit();
    assert_eq!(records.iter().filter(|record| record.is_request_to("/things/events")).count(), 1, "{records:#?}");
    drop(pieces);
}

#[tokio::test]
async fn a_second_signal_cuts_an_open_stream_and_its_record_is_written() {
    let mut world = World::start(|gate| gate.config(json!({ "limits": { "drain": "1h" } }))).await;
    let (pieces, script) = Script::pieces("text/event-stream");
    world.upstream.script("/things/events", script);
    let _answer = world.gate.get("/things/events").bearer(&world.token()).begin().await;
    pieces.send("data: 1\n\n".into()).await.unwrap();
    world.gate.terminate().await;
    let address = world.gate.address();
    eventually("the listener to close", || async { TcpStream::connect(address).await.err() }).await;
    world.gate.terminate().await;
    assert_eq!(world.gate.exit().await.code(), Some(1), "something was cut");
    let records = world.gate.audit();
    let of_it: Vec<_> = records.iter().filter(|record| record.is_request_to("/things/events")).collect();
    assert_eq!(of_it.len(), 1, "{records:#?}");
    assert_eq!(of_it[0].text("decision"), "allow");
    drop(pieces);
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let mut gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    let _idle = gate.http1().await;
    let mut silent = gate.raw().await;
    gate.terminate().await;
    assert!(gate.exit().await.success());
    silent.ends().await;
}

async fn with_socket(drain: &str) -> (World, WebSocketStream<TlsStream<TcpStream>>) {
    let world = World::start(|gate| {
        gate.route("things", json!({ "path": "/things/{*rest}", "websocket": true }))
            .config(json!({ "limits": { "drain": drain } }))
    })
    .await;
    world.upstream.script("/things/socket", Script::WebSocketEcho);
    let mut request = format!("wss://{HOST}/things/socket").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {}", world.token()).parse().unwrap());
    let handshake = Box::pin(tokio_tungstenite::client_async(request, world.gate.stream().await));
    let (socket, _) = within("the handshake", handshake).await.unwrap();
    (world, socket)
}

async fn echo(socket: &mut WebSocketStream<TlsStream<TcpStream>>, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
    assert_eq!(within("the echo", socket.next()).await.unwrap().unwrap(), Message::text(text));
}

#[tokio::test]
async fn a_websocket_goes_on_during_the_drain_and_its_end_ends_the_gate() {
    let (mut world, mut socket) = with_socket("60s").await;
    echo(&mut socket, "before").await;
    world.gate.terminate().await;
    let address = world.gate.address();
    eventually("the listener to close", || async { TcpStream::connect(address).await.err() }).await;
    echo(&mut socket, "during").await;
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the end", socket.next()).await {}
    drop(socket);
    assert!(world.gate.exit().await.success());
    let records = world.gate.audit();
    let of_it: Vec<_> = records.iter().filter(|record| record.is_request_to("/things/socket")).collect();
    assert_eq!(of_it.len(), 1, "{records:#?}");
    assert_eq!((of_it[0].text("decision"), of_it[0].number("status")), ("allow", 101));
    assert_ne!(of_it[0].text("code"), "stream_cut");
}

#[tokio::test]
async fn a_websocket_is_cut_at_the_deadline_and_on_record() {
    let (mut world, mut socket) = with_socket("1s").await;
    echo(&mut socket, "before").await;
    world.gate.terminate().await;
    within("the end", async { while let Some(Ok(_)) = socket.next().await {} }).await;
    assert_eq!(world.gate.exit().await.code(), Some(1), "something was cut");
    let records = world.gate.audit();
    let of_it: Vec<_> = records.iter().filter(|record| record.is_request_to("/things/socket")).collect();
    assert_eq!(of_it.len(), 1, "{records:#?}");
    assert_eq!(of_it[0].verdict(), ("allow", "stream_cut"));
}
