//! `doorward check`.

use std::io::IsTerminal as _;

use anstyle::AnsiColor;
use serde_json::Value;

use super::{ConfigArguments, OK, print, show_faults};
use crate::config::{self, Fault};

const EXAMPLES: &str = "Examples:
  Before a reload, and in the pipeline of the repository that holds the policies:
      doorward check --config /etc/doorward/doorward.yaml
  Every fault for a program: file, line, column, code, message, help:
      doorward check --json | jq -r '.faults[] | \"\\(.file):\\(.line) \\(.message)\"'

Reads configuration, policies and certificates as `run` would, and shows every
fault with its place and the nearest known name. No socket is opened and
`state.dir` is not touched.

Exit codes: 0 sound (warnings do not count), 2 faults.";

/// What to check.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> u8 {
        let path = &self.config.config;
        let judged = config::judge(path).and_then(|judged| config::examine(&judged.checked).or(judged));
        let judged = match judged {
            Ok(judged) => judged,
            Err(faults) => {
                return show_faults(&faults, self.json);
            }
        };
        let (checked, warnings) = (&judged.checked, judged.warnings());
        if self.json {
            let document = serde_json::json!({
                "ok": true,
                "hash": checked.hash,
                "routes": checked.routes.len(),
                "roles": checked.roles.len(),
                "policies": judged.policies.policy_count(),
                "warnings": warnings.iter().map(Fault::to_json).collect::<Vec<Value>>(),
            });
            return print(&format!("{document}\n"), OK);
        }
        let style = if std::io::stderr().is_terminal() { AnsiColor::Yellow.on_default() } else { Default::default() };
        for warning in warnings.iter() {
            let help = warning.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            anstream::eprintln!("{style}warning{style:#}: {}: {warning}{help}", warning.at());
        }
        let (routes, roles, policies) = (checked.routes.len(), checked.roles.len(), judged.policies.policy_count());
        let hash = &checked.hash;
        print(&format!("ok: {routes} routes, {roles} roles, {policies} policies (snapshot {hash})\n"), OK)
    }
}
