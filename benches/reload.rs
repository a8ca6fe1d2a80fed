//! Reading and compiling a configuration, and requests while that happens.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use doorward::audit::{Destination, WhenFull, Writer, WriterSettings};
use doorward::clock::Clock;
use doorward::config::{self, Runtime as State};
use doorward::proxy::Snapshot;
use doorward::telemetry::Metrics;
use http::Version;
use hyper::body::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use support::bench::{criterion, note};
use support::client::{self, Connection};
use support::served::Served;
use support::steps::NOWHERE;
use support::world::World;

/// Pause between two reloads.
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let mut criterion = criterion();
    for policies in [10, 100, 1000] {
        compile(&mut criterion, &runtime, policies);
    }
    for (routes, policies_a_route) in [(1000, 10), (2000, 5), (10_000, 1)] {
        compile_once(&runtime, routes, policies_a_route);
    }
    requests(&mut criterion, &runtime, 20, 5);
    requests(&mut criterion, &runtime, 1000, 10);
    criterion.final_summary();
}

/// Requests while nothing is reloaded, and while that happens again and again.
fn requests(criterion: &mut Criterion, runtime: &Runtime, routes: usize, policies_a_route: usize) {
    let served = runtime.block_on(Served::with(|upstream| World::with(upstream, routes, policies_a_route)));
    let connection = runtime.block_on(async {
        let tls = client::tls(served.world.certificate(), Version::HTTP_11);
        Mutex::new(Connection::open(served.doorward, Some(&tls)).await)
    });
    let title = format!("{} policies", routes * policies_a_route);
    request(criterion, runtime, &format!("reload/request, {title}, quiet"), &served, &connection);
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
    request(criterion, runtime, &format!("reload/request, {title}, while reloading"), &served, &connection);
    reloading.abort();
}

fn compile(criterion: &mut Criterion, runtime: &Runtime, policies: usize) {
    let _inside = runtime.enter();
    let compiler = Compiler::of(World::new(NOWHERE, policies));
    let mut group = criterion.benchmark_group("reload");
    group.sample_size(10);
    group.bench_function(format!("compile, {policies} policies"), |b| b.iter(|| compiler.compile()));
    group.finish();
}

/// Seconds, too long for criterion.
fn compile_once(runtime: &Runtime, routes: usize, policies_a_route: usize) {
    let _inside = runtime.enter();
    let compiler = Compiler::of(World::with(NOWHERE, routes, policies_a_route));
    let began = Instant::now();
    drop(compiler.compile());
    note(&format!("reload/compile, {} policies, {routes} routes", routes * policies_a_route), began.elapsed());
}

/// What a configuration is compiled with.
struct Compiler {
    world: World,
    state: State,
    _writer: Writer,
}

impl Compiler {
    fn of(world: World) -> Self {
        let destination = Destination::Callback(Box::new(|_| Ok(())));
        let settings = WriterSettings { destination, queue: 100, when_full: WhenFull::Count };
        let (writer, audit) = Writer::start(settings).expect("a writer");
        let checked = config::load(&world.configuration()).expect("a sound configuration");
        let state = State::open(&checked, Clock::system(), Arc::new(Metrics::new()), &audit).expect("state");
        Self { world, state, _writer: writer }
    }

    fn compile(&self) -> Snapshot {
        let (snapshot, checked) =
            config::compile(&self.world.configuration(), &self.state).expect("a sound configuration");
        self.state.take_into_use(&checked);
        snapshot
    }
}

fn request(criterion: &mut Criterion, runtime: &Runtime, name: &str, served: &Served, connection: &Mutex<Connection>) {
    let authorization = served.world.authorization();
    criterion.bench_function(name, |b| {
        b.to_async(runtime)
            .iter(|| async { connection.lock().await.request("/api/256", &authorization, Bytes::new()).await });
    });
}
