//! Protocols on one port.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::testing::*;

#[tokio::test]
async fn alpn_chooses_between_http_2_and_http_1() {
    let authority = Authority::new("one");
    let world = World::start(Some(tls(vec![authority.server(&["a.example"])])), patient());
    let stream = world.connect_tls("a.example", authority.trusted(None, &["h2", "http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, _connection) = http2(stream).await;
    let response = sender.send_request(get2("/")).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);

    let stream = world.connect_tls("a.example", authority.trusted(None, &["http/1.1"])).await.unwrap();
    let (mut sender, _connection) = http1(stream).await;
    assert_eq!(sender.send_request(get("/")).await.unwrap().version(), http::Version::HTTP_11);
    assert!(world.connect_tls("a.example", authority.trusted(None, &["spdy/3"])).await.is_err());
}

#[tokio::test]
async fn a_plain_listener_speaks_http_1_and_http_2_by_prior_knowledge() {
    let world = World::start(None, patient());
    let (mut sender, _connection) = http2(world.connect().await).await;
    let told = text(sender.send_request(get2("/")).await.unwrap()).await;
    assert!(told.starts_with("address=127.0.0.1 transport=Plain version=None"), "{told}");

    // `P` could still become the preface of HTTP/2.
    let mut stream = world.connect().await;
    for part in ["P", "OST / HT", "TP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"] {
        stream.write_all(part.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn an_upgraded_connection_is_a_stream_of_bytes() {
    let world = World::start(None, patient());
    let (mut sender, _connection) = http1(world.connect().await).await;
    let mut request = get("/upgraded");
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    assert_eq!(world.stats.open(), 1);
}
