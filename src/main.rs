//! The `doorward` command: exit code and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    doorward::cli::main()
}
