//! Targets that two readers could read differently.

use serde_json::json;

use super::World;
use crate::support::AuditRecord;

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {{token}}\r\n\r\n")
}

#[tokio::test]
async fn an_ambiguous_path_is_refused() {
    let world = World::start().await;
    for (code, targets) in [
        (
            "path_dot_segment",
            &[
                "/things/%2e%2e/admin",
                "/things/../admin",
                "/things/.%2e/admin",
                "/things/%252e%252e/admin",
                "/things/..%2fadmin",
                "/things/..%5cadmin",
                "/things/..;/admin",
            ][..],
        ),
        (
            "path_ambiguous",
            &["/things/a%2fb", "/things/a%5cb", "/things\\admin", "/things/a;b=c", "//things/a", "/things//a"],
        ),
        (
            "path_malformed",
            &["/things/%00", "/things/%0a", "/things/%0d%0aX:%20y", "/things/%c0%af", "/things/%zz", "/things/%"],
        ),
    ] {
        for target in targets {
            world.refuses_as(&get(target), 400, code).await;
        }
    }
    // No HTTP at all: the connection's own parser refuses these.
    for target in ["/things/\u{7f}", "/things/a\tb"] {
        assert_eq!(world.status_of(&get(target)).await, Some(400), "{target:?}");
        world.upstream.heard_nothing();
    }
    world.passes(&get("/things/a%20b")).await;
    assert_eq!(world.upstream.only().target, "/things/a%20b");
}

#[tokio::test]
async fn what_is_judged_is_what_is_sent() {
    let world = World::start().await;
    world.passes(&get("/th%69ngs/%7Eme?q=%2e%2e%2f")).await;
    assert_eq!(world.upstream.only().target, "/things/~me?q=%2e%2e%2f");
    assert_eq!(world.gate.only_record_of("/things/~me").await.verdict(), ("allow", "ok"));
}

#[tokio::test]
async fn a_fragment_neither_picks_a_rule_nor_travels_on() {
    let world = World::start().await;
    world.refuses_as(&get("/admin#/things/1"), 404, "no_route").await;
    world.passes(&get("/things/1#/../admin")).await;
    assert_eq!(world.upstream.only().target, "/things/1");
    assert_eq!(world.gate.only_record_of("/things/1").await.verdict(), ("allow", "ok"));
}

#[tokio::test]
async fn an_opaque_route_takes_encoded_slashes_and_still_no_dot_segments() {
    let settings = json!({ "path": "/npm/{*rest}", "path_mode": { "opaque": { "reason": "package names hold %2F" } } });
    let world = World::changed(|gate| gate.route("npm", settings)).await;
    for target in ["/npm/%2e%2e/things/1", "/npm/..%2fthings", "/npm/../things/1"] {
        world.refuses_as(&get(target), 400, "path_dot_segment").await;
    }
    world.refuses_as(&get("/%6epm/x"), 400, "path_ambiguous").await;
    world.passes(&get("/npm/@scope%2fname")).await;
    assert_eq!(world.upstream.only().target, "/npm/@scope%2fname");
}

#[tokio::test]
async fn an_opaque_route_sends_no_byte_that_may_not_stand_in_a_path() {
    let settings = json!({ "path": "/npm/{*rest}", "path_mode": { "opaque": { "reason": "package names hold %2F" } } });
    let world = World::changed(|gate| gate.route("npm", settings)).await;
    for target in ["/npm/a\\b", "/npm/a|b", "/npm/a\"b", "/npm/{a}", "/npm/[a]", "/npm/a^b"] {
        world.refuses_as(&get(target), 400, "path_malformed").await;
    }
    world.passes(&get("/npm/a%5c%7c%22;b//c")).await;
    assert_eq!(world.upstream.only().target, "/npm/a%5c%7c%22;b//c");
}

