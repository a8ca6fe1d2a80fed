//! PROXY protocol: what a load balancer says of its caller, and what everybody else would like to say.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{HOST, RawConnection, World, eventually};

const VERSION_ONE: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n";
const VERSION_TWO: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x12\x67\x01\xbb";

async fn behind(network: &str) -> World {
    let settings = json!({ "from": [network] });
    World::start(|gate| {
        gate.config(json!({ "listeners": {
            "public": { "proxy_protocol": settings },
            "plain": { "address": "127.0.0.1:0", "proxy_protocol": settings },
        } }))
    })
    .await
}

async fn opened(world: &World, first: &[u8]) -> RawConnection {
    let address: std::net::SocketAddr = world.gate.listener_address("plain").parse().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(first).await.unwrap();
    RawConnection::new(stream)
}

fn request(world: &World, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {}\r\n\r\n", world.token())
}

#[tokio::test]
async fn a_named_peer_says_who_calls_in_both_versions_and_before_tls() {
    let world = behind("127.0.0.0/8").await;
    for (header, path) in [(VERSION_ONE, "/things/one"), (VERSION_TWO, "/things/two")] {
        let mut connection = opened(&world, header).await;
        connection.send(request(&world, path)).await;
        assert_eq!(connection.answer().await.unwrap().status, 200);
    }
    let mut stream = TcpStream::connect(world.gate.address()).await.unwrap();
    stream.write_all(VERSION_TWO).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(world.authority.client_config(None)));
    let stream = connector.connect(HOST.try_into().unwrap(), stream).await.unwrap();
    let mut connection = RawConnection::new(stream);
    connection.send(request(&world, "/things/tls")).await;
    assert_eq!(connection.answer().await.unwrap().status, 200);
    for path in ["/things/one", "/things/two", "/things/tls"] {
        let record = world.gate.audited(path, |record| record.is_request_to(path)).await;
        assert_eq!((record.text("peer"), record.text("source")), ("192.0.2.7", "192.0.2.7"), "{path}");
        let received = world.upstream.receives(path, |received| received.target == path).await;
        assert_eq!(received.header("x-forwarded-for"), Some("192.0.2.7"), "{path}");
    }
}

#[tokio::test]
async fn a_named_peer_without_a_good_header_is_hung_up_on() {
    let world = behind("127.0.0.0/8").await;
    let bad: [&[u8]; 5] = [
        b"",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP4 somebody 127.0.0.1 1 2\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x12\x67\x01\xbb",
        &[b'P'; 600],
    ];
    for header in bad {
        let mut connection = opened(&world, header).await;
        connection.send(request(&world, "/things/1")).await;
        let answer = connection.answer().await;
        assert!(answer.is_none(), "{answer:?} after {:?}", String::from_utf8_lossy(header));
    }
    let refused = bad.len() as f64;
    eventually("the refusals to be counted", || async {
        (world.gate.metric("doorward_proxy_headers_refused", &[]).await >= refused).then_some(())
    })
    .await;
    world.upstream.heard_nothing();
}

#[tokio::test]
async fn a_second_header_is_no_header() {
    let world = behind("127.0.0.0/8").await;
    let mut connection = opened(&world, &[VERSION_ONE, b"PROXY TCP4 10.0.0.1 127.0.0.1 1 2\r\n"].concat()).await;
    connection.send(request(&world, "/things/1")).await;
    let status = connection.answer().await.map(|answer| answer.status);
    assert!(status.is_none_or(|status| status == 400), "{status:?}");
    world.upstream.heard_nothing();
}

#[tokio::test]
async fn nobody_but_a_named_peer_can_say_who_calls() {
    let world = behind("192.0.2.0/24").await;
    for header in [VERSION_ONE, VERSION_TWO] {
        let mut connection = opened(&world, header).await;
        connection.send(request(&world, "/things/1")).await;
        let status = connection.answer().await.map(|answer| answer.status);
        assert!(status.is_none_or(|status| status == 400), "{status:?}");
        let mut stream = TcpStream::connect(world.gate.address()).await.unwrap();
        stream.write_all(header).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(world.authority.client_config(None)));
        connector.connect(HOST.try_into().unwrap(), stream).await.expect_err("a header is no handshake");
    }
    world.upstream.heard_nothing();
    // The harmless twin: without a header they are served, by the socket's own address.
    let mut connection = opened(&world, b"").await;
    connection.send(request(&world, "/things/own")).await;
    assert_eq!(connection.answer().await.unwrap().status, 200);
    assert_eq!(world.gate.only_record_of("/things/own").await.text("peer"), "127.0.0.1");
}
