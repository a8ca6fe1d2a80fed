use serde_json::{Value, json};

use crate::support::{Output, World, run};

const INVOICE: &str = "https://api.example.com/invoices/7";

/// `explain` with claims of `okta` on standard input.
fn okta(world: &World, claims: &Value, more: &[&str]) -> Output {
    let arguments = [&["explain", "--issuer", "okta", "--claims", "-"], more].concat();
    run(world.path(), &arguments, &claims.to_string())
}

#[test]
fn an_allowed_request_shows_the_decision_first_and_then_why() {
    let world = World::new();
    let output = okta(&world, &json!({ "uid": "u1", "groups": ["admins"] }), &[INVOICE]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.starts_with("ALLOW"), "{}", output.stdout);
    for part in
        ["okta|u1", "✓ admin", "✗ auditor", "access.cedar:1", "Administrators work on invoices", "authorization"]
    {
        assert!(output.stdout.contains(part), "no `{part}`: {}", output.stdout);
    }
    assert!(output.stdout.contains("taken as good: iss, aud, exp"), "{}", output.stdout);
    assert!(!output.stdout.contains('\u{1b}'), "no terminal, no colour: {:?}", output.stdout);
}

#[test]
fn a_denied_request_says_which_trust_is_not_met() {
    let world = World::new();
    world.write("claims.json", &json!({ "uid": "u1", "groups": ["engineers"] }).to_string());
    let output = world.run(&["explain", "--issuer", "okta", "--claims", "claims.json", INVOICE]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stdout.starts_with("DENY 403 not_permitted"), "{}", output.stdout);
    assert!(output.stdout.contains("the caller is not in the group `admins`"), "{}", output.stdout);
}

#[test]
fn a_guardrail_is_named_with_its_reason() {
    let world = World::new();
    let claims = json!({ "uid": "u1", "groups": ["admins"] });
    let output = okta(&world, &claims, &["-X", "DELETE", "--json", INVOICE]);
    let json = output.json();
    assert_eq!((output.code, &json["code"], &json["status"]), (1, &"guardrail".into(), &403.into()));
    let deciding = &json["policy"]["deciding"][0];
    assert_eq!((&deciding["id"], &deciding["guardrail"]), (&"no-deletes".into(), &true.into()));
    assert_eq!(deciding["reason"], "Finance records are never deleted");
}

#[test]
fn the_caller_s_address_and_the_time_are_asked_about() {
    let world = World::new();
    let auditor = json!({ "uid": "u1", "groups": ["auditors"] });
    assert_eq!(okta(&world, &auditor, &["--source-ip", "192.0.2.7", INVOICE]).code, 0);
    assert_eq!(okta(&world, &auditor, &["--source-ip", "203.0.113.7", INVOICE]).code, 1);
    let admin = json!({ "uid": "u1", "groups": ["admins"], "iat": 1_800_000_000 });
    assert_eq!(okta(&world, &admin, &["--at", "2027-01-15T08:30:00Z", INVOICE]).code, 0);
    let late = okta(&world, &admin, &["--at", "2027-01-15T09:30:00Z", INVOICE]);
    assert!(late.stdout.starts_with("DENY 401 role_session_expired"), "{}", late.stdout);
    assert_eq!(okta(&world, &admin, &["--at", "yesterday", INVOICE]).code, 2);
}

#[test]
fn nobody_passes_a_public_route_and_no_other() {
    let world = World::new();
    let open = world.run(&["explain", "https://api.example.com/health"]);
    assert_eq!(open.code, 0, "{}", open.stderr);
    assert!(open.stdout.contains("public: load balancers ask"), "{}", open.stdout);
    let closed = world.run(&["explain", INVOICE]);
    assert_eq!(closed.code, 1);
    assert!(closed.stdout.starts_with("DENY 401 unauthenticated"), "{}", closed.stdout);
}

#[test]
fn a_path_with_two_readings_is_refused() {
    let world = World::new();
    let output =
        okta(&world, &json!({ "uid": "u1", "groups": ["admins"] }), &["https://api.example.com/invoices/a%2Fb"]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.starts_with("DENY 400 path_ambiguous"), "{}", output.stdout);
}

#[test]
fn a_token_is_read_and_said_to_be_unverified() {
    let world = World::new();
    // {"alg":"ES256"} . {"iss":"https://nobody.example.com"} . forged
    world.write("token", "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL25vYm9keS5leGFtcGxlLmNvbSJ9.Zm9yZ2Vk\n");
    let output = world.run(&["explain", "--token", "token", INVOICE]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.starts_with("DENY 401 issuer_unknown"), "{}", output.stdout);
    assert!(output.stdout.contains("NOT verified"), "{}", output.stdout);
}

#[test]
fn an_unknown_issuer_gets_the_nearest_name() {
    let world = World::new();
    let output = run(world.path(), &["explain", "--issuer", "okat", "--claims", "-", INVOICE], "{}");
    assert_eq!((output.code, output.stdout.as_str()), (2, ""));
    assert!(output.stderr.contains("did you mean `okta`?"), "{}", output.stderr);
}

#[test]
fn what_cannot_be_asked_is_usage_and_what_cannot_be_read_is_the_environment() {
    let world = World::new();
    let code = |arguments: &[&str]| world.run(arguments).code;
    assert_eq!(code(&["explain"]), 2, "no URL");
    assert_eq!(code(&["explain", "/invoices/7"]), 2, "no host");
    assert_eq!(code(&["explain", "--issuer", "okta", INVOICE]), 2, "an issuer and no claims");
    assert_eq!(code(&["explain", "--claims", "-", INVOICE]), 2, "claims and no issuer");
    assert_eq!(
        run(world.path(), &["explain", "--issuer", "okta", "--claims", "-", INVOICE], "[1]").code,
        2,
        "no object"
    );
    assert_eq!(code(&["explain", "--issuer", "okta", "--claims", "missing.json", INVOICE]), 3);
    world.replace("policies/rules.yaml", "upstream: billing", "upstream: biling");
    assert_eq!(code(&["explain", INVOICE]), 2, "a faulty configuration explains nothing");
}
