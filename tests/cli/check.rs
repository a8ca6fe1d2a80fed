use crate::support::{World, certificate};

#[test]
fn a_sound_configuration_is_said_to_be_sound() {
    let world = World::new();
    let output = world.run(&["check"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.starts_with("ok: 4 routes, 3 roles, 5 policies"), "{}", output.stdout);
    let json = world.run(&["check", "--json"]).json();
    assert_eq!((&json["ok"], &json["policies"], &json["warnings"]), (&true.into(), &5.into(), &serde_json::json!([])));
    assert!(!world.path().join("state").exists(), "a check leaves nothing behind");
}

#[test]
fn a_misspelt_role_is_shown_at_its_place_with_the_nearest_name() {
    let world = World::new();
    world.replace("policies/access.cedar", "Role::\"auditor\"", "Role::\"auditr\"");
    let output = world.run(&["check"]);
    assert_eq!((output.code, output.stdout.as_str()), (2, ""));
    assert!(output.stderr.contains("access.cedar:6:"), "{}", output.stderr);
    assert!(output.stderr.contains("did you mean `auditor`?"), "{}", output.stderr);
    assert!(!output.stderr.contains('\u{1b}'), "no terminal, no colour: {:?}", output.stderr);
}

#[test]
fn faults_are_data_too() {
    let world = World::new();
    world.replace("policies/rules.yaml", "upstream: billing", "upstream: biling");
    let output = world.run(&["check", "--json"]);
    let json = output.json();
    assert_eq!((output.code, &json["ok"]), (2, &false.into()));
    let fault = &json["faults"][0];
    assert!(fault["file"].as_str().unwrap().ends_with("policies/rules.yaml"), "{fault}");
    assert!(fault["line"].as_u64().unwrap() > 1 && fault["column"].as_u64().unwrap() > 1, "{fault}");
    assert!(fault["code"].is_string() && fault["message"].as_str().unwrap().contains("`biling`"), "{fault}");
    assert_eq!(fault["help"], "did you mean `billing`?");
}

#[test]
fn a_certificate_without_its_key_is_found_without_serving() {
    let world = World::new();
    let (_other_certificate, other_key) = certificate();
    world.write("server.key", &other_key);
    let output = world.run(&["check"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("listener `mesh`") && output.stderr.contains("does not match"), "{}", output.stderr);
}

#[test]
fn an_upstream_s_authorities_are_read() {
    let world = World::new();
    world.write("ca.pem", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
    let tls = "addresses: [\"https://127.0.0.1:9\"], tls: { authorities: ca.pem }";
    world.replace("doorward.yaml", "addresses: [\"http://127.0.0.1:9\"]", tls);
    let output = world.run(&["check"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("upstream `billing`"), "{}", output.stderr);
}

#[test]
fn policies_that_permit_nothing_are_a_warning_and_no_fault() {
    let world = World::new();
    world.write("policies/access.cedar", "");
    world.write("policies/guardrails.cedar", "");
    let output = world.run(&["check"]);
    assert_eq!(output.code, 0);
    assert!(output.stderr.contains("warning") && output.stderr.contains("no policy permits"), "{}", output.stderr);
    let json = world.run(&["check", "--json"]).json();
    assert!(json["warnings"][0]["message"].as_str().unwrap().contains("no policy permits"), "{json}");
}

#[test]
fn a_missing_configuration_is_a_fault_of_the_configuration() {
    let world = World::new();
    let output = world.run(&["check", "--config", "nowhere.yaml"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("nowhere.yaml"), "{}", output.stderr);
    assert_eq!(world.run(&["run", "--config", "nowhere.yaml"]).code, 2);
}
