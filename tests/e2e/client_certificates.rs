//! Workloads that come by client certificate.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Authority, Gate, RecordingUpstream, RunningGate, StaticIssuer, eventually};

struct World {
    authority: Arc<Authority>,
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
}

/// `/jobs/…` takes certificates, `/own/…` too and passes `Authorization` on, `/both/…` takes certificates and tokens,
/// `/things/…` tokens.
async fn world(certificates: Value) -> World {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let both = json!({ "issuers": ["mesh", "machines"], "evidence": ["client_certificate", "bearer"] });
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .file("clients.crl", &authority.revocations(&[666]))
        .config(json!({
            "listeners": { "public": { "tls": { "client_certificates": certificates } } },
            "certificate_issuers": { "mesh": { "listeners": ["public"] } },
        }))
        .role("worker", json!({ "issuer": "mesh", "claims": { "dns": ["worker.mesh.test"] } }))
        .route(
            "jobs",
            json!({ "path": "/jobs/{*rest}", "accept": { "issuers": ["mesh"], "evidence": ["client_certificate"] } }),
        )
        .route("both", json!({ "path": "/both/{*rest}", "accept": both }))
        .config(json!({ "credentials": { "open": { "none": { "reason": "the application checks its callers" } } } }))
        .route(
            "own",
            json!({
                "path": "/own/{*rest}", "credential": "open",
                "pass_authorization": { "reason": "the application has its own tokens" },
                "accept": { "issuers": ["mesh"], "evidence": ["client_certificate"] },
            }),
        )
        .policy(r#"@id("workers-may") permit(principal in Role::"worker", action, resource);"#)
        .start()
        .await;
    gate.becomes_ready(200).await;
    World { authority, issuer, upstream, gate }
}

fn optional() -> Value {
    json!({ "mode": "optional", "authorities": "ca.pem", "revocations": "clients.crl" })
}

#[tokio::test]
async fn a_revocation_list_that_is_out_of_date_is_told_until_it_is_replaced() {
    let World { authority, gate, upstream: _upstream, .. } = world(optional()).await;
    let worker = gate.client_with(&authority.client_pair_by_dns("worker.mesh.test", 7));
    assert!(worker.is_served().await);
    let an_hour_ago = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    gate.write("clients.crl", &authority.revocations_until(&[666], an_hour_ago));
    let reasons = gate.becomes_degraded().await;
    assert!(reasons.contains("listener public") && reasons.contains("clients.crl"), "{reasons}");
    assert!(!worker.is_served().await, "nobody can say that its certificate is not revoked");
    gate.write("clients.crl", &authority.revocations(&[666]));
    gate.becomes_ready(200).await;
    assert!(worker.is_served().await);
}

#[tokio::test]
async fn a_revocation_list_that_is_out_of_date_at_the_start_is_warned_of() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let an_hour_ago = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .file("clients.crl", &authority.revocations_until(&[], an_hour_ago))
        .config(json!({ "listeners": { "public": { "tls": { "client_certificates": optional() } } } }))
        .start()
        .await;
    let warned = || async { gate.log().contains("clients.crl` was to be replaced by").then_some(()) };
    crate::support::eventually("the warning", warned).await;
    assert!(gate.becomes_degraded().await.contains("clients.crl"));
}

#[tokio::test]
async fn a_dns_name_names_a_workload_to_policy_record_and_upstream() {
    let World { authority, upstream, gate, .. } = world(optional()).await;
    let worker = gate.client_with(&authority.client_pair_by_dns("Worker.mesh.test", 7));
    assert_eq!(worker.get("/jobs/1").send().await.status, 200);
    let assertion = upstream.only().header("authorization").unwrap()["Bearer ".len()..].to_owned();
    let claims = gate.verify_assertion(&assertion, &upstream.url()).await;
    assert_eq!((&claims["sub"], &claims["kind"]), (&json!("mesh|worker.mesh.test"), &json!("Workload")));
    assert_eq!(claims["roles"], json!(["worker"]));
    let principal = gate.only_record_of("/jobs/1").await.value("principal").clone();
    assert_eq!((&principal["kind"], &principal["evidence"]), (&json!("Workload"), &json!("client_certificate")));
    assert_eq!(principal["id"], "mesh|worker.mesh.test");
    let stranger = gate.client_with(&authority.client_pair_by_dns("other.mesh.test", 8));
    assert_eq!(stranger.get("/jobs/2").send().await.status, 403, "no role trusts that name");
}

