//! Bearer tokens of several issuers: who they say is calling, and how long.

use serde_json::{Value, json};

use crate::support::{Authority, Gate, ORIGIN, RecordingUpstream, RunningGate, SigningKey, StaticIssuer, TokenDraft};

/// An `iss` whose keys are in a file, so that nobody need serve it.
const PEOPLE: &str = "https://people.test/oauth2/default";

/// An entry for [`PEOPLE`], changed by `settings`.
fn people(settings: &Value) -> Value {
    let mut entry = json!({
        "issuer": PEOPLE, "principals": "users", "audience": [ORIGIN], "algorithms": ["ES256"],
        "keys": { "file": "people.json" }, "principal": ["uid"],
    });
    entry.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    json!({ "issuers": { "okta": entry } })
}

fn person(key: &SigningKey, uid: &str) -> TokenDraft {
    TokenDraft::new(key.clone(), PEOPLE, ORIGIN).claim("uid", uid).claim("sub", "ada@example.test")
}

struct World {
    key: SigningKey,
    machines: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
}

impl World {
    /// Machines and people at once; people in `readers` read as machines do.
    async fn start(settings: Value) -> Self {
        Self::changed(settings, |gate| gate).await
    }

    async fn changed(settings: Value, change: impl FnOnce(Gate) -> Gate) -> Self {
        let authority = Authority::new();
        let machines = StaticIssuer::start(&authority).await;
        let upstream = RecordingUpstream::start().await;
        let key = SigningKey::es256("people-1");
        let gate = Gate::standard(&authority, &machines, &upstream)
            .file("people.json", &json!({ "keys": [key.public()] }).to_string())
            .config(people(&settings))
            .role_of(
                "reader",
                json!({ "environment": "test", "trust": [
                    { "issuer": "machines", "groups": ["readers"] }, { "issuer": "okta", "groups": ["readers"] },
                ] }),
            )
            .route("things", json!({ "path": "/things/{*rest}", "identity_headers": {} }));
        let gate = change(gate).start().await;
        gate.becomes_ready(200).await;
        Self { key, machines, upstream, gate }
    }

    async fn status(&self, path: &str, token: &TokenDraft) -> u16 {
        self.gate.get(path).bearer(&token.mint()).send().await.status.as_u16()
    }
}

#[tokio::test]
async fn users_of_one_issuer_and_workloads_of_another_call_side_by_side() {
    let world = World::start(json!({})).await;
    assert_eq!(world.status("/things/user", &person(&world.key, "00u1")).await, 200);
    assert_eq!(world.status("/things/workload", &world.machines.token()).await, 200);
    let records = world.gate.settled_audit().await;
    let of = |path: &str| records.iter().find(|record| record.is_request_to(path)).unwrap().value("principal").clone();
    let (user, workload) = (of("/things/user"), of("/things/workload"));
    assert_eq!((&user["id"], &user["kind"]), (&json!("okta|00u1"), &json!("User")));
    assert_eq!((&workload["id"], &workload["kind"]), (&json!("machines|machine-1"), &json!("Workload")));
    assert_eq!(user["evidence"], "bearer");
}

#[tokio::test]
async fn an_issuer_is_its_exact_text_and_its_keys_speak_for_nobody_else() {
    let world = World::start(json!({})).await;
    let token = || person(&world.key, "00u1");
    for issuer in [
        format!("{PEOPLE}/"),
        PEOPLE.to_uppercase(),
        PEOPLE.replace("https", "http"),
        "https://people.test:443/oauth2/default".to_owned(),
        "https://people.test/oauth2".to_owned(),
        world.machines.url(),
    ] {
        assert_eq!(world.status("/things/1", &token().claim("iss", &issuer)).await, 401, "{issuer}");
    }
    let foreign = world.machines.token().claim("iss", PEOPLE).claim("uid", "00u1");
    assert_eq!(world.status("/things/1", &foreign).await, 401, "a key of `machines` spoke for `okta`");
    world.upstream.heard_nothing();
    assert_eq!(world.status("/things/1", &token()).await, 200);
}

#[tokio::test]
async fn a_subject_with_a_bar_is_one_caller_in_record_assertion_and_header() {
    let world = World::start(json!({})).await;
    assert_eq!(world.status("/things/1", &person(&world.key, "auth0|5f7c")).await, 200);
    let received = world.upstream.only();
    assert_eq!(received.header("x-doorward-subject"), Some("auth0|5f7c"));
    assert_eq!(received.header("x-doorward-issuer"), Some("okta"));
    let assertion = received.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    let claims = world.gate.verify_assertion(assertion, &world.upstream.url()).await;
    assert_eq!(claims["sub"], "okta|auth0|5f7c");
    assert_eq!(world.gate.only_record_of("/things/1").await.text("principal.id"), "okta|auth0|5f7c");
    for subject in ["a\nb", "a\u{0}b", "a\u{85}b", ""] {
        assert_eq!(world.status("/things/2", &person(&world.key, subject)).await, 401, "{subject:?}");
    }
}

