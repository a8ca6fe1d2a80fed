//! The report: the bars, a table for each work, and the configuration of everybody.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use time::OffsetDateTime;

use super::arguments::Arguments;
use super::bars;
use super::bench::Bench;
use super::machine;
use super::table::Table;

const METHOD: &str = "\
Each proxy has one worker on core 0; the load's client and the upstream (HTTP/1.1 without TLS) share core 1. TLS 1.3,
TLS_AES_128_GCM_SHA256, X25519, an ECDSA P-256 certificate. CPU time is the kernel's account of all threads of a proxy
and of its children, divided by the answers with a status of 2xx. Each round measures everybody twice, A B C and C B A;
ratios are taken within a round. Figures are the median of the rounds, half of the rounds in brackets. `busy` is the
share of a core that the proxy used: where it is well below 1, the client was what bounded the rate. All show the
upstream a credential and write a line of JSON for each request (the bare proxy excepted, which writes none). Those
whose checks are `nothing` forward whatever they are sent; those that check were asked before with no token (401),
another's signature (401) and another group (403), and whether the upstream sees the credential and not the token.
";

/// Writes it; answers where it is. Only a whole run at full length stands among the results.
pub fn write(bench: &Bench, arguments: &Arguments, tables: &[Table]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = root.join(if arguments.is_whole() { "benches/results" } else { "target/peers/results" });
    fs::create_dir_all(&place).expect("a directory");
    let date = OffsetDateTime::now_utc().date().to_string();
    let path = place.join(format!("{date}.md"));
    fs::write(&path, text(bench, arguments, tables, &date)).expect("the report can be written");
    path
}

fn text(bench: &Bench, arguments: &Arguments, tables: &[Table], date: &str) -> String {
    let mut text = format!("# Doorward beside other proxies, {date}\n\n");
    let mut add = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("writing to a string succeeds");
    let command = format!("cargo bench --locked --bench peers -- {}", arguments.line);
    add(format_args!("- command: `{}`", command.trim_end_matches([' ', '-'])));
    add(format_args!("- machine: {}", machine::machine()));
    let commit = machine::commit().filter(|_| arguments.doorward.is_none());
    add(format_args!("- versions: {}", machine::versions(&bench.site).join("; ")));
    add(format_args!("- Doorward's build: {}", commit.as_deref().unwrap_or("another, given with `--doorward`")));
    let effort = bench.effort;
    add(format_args!(
        "- effort: {} rounds of two slices each: {} ms of load, {} requests with tokens of their own, {} handshakes, {} s at \
         a fixed rate",
        effort.rounds,
        effort.slice.as_millis(),
        effort.tokens,
        effort.handshakes,
        effort.latency.as_secs(),
    ));
    if !bench.absent.is_empty() {
        add(format_args!("- absent, not installed or not built: {}", bench.absent.join("; ")));
    }
    add(format_args!("\n{METHOD}\n## Bars\n\n{}\n## Works\n", bars::shown(tables)));
    for table in tables {
        add(format_args!("{table}"));
    }
    add(format_args!("## Configurations\n\nAs they ran; `DIRECTORY` is a temporary directory of each."));
    for (position, target) in bench.targets.iter().enumerate() {
        let before = bench.targets.iter().take(position);
        if before.clone().any(|earlier| Rc::ptr_eq(&earlier.started, &target.started)) {
            continue;
        }
        add(format_args!("\n### {}\n\n```\n{}\n```", target.name, target.started.configuration.trim_end()));
    }
    text
}
