//! Ten minutes at 70 % of what one worker can serve: memory that stays where it is, and how long callers wait meanwhile.
//!
//! `cargo bench --bench steady` prints its figures and fails when memory moves by more than 2 % from the first quarter of
//! the samples to the last; `-- --seconds 60` takes less time. The first tenth fills caches and pools, and does not
//! count. Medians are compared: single samples differ by what the allocator gives back and takes again.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use hyper::body::Bytes;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use support::client::{self, Connection};
use support::process::{self, Process};
use support::upstream;
use support::world::World;

const SECONDS: u64 = 600;
/// Each of a caller with a token of its own.
const CONNECTIONS: usize = 16;
/// Of what the worker can serve.
const SHARE: f64 = 0.7;
const MEASURING: Duration = Duration::from_secs(5);
const SAMPLES: u64 = 60;
const MOST_CHANGE_PERCENT: f64 = 2.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let named = arguments.iter().position(|argument| argument == "--seconds");
    let seconds = named.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(SECONDS);
    process::pin_this_process();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(Duration::from_secs(seconds)))
}

async fn measure(time: Duration) -> ExitCode {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(upstream::serve(listener));
    let world = World::new(address, 100);
    let gate = Process::doorward(&world, None);
    let tls = client::tls(world.certificate(), Version::HTTP_11);
    let mut callers = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let authorization: Arc<str> = world.authorization().into();
        callers.push((Connection::open(gate.address, Some(&tls)).await, authorization));
    }

    let (callers, waits) = run(callers, MEASURING, None).await;
    let most = waits.len() as f64 / MEASURING.as_secs_f64();
    let rate = most * SHARE;
    println!("closed loop    {most:.0} requests a second on {CONNECTIONS} connections; {rate:.0} from here on");

    let sampling = async {
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            sleep(time / u32::try_from(SAMPLES).unwrap_or(1)).await;
            samples.push(gate.resident_kib());
        }
        samples
    };
    let ((_, mut waits), samples) = tokio::join!(run(callers, time, Some(rate)), sampling);
    waits.sort_unstable();
    let at = |share: usize| waits.get(waits.len() * share / 1000).copied().unwrap_or_default();
    println!("waited         p50 {:?}, p99 {:?}, p99.9 {:?} over {} requests", at(500), at(990), at(999), waits.len());

    let counted = samples.get(samples.len() / 10..).unwrap_or_default();
    let (least, greatest) = (counted.iter().min().copied().unwrap_or(0), counted.iter().max().copied().unwrap_or(0));
    println!("resident KiB   {counted:?}");
    let quarter = counted.len() / 4;
    let first = median(counted.get(..quarter).unwrap_or_default()).max(1);
    let last = median(counted.get(counted.len() - quarter..).unwrap_or_default());
    let percent = |difference: u64| difference as f64 / first as f64 * 100.0;
    let change = percent(last.abs_diff(first));
    let good = change <= MOST_CHANGE_PERCENT;
    println!(
        "memory         {first} KiB in the first quarter, {last} KiB in the last: {change:.2} %; bound {MOST_CHANGE_PERCENT:.0} %: {}",
        if good { "held" } else { "missed" }
    );
    println!("               {least} to {greatest} KiB in single samples, {:.2} % apart", percent(greatest - least));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

type Callers = Vec<(Connection, Arc<str>)>;

/// Has each caller ask again and again for so long, all together `rate` times a second or as often as they can; gives
/// them back, and how long each request waited from the moment when it was due.
async fn run(callers: Callers, time: Duration, rate: Option<f64>) -> (Callers, Vec<Duration>) {
    let pause = rate.map(|rate| Duration::from_secs_f64(callers.len() as f64 / rate));
    let (began, count) = (Instant::now(), u32::try_from(callers.len()).unwrap_or(1));
    let mut tasks = JoinSet::new();
    for (place, (mut connection, authorization)) in (0..).zip(callers) {
        tasks.spawn(async move {
            let mut waits = Vec::new();
            let mut due = began + pause.unwrap_or_default() * place / count;
            while due < began + time {
                sleep_until(due).await;
                assert_eq!(connection.request("/api/256", &authorization, Bytes::new()).await, 256);
                waits.push(due.elapsed());
                due = pause.map_or_else(Instant::now, |pause| due + pause);
            }
            (connection, authorization, waits)
        });
    }
    let (mut callers, mut waits) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (connection, authorization, waited) = done.expect("every request succeeds");
        callers.push((connection, authorization));
        waits.extend(waited);
    }
    (callers, waits)
}
