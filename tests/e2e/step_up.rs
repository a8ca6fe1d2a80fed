//! Routes that ask for a stronger or a more recent sign-in, and role sessions that end (RFC 9470).

use serde_json::{Value, json};

use crate::support::{
    AuditRecord, Authority, Browser, Gate, ORIGIN, Provider, RecordingUpstream, RunningGate, StaticIssuer, eventually,
    now,
};

struct World {
    provider: Provider,
    upstream: RecordingUpstream,
    gate: RunningGate,
    browser: Browser,
}

/// Alice has signed in at `/app/…`; `change` adds what the test is about.
async fn signed_in(change: impl FnOnce(Gate) -> Gate) -> World {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = change(Gate::for_people(&authority, &provider, &upstream)).start().await;
    gate.becomes_ready(200).await;
    let mut browser = Browser::start(gate.port()).await;
    browser.goto(&format!("{ORIGIN}/app/start")).await;
    assert_eq!(browser.sign_in("alice").await.status, 200);
    World { provider, upstream, gate, browser }
}

/// A route of people that asks for `login`.
fn asking(login: Value) -> Value {
    json!({ "path": "/asking/{*rest}", "login": login })
}

async fn clock_passes(what: &str, second: i64) {
    eventually(what, || async { (now() > second).then_some(()) }).await;
}

#[tokio::test]
async fn a_route_that_asks_for_more_sends_the_browser_to_sign_in_more_strongly() {
    let route = asking(json!({ "issuer": "people", "acr_values": ["urn:test:mfa"] }));
    let mut world = signed_in(|gate| gate.route("asking", route)).await;
    let page = format!("{ORIGIN}/asking/payroll");
    let challenged = world.browser.fetch("/asking/script", json!({})).await;
    assert_eq!(challenged["status"], 401, "a script is never redirected: {challenged}");

    let place = world.browser.goto(&page).await;
    assert!(place.url.starts_with(world.provider.url()), "{place:?}");
    assert_eq!(world.provider.asked().await["acr_values"], "urn:test:mfa");
    assert!(world.upstream.received().iter().all(|received| !received.target.starts_with("/asking")));

    let place = world.browser.sign_in("alice").await;
    assert_eq!((place.url.as_str(), place.status), (page.as_str(), 200));
    let record = world.gate.only_record_of("/asking/script").await;
    assert_eq!(record.verdict(), ("deny", "insufficient_user_authentication"));
    let who = (record.text("principal.subject"), record.text("principal.evidence"));
    assert_eq!(who, ("alice", "session"), "the record says who was asked for more");
    // The stronger session is good for the rest too.
    assert_eq!(world.browser.goto(&format!("{ORIGIN}/app/rest")).await.status, 200);
}

#[tokio::test]
async fn an_authentication_that_is_too_old_is_made_anew() {
    let route = asking(json!({ "issuer": "people", "max_age": "5s" }));
    let leeway = json!({ "issuers": { "people": { "leeway": "1s" } } });
    let mut world = signed_in(|gate| gate.route("asking", route).config(leeway)).await;
    clock_passes("the sign-in to grow old, leeway included", now() + 6).await;
    let page = format!("{ORIGIN}/asking/payroll");
    let place = world.browser.goto(&page).await;
    assert!(place.url.starts_with(world.provider.url()), "{place:?}");
    assert_eq!(world.provider.asked().await["max_age"], "5");
    let place = world.browser.sign_in("alice").await;
    assert_eq!((place.url, place.status), (page, 200));
}

#[tokio::test]
async fn a_program_is_told_what_is_missing() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let login = json!({ "acr_values": ["urn:test:mfa", "urn:test:key"], "max_age": "5m" });
    let gate = Gate::standard(&authority, &issuer, &upstream);
    let gate = gate.route("asking", json!({ "path": "/asking/{*rest}", "login": login })).start().await;
    gate.becomes_ready(200).await;
    let at = |seconds: i64| issuer.token().claim("auth_time", now() - seconds);

    for (what, token) in [
        ("no acr", at(10)),
        ("another acr", at(10).claim("acr", "urn:test:password")),
        ("too long ago", at(900).claim("acr", "urn:test:mfa")),
        ("nobody knows when", issuer.token().claim("acr", "urn:test:mfa")),
    ] {
        let answer = gate.get("/asking/x").bearer(&token.mint()).header("accept", "text/html").send().await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer "), "{challenge}");
        for part in [
            "error=\"insufficient_user_authentication\"",
            "acr_values=\"urn:test:mfa urn:test:key\"",
            "max_age=\"300\"",
        ] {
            assert!(challenge.contains(part), "{what}: {part} is not in {challenge}");
        }
    }
    upstream.heard_nothing();
    let token = at(10).claim("acr", "urn:test:key").mint();
    assert_eq!(gate.get("/asking/x").bearer(&token).send().await.status, 200);
}

#[tokio::test]
async fn a_role_session_past_its_length_asks_for_a_fresh_sign_in() {
    let role = json!({
        "environment": "test", "longest_session": "4s",
        "trust": [{ "issuer": "people", "groups": ["billing-admins"] }],
    });
    let mut world = signed_in(|gate| gate.role_of("admin", role)).await;
    clock_passes("the role session to end", now() + 4).await;
    let answer = world.browser.fetch("/app/script", json!({})).await;
    assert_eq!(answer["status"], 401);
    let problem: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(problem["code"], "role_session_expired");
    assert_eq!(world.gate.only_record_of("/app/script").await.verdict(), ("deny", "role_session_expired"));

    // The provider's own session is alive: only an order to authenticate anew makes it ask.
    let place = world.browser.goto(&format!("{ORIGIN}/app/again")).await;
    assert!(place.url.starts_with(world.provider.url()), "{place:?}");
    assert_eq!(world.provider.asked().await["prompt"], "login");
    let place = world.browser.sign_in("alice").await;
    assert_eq!((place.url, place.status), (format!("{ORIGIN}/app/again"), 200));

    let records = world.gate.settled_audit().await;
    let denied = |path: &str| {
        let denied = |record: &&&AuditRecord| record.is_request_to(path) && record.text("decision") == "deny";
        let denials: Vec<_> = records.iter().filter(|record| denied(&record)).collect();
        assert_eq!(denials.len(), 1, "{path}");
        denials[0].clone()
    };
    let (script, sent_to_the_login) = (denied("/app/script"), denied("/app/again"));
    for field in ["code", "roles", "policy_ids", "principal"] {
        assert_eq!(script.value(field), sent_to_the_login.value(field), "{field}");
        assert!(!script.value(field).is_null(), "{field} is not on record");
    }
    let assumed = records.iter().filter(|record| record.event() == "role.assumed").count();
    assert_eq!(assumed, 2, "one role session for each sign-in");
}