#[tokio::test]
async fn a_certificate_is_evidence_only_where_the_route_asks_for_it() {
    let World { authority, issuer, upstream, gate } = world(optional()).await;
    let worker = gate.client_with(&authority.client_pair_by_dns("worker.mesh.test", 7));
    assert_eq!(worker.get("/things/1").send().await.status, 401);
    assert_eq!(gate.get("/jobs/1").bearer(&issuer.token().mint()).send().await.status, 401, "a token is none there");
    upstream.heard_nothing();
    let token = issuer.token().mint();
    assert_eq!(worker.get("/things/2").bearer(&token).send().await.status, 200, "beside it, a token is the only one");
    assert_eq!(gate.only_record_of("/things/2").await.text("principal.id"), "machines|machine-1");
}

#[tokio::test]
async fn a_certificate_and_a_token_on_one_request_are_two_kinds_of_evidence() {
    let World { authority, issuer, upstream, gate } = world(optional()).await;
    let worker = gate.client_with(&authority.client_pair_by_dns("worker.mesh.test", 7));
    let token = issuer.token().mint();
    for path in ["/both/1", "/jobs/1"] {
        assert_eq!(worker.get(path).bearer(&token).send().await.status, 400);
        assert_eq!(gate.only_record_of(path).await.verdict(), ("deny", "two_kinds_of_evidence"));
    }
    upstream.heard_nothing();
    assert_eq!(worker.get("/both/2").send().await.status, 200);
    assert_eq!(gate.get("/both/3").bearer(&token).send().await.status, 200);
}

#[tokio::test]
async fn an_authorization_that_the_route_passes_through_is_no_second_evidence() {
    let World { authority, upstream, gate, .. } = world(optional()).await;
    let worker = gate.client_with(&authority.client_pair_by_dns("worker.mesh.test", 7));
    let own = |path: &str| worker.get(path).header("authorization", "Basic eDp5").send();
    assert_eq!(own("/jobs/1").await.status, 400);
    upstream.heard_nothing();
    assert_eq!(own("/own/1").await.status, 200);
    assert_eq!(upstream.only().header("authorization"), Some("Basic eDp5"), "it is the application's");
    assert_eq!(gate.only_record_of("/own/1").await.text("principal.id"), "mesh|worker.mesh.test");
    assert_eq!(gate.get("/own/2").header("authorization", "Basic eDp5").send().await.status, 401);
}

#[tokio::test]
async fn a_revoked_certificate_never_connects_and_a_new_list_takes_effect_while_running() {
    let World { authority, gate, upstream: _upstream, .. } = world(optional()).await;
    let revoked = gate.client_with(&authority.client_pair_by_dns("worker.mesh.test", 666));
    assert!(!revoked.is_served().await);
    let worker = gate.client_with(&authority.client_pair_by_dns("worker.mesh.test", 7));
    assert_eq!(worker.get("/jobs/1").send().await.status, 200);
    gate.write("clients.crl", &authority.revocations(&[666, 7]));
    eventually("the new list", || async { (!worker.is_served().await).then_some(()) }).await;
    assert!(gate.is_served().await, "without a certificate one still connects where it is optional");
}

#[tokio::test]
async fn where_a_certificate_is_required_nobody_connects_without() {
    let required = json!({ "mode": "required", "authorities": "ca.pem" });
    let World { authority, issuer, gate, upstream: _upstream } = world(required).await;
    assert!(!gate.is_served().await);
    let worker = gate.client_with(&authority.client_pair("spiffe://mesh.test/any"));
    assert_eq!(worker.get("/things/1").bearer(&issuer.token().mint()).send().await.status, 200);
    assert_eq!(worker.get("/jobs/1").send().await.status, 403);
}

#[tokio::test]
async fn a_route_for_certificates_needs_a_listener_that_asks_for_them() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let (code, log) = Gate::standard(&authority, &issuer, &upstream)
        .config(json!({ "certificate_issuers": { "mesh": { "listeners": ["public"] } } }))
        .refuses_to_start()
        .await;
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("client_certificates"), "{log}");
}
