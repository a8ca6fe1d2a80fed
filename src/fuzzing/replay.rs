//! Every input that was ever worth keeping, through the fuzzer's own functions, without the fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// Panics where its property does not hold.
type Check = fn(&[u8]);

/// By the names of the fuzzer's targets.
const TARGETS: [(&str, Check); 7] = [
    ("configuration", super::configuration),
    ("cookie", super::cookie),
    ("framing", super::framing),
    ("policy", super::policy),
    ("proxy_header", super::proxy_header),
    ("target", super::target),
    ("token", super::token),
];

/// Largest corpus of one target.
const CORPUS_BYTES: usize = 300 * 1024;

fn fuzz(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path)
}

/// The names in a folder, without `.rs`.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz(folder)).unwrap_or_else(|error| panic!("fuzz/{folder}: {error}"));
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().trim_end_matches(".rs").to_owned()).collect()
}

#[test]
fn what_the_fuzzer_kept_still_holds() {
    let mut faults = Vec::new();
    for (target, check) in TARGETS {
        let folder = format!("corpus/{target}");
        let files = names(&folder);
        let mut bytes = 0;
        for file in &files {
            let input = fs::read(fuzz(&folder).join(file)).unwrap();
            bytes += input.len();
            if catch_unwind(|| check(&input)).is_err() {
                faults.push(format!("fuzz/{folder}/{file}"));
            }
        }
        assert!(!files.is_empty() && bytes > 0, "fuzz/{folder} holds nothing");
        assert!(bytes <= CORPUS_BYTES, "fuzz/{folder} holds {bytes} bytes: minimise it");
    }
    assert!(faults.is_empty(), "broken by {faults:#?}");
}

#[test]
fn every_target_has_a_program_a_corpus_and_a_name_and_nothing_else_has() {
    let listed: BTreeSet<String> = TARGETS.map(|(target, _)| target.to_owned()).into();
    assert_eq!(names("fuzz_targets"), listed);
    assert_eq!(names("corpus"), listed);
    let manifest = fs::read_to_string(fuzz("Cargo.toml")).unwrap();
    let built = manifest.split("[[bin]]").skip(1).map(|bin| bin.split('"').nth(1).unwrap().to_owned());
    assert_eq!(built.collect::<BTreeSet<_>>(), listed);
    for target in &listed {
        let program = fs::read_to_string(fuzz("fuzz_targets").join(format!("{target}.rs"))).unwrap();
        assert!(program.contains(&format!("doorward::fuzzing::{target}(bytes)")), "{target}: {program}");
    }
}

proptest! {
    #[test]
    fn it_holds_for_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (_, check) in TARGETS {
            check(&bytes);
        }
    }
}
