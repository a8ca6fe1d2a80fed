//! An upstream that fails in twelve ways between good answers, and one that goes away and comes back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::share;
use crate::support::{Authority, Client, Gate, RecordingUpstream, RunningGate, StaticIssuer, eventually, within};

/// What the upstream does with a request whose path says so.
const KINDS: [&str; 12] = [
    "closed",
    "reset",
    "half-head",
    "no-http",
    "two-lengths",
    "two-framings",
    "short-body",
    "cut-chunks",
    "bad-chunk",
    "reset-body",
    "second-answer",
    "silent",
];

/// How often each path came, with its method.
type Heard = Arc<Mutex<HashMap<String, usize>>>;

/// A server without any HTTP library, so that it can break every rule.
async fn faulty_upstream() -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let heard = Heard::default();
    let counting = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, counting.clone()));
        }
    });
    (address, heard)
}

/// Serves requests one after another until one of them asks for the connection's end.
async fn serve(mut stream: TcpStream, heard: Heard) {
    let mut pending = Vec::new();
    while let Some((method, path)) = request(&mut stream, &mut pending).await {
        *heard.lock().unwrap().entry(format!("{method} {path}")).or_default() += 1;
        let kind = path.trim_start_matches("/things/").rsplit_once('_').map_or("", |(kind, _)| kind);
        let length = path.len();
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}");
        let answer = match kind {
            "closed" => return,
            "reset" => return reset(stream),
            "half-head" => "HTTP/1.1 200 OK\r\nContent-Le".to_owned(),
            "no-http" => "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
            "two-lengths" => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Length: 1\r\n\r\n{path}"),
            "two-framings" => format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
            ),
            "short-body" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", length + 10),
            "cut-chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n".to_owned(),
            "bad-chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nbegun\r\n0\r\n\r\n".to_owned(),
            "reset-body" => {
                let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", length + 10);
                let _hung_up = stream.write_all(begun.as_bytes()).await;
                return reset(stream);
            }
            "second-answer" => format!("{whole}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
            "silent" => {
                // Until the gate gives up.
                let _ended = stream.read(&mut [0]).await;
                return;
            }
            _ => whole,
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if !matches!(kind, "" | "good" | "second-answer") {
            return;
        }
    }
}

/// Ends the connection by RST.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Method and path of the next request, its body read; `None` at the connection's end.
async fn request(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<(String, String)> {
    let end = loop {
        if let Some(at) = pending.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        (stream.read_buf(pending).await.ok()? > 0).then_some(())?;
    };
    let head = String::from_utf8(pending[..end].to_vec()).unwrap();
    let lower = head.to_ascii_lowercase();
    let length =
        lower.split("content-length: ").nth(1).map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    while pending.len() < end + length {
        (stream.read_buf(pending).await.ok()? > 0).then_some(())?;
    }
    pending.drain(..end + length);
    let mut words = head.split(' ');
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

async fn world(address: &str) -> (RunningGate, StaticIssuer) {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let unused = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &unused)
        .config(json!({ "upstreams": { "api": { "addresses": [address] } } }))
        .route("things", json!({ "path": "/things/{*rest}", "limits": { "first_byte": "1s" } }))
        .start()
        .await;
    gate.becomes_ready(200).await;
    (gate, issuer)
}

/// Status and body; `None` for what broke off: a body, or all of an answer whose body broke before its head was sent.
async fn ask(client: &Client, token: &str, path: &str, is_post: bool) -> (StatusCode, Option<String>) {
    let draft = if is_post { client.post(path).body("pay") } else { client.get(path) };
    let mut connection = client.http1().await;
    let answer = within("an answer", connection.send_request(draft.bearer(token).into_http1())).await;
    let Ok(answer) = answer else { return (StatusCode::OK, None) };
    let status = answer.status();
    let body = within("the answer's end", answer.into_body().collect()).await;
    (status, body.ok().map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap()))
}

#[tokio::test]
async fn faults_of_an_upstream_reach_nobody_but_their_own_caller() {
    let faults = share(1000);
    let (address, heard) = faulty_upstream().await;
    let (gate, issuer) = world(&address).await;
    let token = issuer.token().groups(&["readers", "writers"]).mint();
    let caller = |caller: usize| {
        let (client, token) = (Client::clone(&gate), token.clone());
        async move {
            let mut broken = 0;
            for round in (caller..faults).step_by(4) {
                let (kind, is_post) = (KINDS[round % KINDS.len()], round % 2 == 0);
                let (status, body) = ask(&client, &token, &format!("/things/{kind}_{round}"), is_post).await;
                match kind {
                    // What stands behind a whole answer is dropped with its connection.
                    "second-answer" => {
                        assert_eq!((status.as_u16(), body), (200, Some(format!("/things/{kind}_{round}"))))
                    }
                    "short-body" | "cut-chunks" | "bad-chunk" | "reset-body" => {
                        let told = status.is_server_error();
                        assert!(told || body.is_none(), "{kind}: {body:?} passed as whole");
                        broken += usize::from(!told);
                    }
                    "silent" => assert_eq!(status, 504, "{kind}"),
                    _ => assert_eq!(status, 502, "{kind}"),
                }
                let good = format!("/things/good_{round}");
                let (status, body) = ask(&client, &token, &good, !is_post).await;
                assert_eq!((status.as_u16(), body.as_deref()), (200, Some(good.as_str())), "after {kind}");
            }
            broken
        }
    };
    let broken: usize = futures_util::future::join_all((0..4).map(caller)).await.into_iter().sum();
    assert!(broken > 0, "some broke off after their head");
    let heard = heard.lock().unwrap().clone();
    let twice: Vec<_> = heard.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    assert_eq!(heard.len(), 2 * faults, "each came");
    let records = gate.settled_audit().await;
    let of_requests =
        records.iter().filter(|record| record.event() == "request" && record.text("path").starts_with("/things/"));
    assert_eq!(of_requests.count(), 2 * faults, "one record each");
    println!("{faults} faults of {} kinds, {broken} after the head: none reached another caller", KINDS.len());
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_used_at_once() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    gate.becomes_ready(200).await;
    let token = issuer.token().groups(&["readers"]).mint();
    let ask = || async { gate.get("/things/1").bearer(&token).send().await.status.as_u16() };
    assert_eq!(ask().await, 200);
    upstream.go_away().await;
    // More failures than set an address aside: it is the only one.
    for _ in 0..12 {
        assert_eq!(ask().await, 502);
    }
    upstream.come_up().await;
    let came_back = Instant::now();
    eventually("an answer", || async { (ask().await == 200).then_some(()) }).await;
    let took = came_back.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    println!("served again {took:?} after the upstream came back");
}
