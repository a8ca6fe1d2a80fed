//! The layering: a module imports only from rows below its own, and siblings of one row never import each other.
//!
//! Reads the sources as text, so it also sees what no build of today compiles.
#![allow(missing_docs, reason = "a test's name is its sentence")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom; `docs/ARCHITECTURE.md` shows the same rows in the block that begins with `main`.
const ROWS: [&[&str]; 16] = [
    &["main"],
    &["cli"],
    &["demo"],
    &["app"],
    &["fuzzing", "workbench"],
    &["config"],
    &["edge", "server", "admin"],
    &["proxy"],
    &["upstream", "login"],
    &["audit"],
    &["credential"],
    &["policy"],
    &["identity"],
    &["route"],
    &["outbound"],
    &["peer", "secret", "shutdown", "target", "telemetry", "clock", "body", "hex", "worker"],
];

const LONGEST_FILE: usize = 500;

/// A source file and the top-level module that it belongs to.
struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let source = |path: PathBuf| {
        let inside = path.strip_prefix(&folder).unwrap();
        let module =
            inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&path).unwrap();
        Source { path: path.strip_prefix(root()).unwrap().to_owned(), module, text }
    };
    rust_files(&folder).into_iter().map(source).collect()
}

/// Code without comments and without what stands in quotes.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        code.push_str(&rest[..at]);
        rest = &rest[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with('"') {
            let hashes = "#".repeat(code.len() - code.trim_end_matches('#').len());
            let raw = code.trim_end_matches('#').ends_with('r');
            if raw { raw_text_length(rest, &hashes) } else { text_length(rest) }
        } else if rest.starts_with("'\"'") {
            3
        } else if let Some(escaped) = rest.strip_prefix("'\\") {
            escaped.find('\'').map_or(rest.len(), |end| end + 3)
        } else {
            code.push_str(&rest[..1]);
            1
        };
        rest = &rest[skipped..];
    }
    code + rest
}

fn raw_text_length(text: &str, hashes: &str) -> usize {
    let end = format!("\"{hashes}");
    text[1..].find(&end).map_or(text.len(), |at| at + 1 + end.len())
}

fn text_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The top-level modules that `text` names by `crate::…` (or, in the binary, by `doorward::…`), with line numbers.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code = code(text);
    let mut imports = Vec::new();
    for prefix in ["crate::", "doorward::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + prefix.len()..];
            let names = rest.strip_prefix('{').map_or_else(|| vec![first_name(rest)], names_of_group);
            imports.extend(names.into_iter().map(|name| (line, name)));
        }
    }
    imports
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// The first name of every member of `{a::b, c::{d, e}}`, given without the opening brace.
fn names_of_group(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut member = String::new();
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(std::mem::take(&mut member)),
            _ => member.push(character),
        }
    }
    names.push(member);
    names.iter().map(|member| first_name(member.trim_start())).filter(|name| !name.is_empty()).collect()
}

fn row_of() -> HashMap<&'static str, usize> {
    ROWS.iter().enumerate().flat_map(|(row, names)| names.iter().map(move |name| (*name, row))).collect()
}

/// Every import of `source` that runs uphill or sideways.
fn faults(source: &Source) -> Vec<String> {
    let rows = row_of();
    let Some(own_row) = rows.get(source.module.as_str()) else {
        return vec![format!("{}: module `{}` stands on no row", source.path.display(), source.module)];
    };
    let mut faults = Vec::new();
    for (line, name) in imports(&source.text) {
        let allowed = name == source.module || rows.get(name.as_str()).is_some_and(|row| row > own_row);
        if !allowed {
            faults.push(format!("{}:{line}: `{}` imports `{name}`", source.path.display(), source.module));
        }
    }
    faults
}

fn assert_none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
}

#[test]
fn no_import_runs_uphill_or_sideways() {
    // `lib.rs` only declares the modules.
    let sources = sources().into_iter().filter(|source| source.module != "lib");
    let faults: Vec<_> = sources.flat_map(|source| faults(&source)).collect();
    assert_none("imports against the layering (docs/ARCHITECTURE.md)", &faults);
}

#[test]
fn the_documentation_shows_the_same_rows() {
    // The page is part of the house: while it is missing this fails, as it would if it said something else.
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md");
    let mut blocks = page.split("```").filter_map(|block| block.split_once('\n'));
    let (_tag, block) = blocks.find(|(_tag, block)| block.starts_with("main\n")).expect("a block of the rows");
    let shown: Vec<Vec<&str>> = block.lines().map(|line| line.split('·').map(str::trim).collect()).collect();
    let sorted = |row: &[&str]| {
        let mut row = row.to_vec();
        row.sort_unstable();
        row.join(" · ")
    };
    let shown: Vec<_> = shown.iter().map(|row| sorted(row)).collect();
    let meant: Vec<_> = ROWS.iter().map(|row| sorted(row)).collect();
    assert_eq!(shown, meant);
}

#[test]
fn no_file_is_longer_than_five_hundred_lines() {
    let folders = ["src", "tests", "benches"].map(|folder| root().join(folder));
    let mut faults = Vec::new();
    for path in folders.iter().flat_map(|folder| rust_files(folder)) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > LONGEST_FILE {
            faults.push(format!("{}: {lines} lines", path.strip_prefix(root()).unwrap().display()));
        }
    }
    assert_none("files with more than one noun", &faults);
}

#[test]
fn unsafe_code_is_forbidden() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""), "Cargo.toml no longer forbids unsafe code");
    let uses_it = |source: &Source| {
        code(&source.text).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    let faults: Vec<_> =
        sources().iter().filter(|source| uses_it(source)).map(|source| source.path.display().to_string()).collect();
    assert_none("unsafe code", &faults);
}

#[test]
fn only_config_reads_the_environment() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.module != "config") {
        let code = code(&source.text);
        for call in ["env::var", "env::vars", "env::var_os"] {
            if code.contains(call) {
                faults.push(format!("{}: {call}", source.path.display()));
            }
        }
    }
    assert_none("the environment is read outside `config`", &faults);
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let text = "use crate::{policy::{Grant, Denied}, route::Route,\n  identity};\nfn f() { crate::audit::go(\"crate::no\") } // crate::no";
    let names: Vec<_> = imports(text).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["policy", "route", "identity", "audit"]);
    let source =
        |module: &str, text: &str| Source { path: "x.rs".into(), module: module.to_owned(), text: text.to_owned() };
    assert!(faults(&source("proxy", "use crate::policy::Grant; use crate::proxy::x;")).is_empty());
    assert_eq!(faults(&source("policy", "use crate::proxy::Line;")).len(), 1, "uphill");
    assert_eq!(faults(&source("login", "use crate::upstream::Pool;")).len(), 1, "sideways");
    assert_eq!(faults(&source("edge", "type X = crate::nowhere::X;")).len(), 1, "a module on no row");
}
