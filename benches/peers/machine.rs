//! Where and with what it was measured.

use std::fs;
use std::process::Command;

use super::site::{self, Site};

/// Cores, processor and kernel.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {}, Linux {}", model.map_or("?", |(_, name)| name.trim()), kernel.trim())
}

/// One line for each program that takes part.
pub fn versions(site: &Site) -> Vec<String> {
    let doorward = site.doorward.as_deref().unwrap_or(env!("CARGO_BIN_EXE_doorward"));
    let envoy = site::installed("envoy").map(|path| path.to_string_lossy().into_owned());
    let programs = [
        (Some(doorward.to_owned()), "--version"),
        (site::program("nginx"), "-v"),
        (site::program("haproxy"), "-v"),
        (envoy, "--version"),
        (Some("h2load".to_owned()), "--version"),
    ];
    let said = programs.into_iter().filter_map(|(program, argument)| first_line(&program?, argument));
    said.chain([pingora(), format!("rustls {}", locked(include_str!("../../Cargo.lock"), "rustls"))]).collect()
}

/// The commit that was measured, where the build is this checkout's.
pub fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"]).filter(|commit| !commit.is_empty())?;
    let changed = git(&["status", "--porcelain", "--", "src", "Cargo.lock"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { format!("{commit} with changes") } else { commit })
}

fn pingora() -> String {
    format!("pingora {}", locked(include_str!("pingora/Cargo.lock"), "pingora"))
}

/// The version of a crate in a lock file.
fn locked(lock: &str, name: &str) -> String {
    let after = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).map_or("", |(_, after)| after);
    after.split('"').next().unwrap_or_default().to_owned()
}

/// The first line that says something; nginx says it on standard error, and Envoy after an empty one.
fn first_line(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    // `PATH  version: COMMIT/VERSION/…`, `nginx version: nginx/VERSION`, `HAProxy version VERSION - URL`.
    if let Some((_, version)) = line.split_once("  version: ") {
        return Some(format!("envoy {}", version.split('/').nth(1)?));
    }
    let line = line.trim_start_matches("nginx version: ");
    Some(line.split(" - ").next().unwrap_or(line).to_owned())
}
