//! Counting one step: this executable again, under valgrind.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::steps::Step;

/// Whether counts of this build on this machine can be compared with the table.
///
/// # Errors
/// What is in the way.
pub(crate) fn possible() -> Result<(), String> {
    // Cargo names the directory of what it builds by the profile.
    let profile = Path::new(env!("CARGO_BIN_EXE_doorward")).parent().and_then(Path::file_name);
    if profile.is_none_or(|profile| profile != "ci") {
        return Err("the table holds counts of the `ci` profile, and this is another build: \
                    `cargo test --profile ci --test instructions`"
            .to_owned());
    }
    let version = Command::new("valgrind").arg("--version").stdin(Stdio::null()).output();
    match version.is_ok_and(|output| output.status.success()) {
        true => Ok(()),
        false => Err("valgrind is missing, or does not start: `tests/peers/install` installs it".to_owned()),
    }
}

/// Instructions of one run of `step`.
///
/// # Errors
/// What valgrind or the step said, or that nothing was counted.
pub(crate) fn count(step: &Step) -> Result<u64, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let profile = directory.path().join("callgrind.out");
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet", "--collect-atstart=no"]);
    valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
    valgrind.arg(format!("--toggle-collect={}", step.function));
    let output = valgrind.arg(own).args(["step", step.name]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let profile = fs::read_to_string(&profile).map_err(|error| error.to_string())?;
    let total = total(&profile).saturating_sub(within(&profile, step.without));
    match total / u64::from(step.runs) {
        0 => Err(format!("nothing was counted: `{}` is not called any more, or is inlined", step.function)),
        count => Ok(count),
    }
}

fn total(profile: &str) -> u64 {
    profile.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok()).unwrap_or(0)
}

/// What stands in the profile for calls of functions whose names end like one of `endings`, all that they call included.
///
/// <https://valgrind.org/docs/manual/cl-format.html>: `cfn=(7) name` says who is called, by the number alone where it was
/// named before; `calls=` follows, and then a line that ends with the cost.
fn within(profile: &str, endings: &[&str]) -> u64 {
    let mut numbers = HashSet::new();
    let mut sum = 0;
    let mut is_of_them = false;
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        let named = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn="));
        if let Some((number, name)) = named.map(|named| named.split_once(' ').unwrap_or((named, ""))) {
            if endings.iter().any(|ending| name.ends_with(ending)) {
                numbers.insert(number);
            }
            is_of_them = numbers.contains(number);
        } else if line.starts_with("calls=") {
            let cost = lines.next().and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
            sum += if is_of_them { cost } else { 0 };
        }
    }
    sum
}
