//! One request through the whole line over loopback TLS, beside the bare proxy and the upstream without a proxy.
//!
//! From one world, and then one thing after the other made larger: bodies, tokens, policies, routes.

mod support;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use http::Version;
use hyper::body::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use support::bench::{Rotating, criterion};
use support::client::{self, Connection};
use support::served::Served;
use support::world::World;

const PROTOCOLS: [(&str, Version); 2] = [("http1", Version::HTTP_11), ("http2", Version::HTTP_2)];
const TOKENS: usize = 10_000;
const SMALL: (&str, usize, usize) = ("256 B down", 0, 256);
/// Bytes up and down.
const BODIES: [(&str, usize, usize); 5] = [
    SMALL,
    ("16 KiB down", 0, 16 << 10),
    ("16 KiB up", 16 << 10, 0),
    ("1 MiB down", 0, 1 << 20),
    ("1 MiB up", 1 << 20, 0),
];

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let mut criterion = criterion();
    bodies_and_tokens(&mut criterion, &runtime);
    for (routes, policies_a_route) in [(1, 5), (2, 5), (200, 5), (1000, 10), (10_000, 1)] {
        world(&mut criterion, &runtime, routes, policies_a_route);
    }
    criterion.final_summary();
}

/// With 100 policies on 20 routes.
fn bodies_and_tokens(criterion: &mut Criterion, runtime: &Runtime) {
    let served = runtime.block_on(Served::start(100));
    let authorization = served.world.authorization();
    let tokens: Vec<String> = (0..TOKENS).map(|_| served.world.authorization()).collect();
    for (protocol, version) in PROTOCOLS {
        let doorward = open(runtime, &served, served.doorward, version);
        requests(criterion, runtime, &format!("{protocol}/doorward"), &doorward, &authorization, &BODIES);
        new_tokens(criterion, runtime, &format!("{protocol}/doorward"), &doorward, &served.world);
        tokens_in_turn(criterion, runtime, &format!("{protocol}/doorward"), &doorward, &tokens);
        let bare = open(runtime, &served, served.bare, version);
        requests(criterion, runtime, &format!("{protocol}/bare"), &bare, &authorization, &BODIES);
    }
    let upstream = Mutex::new(runtime.block_on(Connection::open(served.upstream, None)));
    requests(criterion, runtime, "http1/upstream alone", &upstream, &authorization, &BODIES);
    runtime.block_on(served.running.drain());
}

fn world(criterion: &mut Criterion, runtime: &Runtime, routes: usize, policies_a_route: usize) {
    let served = runtime.block_on(Served::with(|upstream| World::with(upstream, routes, policies_a_route)));
    let authorization = served.world.authorization();
    for (protocol, version) in PROTOCOLS {
        let connection = open(runtime, &served, served.doorward, version);
        let name = format!("{protocol}/doorward, {} policies, {routes} routes", routes * policies_a_route);
        requests(criterion, runtime, &name, &connection, &authorization, &[SMALL]);
    }
    runtime.block_on(served.running.drain());
}

fn open(runtime: &Runtime, served: &Served, address: SocketAddr, version: Version) -> Mutex<Connection> {
    let tls = client::tls(served.world.certificate(), version);
    Mutex::new(runtime.block_on(Connection::open(address, Some(&tls))))
}

fn requests(
    criterion: &mut Criterion,
    runtime: &Runtime,
    name: &str,
    connection: &Mutex<Connection>,
    authorization: &str,
    bodies: &[(&str, usize, usize)],
) {
    let mut group = criterion.benchmark_group(format!("request/{name}"));
    group.measurement_time(Duration::from_millis(700));
    for (title, sent, received) in bodies {
        let body = Bytes::from(vec![b'x'; *sent]);
        let path = format!("/api/{received}");
        group.throughput(Throughput::Bytes((sent + received) as u64));
        group.bench_function(*title, |b| {
            b.to_async(runtime).iter(|| async {
                let length = connection.lock().await.request(&path, authorization, body.clone()).await;
                assert_eq!(length, *received);
            });
        });
    }
    group.finish();
}

/// Each request with a token that is shown for the first time.
fn new_tokens(criterion: &mut Criterion, runtime: &Runtime, name: &str, connection: &Mutex<Connection>, world: &World) {
    criterion.bench_function(&format!("request/{name}/256 B down, token new"), |b| {
        b.to_async(runtime).iter_batched(
            || world.authorization(),
            |authorization| async move {
                connection.lock().await.request("/api/256", &authorization, Bytes::new()).await
            },
            BatchSize::SmallInput,
        );
    });
}

/// Callers one after the other, each of whom was here before.
fn tokens_in_turn(
    criterion: &mut Criterion,
    runtime: &Runtime,
    name: &str,
    connection: &Mutex<Connection>,
    tokens: &[String],
) {
    let turn = RefCell::new(Rotating::over(tokens));
    let once = || {
        let token = turn.borrow_mut().next();
        async move { connection.lock().await.request("/api/256", token, Bytes::new()).await }
    };
    runtime.block_on(async {
        for _ in 0..tokens.len() {
            once().await;
        }
    });
    criterion.bench_function(&format!("request/{name}/256 B down, {TOKENS} tokens in turn"), |b| {
        b.to_async(runtime).iter(once);
    });
}
