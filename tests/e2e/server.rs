//! Listeners, and who the caller is taken for.

use http::Request;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpStream, UnixStream};

use crate::support::{Answer, HOST, RawConnection, World};

#[tokio::test]
async fn a_sidecar_is_served_over_loopback_and_over_a_unix_socket() {
    let world = World::start(|gate| {
        gate.config(json!({ "listeners": {
            "sidecar": { "address": "127.0.0.1:0" },
            "socket": { "address": "unix:doorward.sock" },
        } }))
    })
    .await;
    let token = world.token();
    let request = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n")
    };
    let address: std::net::SocketAddr = world.gate.listener_address("sidecar").parse().unwrap();
    let mut loopback = RawConnection::new(TcpStream::connect(address).await.unwrap());
    loopback.send(request("/things/loopback")).await;
    assert_eq!(loopback.answer().await.unwrap().status, 200);

    let path = world.gate.path("doorward.sock");
    let mut socket = RawConnection::new(UnixStream::connect(&path).await.unwrap());
    socket.send(request("/things/socket")).await;
    assert_eq!(socket.answer().await.unwrap().status, 200);
    assert_eq!(world.gate.only_record_of("/things/socket").await.text("listener"), "socket");
    assert_eq!(world.upstream.received()[1].header("x-forwarded-proto"), Some("http"));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o007, 0, "strangers may not connect");
}

#[tokio::test]
async fn a_plain_listener_speaks_http2_by_prior_knowledge() {
    let world =
        World::start(|gate| gate.config(json!({ "listeners": { "sidecar": { "address": "127.0.0.1:0" } } }))).await;
    let address: std::net::SocketAddr = world.gate.listener_address("sidecar").parse().unwrap();
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("http://{HOST}/things/1"))
        .header("authorization", format!("Bearer {}", world.token()))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    assert_eq!(Answer::read(sender.send_request(request).await.unwrap()).await.status, 200);
}

#[tokio::test]
async fn a_plain_listener_that_others_can_reach_must_say_why() {
    let open = |plain: serde_json::Value| {
        move |gate: crate::support::Gate| {
            let gate = gate.config(json!({ "listeners": { "open": { "address": "0.0.0.0:0" } } }));
            if plain.is_null() { gate } else { gate.config(json!({ "listeners": { "open": { "plain": plain } } })) }
        }
    };
    let (code, told) = World::refused(open(json!(null))).await;
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("speaks plain HTTP on an address that others can reach"), "{told}");
    assert!(has_place(&told, "doorward.yaml"), "{told}");
    World::start(open(json!({ "reason": "the mesh in front speaks TLS" }))).await;
}

#[tokio::test]
async fn nobody_trusts_the_whole_internet() {
    for network in ["0.0.0.0/0", "::/0", "0.0.0.0/1"] {
        let (code, told) = World::refused(|gate| gate.config(json!({ "trusted_proxies": [network] }))).await;
        assert_eq!(code, 2, "{told}");
        assert!(told.contains(network) && told.contains("takes strangers for load balancers"), "{told}");
        assert!(has_place(&told, "doorward.yaml"), "{told}");
        let proxied = json!({ "listeners": { "public": { "proxy_protocol": { "from": [network] } } } });
        let (code, told) = World::refused(|gate| gate.config(proxied)).await;
        assert_eq!(code, 2, "{told}");
    }
}

/// Whether `FILE:LINE:COLUMN` stands in a text.
fn has_place(text: &str, file: &str) -> bool {
    text.split(file).skip(1).any(|after| {
        let mut parts =
            after.split(':').skip(1).map(|part| part.trim_end_matches(|other: char| !other.is_ascii_digit()));
        let mut number =
            || parts.next().is_some_and(|part| part.chars().next().is_some_and(|first| first.is_ascii_digit()));
        number() && number()
    })
}

#[tokio::test]
async fn a_named_load_balancer_is_believed_about_the_caller() {
    let world = World::start(|gate| {
        gate.config(json!({ "trusted_proxies": ["127.0.0.0/8"] })).policy(
            r#"@id("not-from-there") forbid(principal, action, resource) when { context.source_ip == ip("203.0.113.9") };"#,
        )
    })
    .await;
    let ask = async |forwarded: &str, path: &str| {
        let draft = world.gate.get(path).header("x-forwarded-for", forwarded).header("x-forwarded-proto", "http");
        draft.bearer(&world.token()).send().await.status
    };
    assert_eq!(ask("203.0.113.9", "/things/there").await, 403, "policy sees the caller");
    let record = world.gate.only_record_of("/things/there").await;
    assert_eq!((record.text("peer"), record.text("source")), ("127.0.0.1", "203.0.113.9"));
    assert_eq!(ask("203.0.113.9, 198.51.100.7", "/things/here").await, 200, "the last hop that is not trusted counts");
    let received = world.upstream.only();
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
    assert!(received.header("x-forwarded-for").unwrap().contains("198.51.100.7"));
    assert!(!received.header("x-forwarded-for").unwrap().contains("203.0.113.9"), "{:?}", received.headers);
}

#[tokio::test]
async fn a_caller_who_is_no_load_balancer_is_not_believed() {
    let world = World::start(|gate| {
        gate.config(json!({ "trusted_proxies": ["10.0.0.0/8"] })).policy(
            r#"@id("only-from-there") forbid(principal, action, resource) unless { context.source_ip == ip("10.1.1.1") };"#,
        )
    })
    .await;
    for header in ["x-forwarded-for", "forwarded", "x-real-ip", "client-ip", "true-client-ip"] {
        let value = if header == "forwarded" { "for=10.1.1.1" } else { "10.1.1.1" };
        let answer = world.gate.get("/things/1").header(header, value).bearer(&world.token()).send().await;
        assert_eq!(answer.status, 403, "{header}");
    }
    world.upstream.heard_nothing();
}
