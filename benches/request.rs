//! One request through the whole line over loopback TLS, beside the bare proxy and the upstream without a proxy.

mod support;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use http::Version;
use hyper::body::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use support::bench::criterion;
use support::client::{self, Connection};
use support::served::Served;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let mut criterion = criterion();
    let served = runtime.block_on(Served::start(100));
    for (protocol, version) in [("http1", Version::HTTP_11), ("http2", Version::HTTP_2)] {
        let tls = client::tls(served.world.certificate(), version);
        for (name, address, tls) in [
            ("doorward", served.doorward, Some(&tls)),
            ("bare", served.bare, Some(&tls)),
            ("upstream alone", served.upstream, None),
        ] {
            let connection = runtime.block_on(Connection::open(address, tls));
            requests(&mut criterion, &runtime, &format!("{protocol}/{name}"), connection, &served);
        }
    }
    criterion.final_summary();
    runtime.block_on(served.running.drain());
}

fn requests(criterion: &mut Criterion, runtime: &Runtime, name: &str, connection: Connection, served: &Served) {
    let authorization = served.world.authorization();
    let connection = Mutex::new(connection);
    let mut group = criterion.benchmark_group(format!("request/{name}"));
    group.measurement_time(Duration::from_millis(700));
    for (title, sent, received) in [
        ("0 B", 0, 0),
        ("16 KiB down", 0, 16 << 10),
        ("16 KiB up", 16 << 10, 0),
        ("1 MiB down", 0, 1 << 20),
        ("1 MiB up", 1 << 20, 0),
    ] {
        let body = Bytes::from(vec![b'x'; sent]);
        let path = format!("/api/{received}");
        group.throughput(Throughput::Bytes((sent + received) as u64));
        group.bench_function(title, |b| {
            b.to_async(runtime).iter(|| async {
                let length = connection.lock().await.request(&path, &authorization, body.clone()).await;
                assert_eq!(length, received);
            });
        });
    }
    group.finish();
}
