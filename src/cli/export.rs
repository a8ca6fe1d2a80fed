//! `doorward export`.

use clap::Subcommand;

use super::{CONFIGURATION, ConfigArguments, ENVIRONMENT, OK, complain, print, show_faults};
use crate::config;
use crate::workbench;

const EXAMPLES: &str = "Examples:
  The trust policy of an AWS role, for `aws iam update-assume-role-policy`:
      doorward export trust --credential reports > trust.json
  What to register at an authorization server:
      doorward export trust --credential payroll

Written from the configuration, so that both sides say the same. It holds no secret.

Exit codes: 0 ok, 2 usage or configuration, 3 environment.";

/// What to export.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Export {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What to paste on the other side, so that it trusts what Doorward shows
    Trust(Trust),
}

#[derive(clap::Args)]
struct Trust {
    #[command(flatten)]
    config: ConfigArguments,
    /// Name of the credential
    #[arg(long, value_name = "NAME")]
    credential: String,
}

impl Export {
    pub(super) fn run(self) -> u8 {
        let Verb::Trust(trust) = self.verb;
        let judged = match config::judge(&trust.config.config) {
            Ok(judged) => judged,
            Err(faults) => return show_faults(&faults, false),
        };
        let document = match workbench::trust(&judged.checked, &trust.credential) {
            Ok(document) => document,
            Err(error) => {
                complain(false, &error.to_string());
                return CONFIGURATION;
            }
        };
        match serde_json::to_string_pretty(&document) {
            Ok(text) => print(&(text + "\n"), OK),
            Err(error) => {
                complain(false, &format!("the document could not be printed: {error}"));
                ENVIRONMENT
            }
        }
    }
}
