//! Many connections at once, and more than there are descriptors or places for.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::share;
use crate::support::{RecordingUpstream, Script, World, eventually, within};

/// Raises the test's own limit of open files to the hard one.
fn raise_own_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[tokio::test]
async fn idle_tls_connections_cost_little_and_a_newcomer_is_served_beside_them() {
    const MOST_KIB_EACH: u64 = 38;
    raise_own_limit();
    let crowd = share(10_000);
    let limits = json!({ "limits": { "connections": 12_000, "concurrent_requests": 1000, "connection_idle": "10m" } });
    let world = World::start(|gate| gate.config(limits)).await;
    world.gate.becomes_ready(200).await;
    let token = world.token();
    assert_eq!(world.gate.get("/things/1").bearer(&token).send().await.status, 200);
    let before = world.gate.resident_kib();
    let mut idle = Vec::with_capacity(crowd);
    while idle.len() < crowd {
        let next = (crowd - idle.len()).min(50);
        idle.extend(futures_util::future::join_all((0..next).map(|_| world.gate.stream())).await);
    }
    let open = || async { (world.gate.metric("doorward_connections", &[]).await >= crowd as f64).then_some(()) };
    eventually("all of them to be open", open).await;
    let after = world.gate.resident_kib();
    assert_eq!(world.gate.get("/things/2").bearer(&token).send().await.status, 200);
    let each = (after - before) / crowd as u64;
    println!("{crowd} idle TLS connections: {} MiB resident, {each} KiB each", after / 1024);
    assert!(after < 400 * 1024, "{after} KiB");
    // A tenth of them shows what each costs, with what the allocator keeps besides.
    assert!(each <= MOST_KIB_EACH || crowd < 10_000 && each <= 2 * MOST_KIB_EACH, "{each} KiB each");
}

#[tokio::test]
async fn with_few_descriptors_accepting_pauses_the_admin_listener_answers_and_all_recovers() {
    let world = World::start(|gate| gate.limited("ulimit -n 220")).await;
    world.gate.becomes_ready(200).await;
    let token = world.token();
    let mut crowd = Vec::new();
    for _ in 0..400 {
        crowd.push(TcpStream::connect(world.gate.address()).await.unwrap());
    }
    for _ in 0..5 {
        assert_eq!(world.gate.admin().get("/livez").send().await.status, 200);
        assert!(world.gate.metric("doorward_connections", &[]).await < 100.0);
    }
    drop(crowd);
    assert_eq!(world.gate.get("/things/1").bearer(&token).send().await.status, 200);
    assert_eq!(world.gate.only_record_of("/things/1").await.verdict(), ("allow", "ok"));
    assert!(!world.gate.log().contains("panic"), "{}", world.gate.log());
}

#[tokio::test]
async fn beyond_the_limit_requests_are_refused_at_once_and_those_within_are_answered() {
    const PLACES: usize = 20;
    let world = World::start(|gate| gate.config(json!({ "limits": { "concurrent_requests": PLACES } }))).await;
    world.gate.becomes_ready(200).await;
    let token = world.token();
    let mut held = Vec::new();
    for place in 0..PLACES {
        let (pieces, script) = Script::pieces("text/plain");
        let path = format!("/things/held{place}");
        world.upstream.script(&path, script);
        held.push((pieces, world.gate.get(&path).bearer(&token).begin().await));
    }
    let mut connection = world.gate.http1().await;
    let mut waits = Vec::new();
    for number in 0..share(2000) {
        let request = world.gate.get(&format!("/things/over{number}")).bearer(&token).into_http1();
        connection.ready().await.unwrap();
        let asked = Instant::now();
        let answer = within("a refusal", connection.send_request(request)).await.unwrap();
        waits.push(asked.elapsed());
        assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "1"));
        crate::support::Answer::read(answer).await;
    }
    assert_eq!(world.gate.admin().get("/livez").send().await.status, 200);
    waits.sort_unstable();
    let (middle, slowest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("{} refusals beyond {PLACES} places: p50 {middle:?}, max {slowest:?}", waits.len());
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert_eq!(received(&world.upstream, "over"), 0);
    for (pieces, answer) in held {
        pieces.send("whole".into()).await.unwrap();
        drop(pieces);
        assert_eq!(crate::support::Answer::read(answer).await.text(), "whole");
    }
}

fn received(upstream: &RecordingUpstream, part: &str) -> usize {
    upstream.received().iter().filter(|received| received.target.contains(part)).count()
}

#[tokio::test]
async fn mute_and_stalled_clients_are_gone_soon_after_their_time() {
    let times = json!({ "limits": { "handshake": "1s", "header_read": "1s", "connection_idle": "1s" } });
    let world = World::start(|gate| gate.config(times)).await;
    world.gate.becomes_ready(200).await;
    for what in ["no handshake", "half a handshake", "half a head", "no request"] {
        let begun = Instant::now();
        if what.ends_with("handshake") {
            let mut stream = TcpStream::connect(world.gate.address()).await.unwrap();
            if what.starts_with("half") {
                stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
            }
            within("the end", async { while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {} }).await;
        } else {
            let mut connection = world.gate.raw().await;
            if what.starts_with("half") {
                connection.send("GET /things/1 HTTP/1.1\r\nHo").await;
            }
            connection.hangs_up().await;
        }
        let took = begun.elapsed();
        println!("{what}: gone {took:?} after it began, with a time of 1 s");
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(21), "{what}: {took:?}");
    }
}
