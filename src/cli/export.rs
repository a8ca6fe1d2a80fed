//! `doorward export`.

use clap::Subcommand;

use super::{CONFIGURATION, ConfigArguments, OK, complain, print, show_faults};
use crate::config;
use crate::workbench;

const EXAMPLES: &str = "Examples:
  The trust policy of an AWS role, for `aws iam update-assume-role-policy`:
      doorward export trust --credential reports > trust.json
  The method, policy and role of a vault, as commands:
      doorward export trust --credential billing-key
  What to register at an authorization server:
      doorward export trust --credential payroll

Written from the configuration, so that both sides say the same. It holds no secret.

Exit codes: 0 ok, 2 usage or configuration.";

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
        match workbench::trust(&judged.checked, &trust.credential) {
            Ok(trust) => print(&trust.to_string(), OK),
            Err(error) => {
                complain(false, &error.to_string());
                CONFIGURATION
            }
        }
    }
}
