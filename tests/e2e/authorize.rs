//! Roles by trust, permissions by Cedar, and what a refusal tells to whom.

use http::Method;
use serde_json::{Value, json};

use crate::support::{AuditRecord, Authority, Gate, RecordingUpstream, RunningGate, StaticIssuer, TokenDraft, now};

struct World {
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
}

impl World {
    async fn changed(change: impl FnOnce(Gate) -> Gate) -> Self {
        let authority = Authority::new();
        let issuer = StaticIssuer::start(&authority).await;
        let upstream = RecordingUpstream::start().await;
        let gate = change(Gate::standard(&authority, &issuer, &upstream)).start().await;
        gate.becomes_ready(200).await;
        Self { issuer, upstream, gate }
    }

    async fn status(&self, path: &str, token: &TokenDraft) -> u16 {
        self.gate.get(path).bearer(&token.mint()).send().await.status.as_u16()
    }

    async fn record(&self, path: &str) -> AuditRecord {
        self.gate.only_record_of(path).await
    }
}

/// Starts a gate with one more Cedar file, which must not come to serve.
async fn refused_with(file: &str, text: &str) -> String {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).cedar(file, text);
    let (code, log) = gate.refuses_to_start().await;
    assert_eq!(code, 2, "{log}");
    log
}

#[tokio::test]
async fn a_caller_holds_every_role_whose_trust_it_meets_at_once() {
    let world = World::changed(|gate| {
        gate.role("by-claim", json!({ "issuer": "machines", "claims": { "tier": ["gold", "silver"] } }))
            .role("by-nested", json!({ "issuer": "machines", "claims": { "org.unit": ["ledger"] } }))
            .role("by-both", json!({ "issuer": "machines", "groups": ["readers"], "claims": { "tier": ["gold"] } }))
            .role("by-neither", json!({ "issuer": "machines", "groups": ["readers"], "claims": { "tier": ["lead"] } }))
    })
    .await;
    let token = world.issuer.token().claim("tier", "gold").claim("org", json!({ "unit": "ledger" }));
    assert_eq!(world.status("/things/1", &token).await, 200);
    let held = json!(["by-both", "by-claim", "by-nested", "reader"]);
    let sorted = |roles: &Value| {
        let mut roles = roles.as_array().unwrap().clone();
        roles.sort_by_key(ToString::to_string);
        Value::Array(roles)
    };
    assert_eq!(sorted(world.record("/things/1").await.value("roles")), held);
    let assertion = world.upstream.only().header("authorization").unwrap()["Bearer ".len()..].to_owned();
    let claims = world.gate.verify_assertion(&assertion, &world.upstream.url()).await;
    assert_eq!(sorted(&claims["roles"]), held);

    let flat = world.issuer.token().claim("tier", "bronze").claim("org.unit", "ledger");
    assert_eq!(world.status("/things/2", &flat).await, 200);
    assert_eq!(world.record("/things/2").await.value("roles"), &json!(["reader"]), "a dotted name is no nested claim");
}

