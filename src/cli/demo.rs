//! `doorward demo`.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::run::{Signals, wait_for_signals};
use super::{CONFIGURATION, ENVIRONMENT, chain, runtime, show_faults};
use crate::app::AppError;
use crate::demo::{self, DemoError, DemoOptions, RunningDemo};

const EXAMPLES: &str = "Examples:
  doorward demo
  In another terminal, ask the demo's own configuration:
      echo '{\"sub\":\"alice\",\"groups\":[\"billing-admins\"]}' |
      doorward explain --config certs/demo.yaml --issuer dev --claims - \\
          https://localhost/billing/invoices
  Audit records for a program:
      doorward demo --json | jq .

Starts a development issuer, a sample billing API and Doorward in front of it,
all on loopback. Prints what to open and what to type, then every audit record.
Edit the files in `policies/` while it runs.

Exit codes: 0 ended by Ctrl-C, 1 requests were cut at the end, 2 usage or a fault
in `policies`, 3 environment.";

/// How to show it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Demo {
    /// Port of the proxy; another is taken when it is in use
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Where certificates and keys are made
    #[arg(long, default_value = "certs", value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Print audit records as the JSON lines that they are
    #[arg(long)]
    json: bool,
}

impl Demo {
    pub(super) fn run(self) -> u8 {
        crate::app::log_to_stderr(false);
        match runtime(None) {
            Ok(runtime) => runtime.block_on(self.serve()),
            Err(error) => {
                eprintln!("no runtime: {error}");
                ENVIRONMENT
            }
        }
    }

    async fn serve(self) -> u8 {
        let signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("signals cannot be handled: {error}");
                return ENVIRONMENT;
            }
        };
        let (lines, mut received) = tokio::sync::mpsc::channel::<String>(1000);
        let options = DemoOptions { directory: self.directory, port: self.port, audit: lines };
        let demo = match demo::start(options).await {
            Ok(demo) => demo,
            Err(DemoError::App(AppError::Configuration(faults))) => {
                show_faults(&faults, self.json);
                return CONFIGURATION;
            }
            Err(error) => {
                eprintln!("the demo cannot start: {}", chain(&error));
                return ENVIRONMENT;
            }
        };
        introduce(&demo);
        let json = self.json;
        let printer = std::thread::spawn(move || {
            while let Some(line) = received.blocking_recv() {
                let line = if json { line } else { readable(&line) };
                anstream::println!("{line}");
            }
        });
        let (running, _servers) = demo.into_parts();
        let code = wait_for_signals(running, signals).await;
        let _printed_to_the_end = printer.join();
        code
    }
}

fn introduce(demo: &RunningDemo) {
    let RunningDemo { origin, issuer, .. } = demo;
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let curl = format!("curl --cacert {}", demo.authority.display());
    let token = |who: &str| format!("-H \"Authorization: Bearer $(curl -s {issuer}/dev/token/{who})\"");
    let line = |what: &str, command: String| anstream::println!("  {dim}# {what}{dim:#}\n  {command}\n");
    anstream::println!("\n{bold}Doorward stands at {origin}{bold:#}\n");
    anstream::println!("Open it in a browser and sign in as Alice, Bob or Carol (the certificate is the demo's own).");
    anstream::println!("Or type:\n");
    line("allowed: Alice is a billing administrator", format!("{curl} {} {origin}/billing/invoices", token("alice")));
    line("denied: no role of Bob's permits it", format!("{curl} {} {origin}/billing/invoices", token("bob")));
    line("401: nobody", format!("{curl} -i {origin}/billing/invoices"));
    line("the injected credential, as the API saw it", format!("{curl} {} {origin}/whoami", token("alice")));
    line("a job, by client credentials", format!("{curl} {} {origin}/billing/invoices", token("nightly-report")));
    anstream::println!("Policies: {} — edit them while this runs.", demo.policies.display());
    anstream::println!("Readiness and metrics: http://{}/readyz, /metrics. Stop with Ctrl-C.\n", demo.admin);
    anstream::println!("{bold}Audit{bold:#}");
}

/// One record on one line, for people.
fn readable(line: &str) -> String {
    let Ok(record) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or("-");
    let list = |pointer: &str| {
        let names = record.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(",") }
    };
    let dim = Style::new().dimmed();
    let time = text("/time").get(11..23).unwrap_or("-");
    if text("/event") != "request" {
        let subject = if text("/principal/id") == "-" { "" } else { text("/principal/id") };
        let role = if text("/role") == "-" { "" } else { text("/role") };
        return format!("{dim}{time}{dim:#}  {dim}{:<8}{dim:#} {} {subject} {role}", "event", text("/event"));
    }
    let decision = text("/decision");
    let colour = match decision {
        "allow" => AnsiColor::Green,
        "deny" => AnsiColor::Red,
        _ => AnsiColor::Cyan,
    };
    let colour = Style::new().fg_color(Some(colour.into())).bold();
    let status = record.pointer("/status").and_then(Value::as_u64).unwrap_or(0);
    let micros = record.pointer("/duration_us/total").and_then(Value::as_u64).unwrap_or(0);
    format!(
        "{dim}{time}{dim:#}  {colour}{decision:<5}{colour:#} {status}  {:<6} {:<22} {:<18} {dim}role{dim:#} {} {dim}rule{dim:#} {} {dim}code{dim:#} {} {dim}{micros} µs{dim:#}",
        text("/method"),
        text("/path"),
        text("/principal/id"),
        list("/roles"),
        list("/policy_ids"),
        text("/code"),
    )
}
