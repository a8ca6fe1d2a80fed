//! `doorward schema`.

use super::{ENVIRONMENT, OK, print};
use crate::config::schema;

const EXAMPLES: &str = "Examples:
  doorward schema > doorward.schema.json
  doorward schema policies > policies/policies.schema.json

Then completion and checks in an editor that speaks to the YAML language server,
by the first line of `doorward.yaml`:
  # yaml-language-server: $schema=./doorward.schema.json";

/// What to print.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Schema {
    /// Which file's schema
    #[arg(value_enum, default_value_t = Kind::Config)]
    kind: Kind,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Of `doorward.yaml`
    Config,
    /// Of `policies/*.yaml`
    Policies,
}

impl Schema {
    pub(super) fn run(self) -> u8 {
        let schema = match self.kind {
            Kind::Config => schema::config(),
            Kind::Policies => schema::policies(),
        };
        match serde_json::to_string_pretty(&schema) {
            Ok(text) => print(&format!("{text}\n"), OK),
            Err(error) => {
                eprintln!("the schema could not be printed: {error}");
                ENVIRONMENT
            }
        }
    }
}
