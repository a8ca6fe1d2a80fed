use crate::support::{World, run};

const VERBS: [&str; 5] = ["run", "check", "explain", "schema", "demo"];

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
