//! The yardstick: CPU time of one request on one core, beside a bare proxy of the same libraries, and memory.
//!
//! What is counted is the kernel's own account of every thread of the proxy's process (`schedstat`), divided by the
//! requests that were answered with 200. Clients and upstream share one thread on another core, which never sleeps:
//! waking a sleeper costs whoever writes to it, and the slower proxy would be charged more for it. Short slices
//! alternate A B B A over connections that stay open, and the ratio is taken within each round of slices: a neighbour
//! of this machine disturbs both sides of a round alike, and the median leaves out the rounds where it did not.
//!
//! `cargo bench --bench cpu -- --against 'COMMAND'` measures one more proxy in the same rounds. In the command,
//! `{upstream}` is the upstream's `address:port`, `{port}` the port to listen on, `{certificate}` and `{key}` PEM
//! files. It has to serve what the bare one serves. `--doorward PATH` measures another build of Doorward.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::disallowed_methods, reason = "it waits for the kernel's own account to settle")]

mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Version;
use hyper::body::Bytes;
use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use support::client::{self, Connection};
use support::process::{self, Process};
use support::world::World;
use support::{role, upstream};

const ROUNDS: usize = 40;
const SLICE: Duration = Duration::from_millis(100);
/// Before the first slice of each proxy: it fills caches and pools.
const WARMING: Duration = Duration::from_secs(1);
const IDLE_CONNECTIONS: usize = 1000;
const POLICIES: usize = 100;

/// Most of what the bare proxy takes.
const MOST_RATIO: f64 = 1.6;
const MOST_IDLE_KIB: u64 = 30 * 1024;
const MOST_CONNECTION_KIB: f64 = 40.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["role", rest @ ..] = texts.as_slice() {
        role::play(rest);
    }
    let option = |name: &str| texts.iter().position(|text| *text == name).and_then(|at| texts.get(at + 1)).copied();
    process::pin_this_process();
    measure(option("--doorward"), option("--against"))
}

struct Proxy {
    name: &'static str,
    process: Process,
}

fn measure(binary: Option<&str>, against: Option<&str>) -> ExitCode {
    let client = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = client.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let upstream = listener.local_addr().expect("an address");
    client.spawn(upstream::serve(listener));
    let world = World::new(upstream, POLICIES);
    let authorization: Arc<str> = world.authorization().into();

    let (idle, connection) = memory(&client, &world, binary, &authorization);
    let mut proxies = vec![
        Proxy { name: "doorward", process: Process::doorward(&world, binary) },
        Proxy { name: "bare", process: bare_process(&world, upstream) },
    ];
    if let Some(command) = against {
        proxies.push(Proxy { name: "other", process: other_process(command, &world, upstream) });
    }
    println!("memory         idle {:.1} MiB, one idle TLS connection {connection:.1} KiB", idle as f64 / 1024.0);
    let mut good = idle <= MOST_IDLE_KIB && connection <= MOST_CONNECTION_KIB;
    for (name, version) in [("http/1.1", Version::HTTP_11), ("http/2", Version::HTTP_2)] {
        let tls = client::tls(world.certificate(), version);
        let ratio = compare(&client, name, &tls, &proxies, &authorization);
        good &= ratio <= MOST_RATIO || version == Version::HTTP_2;
    }
    println!(
        "bounds         http/1.1 {MOST_RATIO} x bare, idle {} MiB, connection {MOST_CONNECTION_KIB} KiB: {}",
        MOST_IDLE_KIB / 1024,
        if good { "kept" } else { "BROKEN" }
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bare_process(world: &World, upstream: SocketAddr) -> Process {
    Process::role(world.directory(), "bare", &[&upstream.to_string()])
}

fn other_process(command: &str, world: &World, upstream: SocketAddr) -> Process {
    let free = process::free_address();
    let command = command
        .replace("{upstream}", &upstream.to_string())
        .replace("{port}", &free.port().to_string())
        .replace("{certificate}", &world.path("server.pem").to_string_lossy())
        .replace("{key}", &world.path("server.key").to_string_lossy());
    Process::other(&command, free)
}

/// Prints the median microseconds of each proxy; answers the median ratio of the first to the second.
fn compare(client: &Runtime, name: &str, tls: &Arc<ClientConfig>, proxies: &[Proxy], authorization: &Arc<str>) -> f64 {
    let mut sides: Vec<Side> =
        proxies.iter().map(|proxy| Side::open(client, tls, &proxy.process, authorization)).collect();
    for side in &mut sides {
        side.micros(client, WARMING);
    }
    let mut figures = vec![Vec::new(); sides.len()];
    let mut ratios = vec![Vec::new(); sides.len()];
    for _ in 0..ROUNDS {
        let there: Vec<f64> = sides.iter_mut().map(|side| side.micros(client, SLICE)).collect();
        let mut back: Vec<f64> = sides.iter_mut().rev().map(|side| side.micros(client, SLICE)).collect();
        back.reverse();
        let both: Vec<f64> = there.iter().zip(&back).map(|(there, back)| (there + back) / 2.0).collect();
        for (position, figure) in both.iter().enumerate() {
            figures[position].push(*figure);
            ratios[position].push(figure / both[1]);
        }
    }
    for ((proxy, figures), ratios) in proxies.iter().zip(&mut figures).zip(&mut ratios) {
        println!(
            "{name:<9} {:<9} {:6.2} µs a request, {:.3} x bare (half the rounds {:.3} to {:.3})",
            proxy.name,
            quantile(figures, 2),
            quantile(ratios, 2),
            quantile(ratios, 1),
            quantile(ratios, 3),
        );
    }
    quantile(&mut ratios[0], 2)
}

fn quantile(values: &mut [f64], quarter: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * quarter / 4]
}

/// One proxy with the connections that its clients keep.
struct Side<'process> {
    process: &'process Process,
    callers: Vec<Connection>,
    authorization: Arc<str>,
}

