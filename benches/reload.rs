//! Reading and compiling a configuration, and requests while that happens.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use doorward::audit::{Destination, WhenFull, Writer, WriterSettings};
use doorward::clock::Clock;
use doorward::config::{self, Runtime as State};
use doorward::telemetry::Metrics;
use http::Version;
use hyper::body::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use support::bench::criterion;
use support::client::{self, Connection};
use support::served::Served;
use support::world::World;

/// Pause between two reloads.
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let mut criterion = criterion();
    for policies in [10, 100, 1000] {
        compile(&mut criterion, &runtime, policies);
    }
    let served = runtime.block_on(Served::start(100));
    let connection = runtime.block_on(async {
        let tls = client::tls(served.world.certificate(), Version::HTTP_11);
        Mutex::new(Connection::open(served.doorward, Some(&tls)).await)
    });
    request(&mut criterion, &runtime, "reload/request, quiet", &served, &connection);
    let served = Arc::new(served);
    let reloading = runtime.spawn({
        let served = served.clone();
        async move {
            loop {
                served.running.reload();
                tokio::time::sleep(PAUSE).await;
            }
        }
    });
    request(&mut criterion, &runtime, "reload/request, while reloading", &served, &connection);
    reloading.abort();
    criterion.final_summary();
}

fn compile(criterion: &mut Criterion, runtime: &Runtime, policies: usize) {
    let _inside = runtime.enter();
    let world = World::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), policies);
    let destination = Destination::Callback(Box::new(|_| Ok(())));
    let settings = WriterSettings { destination, queue: 100, when_full: WhenFull::Count };
    let (_writer, audit) = Writer::start(settings).expect("a writer");
    let path = world.configuration();
    let checked = config::load(&path).expect("a sound configuration");
    let state = State::open(&checked, Clock::system(), Arc::new(Metrics::new()), &audit).expect("state");
    let mut group = criterion.benchmark_group("reload");
    group.sample_size(10);
    group.bench_function(format!("compile, {policies} policies"), |b| {
        b.iter(|| {
            let (snapshot, checked) = config::compile(&path, &state).expect("a sound configuration");
            state.take_into_use(&checked);
            snapshot
        });
    });
    group.finish();
}

fn request(criterion: &mut Criterion, runtime: &Runtime, name: &str, served: &Served, connection: &Mutex<Connection>) {
    let authorization = served.world.authorization();
    criterion.bench_function(name, |b| {
        b.to_async(runtime)
            .iter(|| async { connection.lock().await.request("/api/256", &authorization, Bytes::new()).await });
    });
}
