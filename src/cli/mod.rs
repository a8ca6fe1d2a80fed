//! The command line: one file a verb. Printing lives here and only here.
//!
//! Exit codes: 0 ok, 1 no (a check failed, a request would be denied), 2 usage or configuration, 3 environment.
#![expect(clippy::print_stderr, reason = "the command line is where printing lives")]

mod check;

mod creds;

mod demo;

mod export;

mod explain;

mod explanation;

mod run;

mod schema;

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::Faults;
use crate::worker::{STACK_BYTES, Workers};

/// Columns of a printed fault.
const WIDTH: usize = 120;

const OK: u8 = 0;
const NO: u8 = 1;
const CONFIGURATION: u8 = 2;
const ENVIRONMENT: u8 = 3;

const GUIDE: &str = "Begin with `doorward demo`: it needs nothing and shows everything.
`doorward help explain` and the like show examples of each verb.

A day with it:
  doorward schema > doorward.schema.json       completion and checks in the editor
  doorward check --config doorward.yaml        what is wrong, and where
  doorward explain --config doorward.yaml URL  who may, and which rule says so
  doorward creds list                          what upstreams are shown, and by whom it is issued
  doorward run --config doorward.yaml          serve; SIGHUP reloads, SIGTERM drains

Exit codes: 0 ok, 1 no, 2 usage or configuration, 3 environment.";

/// Identity-aware reverse proxy: who calls, what they may do, a short-lived credential for the API behind, and an
/// audit record of every request.
#[derive(Parser)]
#[command(name = "doorward", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = GUIDE)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve: read the configuration and stand in front of the APIs
    Run(run::Run),
    /// Read the configuration and say everything that is wrong with it
    Check(check::Check),
    /// Say which roles a caller holds, which rule decides a request, and why
    Explain(explain::Explain),
    /// Say what credentials there are, what would be asked of whom, and bring a token to AWS SDKs
    Creds(creds::Creds),
    /// Write what others need to know of this configuration
    Export(export::Export),
    /// Print the JSON Schema of the configuration, for editors
    Schema(schema::Schema),
    /// Try it: an embedded issuer, a sample API and the proxy, on loopback
    Demo(demo::Demo),
}

/// Where the configuration is.
#[derive(clap::Args)]
struct ConfigArguments {
    /// The configuration file; its policies stand in the directory that it names
    #[arg(short, long, default_value = "doorward.yaml", value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let code = match Arguments::parse().verb {
        Verb::Run(verb) => verb.run(),
        Verb::Check(verb) => verb.run(),
        Verb::Explain(verb) => verb.run(),
        Verb::Creds(verb) => verb.run(),
        Verb::Export(verb) => verb.run(),
        Verb::Schema(verb) => verb.run(),
        Verb::Demo(verb) => verb.run(),
    };
    ExitCode::from(code)
}

/// Shows every fault, as a person or a program reads it, and gives the exit code.
fn show_faults(faults: &Faults, json: bool) -> u8 {
    if json {
        let mut document = faults.to_json();
        if let Some(fields) = document.as_object_mut() {
            fields.insert("ok".to_owned(), false.into());
        }
        print(&format!("{document}\n"), CONFIGURATION)
    } else {
        let colour = std::io::stderr().is_terminal();
        anstream::eprint!("{}", faults.render(colour, WIDTH));
        CONFIGURATION
    }
}

/// Says on standard error what keeps a verb from its work; as JSON where what stands there is read by a program.
fn complain(json: bool, message: &str) {
    if json {
        eprintln!("{}", serde_json::json!({ "ok": false, "error": message }));
    } else {
        eprintln!("{message}");
    }
}

/// Writes to standard output and gives `code`. A reader that went away, as `head` does, is no fault; what could not be
/// written for another reason, as on a full disk, must not look as if it had been.
fn print(text: &str, code: u8) -> u8 {
    use std::io::Write as _;

    let mut output = anstream::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => code,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => code,
        Err(error) => {
            eprintln!("standard output cannot be written: {error}");
            ENVIRONMENT
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _infallible = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The runtime of everything but connections, which `workers` threads of their own serve: one a core unless told
/// otherwise. One worker needs no other thread, and is spared the cost of it.
fn runtime(workers: Option<usize>) -> std::io::Result<(tokio::runtime::Runtime, Arc<Workers>)> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Rules are read on threads that this runtime starts.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.thread_stack_size(STACK_BYTES).enable_all().thread_name("doorward").build()?;
    let workers = match workers.unwrap_or(cores) {
        0 | 1 => Workers::default(),
        several => Workers::start(several)?,
    };
    Ok((runtime, Arc::new(workers)))
}
