//! Doorward beside other proxies at the same work, in one run: nginx, HAProxy, Envoy, Pingora and a bare hyper proxy.
//!
//! `make bench-peers` installs them, runs everything and writes `benches/results/DATE.md`. Afterwards
//! `cargo bench --bench peers -- --quick --only h1,full` is short. `--doorward PATH` measures another build, `--rounds N`
//! more or fewer rounds. How it is measured stands in `peers/report.rs`, what has to come out in `peers/bars.rs`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

/// The driver's parts; the peers' configurations lie beside them.
#[allow(missing_docs, unreachable_pub, reason = "of a benchmark nothing is public")]
#[allow(clippy::disallowed_methods, reason = "it waits for slices to pass and reads the real time")]
mod peers {
    pub mod arguments;
    pub mod bare;
    pub mod bars;
    pub mod bench;
    pub mod contender;
    pub mod doorward;
    pub mod envoy;
    pub mod handshakes;
    pub mod haproxy;
    pub mod load;
    pub mod machine;
    pub mod memory;
    pub mod nginx;
    pub mod paced;
    pub mod pingora;
    pub mod report;
    pub mod rounds;
    pub mod site;
    pub mod table;
    pub mod tokens;
    pub mod verify;
}

use std::process::ExitCode;

use peers::arguments::Arguments;
use peers::bench::Bench;
use peers::contender::NGINX;
use peers::load::LOADS;
use peers::table::Table;
use peers::{bars, handshakes, load, memory, paced, report, tokens, verify};
use support::{process, role};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["role", rest @ ..] = texts.as_slice() {
        role::play(rest);
    }
    let arguments = match Arguments::parse(&texts) {
        Ok(arguments) => arguments,
        Err(fault) => return refused(&fault),
    };
    process::pin_this_process();
    let open_files = process::raise_open_files();
    let bench = Bench::start(&arguments);
    if bench.absent.contains(&NGINX) {
        return refused("nginx is not installed, and all ratios are to it: benches/peers/install");
    }
    if let Err(fault) = verify::all(&bench) {
        return refused(&fault);
    }
    for name in &bench.absent {
        println!("absent: {name}");
    }
    let tables = measured(&bench, &arguments, open_files);
    println!("{}", bars::shown(&tables));
    println!("written: {}", report::write(&bench, &arguments, &tables).display());
    ExitCode::SUCCESS
}

fn refused(fault: &str) -> ExitCode {
    eprintln!("{fault}");
    ExitCode::FAILURE
}

/// The works that are asked for, printed as they are done.
fn measured(bench: &Bench, arguments: &Arguments, open_files: u64) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut work = |name: &str, tables_of: &dyn Fn() -> Vec<Table>| {
        if arguments.wants(name) {
            let more = tables_of();
            more.iter().for_each(|table| println!("{table}"));
            tables.extend(more);
        }
    };
    for load in &LOADS {
        work(load.name, &|| vec![load::measure(bench, load)]);
    }
    // Before the others: what they leave in the memories of tokens, these would have to displace.
    work("rotating", &|| vec![tokens::rotating(bench)]);
    work("cold", &|| vec![tokens::cold(bench)]);
    work("cold-one", &|| vec![tokens::cold_one(bench)]);
    work("beyond", &|| vec![tokens::beyond(bench)]);
    work("full", &|| vec![handshakes::full(bench)]);
    work("resumed", &|| vec![handshakes::resumed(bench)]);
    work("latency", &|| paced::latency(bench));
    work("memory", &|| memory::measure(bench, open_files));
    work("workers", &|| vec![paced::workers(bench)]);
    tables
}
