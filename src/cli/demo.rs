//! `doorward demo`.

use std::path::PathBuf;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::run::{Signals, wait_for_signals};
use super::{ENVIRONMENT, OK, chain, print, runtime, show_faults};
use crate::app::AppError;
use crate::audit::acts_on_a_terminal;
use crate::demo::{self, DemoError, DemoOptions, RunningDemo};
use crate::worker::Workers;

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
        crate::app::guard_process();
        match runtime(None) {
            Ok((runtime, workers)) => runtime.block_on(self.serve(workers)),
            Err(error) => {
                eprintln!("no runtime: {error}");
                ENVIRONMENT
            }
        }
    }

    async fn serve(self, workers: Arc<Workers>) -> u8 {
        let signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("signals cannot be handled: {error}");
                return ENVIRONMENT;
            }
        };
        let (lines, mut received) = tokio::sync::mpsc::channel::<String>(1000);
        let options = DemoOptions { directory: self.directory, port: self.port, audit: lines, workers };
        let demo = match demo::start(options).await {
            Ok(demo) => demo,
            Err(DemoError::App(AppError::Configuration(faults))) => {
                return show_faults(&faults, self.json);
            }
            Err(error) => {
                eprintln!("the demo cannot start: {}", chain(&error));
                return ENVIRONMENT;
            }
        };
        let json = self.json;
        // Standard output is for records alone where a program reads them.
        if json {
            anstream::eprint!("{}", introduction(&demo));
        } else {
            print(&introduction(&demo), OK);
        }
        let printer = std::thread::spawn(move || {
            while let Some(line) = received.blocking_recv() {
                let line = if json { line } else { readable(&line) };
                // Nobody reads any more, or nobody can: requests go on, and what is on record is not the demo's.
                if print(&format!("{line}\n"), OK) != OK {
                    break;
                }
            }
        });
        let (running, _servers) = demo.into_parts();
        let code = wait_for_signals(running, signals).await;
        let _printed_to_the_end = printer.join();
        code
    }
}

/// What to open and what to type.
fn introduction(demo: &RunningDemo) -> String {
    let RunningDemo { origin, issuer, .. } = demo;
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let curl = format!("curl --cacert {}", demo.authority.display());
    let token = |who: &str| format!("-H \"Authorization: Bearer $(curl -s {issuer}/dev/token/{who})\"");
    let to_type = [
        ("allowed: Alice is a billing administrator", format!("{curl} {} {origin}/billing/invoices", token("alice"))),
        ("denied: no role of Bob's permits it", format!("{curl} {} {origin}/billing/invoices", token("bob"))),
        ("401: nobody", format!("{curl} -i {origin}/billing/invoices")),
        ("the injected credential, as the API saw it", format!("{curl} {} {origin}/whoami", token("alice"))),
        ("a job, by client credentials", format!("{curl} {} {origin}/billing/invoices", token("nightly-report"))),
    ];
    let to_type: String =
        to_type.iter().map(|(what, command)| format!("  {dim}# {what}{dim:#}\n  {command}\n\n")).collect();
    format!(
        "\n{bold}Doorward stands at {origin}{bold:#}\n\n\
         Open it in a browser and sign in as Alice, Bob or Carol (the certificate is the demo's own).\n\
         Or type:\n\n\
         {to_type}\
         Policies: {} — edit them while this runs.\n\
         Readiness and metrics: http://{}/readyz, /metrics. Stop with Ctrl-C.\n\n\
         {bold}Audit{bold:#}\n",
        demo.policies.display(),
        demo.admin
    )
}

/// One record on one line, for people.
fn readable(line: &str) -> String {
    let Ok(record) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).map_or("-".to_owned(), harmless);
    let list = |pointer: &str| {
        let names = record.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<String> = names.iter().filter_map(Value::as_str).map(harmless).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(",") }
    };
    let dim = Style::new().dimmed();
    let time = text("/time");
    let time = time.get(11..23).unwrap_or("-");
    if text("/event") != "request" {
        let [subject, role] =
            [text("/principal/id"), text("/role")].map(|text| if text == "-" { String::new() } else { text });
        return format!("{dim}{time}{dim:#}  {dim}{:<8}{dim:#} {} {subject} {role}", "event", text("/event"));
    }
    let decision = text("/decision");
    let colour = match decision.as_str() {
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

/// Text that came from a caller, with what acts on a terminal written out, as the records themselves have it.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|character| match acts_on_a_terminal(character) {
            true => format!("\\u{:04x}", u32::from(character)),
            false => character.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_sends_does_not_act_on_the_terminal() {
        let hostile = "/a\u{1b}[2J\u{9b}31m\u{202e}\n\u{7f}é";
        let record = serde_json::json!({
            "time": "2030-01-31T08:00:00.000Z", "event": "request", "decision": "deny", "method": "GET",
            "path": hostile, "principal": { "id": hostile }, "roles": [hostile], "policy_ids": [hostile],
            "code": hostile,
        });
        let other = serde_json::json!({ "event": hostile, "principal": { "id": hostile }, "role": hostile });
        for record in [record, other] {
            let line = anstream::adapter::strip_str(&readable(&record.to_string())).to_string();
            assert!(!line.chars().any(acts_on_a_terminal), "{line:?}");
            assert!(line.contains("/a\\u001b[2J\\u009b31m\\u202e\\u000a\\u007fé"), "{line}");
        }
    }
}
