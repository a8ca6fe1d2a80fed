//! Connections that end by RST in every state, and what is left of them.

use std::time::Duration;

use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::share;
use crate::support::{Script, World, eventually};

/// Ends the connection by RST.
fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// How far a client comes before it is gone.
const STATES: [&str; 8] = [
    "connected",
    "half a handshake",
    "shaken hands",
    "half a head",
    "a head",
    "half a body",
    "half an answer",
    "half open",
];

async fn leave(world: &World, token: &str, state: &str, number: usize) {
    if matches!(state, "connected" | "half a handshake") {
        let mut stream = TcpStream::connect(world.gate.address()).await.unwrap();
        if state == "half a handshake" {
            // The head of a record of a ClientHello that does not follow.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        reset(&stream);
        return;
    }
    let mut stream: TlsStream<TcpStream> = world.gate.stream().await;
    let head = |length: usize| {
        format!(
            "POST /things/left_{number} HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    match state {
        "shaken hands" => {}
        "half a head" => stream.write_all(b"GET /things/none HTTP/1.1\r\nHo").await.unwrap(),
        "a head" => stream.write_all(head(10).as_bytes()).await.unwrap(),
        "half a body" => stream.write_all(format!("{}begun", head(10)).as_bytes()).await.unwrap(),
        "half open" => {
            stream.write_all(format!("{}begun", head(10)).as_bytes()).await.unwrap();
            // The client's side is closed, and nothing comes any more.
            stream.get_mut().0.shutdown().await.unwrap();
            let _ended = stream.read(&mut [0; 1024]).await;
            return;
        }
        _ => {
            stream.write_all(head(0).replace("left_", "large_").as_bytes()).await.unwrap();
            stream.read_exact(&mut [0; 1024]).await.unwrap();
        }
    }
    stream.flush().await.unwrap();
    reset(stream.get_ref().0);
}

#[tokio::test]
async fn connections_that_are_reset_in_any_state_leave_a_record_each_and_nothing_else() {
    let rounds = share(800);
    let world = World::start(|gate| gate.config(json!({ "limits": { "connection_idle": "5s" } }))).await;
    world.gate.becomes_ready(200).await;
    let token = world.token();
    let large = "x".repeat(4 << 20).leak();
    let before = world.gate.descriptors();
    for number in 0..rounds {
        let state = STATES[number % STATES.len()];
        if state == "half an answer" {
            world
                .upstream
                .script(&format!("/things/large_{number}"), Script::Fixed(http::StatusCode::OK, Vec::new(), large));
        }
        leave(&world, &token, state, number).await;
        if number % 40 == 0 {
            assert_eq!(world.gate.get("/things/good").bearer(&token).send().await.status, 200, "after {state}");
        }
    }
    let gone = || async { (world.gate.metric("doorward_connections", &[]).await < 1.0).then_some(()) };
    eventually("all connections to be gone", gone).await;
    let idle = || async { (world.gate.metric("doorward_requests_in_flight", &[]).await < 1.0).then_some(()) };
    eventually("all requests to be over", idle).await;
    let records = world.gate.settled_audit().await;
    let paths = |part: &str| {
        let of_it = records.iter().filter(|record| record.event() == "request" && record.text("path").contains(part));
        let mut paths: Vec<_> = of_it.map(|record| record.text("path").to_owned()).collect();
        let all = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), all, "a request has two records");
        all
    };
    let asked = |state: &str| (0..rounds).filter(|number| STATES[number % STATES.len()] == state).count();
    assert_eq!(paths("/things/large_"), asked("half an answer"));
    // A reset may overtake a head that was not read yet: then there was no request.
    let left = asked("a head") + asked("half a body") + asked("half open");
    assert!(paths("/things/left_") <= left);
    assert!(paths("/things/left_") >= asked("half open"), "what was half open was read");
    let whole: Vec<_> = world
        .upstream
        .received()
        .into_iter()
        .filter(|received| received.target.contains("left_") && received.complete)
        .collect();
    assert!(whole.is_empty(), "half a body became a whole one: {whole:#?}");
    let after = world.gate.descriptors();
    assert!(after <= before + 20, "{before} descriptors became {after}");
    assert!(!world.gate.log().contains("panic"), "{}", world.gate.log());
    println!(
        "{rounds} connections reset in {} states: {} records of {left} requests",
        STATES.len(),
        paths("/things/left_")
    );
}
