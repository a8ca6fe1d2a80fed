//! Callers with a bearer token: the line from end to end.

use http::Method;
use serde_json::json;

use crate::support::{Authority, Gate, ORIGIN, RecordingUpstream, RunningGate, StaticIssuer, now};

struct World {
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
}

async fn world() -> World {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    World { issuer, upstream, gate }
}

#[tokio::test]
async fn a_reader_reads_and_the_upstream_is_shown_an_assertion_about_it() {
    let World { issuer, upstream, gate } = world().await;
    let token = issuer.token().mint();
    let answer = gate.get("/things/7?colour=red").bearer(&token).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("The upstream answers"));

    let received = upstream.only();
    assert_eq!((received.method, received.target.as_str()), (Method::GET, "/things/7?colour=red"));
    let shown = received.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    assert_ne!(shown, token, "the caller's own token reached the upstream");
    let claims = gate.verify_assertion(shown, &upstream.url()).await;
    assert_eq!(claims["sub"], "machines|machine-1");
    assert_eq!(claims["roles"], json!(["reader"]));
    assert!(claims["exp"].as_i64().unwrap() <= now() + 300, "{claims}");

    let record = gate.only_record_of("/things/7").await;
    assert_eq!(record.verdict(), ("allow", "ok"));
    assert_eq!((record.number("status"), record.text("method"), record.text("route")), (200, "GET", "things"));
    assert_eq!(record.value("policy_ids"), &json!(["readers-read"]));
    gate.never_wrote(&token);
    gate.never_wrote(shown);
    gate.never_wrote("colour=red");
}

#[tokio::test]
async fn an_rs256_token_is_as_good() {
    let World { issuer, gate, upstream: _upstream } = world().await;
    assert_eq!(gate.get("/things/7").bearer(&issuer.rsa_token().mint()).send().await.status, 200);
}

#[tokio::test]
async fn http2_is_judged_alike() {
    let World { issuer, upstream, gate } = world().await;
    let token = issuer.token().mint();
    assert_eq!(gate.get("/things/7").bearer(&token).send_http2().await.status, 200);
    assert_eq!(gate.post("/things/8").bearer(&token).send_http2().await.status, 403);
    assert_eq!(gate.get("/things/9").send_http2().await.status, 401);
    assert_eq!(upstream.only().target, "/things/7");
}

#[tokio::test]
async fn a_caller_without_a_token_is_asked_for_one() {
    let World { upstream, gate, .. } = world().await;
    let answer = gate.get("/things/7").send().await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.json()["status"], 401);
    let record = gate.only_record_of("/things/7").await;
    assert_eq!(record.verdict(), ("deny", "unauthenticated"));
    assert_eq!(record.number("status"), 401);
    upstream.heard_nothing();
}

#[tokio::test]
async fn a_reader_may_not_write_and_is_not_told_which_rule_decided() {
    let World { issuer, upstream, gate } = world().await;
    let answer = gate.post("/things/7").bearer(&issuer.token().mint()).body("{}").send().await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.text().contains("not_permitted") && !answer.text().contains("writers-write"), "{}", answer.text());
    let record = gate.only_record_of("/things/7").await;
    assert_eq!(record.verdict(), ("deny", "not_permitted"));
    assert!(answer.text().contains(record.text("request_id")), "the caller cannot name its request");
    upstream.heard_nothing();
}

#[tokio::test]
async fn a_writer_writes_but_holds_no_other_role() {
    let World { issuer, upstream, gate } = world().await;
    let token = issuer.token().groups(&["writers"]).mint();
    assert_eq!(gate.post("/things/7").bearer(&token).body("{}").send().await.status, 200);
    assert_eq!(gate.get("/things/8").bearer(&token).send().await.status, 403);
    assert_eq!(upstream.only().body_bytes, 2);
}

#[tokio::test]
async fn a_path_without_a_route_is_not_found_and_on_record() {
    let World { issuer, upstream, gate } = world().await;
    let answer = gate.get("/elsewhere").bearer(&issuer.token().mint()).send().await;
    assert_eq!(answer.status, 404);
    assert_eq!(gate.only_record_of("/elsewhere").await.text("decision"), "deny");
    upstream.heard_nothing();
}

