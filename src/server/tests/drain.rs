//! The end: what is open finishes, what does not is cut.

use std::time::Duration;

use http::header::CONNECTION;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::testing::*;
use crate::server::{DrainReport, ServerLimits};

#[tokio::test]
async fn a_drain_finishes_open_requests_and_takes_no_new_ones() {
    let mut world = World::start(None, patient());
    let (mut idle, idle_closed) = http1(world.connect().await).await;
    text(idle.send_request(get("/")).await.unwrap()).await;
    world.entered.recv().await.unwrap();
    let (mut sender, closed) = http1(world.connect().await).await;
    let open = tokio::spawn(sender.send_request(get("/gated")));
    assert_eq!(world.entered.recv().await.unwrap(), "/gated");

    world.shutdown.drain();
    soon(idle_closed).await.unwrap().unwrap();
    assert!(TcpStream::connect(world.address()).await.is_err());
    assert!(!world.running.is_finished());

    world.gate.add_permits(1);
    let response = open.await.unwrap().unwrap();
    assert_eq!(response.headers()[CONNECTION], "close");
    assert_eq!(text(response).await, "through");
    soon(closed).await.unwrap().unwrap();
    assert_eq!(soon(world.running).await.unwrap(), DrainReport { open: 2, cut: 0 });
}

#[tokio::test]
async fn a_drain_sends_goaway_and_finishes_open_streams() {
    let authority = Authority::new("one");
    let mut world = World::start(Some(tls(vec![authority.server(&["a.example"])])), patient());
    let stream = world.connect_tls("a.example", authority.trusted(None, &["h2"])).await.unwrap();
    let (mut sender, closed) = http2(stream).await;
    let open = sender.send_request(get2("/streamed")).await.unwrap();
    world.entered.recv().await.unwrap();

    world.shutdown.drain();
    // After GOAWAY the client opens no further stream on this connection.
    while sender.ready().await.is_ok() && sender.send_request(get2("/")).await.is_ok() {}
    world.gate.add_permits(1);
    assert_eq!(text(open).await, "first last");
    soon(closed).await.unwrap().unwrap();
    assert_eq!(soon(world.running).await.unwrap().cut, 0);
}

#[tokio::test]
async fn the_deadline_cuts_what_is_still_open() {
    let limits = ServerLimits { drain: Duration::from_millis(50), ..patient() };
    let mut world = World::start(None, limits);
    let (mut sender, _closed) = http1(world.connect().await).await;
    let open = tokio::spawn(sender.send_request(get("/gated")));
    assert_eq!(world.entered.recv().await.unwrap(), "/gated");
    let (mut sender2, _closed) = http2(world.connect().await).await;
    let open2 = tokio::spawn(sender2.send_request(get2("/gated")));
    assert_eq!(world.entered.recv().await.unwrap(), "/gated");

    world.shutdown.drain();
    assert_eq!(soon(world.running).await.unwrap(), DrainReport { open: 2, cut: 2 });
    assert!(open.await.unwrap().is_err() && open2.await.unwrap().is_err());
    assert_eq!(world.stats.open(), 0);
}

#[tokio::test]
async fn an_upgraded_stream_outlives_the_drain_and_ends_at_its_deadline() {
    let world = World::start(None, patient());
    let (mut sender, _connection) = http1(world.connect().await).await;
    let mut request = get("/upgraded");
    request.headers_mut().insert(CONNECTION, "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    let mut stream = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());

    world.shutdown.drain();
    stream.write_all(b"still").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    world.shutdown.cut();
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(soon(world.running).await.unwrap(), DrainReport { open: 1, cut: 1 });
    assert_eq!(world.stats.open(), 0);
}
