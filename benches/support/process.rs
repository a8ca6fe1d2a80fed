//! Processes under measurement: pinned to a core, timed by the kernel's own accounting, ended with their handle.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::world::World;

/// The core of the proxy under measurement.
pub const PROXY_CORE: &str = "0";
/// The core of clients and upstreams.
pub const CLIENT_CORE: &str = "1";

/// A running process. Killed when dropped.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// On-CPU nanoseconds of each thread of a process.
pub type Threads = BTreeMap<String, u64>;

impl Process {
    /// Doorward with one worker, serving `world`: this build of it, or another `binary`.
    pub fn doorward(world: &World, binary: Option<&str>) -> Self {
        let ready = world.path("ready.json");
        let _none = fs::remove_file(&ready);
        let mut command = pinned(binary.unwrap_or(env!("CARGO_BIN_EXE_doorward")));
        command.args(["run", "--workers", "1", "--config"]).arg(world.configuration());
        command.arg("--ready-file").arg(&ready).env("DOORWARD_LOG", "warn");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("doorward starts");
        let address = waited_for(&mut child, || {
            let document: serde_json::Value = serde_json::from_str(&fs::read_to_string(&ready).ok()?).ok()?;
            document["listeners"]["public"].as_str()?.parse().ok()
        });
        Self { child, address }
    }

    /// This benchmark's own executable in another role, which writes its address to `name` in the directory.
    pub fn role(directory: &Path, name: &str, arguments: &[&str]) -> Self {
        let file = directory.join(format!("{name}.address"));
        let _none = fs::remove_file(&file);
        let own = std::env::current_exe().expect("this executable has a path");
        let mut command = pinned(&own.to_string_lossy());
        command.arg("role").arg(name).arg(&file).arg(directory).args(arguments);
        let mut child = command.stdin(Stdio::null()).spawn().expect("this executable starts");
        let address = waited_for(&mut child, || fs::read_to_string(&file).ok()?.parse().ok());
        Self { child, address }
    }

    /// A command of somebody else's, which listens at `address`.
    pub fn other(command: &str, address: SocketAddr) -> Self {
        let mut child = pinned("sh");
        let child = child.args(["-c", &format!("exec {command}")]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = child.spawn().expect("the command starts");
        let address = waited_for(&mut child, || std::net::TcpStream::connect(address).ok().map(|_| address));
        Self { child, address }
    }

    /// What each thread has used so far.
    pub fn cpu(&self) -> Threads {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the process runs");
        let used = tasks.flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((task.file_name().to_string_lossy().into_owned(), text.split(' ').next()?.parse().ok()?))
        });
        used.collect()
    }

    /// Resident memory now, KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim_end_matches("kB").trim().parse().expect("a number")
    }
}

/// Time on a CPU between two readings. A thread that ended in between is left out.
pub fn used(before: &Threads, after: &Threads) -> Duration {
    let each = after.iter().map(|(thread, now)| now.saturating_sub(before.get(thread).copied().unwrap_or(0)));
    Duration::from_nanos(each.sum())
}

/// Moves this process, and all that it starts, to the clients' core; ahead of other work where that is allowed.
pub fn pin_this_process() {
    let own = std::process::id().to_string();
    for command in [["taskset", "-cp", CLIENT_CORE].as_slice(), ["renice", "-n", "-10", "-p"].as_slice()] {
        let Some((program, arguments)) = command.split_first() else { continue };
        let quiet = || Stdio::null();
        let _best_effort = Command::new(program).args(arguments).arg(&own).stdout(quiet()).stderr(quiet()).status();
    }
}

/// `program` on the proxy's core, where `taskset` is installed and the machine has that core.
fn pinned(program: &str) -> Command {
    let works = Command::new("taskset").args(["-c", PROXY_CORE, "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", PROXY_CORE, program]);
    command
}

fn waited_for(child: &mut Child, mut address: impl FnMut() -> Option<SocketAddr>) -> SocketAddr {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(address) = address() {
            return address;
        }
        if let Ok(Some(status)) = child.try_wait() {
            panic!("the process ended with {status}");
        }
        assert!(Instant::now() < patience, "the process did not come up");
        std::thread::sleep(Duration::from_millis(10));
    }
}