#[tokio::test]
async fn a_role_is_assumed_once_for_a_token() {
    let World { issuer, gate, upstream: _upstream } = world().await;
    let token = issuer.token().mint();
    for _ in 0..3 {
        assert_eq!(gate.get("/things/7").bearer(&token).send().await.status, 200);
    }
    let assumed = gate.settled_audit().await.into_iter().filter(|record| record.event() == "role.assumed").count();
    assert_eq!(assumed, 1);
}

#[tokio::test]
async fn the_documents_of_the_assertion_issuer_are_public_and_consistent() {
    let World { gate, .. } = world().await;
    let discovery = gate.get("/.doorward/.well-known/openid-configuration").send().await.json();
    assert_eq!(discovery["issuer"], format!("{ORIGIN}/.doorward"));
    assert_eq!(discovery["jwks_uri"], format!("{ORIGIN}/.doorward/jwks.json"));
    let keys = gate.get("/.doorward/jwks.json").send().await.json();
    assert!(!keys["keys"].as_array().unwrap().is_empty());
    assert!(!keys.to_string().contains("\"d\""), "a private key is published");
}

#[tokio::test]
async fn the_signing_key_survives_a_restart() {
    let World { issuer, upstream, gate } = world().await;
    gate.get("/things/7").bearer(&issuer.token().mint()).send().await;
    let shown = upstream.only().headers["authorization"].to_str().unwrap()["Bearer ".len()..].to_owned();
    let gate = gate.restart().await;
    gate.verify_assertion(&shown, &upstream.url()).await;
}

#[tokio::test]
async fn a_fixed_secret_is_read_again_when_its_file_changes() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .file("api.key", "first-secret")
        .config(json!({ "credentials": { "key": { "fixed": { "header": "X-Api-Key", "secret": "file:api.key" } } } }))
        .route("keyed", json!({ "path": "/keyed/{*rest}", "credential": "key" }))
        .start()
        .await;
    let token = issuer.token().mint();
    gate.get("/keyed/1").header("x-api-key", "mine").bearer(&token).send().await;
    assert_eq!(upstream.only().header("x-api-key"), Some("first-secret"));
    assert_eq!(upstream.only().header("authorization"), None);
    gate.write("api.key", "second-secret");
    crate::support::eventually("the new secret", || async {
        gate.get("/keyed/2").bearer(&token).send().await;
        (upstream.received().pop().unwrap().header("x-api-key") == Some("second-secret")).then_some(())
    })
    .await;
    gate.never_wrote("first-secret");
    gate.never_wrote("second-secret");
}

#[tokio::test]
async fn a_workload_comes_by_its_client_certificate_where_the_route_asks_for_one() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .config(json!({
            "listeners": { "public": { "tls": {
                "client_certificates": { "mode": "optional", "authorities": "ca.pem" },
            } } },
            "certificate_issuers": { "mesh": { "listeners": ["public"] } },
        }))
        .role("worker", json!({ "issuer": "mesh", "everyone": { "reason": "the mesh names them" } }))
        .route(
            "jobs",
            json!({ "path": "/jobs/{*rest}", "accept": { "issuers": ["mesh"], "evidence": ["client_certificate"] } }),
        )
        .policy(r#"@id("workers-may") permit(principal in Role::"worker", action, resource == Route::"jobs");"#)
        .start()
        .await;
    let worker = gate.client_with(&authority.client_pair("spiffe://test/worker"));
    assert_eq!(worker.get("/jobs/1").send().await.status, 200);
    let record = gate.only_record_of("/jobs/1").await;
    assert_eq!(record.text("principal.subject"), "spiffe://test/worker");
    assert_eq!(worker.get("/things/1").send().await.status, 401, "a certificate is no evidence on other routes");
    assert_eq!(gate.get("/jobs/2").send().await.status, 401);
}
