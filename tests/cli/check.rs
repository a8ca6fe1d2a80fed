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
    assert!(output.stderr.contains("doorward.yaml:8:54"), "{}", output.stderr);
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
    assert!(output.stderr.contains("doorward.yaml:34:70"), "{}", output.stderr);
}

/// PEM that looks like a certificate and is none.
const NO_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

/// Every fault as `file:line:column code`.
fn told(world: &World) -> Vec<String> {
    let json = world.run(&["check", "--json"]).json();
    let place = |fault: &serde_json::Value| {
        let text = |key: &str| fault[key].as_str().unwrap().to_owned();
        format!("{}:{}:{} {}", text("file"), fault["line"], fault["column"], text("code"))
    };
    json["faults"].as_array().unwrap().iter().map(place).collect()
}

#[test]
fn what_only_shows_when_a_part_is_made_is_shown_where_its_file_is_named() {
    let world = World::new();
    let (_other_certificate, other_key) = certificate();
    world.write("bad.pem", NO_CERTIFICATE);
    world.write("bad.crl", "-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n");
    world.write("other.key", &other_key);
    let spoil = |file: &str, from: &str, to: &str| world.replace(file, from, to);
    spoil(
        "doorward.yaml",
        "required, authorities: server.pem",
        "required, authorities: server.pem, revocations: bad.crl",
    );
    spoil("doorward.yaml", "keys: { file: keys.json }", "keys: { discovery: { authorities: bad.pem } }");
    spoil(
        "doorward.yaml",
        "addresses: [\"http://127.0.0.1:9\"]",
        "addresses: [\"https://127.0.0.1:9\"], tls: { certificate: server.pem, key: file:other.key }",
    );
    let pages = "upstreams:\n  pages: { addresses: [\"https://127.0.0.1:9\"], tls: { authorities: ../bad.pem } }\n";
    world.write("policies/pages.yaml", pages);
    assert_eq!(
        told(&world),
        [
            "./policies/pages.yaml:2:68 upstream",
            "doorward.yaml:9:84 tls",
            "doorward.yaml:16:39 issuer",
            "doorward.yaml:34:87 upstream",
        ]
    );
}

#[test]
fn an_authority_of_clients_that_is_none_is_shown_where_it_is_named() {
    let world = World::new();
    world.write("bad.pem", NO_CERTIFICATE);
    world.replace("doorward.yaml", "required, authorities: server.pem", "required, authorities: bad.pem");
    assert_eq!(told(&world), ["doorward.yaml:9:59 tls"]);
}

#[test]
fn no_kind_of_fault_hides_another_and_none_is_told_twice() {
    let world = World::new();
    let (_other_certificate, other_key) = certificate();
    world.write("server.key", &other_key);
    world.write("bad.pem", NO_CERTIFICATE);
    world.replace("doorward.yaml", "keys: { file: keys.json }", "keys: { discovery: { authorities: bad.pem } }");
    world.replace("policies/rules.yaml", "upstream: billing", "upstream: biling");
    world.write("policies/broken.cedar", "permit(principal, action, resource)\n");
    world.write("policies/nameless.cedar", "\npermit(principal, action, resource);\n");
    world.write("policies/guardrails-two.cedar", "@id(\"opens\") permit(principal, action, resource);\n");
    let faults = told(&world);
    assert_eq!(
        faults,
        [
            "./policies/broken.cedar:1:36 policy",
            "./policies/guardrails-two.cedar:1:1 policy",
            "./policies/nameless.cedar:2:1 policy",
            "./policies/rules.yaml:20:15 unknown_upstream",
            "doorward.yaml:8:54 tls",
            "doorward.yaml:16:39 issuer",
        ]
    );
}

#[test]
fn two_routes_that_meet_hide_no_policy_that_is_malformed() {
    let world = World::new();
    world.replace("policies/rules.yaml", "path: /payroll", "path: /health");
    world.write("policies/broken.cedar", "permit(principal, action, resource)\n");
    let faults = told(&world);
    assert!(faults[0].starts_with("./policies/broken.cedar:1:"), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.starts_with("./policies/rules.yaml:")), "{faults:?}");
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