#[tokio::test]
async fn no_issuer_or_certificate_issuer_is_named_with_a_bar() {
    let authority = Authority::new();
    let machines = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let entry = people(&json!({}))["issuers"]["okta"].clone();
    let gate = Gate::standard(&authority, &machines, &upstream).file("people.json", r#"{ "keys": [] }"#);
    let (code, log) = gate.config(json!({ "issuers": { "okta|x": entry } })).refuses_to_start().await;
    assert_eq!(code, 2);
    assert!(log.contains("doorward.yaml") && log.contains("`okta|x`"), "{log}");
    let (code, log) = Gate::standard(&authority, &machines, &upstream)
        .config(json!({ "certificate_issuers": { "mesh|x": { "listeners": ["public"] } } }))
        .refuses_to_start()
        .await;
    assert_eq!(code, 2);
    assert!(log.contains("`mesh|x`"), "{log}");
}

#[tokio::test]
async fn nested_claims_name_the_principal_and_become_attributes() {
    let settings = json!({
        "principal": [r"kubernetes\.io.namespace", r"kubernetes\.io.serviceaccount.uid"],
        "attributes": {
            "namespace": { "claim": r"kubernetes\.io.namespace", "type": "string" },
            "level": { "claim": "level", "type": "long" },
            "staff": { "claim": "staff", "type": "bool" },
            "teams": { "claim": "teams", "type": "set" },
        },
    });
    let rule = r#"@id("by-attributes") permit(principal is User, action, resource == Route::"inner") when {
        principal has namespace && principal.namespace == "billing" && principal has level && principal.level >= 3 &&
        principal has staff && principal.staff && principal has teams && principal.teams.contains("ledger")
    };"#;
    let world =
        World::changed(settings, |gate| gate.route("inner", json!({ "path": "/inner/{*rest}" })).policy(rule)).await;
    let token = |namespace: &str, level: i64, staff: bool, teams: &[&str]| {
        let workload = json!({ "namespace": namespace, "serviceaccount": { "uid": "7/9" } });
        let token = person(&world.key, "unused").groups(&[]).claim("kubernetes.io", workload);
        token.claim("level", level).claim("staff", staff).claim("teams", teams)
    };
    assert_eq!(world.status("/inner/1", &token("billing", 3, true, &["ledger"])).await, 200);
    let record = world.gate.only_record_of("/inner/1").await;
    assert_eq!(record.text("principal.id"), "okta|billing/7%2F9", "parts cannot be shifted into each other");
    assert_eq!(record.value("policy_ids"), &json!(["by-attributes"]));
    for wrong in [
        token("sales", 3, true, &["ledger"]),
        token("billing", 2, true, &["ledger"]),
        token("billing", 3, false, &["ledger"]),
        token("billing", 3, true, &[]),
    ] {
        assert_eq!(world.status("/inner/2", &wrong).await, 403, "{}", wrong.claims_text());
    }
    let mistyped = token("billing", 3, true, &["ledger"]).claim("level", "3");
    assert_eq!(world.status("/inner/2", &mistyped).await, 401, "text where a number is declared");
}

#[tokio::test]
async fn required_and_forbidden_claims_bind_an_issuer_that_signs_for_many() {
    let settings = json!({
        "required_claims": { "owner_id": ["team_1"], "env.name": ["production", "staging"] },
        "forbidden_claims": { "act": [], "mode": ["preview"] },
    });
    let world = World::start(settings).await;
    let token = || person(&world.key, "u").claim("owner_id", "team_1").claim("env", json!({ "name": "staging" }));
    for (what, wrong) in [
        ("another owner", token().claim("owner_id", "team_2")),
        ("no owner", token().without_claim("owner_id")),
        ("another environment", token().claim("env", json!({ "name": "preview" }))),
        ("a flat claim of the nested name", token().without_claim("env").claim("env.name", "staging")),
        ("a claim that must be absent", token().claim("act", json!({}))),
        ("a value that must not be", token().claim("mode", "preview")),
    ] {
        assert_eq!(world.status("/things/1", &wrong).await, 401, "{what}");
    }
    world.upstream.heard_nothing();
    assert_eq!(world.status("/things/1", &token().claim("mode", "normal")).await, 200);
}

#[tokio::test]
async fn an_issuers_entry_says_how_long_its_tokens_may_live_and_of_which_type_they_are() {
    let world = World::start(json!({ "longest_token": "10m", "token_type": "any" })).await;
    let token = || person(&world.key, "u");
    let lives = |seconds: i64| token().claim("exp", crate::support::now() + seconds);
    assert_eq!(world.status("/things/1", &lives(660)).await, 401, "longer than its issuer allows");
    assert_eq!(world.status("/things/1", &lives(540)).await, 200);
    assert_eq!(world.status("/things/1", &token().header("typ", "JWT")).await, 200);
    assert_eq!(world.status("/things/1", &token().without_header("typ")).await, 200);
    for id_token in [token().claim("nonce", "n"), token().claim("at_hash", "h")] {
        assert_eq!(world.status("/things/1", &id_token).await, 401, "an ID token is for its client");
    }
    let machine = world.machines.token().header("typ", "JWT");
    assert_eq!(world.status("/things/1", &machine).await, 401, "`machines` must say at+jwt");
}

#[tokio::test]
async fn a_caller_may_send_one_of_several_audiences() {
    let world = World::start(json!({ "audience": [ORIGIN, "api://second"] })).await;
    let token = || person(&world.key, "u");
    assert_eq!(world.status("/things/1", &token().claim("aud", json!(["api://other", "api://second"]))).await, 200);
    assert_eq!(world.status("/things/2", &token().claim("aud", json!(["api://other", "api://secon"]))).await, 401);
}

#[tokio::test]
async fn a_route_narrows_the_issuers_that_it_takes() {
    let world = World::changed(json!({}), |gate| {
        let only_people = json!({ "path": "/people/{*rest}", "accept": { "issuers": ["okta"] } });
        gate.route("people-only", only_people)
    })
    .await;
    assert_eq!(world.status("/people/1", &world.machines.token()).await, 403);
    assert_eq!(world.gate.only_record_of("/people/1").await.verdict(), ("deny", "issuer_not_accepted"));
    world.upstream.heard_nothing();
    assert_eq!(world.status("/people/2", &person(&world.key, "u")).await, 200);
}
