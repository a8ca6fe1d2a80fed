//! Who connected, by PROXY protocol or not.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::server::testing::*;
use crate::server::{ListenAddress, ListenerSettings, Server, ServerError};

fn behind_balancer(tls: Option<crate::server::TlsSettings>, network: &str) -> Vec<ListenerSettings> {
    vec![ListenerSettings { proxy_protocol_from: vec![network.parse().unwrap()], ..listener("public", tls) }]
}

const VERSION_ONE: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 443\r\n";
const VERSION_TWO: &[u8] = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x12\x67\x01\xbb";

#[tokio::test]
async fn a_named_peer_says_who_the_client_is() {
    let authority = Authority::new("one");
    for header in [VERSION_ONE, VERSION_TWO] {
        let settings = tls(vec![authority.server(&["a.example"])]);
        let world = World::start_all(behind_balancer(Some(settings), "127.0.0.0/8"), patient());
        let mut stream = world.connect().await;
        stream.write_all(header).await.unwrap();
        let stream = shake_hands(stream, "a.example", authority.trusted(None, &[])).await.unwrap();
        let (mut sender, _connection) = http1(stream).await;
        let told = text(sender.send_request(get("/")).await.unwrap()).await;
        assert!(told.starts_with("address=192.0.2.7 transport=Tls"), "{told}");
    }
}

#[tokio::test]
async fn a_header_and_a_request_in_one_packet_are_told_apart() {
    let world = World::start_all(behind_balancer(None, "127.0.0.1/32"), patient());
    let mut stream = world.connect().await;
    let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(&[VERSION_ONE, request].concat()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("address=192.0.2.7"), "{answer}");
}

#[tokio::test]
async fn a_named_peer_without_a_good_header_is_refused() {
    let mut world = World::start_all(behind_balancer(None, "127.0.0.1/32"), patient());
    for opening in [&b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"[..], b"PROXY TCP4 nobody nowhere 1 2\r\n"] {
        let mut stream = world.connect().await;
        stream.write_all(opening).await.unwrap();
        // The server closes with our bytes unread, which may show as a reset.
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty());
    }
    assert_eq!(world.stats.refused(), 2);
    assert!(world.entered.try_recv().is_err());
}

#[tokio::test]
async fn nobody_else_can_say_who_the_client_is() {
    let authority = Authority::new("one");
    let settings = tls(vec![authority.server(&["a.example"])]);
    let mut world = World::start_all(behind_balancer(Some(settings), "192.0.2.0/24"), patient());
    let mut stream = world.connect().await;
    stream.write_all(VERSION_ONE).await.unwrap();
    assert!(shake_hands(stream, "a.example", authority.trusted(None, &[])).await.is_err());
    assert_eq!(world.stats.handshake_failures(), 1);

    let mut plain = World::start_all(behind_balancer(None, "192.0.2.0/24"), patient());
    for header in [VERSION_ONE, VERSION_TWO] {
        let mut stream = plain.connect().await;
        stream.write_all(&[header, b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"].concat()).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    }
    assert!(world.entered.try_recv().is_err() && plain.entered.try_recv().is_err());
}

#[tokio::test]
async fn a_unix_socket_serves_plain_http() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("doorward.sock");
    let settings = ListenerSettings { address: ListenAddress::Unix(path.clone()), ..listener("sidecar", None) };
    let world = World::start_all(vec![settings.clone()], patient());
    let (mut sender, _connection) = http1(UnixStream::connect(&path).await.unwrap()).await;
    let told = text(sender.send_request(get("/")).await.unwrap()).await;
    assert!(told.starts_with("address=127.0.0.1 transport=Unix"), "{told}");
    assert_eq!(world.addresses["sidecar"], ListenAddress::Unix(path));

    let proxied = ListenerSettings { proxy_protocol_from: vec!["127.0.0.1/32".parse().unwrap()], ..settings };
    let handler: crate::server::Handler =
        std::sync::Arc::new(|_, _, _| Box::pin(std::future::ready(http::Response::new(crate::body::empty()))));
    let error = Server::bind(
        vec![proxied],
        patient(),
        handler,
        std::sync::Arc::new(|_, _| ()),
        crate::shutdown::Shutdown::new(),
    )
    .unwrap_err();
    assert!(matches!(error, ServerError::ProxyProtocolOnUnix { .. }), "{error}");
}
