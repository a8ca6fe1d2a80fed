use crate::support::{World, run};

const VERBS: [&str; 7] = ["run", "check", "explain", "creds", "export", "schema", "demo"];

#[test]
fn help_names_every_verb_and_every_verb_shows_examples() {
    let directory = tempfile::tempdir().unwrap();
    for asked in [&["help"][..], &["--help"]] {
        let output = run(directory.path(), asked, "");
        assert_eq!(output.code, 0);
        for verb in VERBS {
            assert!(output.stdout.contains(&format!("  {verb} ")), "no `{verb}`: {}", output.stdout);
        }
    }
    for verb in VERBS {
        let output = run(directory.path(), &["help", verb], "");
        assert_eq!(output.code, 0);
        assert!(output.stdout.contains("Examples:"), "{verb}: {}", output.stdout);
        assert!(output.stdout.contains(&format!("doorward {verb}")), "{verb}: {}", output.stdout);
    }
}

#[test]
fn a_usage_error_is_two() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&[][..], &["chek"], &["check", "--colour"], &["explain", "--source-ip", "here", "https://a/"]] {
        let output = run(directory.path(), arguments, "");
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{arguments:?}");
    }
}

#[test]
fn schemas_are_json_that_names_the_top_level_keys() {
    let directory = tempfile::tempdir().unwrap();
    let names = |kind: &str, keys: &[&str]| {
        let output = run(directory.path(), &["schema", kind], "");
        assert_eq!(output.code, 0);
        let schema = output.json();
        for key in keys {
            assert!(schema["properties"].get(key).is_some(), "{kind} has no `{key}`");
        }
    };
    names("config", &["listeners", "issuers", "credentials", "upstreams", "audit", "admin", "state", "limits"]);
    names("policies", &["roles", "routes", "upstreams"]);
}

#[test]
fn an_address_in_use_is_the_environment() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    world.replace(
        "doorward.yaml",
        "public: { address: \"127.0.0.1:0\" }",
        &format!("public: {{ address: \"{address}\" }}"),
    );
    let output = world.run(&["run"]);
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("cannot start"), "{}", output.stderr);
}

#[test]
fn what_cannot_be_written_is_no_success() {
    let world = World::new();
    for arguments in [&["schema"][..], &["check"], &["check", "--json"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"))
            .args(arguments)
            .current_dir(world.path())
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("standard output cannot be written"));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let world = World::new();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"))
        .arg("schema")
        .current_dir(world.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_keeps_run_from_starting_is_json_where_json_was_asked_for() {
    let world = World::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("address: \"{}\"", held.local_addr().unwrap());
    world.replace("doorward.yaml", "address: \"127.0.0.1:0\"", &taken);
    let output = world.run(&["run", "--json"]);
    assert_eq!(output.code, 3, "{}", output.stderr);
    let lines: Vec<serde_json::Value> =
        output.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let error = lines.last().unwrap()["error"].as_str().unwrap();
    assert!(error.contains("cannot start") && error.contains("cannot listen on"), "{error}");
    drop(held);
    world.replace("doorward.yaml", &taken, "address: \"127.0.0.1:0\"");
    let output = world.run(&["run", "--json", "--ready-file", "nowhere/ready.json"]);
    assert_eq!(output.code, 3, "{}", output.stderr);
    let last: serde_json::Value = serde_json::from_str(output.stderr.lines().last().unwrap()).unwrap();
    let complaints = output.stderr.lines().filter(|line| line.contains("nowhere/ready.json")).count();
    assert!(last.is_object() && complaints == 1, "{}", output.stderr);
}
