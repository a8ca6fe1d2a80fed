//! The yardstick: CPU time of one request on one core, beside a bare proxy of the same libraries, and memory.
//!
//! What is counted is the kernel's own account of every thread of the proxy's process (`schedstat`), divided by the
//! requests that were answered with 200. Clients and upstream share one thread on another core, which never sleeps:
//! waking a sleeper costs whoever writes to it, and the slower proxy would be charged more for it. Runs alternate
//! A B B A, and the ratio is taken within each round, so that a busy machine disturbs both alike.
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
use support::world::{World, server_tls};
use support::{bare, upstream};

const ROUNDS: usize = 5;
const MEASURED: Duration = Duration::from_millis(1000);
const IDLE_CONNECTIONS: usize = 1000;
const POLICIES: usize = 100;

/// Most of what the bare proxy takes.
const MOST_RATIO: f64 = 1.6;
const MOST_IDLE_KIB: u64 = 30 * 1024;
const MOST_CONNECTION_KIB: f64 = 40.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["role", name, address_file, directory, rest @ ..] = texts.as_slice() {
        play(name, address_file, directory, rest);
    }
    let option = |name: &str| texts.iter().position(|text| *text == name).and_then(|at| texts.get(at + 1)).copied();
    process::pin_this_process();
    measure(option("--doorward"), option("--against"))
}

/// Serves as the bare proxy until killed.
fn play(name: &str, address_file: &str, directory: &str, rest: &[&str]) -> ! {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let draft = format!("{address_file}.new");
        std::fs::write(&draft, address).expect("a file");
        std::fs::rename(&draft, address_file).expect("a file");
        match (name, rest) {
            ("bare", [upstream]) => {
                let tls = server_tls(directory.as_ref());
                bare::serve(listener, tls, upstream.parse().expect("an address")).await;
            }
            _ => panic!("no role `{name}`"),
        }
    });
    std::process::exit(0)
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
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let command = command
        .replace("{upstream}", &upstream.to_string())
        .replace("{port}", &free.port().to_string())
        .replace("{certificate}", &world.path("server.pem").to_string_lossy())
        .replace("{key}", &world.path("server.key").to_string_lossy());
    Process::other(&command, free)
}

/// Median microseconds of each proxy, and the ratio of the first to the second.
fn compare(client: &Runtime, name: &str, tls: &Arc<ClientConfig>, proxies: &[Proxy], authorization: &Arc<str>) -> f64 {
    let run = |proxy: &Proxy| micros(client, tls, &proxy.process, authorization);
    // The first second fills caches and pools.
    for proxy in proxies {
        run(proxy);
    }
    let mut figures = vec![Vec::new(); proxies.len()];
    let mut ratios = vec![Vec::new(); proxies.len()];
    for _ in 0..ROUNDS {
        let there: Vec<f64> = proxies.iter().map(run).collect();
        let mut back: Vec<f64> = proxies.iter().rev().map(run).collect();
        back.reverse();
        let both: Vec<f64> = there.iter().zip(&back).map(|(there, back)| (there + back) / 2.0).collect();
        for (position, figure) in both.iter().enumerate() {
            figures[position].push(*figure);
            ratios[position].push(figure / both[1]);
        }
    }
    for ((proxy, figures), ratios) in proxies.iter().zip(&mut figures).zip(&mut ratios) {
        println!(
            "{name:<9} {:<9} {:6.2} µs a request, {:.3} x bare ({:.3} to {:.3})",
            proxy.name,
            median(figures),
            median(ratios),
            ratios[0],
            ratios[ratios.len() - 1],
        );
    }
    median(&mut ratios[0])
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU microseconds of the proxy for one request, with every connection busy.
fn micros(client: &Runtime, tls: &Arc<ClientConfig>, proxy: &Process, authorization: &Arc<str>) -> f64 {
    let is_http2 = tls.alpn_protocols == [b"h2"];
    let (connections, streams) = if is_http2 { (8, 8) } else { (32, 1) };
    client.block_on(async {
        let mut callers = Vec::new();
        for _ in 0..connections {
            let mut connection = Connection::open(proxy.address, Some(tls)).await;
            connection.request("/api/256", authorization, Bytes::new()).await;
            for _ in 1..streams {
                callers.extend(connection.another());
            }
            callers.push(connection);
        }
        assert_eq!(callers.len(), connections * streams);
        let before = proxy.cpu();
        let end = Instant::now() + MEASURED;
        let tasks: Vec<_> =
            callers.into_iter().map(|caller| tokio::spawn(requests(caller, authorization.clone(), end))).collect();
        // Keeps this thread from sleeping.
        while Instant::now() < end {
            tokio::task::yield_now().await;
        }
        let mut done = 0;
        for task in tasks {
            done += task.await.expect("every request succeeds");
        }
        process::used(&before, &proxy.cpu()).as_secs_f64() * 1e6 / done as f64
    })
}

/// How many requests one caller makes until `end`, one after the other.
async fn requests(mut caller: Connection, authorization: Arc<str>, end: Instant) -> u64 {
    let mut done = 0;
    while Instant::now() < end {
        assert_eq!(caller.request("/api/256", &authorization, Bytes::new()).await, 256);
        done += 1;
    }
    done
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