#[tokio::test]
async fn a_role_holds_in_its_own_environment_only() {
    let world = World::changed(|gate| {
        let both = json!({ "environments": ["test", "production"] });
        gate.config(json!({ "issuers": { "machines": both }, "credentials": { "assertion": both } }))
            .route("live", json!({ "path": "/live/{*rest}", "environment": "production" }))
            .role_of(
                "operator",
                json!({ "environment": "production", "trust": [{ "issuer": "machines", "groups": ["operators"] }] }),
            )
            .policy(r#"@id("operators") permit(principal in Role::"operator", action, resource);"#)
    })
    .await;
    let (reader, operator) = (world.issuer.token(), world.issuer.token().groups(&["operators"]));
    assert_eq!((world.status("/live/1", &reader).await, world.status("/live/2", &operator).await), (403, 200));
    assert_eq!((world.status("/things/1", &reader).await, world.status("/things/2", &operator).await), (200, 403));
    assert_eq!(world.record("/live/1").await.value("roles"), &json!([]));
}

#[tokio::test]
async fn a_caller_comes_to_the_environment_that_its_issuer_says_and_to_no_other() {
    let world = World::changed(|gate| {
        let claim = json!({ "claim": "stage", "values": { "preview": "test", "live": "production" } });
        gate.config(json!({ "issuers": { "machines": { "environment_claim": claim } } }))
    })
    .await;
    let of = |stage: &str| world.issuer.token().claim("stage", stage);
    assert_eq!(world.status("/things/1", &of("preview")).await, 200);
    assert_eq!(world.status("/things/2", &of("live")).await, 403);
    let record = world.record("/things/2").await;
    assert_eq!(record.verdict(), ("deny", "env_mismatch"));
    assert!(record.text("detail").contains("`production`"), "{}", record.text("detail"));
    assert_eq!(world.status("/things/3", &of("other")).await, 401);
    assert_eq!(world.record("/things/3").await.text("code"), "claim_mismatch");
    assert_eq!(world.status("/things/4", &world.issuer.token()).await, 401);
    assert_eq!(world.record("/things/4").await.text("code"), "claim_missing");
}

#[tokio::test]
async fn a_role_is_assumed_once_for_each_token_and_role_even_past_a_reload() {
    let world = World::changed(|gate| gate).await;
    let token = world.issuer.token().groups(&["readers", "writers"]).mint();
    let ask = async |method: Method, path: &str| world.gate.request(method, path).bearer(&token).send().await.status;
    for path in ["/things/1", "/things/2"] {
        assert_eq!(ask(Method::GET, path).await, 200);
        assert_eq!(ask(Method::POST, path).await, 200);
    }
    let assumed = |records: &[AuditRecord]| {
        let of = records.iter().filter(|record| record.event() == "role.assumed");
        let mut names: Vec<_> = of.map(|record| record.text("role").to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(assumed(&world.gate.settled_audit().await), ["reader", "writer"]);

    let rules = world.gate.read("policies/rules.yaml").replacen(
        "\"reader\":",
        r#""machine": { "environment": "test", "trust": [{ "issuer": "machines", "groups": ["readers"] }] }, "reader":"#,
        1,
    );
    world.gate.write("policies/rules.yaml", &rules);
    crate::support::eventually("the new role", || async {
        ask(Method::GET, "/things/3").await;
        assumed(&world.gate.settled_audit().await).contains(&"machine".to_owned()).then_some(())
    })
    .await;
    assert_eq!(assumed(&world.gate.settled_audit().await), ["machine", "reader", "writer"], "only the new one is new");

    let other = world.issuer.token().mint();
    assert_eq!(world.gate.get("/things/4").bearer(&other).send().await.status, 200);
    let records = world.gate.settled_audit().await;
    assert_eq!(assumed(&records), ["machine", "machine", "reader", "reader", "writer"]);
    let first = records.iter().find(|record| record.event() == "role.assumed").unwrap();
    assert_eq!(first.text("principal.id"), "machines|machine-1");
    assert!(!first.text("request_id").is_empty() && !first.text("began_at").is_empty());
}

#[tokio::test]
async fn a_role_session_begins_at_authentication_and_its_end_asks_to_sign_in_again() {
    let world = World::changed(|gate| {
        gate.role_of(
            "brief",
            json!({ "environment": "test", "longest_session": "10m",
                "trust": [{ "issuer": "machines", "groups": ["briefs"] }] }),
        )
        .policy(r#"@id("briefs") permit(principal in Role::"brief", action in Action::"read", resource);"#)
    })
    .await;
    let token = || world.issuer.token().groups(&["briefs"]);
    assert_eq!(world.status("/things/1", &token()).await, 200);
    for (path, old) in
        [("/things/2", token().claim("iat", now() - 660)), ("/things/3", token().claim("auth_time", now() - 660))]
    {
        let answer = world.gate.get(path).bearer(&old.mint()).send().await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.json()["code"], "role_session_expired");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
        assert_eq!(world.record(path).await.verdict(), ("deny", "role_session_expired"));
    }
    let both = token().groups(&["briefs", "readers"]).claim("iat", now() - 660);
    assert_eq!(world.status("/things/4", &both).await, 200, "another role still permits");
    assert_eq!(world.record("/things/4").await.value("roles"), &json!(["reader"]));
}

#[tokio::test]
async fn a_misspelt_attribute_is_a_load_error_with_file_line_and_column() {
    let text =
        "// A rule.\n@id(\"typo\")\nforbid(principal, action, resource)\nwhen { context.sorce_ip.isLoopback() };\n";
    let log = refused_with("typo.cedar", text).await;
    assert!(log.contains("policies/typo.cedar:4:8"), "{log}");
    assert!(log.contains("sorce_ip") && log.contains("source_ip"), "the nearest name is not told: {log}");
}

#[tokio::test]
async fn policies_that_cannot_mean_what_they_say_are_load_errors() {
    for (what, text) in [
        (
            "an attribute without its check",
            r#"@id("a") permit(principal, action, resource) when { context.acr == "x" };"#,
        ),
        ("another type", r#"@id("a") permit(principal, action, resource) when { context.path == 7 };"#),
        ("an unknown role", r#"@id("a") permit(principal in Role::"raeder", action, resource);"#),
        ("an unknown route", r#"@id("a") permit(principal, action, resource == Route::"thing");"#),
        ("an unknown method", r#"@id("a") permit(principal, action == Action::"FETCH", resource);"#),
        ("no id", "permit(principal, action, resource);"),
        ("an id of another file", r#"@id("readers-read") permit(principal, action, resource);"#),
        ("no Cedar", "permit everything"),
    ] {
        let log = refused_with("bad.cedar", text).await;
        assert!(log.contains("policies/bad.cedar:1:") || log.contains("policies/rules.cedar:1:"), "{what}: {log}");
    }
}

#[tokio::test]
async fn a_guardrails_file_holds_nothing_but_forbid() {
    let log = refused_with("guardrails-x.cedar", r#"@id("sneaky") permit(principal, action, resource);"#).await;
    assert!(log.contains("policies/guardrails-x.cedar:1:") && log.contains("forbid"), "{log}");
}

#[tokio::test]
async fn a_guardrail_wins_and_its_name_is_on_record_only() {
    let rail = r#"@id("no-secrets") forbid(principal, action, resource) when { context.path like "/things/secret*" };"#;
    let world = World::changed(|gate| gate.cedar("guardrails.cedar", rail)).await;
    let answer = world.gate.get("/things/secret-1").bearer(&world.issuer.token().mint()).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("guardrail")));
    assert!(!answer.text().contains("no-secrets"));
    let record = world.record("/things/secret-1").await;
    assert_eq!(record.verdict(), ("deny", "guardrail"));
    assert_eq!((record.value("policy_ids"), record.value("roles")), (&json!(["no-secrets"]), &json!(["reader"])));
    world.upstream.heard_nothing();
    assert_eq!(world.status("/things/1", &world.issuer.token()).await, 200);
}

#[tokio::test]
async fn a_public_route_takes_anybody_as_anonymous_and_guardrails_hold_there_too() {
    let rail = r#"@id("no-drafts") forbid(principal, action, resource) when { context.path like "*draft*" };"#;
    let open = json!({ "path": "/open/{*rest}", "public": { "reason": "a health page" }, "credential": "nothing" });
    let world = World::changed(|gate| {
        gate.cedar("guardrails.cedar", rail)
            .config(json!({ "credentials": { "nothing": { "none": { "reason": "a page for everybody" } } } }))
            .route("open", open)
    })
    .await;
    assert_eq!(world.gate.get("/open/1").send().await.status, 200);
    let record = world.record("/open/1").await;
    assert_eq!(record.verdict(), ("allow", "ok"));
    assert_eq!((record.text("principal.kind"), record.value("roles")), ("Anonymous", &json!([])));
    assert_eq!(world.gate.get("/open/draft").send().await.status, 403);
    assert_eq!(world.record("/open/draft").await.verdict(), ("deny", "guardrail"));
    let token = world.issuer.token().mint();
    let named = world.gate.get("/open/2").bearer(&token).send().await;
    assert_eq!(named.status, 200);
    assert_eq!(world.record("/open/2").await.text("principal.kind"), "Anonymous", "nobody is recognised there");
    let received = world.upstream.received();
    assert_eq!(received.len(), 2);
    for received in received {
        assert_eq!(received.header("authorization"), None);
        assert!(!format!("{:?}", received.headers).contains(&token), "the token reached the upstream");
    }
}

#[tokio::test]
async fn a_preflight_passes_as_nobody_and_is_on_record_as_allowed() {
    let settings = json!({ "path": "/things/{*rest}", "cors": { "origins": ["https://app.test"] },
        "identity_headers": {} });
    let rail = r#"@id("no-drafts") forbid(principal, action, resource) when { context.path like "*draft*" };"#;
    let world = World::changed(|gate| gate.cedar("guardrails.cedar", rail).route("things", settings)).await;
    let preflight = |path: &str| {
        let request = world.gate.request(Method::OPTIONS, path).header("origin", "https://app.test");
        request.header("access-control-request-method", "POST")
    };
    let with_token = preflight("/things/1").bearer(&world.issuer.token().mint()).header("x-doorward-subject", "root");
    assert_eq!(with_token.send().await.status, 200);
    let received = world.upstream.only();
    assert_eq!(received.header("authorization"), None, "a preflight carries no credential");
    assert_eq!(received.header("x-doorward-subject"), None);
    let record = world.record("/things/1").await;
    assert_eq!(record.verdict(), ("allow", "ok"));
    assert_eq!(record.text("principal.kind"), "Anonymous");
    assert_eq!(preflight("/things/draft").send().await.status, 403);
    assert_eq!(world.record("/things/draft").await.verdict(), ("deny", "guardrail"));
}

#[tokio::test]
async fn a_policy_that_fails_to_evaluate_denies_whatever_others_say_and_is_on_record() {
    let rule = r#"@id("overflows") forbid(principal, action, resource) when {
        context has authentication_age && context.authentication_age * 9223372036854775807 < 0
    };"#;
    let world = World::changed(|gate| gate.policy(rule)).await;
    let token = world.issuer.token().claim("auth_time", now() - 100);
    let answer = world.gate.get("/things/1").bearer(&token.mint()).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("policy_evaluation_failed")));
    assert!(!answer.text().contains("overflow"), "{}", answer.text());
    let record = world.record("/things/1").await;
    assert_eq!(record.verdict(), ("deny", "policy_evaluation_failed"));
    assert!(record.text("detail").contains("overflows"), "{:?}", record.0);
    world.upstream.heard_nothing();
    assert_eq!(world.status("/things/2", &world.issuer.token()).await, 200, "where it can be judged, it is");
}

#[tokio::test]
async fn a_refusal_speaks_to_programs_browsers_and_grpc_alike_and_never_names_a_rule() {
    let rule = r#"@id("the-secret-rule") forbid(principal, action, resource) when { context.path == "/things/no" };"#;
    let world = World::changed(|gate| gate.policy(rule)).await;
    let token = world.issuer.token().mint();
    let ask = || world.gate.get("/things/no").bearer(&token);
    let (program, browser) = (ask().send().await, ask().navigation().send().await);
    let grpc = ask().header("content-type", "application/grpc").send_http2().await;
    let problem = program.json();
    assert_eq!(
        (program.status.as_u16(), &problem["status"], &problem["code"]),
        (403, &json!(403), &json!("forbidden"))
    );
    assert_eq!(program.header("content-type"), Some("application/problem+json"));
    assert!(problem["detail"].as_str().unwrap().ends_with('.') && problem["title"] == "Forbidden");
    assert_eq!(program.header("x-request-id"), problem["request_id"].as_str());
    assert_eq!(browser.status, 403);
    assert!(browser.header("content-type").unwrap().starts_with("text/html"));
    assert!(browser.text().contains("forbidden") && browser.text().contains(browser.header("x-request-id").unwrap()));
    assert!(browser.header("content-security-policy").is_some() && browser.header("cache-control") == Some("no-store"));
    let either = |name: &str| grpc.headers.get(name).or_else(|| grpc.trailers.get(name)).unwrap().to_str().unwrap();
    assert_eq!((grpc.status.as_u16(), either("grpc-status")), (200, "7"));
    assert!(
        either("grpc-message").starts_with("forbidden ") && either("grpc-message").contains(either("x-request-id"))
    );
    for answer in [program, browser, grpc] {
        assert!(!format!("{answer:?}").contains("the-secret-rule") && !answer.text().contains("the-secret-rule"));
    }
    let records = world.gate.settled_audit().await;
    let of: Vec<_> = records.iter().filter(|record| record.is_request_to("/things/no")).collect();
    assert_eq!(of.len(), 3);
    assert!(of.iter().all(|record| record.value("policy_ids") == &json!(["the-secret-rule"])));
}

/// Facts of a request by name, and for each a condition that holds of the request below and one that does not.
const FACTS: [(&str, &str, &str); 11] = [
    ("source_ip", "context.source_ip.isLoopback()", r#"context.source_ip.isInRange(ip("10.0.0.0/8"))"#),
    ("time", r#"context.time > datetime("2024-01-01")"#, r#"context.time < datetime("2024-01-01")"#),
    ("method", r#"context.method == "GET""#, r#"context.method == "HEAD""#),
    ("host", r#"context.host == "gate.test""#, r#"context.host == "other.test""#),
    ("path", r#"context.path like "/by/*/7""#, r#"context.path like "/by/*/8""#),
    (
        "parameters",
        r#"context.parameters has id && context.parameters.id == "7""#,
        r#"context.parameters has id && context.parameters.id == "8""#,
    ),
    ("scopes", r#"context.scopes.contains("read:all")"#, r#"context.scopes.contains("read")"#),
    ("acr", r#"context has acr && context.acr == "urn:mfa""#, r#"context has acr && context.acr == "urn:pwd""#),
    ("amr", r#"context.amr.contains("otp")"#, r#"context.amr.contains("sms")"#),
    (
        "authentication_age",
        "context has authentication_age && context.authentication_age >= 100",
        "context has authentication_age && context.authentication_age > 1000",
    ),
    ("tags", r#"context.tags.contains("finance")"#, r#"context.tags.contains("hr")"#),
];

#[tokio::test]
async fn every_fact_of_a_request_can_decide() {
    let world = World::changed(|gate| {
        FACTS.iter().fold(gate, |gate, (name, holds, fails)| {
            [("yes", holds), ("no", fails)].iter().fold(gate, |gate, (answer, condition)| {
                let route = format!("{name}-{answer}");
                gate.route(&route, json!({ "path": format!("/by/{route}/{{id}}"), "tags": ["finance"] })).policy(
                    &format!(r#"@id("{route}") permit(principal, action, resource == Route::"{route}") when {{ {condition} }};"#),
                )
            })
        })
    })
    .await;
    let token = world.issuer.token().groups(&[]).claim("scope", "read:all write").claim("acr", "urn:mfa");
    let token = token.claim("amr", json!(["pwd", "otp"])).claim("auth_time", now() - 100);
    for (name, _, _) in FACTS {
        assert_eq!(world.status(&format!("/by/{name}-yes/7"), &token).await, 200, "{name}");
        assert_eq!(world.status(&format!("/by/{name}-no/7"), &token).await, 403, "{name}");
    }
    let bare = world.issuer.token().groups(&[]);
    for name in ["scopes", "acr", "amr", "authentication_age"] {
        assert_eq!(world.status(&format!("/by/{name}-yes/7"), &bare).await, 403, "{name} without a claim");
    }
}