impl<'process> Side<'process> {
    fn open(client: &Runtime, tls: &Arc<ClientConfig>, process: &'process Process, authorization: &Arc<str>) -> Self {
        let (connections, streams) = if tls.alpn_protocols == [b"h2"] { (8, 8) } else { (32, 1) };
        let mut callers = Vec::new();
        client.block_on(async {
            for _ in 0..connections {
                let mut connection = Connection::open(process.address, Some(tls)).await;
                connection.request("/api/256", authorization, Bytes::new()).await;
                callers.extend((1..streams).filter_map(|_| connection.another()));
                callers.push(connection);
            }
        });
        assert_eq!(callers.len(), connections * streams);
        Self { process, callers, authorization: Arc::clone(authorization) }
    }

    /// CPU microseconds of the proxy for one request, with every connection busy.
    fn micros(&mut self, client: &Runtime, measured: Duration) -> f64 {
        client.block_on(async {
            let before = self.process.cpu();
            let end = Instant::now() + measured;
            let callers = self.callers.drain(..);
            let tasks: Vec<_> =
                callers.map(|caller| tokio::spawn(requests(caller, Arc::clone(&self.authorization), end))).collect();
            // Keeps this thread from sleeping.
            while Instant::now() < end {
                tokio::task::yield_now().await;
            }
            let mut done = 0;
            for task in tasks {
                let (caller, answered) = task.await.expect("every request succeeds");
                self.callers.push(caller);
                done += answered;
            }
            process::used(&before, &self.process.cpu()).as_secs_f64() * 1e6 / done as f64
        })
    }
}

/// How many requests one caller makes until `end`, one after the other.
async fn requests(mut caller: Connection, authorization: Arc<str>, end: Instant) -> (Connection, u64) {
    let mut done = 0;
    while Instant::now() < end {
        assert_eq!(caller.request("/api/256", &authorization, Bytes::new()).await, 256);
        done += 1;
    }
    (caller, done)
}

/// Resident KiB of a process that has just started, and of one idle TLS connection that has made a request.
fn memory(client: &Runtime, world: &World, binary: Option<&str>, authorization: &str) -> (u64, f64) {
    let doorward = Process::doorward(world, binary);
    // Whatever the start still does ends meanwhile; nothing depends on how long that takes.
    std::thread::sleep(Duration::from_millis(500));
    let idle = doorward.resident_kib();
    let tls = client::tls(world.certificate(), Version::HTTP_11);
    client.block_on(async {
        let mut open = Vec::with_capacity(IDLE_CONNECTIONS);
        for _ in 0..IDLE_CONNECTIONS {
            let mut connection = Connection::open(doorward.address, Some(&tls)).await;
            connection.request("/api/256", authorization, Bytes::new()).await;
            open.push(connection);
        }
        let full = doorward.resident_kib();
        (idle, full.saturating_sub(idle) as f64 / IDLE_CONNECTIONS as f64)
    })
}
