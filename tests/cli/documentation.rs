//! `docs/operating.md` says what the sources say.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::run;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn sources(folder: &Path, text: &mut String) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// What stands in backticks in the first cells of the tables below `heading`, up to the next heading of its level.
fn first_cells(heading: &str) -> BTreeSet<String> {
    let page = read("docs/operating.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let quoted = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    quoted.map(str::to_owned).collect()
}

/// The words that stand in `text` right after `before`, in quotes.
fn words_after(text: &str, before: &str) -> BTreeSet<String> {
    let rest = text.split(before).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    rest.filter(is_word).map(str::to_owned).collect()
}

#[test]
fn every_code_of_the_documentation_stands_in_the_sources() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let codes = first_cells("Codes");
    assert!(codes.len() > 80, "{}", codes.len());
    let unknown: Vec<_> = codes.iter().filter(|code| !text.contains(&format!("\"{code}\""))).collect();
    assert!(unknown.is_empty(), "no source has {unknown:?}");
}

#[test]
fn every_code_of_the_sources_stands_in_the_documentation() {
    let codes = first_cells("Codes");
    let mut known = BTreeSet::new();
    for file in
        ["src/proxy/error.rs", "src/identity/mod.rs", "src/policy/mod.rs", "src/upstream/error.rs", "src/target/mod.rs"]
    {
        let text = read(file);
        let bodies: Vec<_> = text.split("fn code(").skip(1).filter_map(|rest| rest.split("\n    }\n").next()).collect();
        assert!(!bodies.is_empty(), "{file}");
        known.extend(bodies.iter().flat_map(|body| words_after(body, "=>")));
    }
    for file in ["identity/bearer/mod", "identity/bearer/rules", "identity/jwt", "identity/token", "identity/claims"] {
        known.extend(words_after(&read(&format!("src/{file}.rs")), "::invalid("));
    }
    for file in ["identity/projection", "identity/certificate", "identity/keys/mod", "login/session"] {
        known.extend(words_after(&read(&format!("src/{file}.rs")), "::invalid("));
    }
    known.remove("ok");
    assert!(known.len() > 60, "{known:?}");
    let missing: Vec<_> = known.difference(&codes).collect();
    assert!(missing.is_empty(), "docs/operating.md does not tell of {missing:?}");
}

#[test]
fn metrics_and_audit_fields_are_the_ones_that_are_written() {
    let (telemetry, line) = (read("src/telemetry.rs"), read("src/audit/line.rs"));
    let documented: BTreeSet<String> = first_cells("Metrics")
        .iter()
        .map(|name| name.trim_start_matches("doorward_").trim_end_matches("_total").to_owned())
        .collect();
    let registered = words_after(&telemetry, "registry.register(");
    assert!(registered.len() > 10, "{registered:?}");
    let missing: Vec<_> = registered.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/operating.md does not tell of {missing:?}");
    for field in first_cells("Audit").iter().filter(|field| !field.contains('.')) {
        let written = [format!("\"{field}\""), format!("\\\"{field}\\\"")].iter().any(|name| line.contains(name));
        assert!(written, "no record has `{field}`");
    }
    for field in words_after(&line, "text(line,").iter().chain(&words_after(&line, "list(line,")) {
        let told = read("docs/operating.md").contains(&format!("`{field}`"));
        assert!(told, "docs/operating.md does not tell of `{field}`");
    }
}

#[test]
fn every_schema_that_an_example_names_is_made_by_the_commands_beside_it() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let mut named = 0;
    for example in std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()) {
        let directory = tempfile::tempdir().unwrap();
        let files = ["doorward.yaml", "policies/routes.yaml"];
        for file in files {
            let text = std::fs::read_to_string(example.join(file)).unwrap();
            for command in text.split('`').filter(|text| text.starts_with("doorward schema")) {
                let (arguments, made) = command.split_once(" > ").unwrap();
                let arguments: Vec<&str> = arguments.split(' ').skip(1).collect();
                let output = run(directory.path(), &arguments, "");
                assert_eq!(output.code, 0, "{command}");
                std::fs::write(directory.path().join(made), output.stdout).unwrap();
            }
        }
        std::fs::create_dir(directory.path().join("policies")).unwrap();
        for file in files {
            let text = std::fs::read_to_string(example.join(file)).unwrap();
            let schema = text.lines().next().unwrap().split_once("$schema=").unwrap().1;
            let schema = directory.path().join(file).parent().unwrap().join(schema);
            let schema: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
            assert!(schema["properties"].is_object(), "{file}");
            named += 1;
        }
    }
    assert!(named >= 6, "{named} schemas are named");
}

#[test]
fn every_test_that_the_security_pages_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut directories = vec![root.join("src"), root.join("tests")];
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("node_modules") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push((path.clone(), std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    let pages = read("docs/SECURITY.md") + &read("docs/advisories.md");
    let named: BTreeSet<(&str, &str)> = pages.split('`').filter_map(|text| text.split_once("::")).collect();
    assert!(named.len() > 80, "{named:?}");
    for (module, test) in named {
        let is_it = |(path, source): &(std::path::PathBuf, String)| {
            path.iter().any(|part| Path::new(part).file_stem().is_some_and(|stem| stem == module))
                && source.contains(&format!("fn {test}("))
        };
        assert!(sources.iter().any(is_it), "no test `{module}::{test}`");
    }
}
