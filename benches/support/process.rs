//! Processes under measurement: pinned to a core, timed by the kernel's own accounting, ended with their handle.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use super::world::World;

/// The core of the proxy under measurement.
pub const PROXY_CORE: &str = "0";
/// The core of clients and upstreams.
pub const CLIENT_CORE: &str = "1";

/// Both, for what is measured with more than one worker.
pub const BOTH_CORES: &str = "0,1";
/// Enough for ten thousand connections, each with one behind it.
const OPEN_FILES: u64 = 65_536;

/// A running process. Killed when dropped, with all that it started.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let family = self.family();
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
        for child in family.into_iter().skip(1).filter_map(|process| Pid::from_raw(process.cast_signed())) {
            let _already_gone = kill_process(child, Signal::KILL);
        }
    }
}

/// On-CPU nanoseconds of each thread of a process.
pub type Threads = BTreeMap<String, u64>;

impl Process {
    /// Doorward with one worker, serving `world`: this build of it, or another `binary`.
    pub fn doorward(world: &World, binary: Option<&str>) -> Self {
        Self::doorward_with(world, binary, 1, PROXY_CORE)
    }

    /// The same with more workers, on these cores.
    pub fn doorward_with(world: &World, binary: Option<&str>, workers: usize, cores: &str) -> Self {
        let ready = world.path("ready.json");
        let _none = fs::remove_file(&ready);
        let mut command = pinned(cores, binary.unwrap_or(env!("CARGO_BIN_EXE_doorward")));
        command.args(["run", "--workers", &workers.to_string(), "--config"]).arg(world.configuration());
        command.arg("--ready-file").arg(&ready).env("DOORWARD_LOG", "warn").stdout(Stdio::null());
        Self::started(command, || {
            let document: serde_json::Value = serde_json::from_str(&fs::read_to_string(&ready).ok()?).ok()?;
            document["listeners"]["public"].as_str()?.parse().ok()
        })
    }

    /// This benchmark's own executable in another role, which writes its address to `name` in the directory.
    pub fn role(directory: &Path, name: &str, arguments: &[&str]) -> Self {
        Self::role_on(PROXY_CORE, directory, name, arguments)
    }

    /// The same on other cores.
    pub fn role_on(cores: &str, directory: &Path, name: &str, arguments: &[&str]) -> Self {
        let file = directory.join(format!("{name}.address"));
        let _none = fs::remove_file(&file);
        let own = std::env::current_exe().expect("this executable has a path");
        let mut command = pinned(cores, &own.to_string_lossy());
        command.arg("role").arg(name).arg(&file).arg(directory).args(arguments);
        Self::started(command, || fs::read_to_string(&file).ok()?.parse().ok())
    }

    /// A command line of somebody else's, which listens at `address`.
    pub fn other(line: &str, address: SocketAddr) -> Self {
        let mut command = pinned(PROXY_CORE, "sh");
        command.args(["-c", &format!("exec {line}")]).stdout(Stdio::null());
        Self::listening(command, address)
    }

    /// A program that listens at `address`.
    pub fn listening(command: Command, address: SocketAddr) -> Self {
        Self::started(command, || std::net::TcpStream::connect(address).ok().map(|_| address))
    }

    /// Starts it and waits until `address` knows where it listens.
    fn started(mut command: Command, mut address: impl FnMut() -> Option<SocketAddr>) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut process = Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(address) = address() {
                process.address = address;
                return process;
            }
            if let Ok(Some(status)) = process.child.try_wait() {
                panic!("{command:?} ended with {status}");
            }
            assert!(Instant::now() < patience, "{command:?} did not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What each thread of it, and of all that it started, has used so far.
    pub fn cpu(&self) -> Threads {
        let tasks = self.family().into_iter().flat_map(tasks);
        let used = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            Some((task.file_name()?.to_string_lossy().into_owned(), text.split(' ').next()?.parse().ok()?))
        });
        used.collect()
    }

    /// Resident memory now, KiB: of all its processes, each with the pages that they share.
    pub fn resident_kib(&self) -> u64 {
        let resident = |process: u32| -> Option<u64> {
            let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim_end_matches("kB").trim().parse().ok()
        };
        self.family().into_iter().filter_map(resident).sum()
    }

    /// Its id, then those of all that it started and that run.
    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(&process) = family.get(next) {
            let children = tasks(process).filter_map(|task| fs::read_to_string(task.join("children")).ok());
            let children: Vec<u32> = children
                .flat_map(|line| line.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
                .collect();
            family.extend(children);
            next += 1;
        }
        family
    }
}

/// The kernel's directory of each thread of a process.
fn tasks(process: u32) -> impl Iterator<Item = PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    tasks.flatten().map(|task| task.path())
}

/// A port that nobody listens on.
pub fn free_address() -> SocketAddr {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("an address")
}

/// Lets this process, and all that it starts, open many files. Answers how many.
pub fn raise_open_files() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(OPEN_FILES), maximum: now.maximum.map(|most| most.max(OPEN_FILES)) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let allowed = Rlimit { current: now.maximum, maximum: now.maximum };
        setrlimit(Resource::Nofile, allowed).expect("the soft limit may rise to the hard one");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
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

/// `program` on these cores, and ended when the thread that starts it is, where the tools for it are installed.
pub fn pinned(cores: &str, program: &str) -> Command {
    let wrappers = [["setpriv", "--pdeathsig", "TERM"], ["taskset", "-c", cores]];
    let works = |wrapper: &[&str; 3]| {
        let [tool, arguments @ ..] = wrapper;
        let status = Command::new(tool).args(arguments).arg("true").stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let usable = wrappers.into_iter().filter(works).flatten();
    let mut words = usable.chain([program]);
    let mut command = Command::new(words.next().expect("at least the program"));
    command.args(words);
    command
}
