//! Load by h2load: what a proxy uses during a slice in the middle of its run, by the answers of its log.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::process::{CLIENT_CORE, pinned, used};

use super::bench::Bench;
use super::contender::Target;
use super::rounds::{Slice, interleaved};
use super::table::{Row, Table};

/// Before a slice begins: the handshakes are over, caches and pools are filled.
const LEAD: Duration = Duration::from_millis(250);
/// After it has ended.
const TAIL: Duration = Duration::from_millis(100);
/// Load on each proxy before the first slice of any.
const WARMING: Duration = Duration::from_millis(300);
/// What h2load may take longer than it was told.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGE: usize = 1 << 20;

/// One kind of load.
pub struct Load {
    pub name: &'static str,
    title: &'static str,
    /// Of an HTTP/2 connection; HTTP/1.1 where there are none.
    streams: Option<usize>,
    pub connections: usize,
    /// Bytes of the answer, or of the request.
    size: usize,
    is_upload: bool,
}

const SMALL: Load = Load { name: "", title: "", streams: None, connections: 32, size: 256, is_upload: false };
/// Few at once: those that share a connection end together, and a slice would count all of them or none.
const BODY: Load = Load { connections: 8, size: LARGE, ..SMALL };

/// All of them.
pub const LOADS: [Load; 7] = [
    Load { name: "h1", title: "HTTP/1.1, 256 bytes, one warm token", ..SMALL },
    Load { name: "h2", title: "HTTP/2, 256 bytes, one warm token", streams: Some(8), connections: 8, ..SMALL },
    Load { name: "16k", title: "HTTP/1.1, 16 KiB down", size: 16 << 10, ..SMALL },
    Load { name: "down", title: "HTTP/1.1, 1 MiB down", ..BODY },
    Load { name: "down-h2", title: "HTTP/2, 1 MiB down", streams: Some(1), ..BODY },
    Load { name: "up", title: "HTTP/1.1, 1 MiB up", is_upload: true, ..BODY },
    Load { name: "up-h2", title: "HTTP/2, 1 MiB up", streams: Some(1), is_upload: true, ..BODY },
];

/// The load of the work at a fixed rate.
pub const PACED: Load = Load { connections: 4, ..SMALL };

/// Measures everybody, and Doorward's other rows where a request is small.
pub fn measure(bench: &Bench, load: &Load) -> Table {
    let targets = if load.size == 256 { bench.targets.iter().collect() } else { bench.contenders() };
    let authorization = bench.site.world.authorization();
    let slice = |target: &Target, length| slice(bench, load, target, &authorization, length, None);
    for target in &targets {
        slice(target, WARMING);
    }
    // Of large bodies there are few.
    let length = bench.effort.slice * if load.size == LARGE { 2 } else { 1 };
    let measured = interleaved(targets.len(), bench.effort.rounds, |position| {
        targets.get(position).map(|target| slice(target, length)).unwrap_or_default()
    });
    let rows = targets.iter().zip(&measured).map(|(target, slices)| Row::of_slices(target, slices)).collect();
    let streams = match load.streams {
        Some(1) => " of one stream".to_owned(),
        Some(streams) => format!(" of {streams} streams"),
        None => String::new(),
    };
    Table {
        name: load.name,
        title: format!("{} ({} connections{streams})", load.title, load.connections),
        unit: "CPU µs a request",
        rows,
        note: String::new(),
    }
}

/// One slice of so much load as the proxy takes, or of so many requests a second.
pub fn slice(
    bench: &Bench,
    load: &Load,
    target: &Target,
    authorization: &str,
    length: Duration,
    rate: Option<usize>,
) -> Slice {
    let mut run = Run::start(bench, load, target, authorization, LEAD + length + TAIL, rate);
    std::thread::sleep(LEAD);
    let (before, began, clock) = (target.process().cpu(), now(), Instant::now());
    std::thread::sleep(length);
    let (after, ended, wall) = (target.process().cpu(), now(), clock.elapsed());
    let mut slice = Slice { used: used(&before, &after), wall, ..Slice::default() };
    for answer in run.answers() {
        if (began..ended).contains(&answer.ended) {
            if answer.is_success { slice.answers += 1 } else { slice.failures += 1 }
        }
    }
    slice
}

/// How long each answer took, at so many requests a second.
pub fn latencies(bench: &Bench, target: &Target, authorization: &str, length: Duration, rate: usize) -> Vec<Duration> {
    let mut run = Run::start(bench, &PACED, target, authorization, LEAD + length + TAIL, Some(rate));
    let began = now() + LEAD;
    let within = |answer: &Answer| (began..began + length).contains(&answer.ended);
    let mut answers = run.answers();
    answers.retain(within);
    assert!(answers.iter().all(|answer| answer.is_success), "{}: not every answer was 2xx", target.name);
    answers.into_iter().map(|answer| answer.took).collect()
}

/// One h2load. Killed when dropped.
struct Run {
    child: Child,
    log: PathBuf,
    deadline: Instant,
}

/// One line of its log.
struct Answer {
    /// Since the epoch.
    ended: Duration,
    took: Duration,
    is_success: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Run {
    fn start(
        bench: &Bench,
        load: &Load,
        target: &Target,
        authorization: &str,
        length: Duration,
        rate: Option<usize>,
    ) -> Self {
        let log = bench.site.path("h2load.log");
        let _none = fs::remove_file(&log);
        let mut command = pinned(CLIENT_CORE, "h2load");
        command.args(["-t", "1", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256", "--groups", "X25519"]);
        command.args(["-c", &load.connections.to_string(), "-D", &format!("{}ms", length.as_millis())]);
        match load.streams {
            Some(streams) => command.args(["-m", &streams.to_string()]),
            None => command.arg("--h1"),
        };
        if let Some(rate) = rate {
            command.args(["--rps", &(rate / load.connections).to_string()]);
        }
        if load.is_upload {
            command.arg("-d").arg(body(bench, load.size));
        }
        command.args(["-H", &format!("authorization: {authorization}")]).arg("--log-file").arg(&log);
        command.args(["--connect-to", &target.process().address.to_string()]);
        command.arg(format!("https://localhost{}", target.path(if load.is_upload { 0 } else { load.size })));
        let child = quiet(command).spawn().expect("h2load starts");
        Self { child, log, deadline: Instant::now() + length + PATIENCE }
    }

    /// Waits for its end and reads its log.
    fn answers(&mut self) -> Vec<Answer> {
        while self.child.try_wait().expect("h2load is ours").is_none() {
            assert!(Instant::now() < self.deadline, "h2load does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = fs::read_to_string(&self.log).expect("h2load writes its log");
        text.lines().filter_map(answer).collect()
    }
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Begin in microseconds since the epoch, status, microseconds to the end.
fn answer(line: &str) -> Option<Answer> {
    let mut columns = line.split('\t');
    let began: u64 = columns.next()?.parse().ok()?;
    let status: i32 = columns.next()?.parse().ok()?;
    let took = Duration::from_micros(columns.next()?.parse().ok()?);
    Some(Answer { ended: Duration::from_micros(began) + took, took, is_success: (200..300).contains(&status) })
}

/// A file of so many bytes.
fn body(bench: &Bench, size: usize) -> PathBuf {
    let path = bench.site.path("body");
    if !path.exists() {
        fs::write(&path, vec![b'x'; size]).expect("a file");
    }
    path
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
