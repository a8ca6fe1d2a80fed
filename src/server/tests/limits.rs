//! Slow, large, idle and flooding clients. Times here are short limits or none: what is asserted is order.

use std::time::Duration;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::testing::*;
use crate::server::{Anomaly, ServerLimits};

const SHORT: Duration = Duration::from_millis(80);

#[tokio::test]
async fn a_slow_request_head_is_cut_while_an_idle_connection_lives() {
    let world = World::start(None, ServerLimits { header_read: SHORT, ..patient() });
    let (mut idle, _connection) = http1(world.connect().await).await;
    text(idle.send_request(get("/")).await.unwrap()).await;

    let mut slow = world.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: te").await.unwrap();
    let _ = soon(slow.read_to_end(&mut Vec::new())).await;
    assert_eq!(world.stats.protocol_errors(), 1);

    idle.ready().await.unwrap();
    assert_eq!(idle.send_request(get("/")).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_cut() {
    let authority = Authority::new("one");
    let settings = tls(vec![authority.server(&["a.example"])]);
    let world = World::start(Some(settings), ServerLimits { handshake: SHORT, ..patient() });
    let mut silent = world.connect().await;
    let _ = soon(silent.read_to_end(&mut Vec::new())).await;
    assert_eq!(world.stats.handshake_failures(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_an_open_request_is_not() {
    let limits = ServerLimits { connection_idle: SHORT, header_read: SHORT, ..patient() };
    let mut world = World::start(None, limits);
    let (mut sender, _streaming) = http1(world.connect().await).await;
    let response = sender.send_request(get("/streamed")).await.unwrap();
    let (mut sender2, _streaming2) = http2(world.connect().await).await;
    let response2 = sender2.send_request(get2("/streamed")).await.unwrap();

    // Six idle connections, one after the other, live out their whole time.
    for _ in 0..3 {
        let (mut sender, closed) = http1(world.connect().await).await;
        text(sender.send_request(get("/")).await.unwrap()).await;
        soon(closed).await.unwrap().unwrap();
        let (mut sender, closed) = http2(world.connect().await).await;
        text(sender.send_request(get2("/")).await.unwrap()).await;
        soon(closed).await.unwrap().unwrap();
    }
    let mut silent = world.connect().await;
    assert_eq!(soon(silent.read_to_end(&mut Vec::new())).await.unwrap(), 0);

    assert_eq!(world.stats.open(), 2);
    world.gate.add_permits(2);
    assert_eq!(text(response).await, "first last");
    assert_eq!(text(response2).await, "first last");
    assert_eq!(world.entered.recv().await.unwrap(), "/streamed");
    assert_eq!(world.stats.protocol_errors(), 0);
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut() {
    let authority = Authority::new("one");
    let limits = ServerLimits { connection_idle: SHORT, ..patient() };
    for settings in [None, Some(tls(vec![authority.server(&["a.example"])]))] {
        let mut world = World::start(settings.clone(), limits.clone());
        let request = b"GET /endless HTTP/1.1\r\nhost: test\r\n\r\n";
        let mut stream = world.connect().await;
        if settings.is_some() {
            let mut stream = shake_hands(stream, "a.example", authority.trusted(None, &[])).await.unwrap();
            stream.write_all(request).await.unwrap();
            assert_eq!(soon(world.entered.recv()).await.unwrap(), "/endless");
            assert_eq!(soon(world.entered.recv()).await.unwrap(), "/endless dropped");
        } else {
            stream.write_all(request).await.unwrap();
            assert_eq!(soon(world.entered.recv()).await.unwrap(), "/endless");
            assert_eq!(soon(world.entered.recv()).await.unwrap(), "/endless dropped");
        }
        assert_eq!(world.stats.protocol_errors(), 1);
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_never_idle() {
    let world = World::start(None, ServerLimits { connection_idle: SHORT, header_read: SHORT, ..patient() });
    let (mut sender, _connection) = http1(world.connect().await).await;
    let mut request = get("/upgraded");
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    let mut stream = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for _ in 0..3 {
        let (mut sender, closed) = http1(world.connect().await).await;
        text(sender.send_request(get("/")).await.unwrap()).await;
        soon(closed).await.unwrap().unwrap();
    }
    stream.write_all(b"alive").await.unwrap();
    let mut echo = [0; 5];
    soon(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"alive");
}

#[tokio::test]
async fn a_head_with_too_many_fields_is_refused() {
    for header_count in [20, 100] {
        let mut world = World::start(None, ServerLimits { header_count, ..patient() });
        let fields = |mut request: http::Request<_>, count| {
            for number in 0..count {
                request.headers_mut().append("x-field", number.to_string().parse().unwrap());
            }
            request
        };
        let (mut sender, _connection) = http1(world.connect().await).await;
        let response = sender.send_request(fields(get("/"), header_count - 1)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        text(response).await;
        sender.ready().await.unwrap();
        let refused = sender.send_request(fields(get("/"), header_count)).await.unwrap();
        assert_eq!(refused.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

        let (mut sender, _connection) = http2(world.connect().await).await;
        let refused = sender.send_request(fields(get2("/"), header_count + 1)).await.unwrap();
        assert_eq!(refused.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(world.stats.protocol_errors(), 2, "one by each protocol");
        assert_eq!(world.entered.recv().await.unwrap(), "/");
        assert!(world.entered.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_head_with_too_many_bytes_is_refused() {
    let mut world = World::start(None, ServerLimits { header_bytes: 16 * 1024, ..patient() });
    let large = "x".repeat(20 * 1024);
    let mut stream = world.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\nx-large: {large}\r\n\r\n");
    // The server may hang up before it has read all of it.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));

    let (mut sender, _connection) = http2(world.connect().await).await;
    let mut request = get2("/");
    request.headers_mut().insert("x-large", large.parse().unwrap());
    if let Ok(refused) = sender.send_request(request).await {
        assert_eq!(refused.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    assert!(world.entered.try_recv().is_err());
}

#[tokio::test]
async fn beyond_the_limit_a_connection_waits_until_one_is_free() {
    let mut world = World::start(None, ServerLimits { connections: 1, ..patient() });
    let (mut first, _connection) = http2(world.connect().await).await;
    let gated = tokio::spawn(first.send_request(get2("/gated")));
    assert_eq!(soon(world.entered.recv()).await.unwrap(), "/gated");
    let (mut second, _connection) = http1(world.connect().await).await;
    let waiting = tokio::spawn(async move { second.send_request(get("/second")).await.unwrap().status() });
    for _ in 0..3 {
        text(first.send_request(get2("/first")).await.unwrap()).await;
        assert_eq!(world.entered.recv().await.unwrap(), "/first");
    }
    assert_eq!(world.stats.accepted(), 1);
    world.gate.add_permits(1);
    assert_eq!(text(soon(gated).await.unwrap().unwrap()).await, "through");
    drop(first);
    assert_eq!(soon(waiting).await.unwrap(), StatusCode::OK);
    assert_eq!(world.stats.accepted(), 2);
}

#[tokio::test]
async fn at_the_limit_an_idle_connection_makes_room_and_one_in_use_does_not() {
    let sweeping_often = ServerLimits { connections: 2, header_read: SHORT, ..patient() };
    let mut world = World::start(None, sweeping_often);
    let (mut busy, _connection) = http2(world.connect().await).await;
    let gated = tokio::spawn(busy.send_request(get2("/gated")));
    assert_eq!(soon(world.entered.recv()).await.unwrap(), "/gated");
    let (mut idle, closed) = http1(world.connect().await).await;
    text(idle.send_request(get("/")).await.unwrap()).await;

    let (mut newcomer, _connection) = http1(world.connect().await).await;
    assert_eq!(soon(newcomer.send_request(get("/"))).await.unwrap().status(), StatusCode::OK);
    soon(closed).await.unwrap().unwrap();
    world.gate.add_permits(1);
    assert_eq!(text(soon(gated).await.unwrap().unwrap()).await, "through");
}

#[tokio::test]
async fn at_the_limit_a_silent_http_2_connection_that_does_not_leave_is_cut() {
    let sweeping_often = ServerLimits { connections: 1, header_read: SHORT, ..patient() };
    let world = World::start(None, sweeping_often);
    // A preface and empty settings, and no answer to anything from then on.
    let mut silent = world.connect().await;
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut first = [0];
    soon(silent.read_exact(&mut first)).await.unwrap();
    let (mut newcomer, _connection) = http1(world.connect().await).await;
    assert_eq!(soon(newcomer.send_request(get("/"))).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn at_the_limit_a_client_that_has_just_come_is_not_closed_in_its_handshake() {
    let authority = Authority::new("one");
    let limits = ServerLimits { connections: 2, ..patient() };
    let world = World::start(Some(tls(vec![authority.server(&["a.example"])])), limits);
    // With `patient` limits a sweep is a second: these two are younger than that when the third one waits.
    let (one, other) = (world.connect().await, world.connect().await);
    let waiting = world.connect().await;
    let config = || authority.trusted(None, &["http/1.1"]);
    let one = soon(shake_hands(one, "a.example", config())).await.expect("its handshake goes on");
    soon(shake_hands(other, "a.example", config())).await.expect("and so does this one");
    drop(one);
    soon(shake_hands(waiting, "a.example", config())).await.expect("and then it is the third one's turn");
}

#[tokio::test]
async fn an_http_2_client_that_takes_no_answer_is_asked_to_leave_and_its_other_streams_finish() {
    let mut world = World::start(None, ServerLimits { connection_idle: SHORT, ..patient() });
    let stream = hyper_util::rt::TokioIo::new(world.connect().await);
    let mut client = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
    let (mut sender, connection) = client.initial_stream_window_size(0).handshake(stream).await.unwrap();
    let _connection = tokio::spawn(connection);
    let _untaken: Response<Incoming> = soon(sender.send_request(get2("/"))).await.unwrap();
    let gated = tokio::spawn(sender.send_request(get2("/gated")));
    for expected in ["/", "/gated"] {
        assert_eq!(soon(world.entered.recv()).await.unwrap(), expected);
    }
    while soon(sender.send_request(get2("/more"))).await.is_ok() {}
    world.gate.add_permits(1);
    assert_eq!(soon(gated).await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_http_2_client_that_takes_no_answer_and_does_not_leave_is_cut() {
    const SETTINGS_WITHOUT_WINDOW: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    // `GET http://test/`, by the static table of RFC 7541.
    const HEADERS: &[u8] = b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x84\x41\x04test";
    let mut world = World::start(None, ServerLimits { connection_idle: SHORT, ..patient() });
    let mut stream = world.connect().await;
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", SETTINGS_WITHOUT_WINDOW, HEADERS].concat();
    stream.write_all(&opening).await.unwrap();
    assert_eq!(soon(world.entered.recv()).await.unwrap(), "/");
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(world.stats.protocol_errors(), 1);
}

#[tokio::test]
async fn an_answer_survives_the_rest_of_a_request_that_nobody_reads() {
    let authority = Authority::new("one");
    let (head, rest) = ("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4194304\r\n\r\n", vec![0; 4 * 1024 * 1024]);
    for settings in [None, Some(tls(vec![authority.server(&["a.example"])]))] {
        let world = World::start(settings.clone(), patient());
        let stream = world.connect().await;
        let mut answer = Vec::new();
        if settings.is_some() {
            let mut stream = shake_hands(stream, "a.example", authority.trusted(None, &[])).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            soon(stream.write_all(&rest)).await.expect("all of it is taken");
            soon(stream.read_to_end(&mut answer)).await.expect("a proper end");
        } else {
            let mut stream = stream;
            stream.write_all(head.as_bytes()).await.unwrap();
            soon(stream.write_all(&rest)).await.expect("all of it is taken");
            soon(stream.read_to_end(&mut answer)).await.expect("a proper end");
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("address=127.0.0.1"), "{answer}");
    }
}

#[tokio::test]
async fn streams_beyond_the_limit_wait_their_turn() {
    let mut world = World::start(None, ServerLimits { streams_per_connection: 1, ..patient() });
    let (mut sender, _connection) = http2(world.connect().await).await;
    // The first answer shows that the server's settings have arrived.
    text(sender.send_request(get2("/first")).await.unwrap()).await;
    let gated = tokio::spawn(sender.send_request(get2("/gated")));
    assert_eq!(world.entered.recv().await.unwrap(), "/first");
    assert_eq!(world.entered.recv().await.unwrap(), "/gated");
    let mut clone = sender.clone();
    let waiting = tokio::spawn(async move { clone.send_request(get2("/waiting")).await.unwrap().status() });
    let (mut other, _connection) = http1(world.connect().await).await;
    for _ in 0..5 {
        other.ready().await.unwrap();
        text(other.send_request(get("/other")).await.unwrap()).await;
        assert_eq!(world.entered.recv().await.unwrap(), "/other");
    }
    world.gate.add_permits(1);
    assert_eq!(text(soon(gated).await.unwrap().unwrap()).await, "through");
    assert_eq!(soon(waiting).await.unwrap(), StatusCode::OK);
    assert_eq!(world.entered.recv().await.unwrap(), "/waiting");
}

#[tokio::test]
async fn a_flood_of_requests_taken_back_ends_the_connection() {
    let mut world = World::start(None, patient());
    let (mut sender, connection) = http2(world.connect().await).await;
    let mut sent = 0;
    while !connection.is_finished() && sent < 20_000 {
        let Ok(()) = sender.ready().await else { break };
        let request = tokio::spawn(sender.send_request(get2("/gated")));
        tokio::select! {
            entered = world.entered.recv() => assert!(entered.is_some()),
            () = connection_closed(&connection) => {}
        }
        request.abort();
        sent += 1;
    }
    assert!((100..20_000).contains(&sent), "{sent}");
    assert_eq!(world.stats.protocol_errors(), 1);
    // The server serves on.
    let (mut sender, _connection) = http2(world.connect().await).await;
    assert_eq!(sender.send_request(get2("/")).await.unwrap().status(), StatusCode::OK);
}

async fn connection_closed<T>(connection: &tokio::task::JoinHandle<T>) {
    while !connection.is_finished() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_flood_of_pings_or_settings_ends_its_connection_and_no_other() {
    let mut world = World::start(None, patient());
    let (mut other, _connection) = http1(world.connect().await).await;
    for kind in [6_u8, 4] {
        let mut flooding = world.connect().await;
        flooding.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let length = if kind == 6 { 8 } else { 0 };
        let frame = [&[0, 0, length, kind, 0, 0, 0, 0, 0][..], &vec![0; usize::from(length)]].concat();
        let (mut read, mut write) = flooding.into_split();
        // It takes what it is answered, so that nothing but the count ends it.
        let taking = tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        let flood = async { while write.write_all(&frame.repeat(100)).await.is_ok() {} };
        soon(flood).await;
        drop(soon(taking).await);
        assert_eq!(soon(world.told.recv()).await.unwrap(), Anomaly::Flood);
        assert_eq!(soon(other.send_request(get("/"))).await.unwrap().status(), StatusCode::OK);
    }
}