#[tokio::test]
async fn the_request_names_exactly_one_well_formed_host() {
    let world = World::start().await;
    let line = "GET /things/1 HTTP/1.1\r\nAuthorization: Bearer {token}\r\n";
    for (hosts, code) in [
        ("", "host_missing"),
        ("Host: gate.test\r\nHost: gate.test\r\n", "host_twice"),
        ("Host: gate.test\r\nHost: evil.test\r\n", "host_twice"),
        ("Host: gate.test, evil.test\r\n", "host_malformed"),
        ("Host: user@gate.test\r\n", "host_malformed"),
        ("Host: gate.test/\r\n", "host_malformed"),
        ("Host: gate.test:x\r\n", "host_malformed"),
        ("Host:\r\n", "host_malformed"),
    ] {
        world.refuses_as(&format!("{line}{hosts}\r\n"), 400, code).await;
    }
    let elsewhere =
        "GET http://evil.test/things/1 HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n\r\n";
    world.refuses_as(elsewhere, 400, "host_twice").await;
    world.passes(&format!("{line}Host: GATE.test.\r\n\r\n")).await;
}

#[tokio::test]
async fn another_host_is_another_route() {
    let world = World::start().await;
    let other = "GET /things/1 HTTP/1.1\r\nHost: other.test\r\nAuthorization: Bearer {token}\r\n\r\n";
    world.refuses_as(other, 404, "no_route").await;
}

#[tokio::test]
async fn headers_never_change_what_is_asked_for() {
    let world = World::start().await;
    for name in ["X-Forwarded-Uri", "X-Original-Url", "X-Rewrite-Url", "X-Forwarded-Prefix", "X-Forwarded-Path"] {
        let request = format!(
            "POST /admin HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {{token}}\r\n{name}: /things/1\r\n\
             Content-Length: 0\r\n\r\n"
        );
        assert_eq!(world.status_of(&request).await, Some(404), "{name}");
    }
    world.upstream.heard_nothing();
    let reader = world.issuer.token().mint();
    for name in ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"] {
        let answer = world.gate.post("/things/1").header(name, "GET").bearer(&reader).send().await;
        assert_eq!(answer.status, 403, "{name}");
    }
    world.upstream.heard_nothing();
}

#[tokio::test]
async fn methods_that_no_policy_speaks_of_are_refused() {
    let world = World::start().await;
    let asked = |method: &str| {
        format!("{method} /things/1 HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {{token}}\r\n\r\n")
    };
    for method in ["TRACE", "PROPFIND", "get"] {
        world.refuses_as(&asked(method), 405, "method_unsupported").await;
    }
    assert_eq!(world.status_of(&asked("GET\t")).await, Some(400), "no method at all");
    for connect in [&*asked("CONNECT"), "CONNECT internal.test:443 HTTP/1.1\r\nHost: internal.test:443\r\n\r\n"] {
        world.refuses_as(connect, 405, "method_unsupported").await;
    }
    let star = "OPTIONS * HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n\r\n";
    world.refuses_as(star, 400, "path_malformed").await;
}

#[tokio::test]
async fn the_callers_target_never_picks_the_upstream() {
    let world = World::start().await;
    let answer = world.gate.get("/things/http://evil.test/x").bearer(&world.token).send().await;
    assert_eq!(answer.status, 400);
    let answer = world.gate.get("/things/1?url=http://evil.test/").bearer(&world.token).send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.upstream.only().authority.as_deref(), world.upstream.url().strip_prefix("http://"));
}

#[tokio::test]
async fn every_refusal_is_on_record_without_control_bytes_or_query() {
    let world = World::start().await;
    world.refuses_as(&get("/things/%1b%5b31m?token=very-secret"), 400, "path_malformed").await;
    world.refuses_as(&get("/things/..;/x?token=very-secret"), 400, "path_dot_segment").await;
    world.gate.settled_audit().await;
    world.gate.never_wrote("very-secret");
    assert!(!world.gate.read("audit.jsonl").contains('\u{1b}'));
    let records = world.gate.audit();
    let ours =
        records.iter().filter(|record| record.event() == "request" && record.text("path").starts_with("/things/"));
    let mut verdicts: Vec<_> = ours.map(AuditRecord::verdict).collect();
    verdicts.sort_unstable();
    assert_eq!(verdicts, [("deny", "path_dot_segment"), ("deny", "path_malformed")]);
}
