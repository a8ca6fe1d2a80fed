//! Two kinds of evidence, evidence in the wrong place, and evidence that a route does not take.

use serde_json::json;

use super::World;
use crate::support::{Authority, Gate, Provider, RecordingUpstream, StaticIssuer};

#[tokio::test]
async fn evidence_twice_is_refused() {
    let world = World::start().await;
    let bearer = format!("Bearer {}", world.token);
    let twice = world.gate.get("/things/1").header("authorization", &bearer).header("authorization", &bearer);
    assert_eq!(twice.send().await.status, 400);
    let other = world.gate.get("/things/2").header("authorization", &bearer).header("authorization", "Basic eDp5");
    assert_eq!(other.send().await.status, 400);
    let listed = world.gate.get("/things/3").header("authorization", &format!("{bearer}, {bearer}"));
    assert!(matches!(listed.send().await.status.as_u16(), 400 | 401));
    world.upstream.heard_nothing();
}

#[tokio::test]
async fn a_token_counts_only_in_the_authorization_header() {
    let world = World::start().await;
    let token = &world.token;
    let query = world.gate.get(&format!("/things/1?access_token={token}")).send().await;
    let cookie =
        world.gate.get("/things/2").header("cookie", &format!("token={token}; Authorization={token}")).send().await;
    let header = world.gate.get("/things/3").header("x-access-token", token).send().await;
    let proxy = world.gate.get("/things/4").header("proxy-authorization", &format!("Bearer {token}")).send().await;
    for answer in [query, cookie, header, proxy] {
        assert_eq!(answer.status, 401);
    }
    for scheme in ["Basic", "DPoP", "Token", "BearerX"] {
        let answer = world.gate.get("/things/5").header("authorization", &format!("{scheme} {token}")).send().await;
        assert!(matches!(answer.status.as_u16(), 400 | 401), "{scheme}");
    }
    world.upstream.heard_nothing();
    world.gate.settled_audit().await;
    world.gate.never_wrote(token);
}

#[tokio::test]
async fn presence_is_no_proof() {
    let world = World::start().await;
    let forged = world.gate.get("/things/1").header("cookie", "__Host-doorward=forged").send().await;
    assert_eq!(forged.status, 401);
    let named =
        world.gate.get("/things/2").header("x-doorward-subject", "root").header("x-forwarded-user", "root").send();
    assert_eq!(named.await.status, 401);
    let certificate =
        world.gate.get("/things/3").header("client-cert", ":MIIB:").header("x-forwarded-client-cert", "URI=x");
    assert_eq!(certificate.send().await.status, 401);
    world.upstream.heard_nothing();
}

#[tokio::test]
async fn an_issuer_that_the_route_does_not_take_is_refused() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let other = json!({
        "issuer": "https://other.test", "principals": "workloads", "audience": [crate::support::ORIGIN],
        "algorithms": ["ES256"], "keys": { "file": "other.json" }, "principal": ["sub"],
    });
    let keys = json!({ "keys": [issuer.token().key.public()] }).to_string();
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .file("other.json", &keys)
        .config(json!({ "issuers": { "other": other } }))
        .route("things", json!({ "path": "/things/{*rest}", "accept": { "issuers": ["other"] } }))
        .start()
        .await;
    gate.becomes_ready(200).await;
    let answer = gate.get("/things/1").bearer(&issuer.token().mint()).send().await;
    assert!(matches!(answer.status.as_u16(), 401 | 403), "{answer:?}");
    assert_eq!(gate.only_record_of("/things/1").await.text("code"), "issuer_not_accepted");
    let foreign = issuer.token().claim("iss", "https://other.test").mint();
    assert_eq!(gate.get("/things/2").bearer(&foreign).send().await.status, 403, "no role trusts the other issuer");
    upstream.heard_nothing();
}

#[tokio::test]
async fn an_authorization_that_the_route_passes_through_is_no_evidence() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let provider = Provider::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let settings = |evidence: &[&str]| {
        json!({
            "path": "/passed/{*rest}",
            "pass_authorization": { "reason": "the application has its own tokens" },
            "accept": { "evidence": evidence },
            "credential": "open",
        })
    };
    let gate = || {
        let open = json!({ "credentials": { "open": { "none": { "reason": "the application checks its callers" } } } });
        Gate::standard(&authority, &issuer, &upstream).provider(&provider).config(open)
    };
    let (code, log) = gate().route("passed", settings(&["bearer"])).refuses_to_start().await;
    assert_eq!(code, 2, "such a token is evidence and is not: {log}");
    let gate = gate().route("passed", settings(&["session"])).start().await;
    gate.becomes_ready(200).await;
    let answer = gate.get("/passed/1").bearer(&issuer.token().mint()).send().await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    upstream.heard_nothing();
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_never_connects() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .config(json!({
            "listeners": { "public": { "tls": {
                "client_certificates": { "mode": "required", "authorities": "ca.pem" },
            } } },
            "certificate_issuers": { "mesh": { "listeners": ["public"] } },
        }))
        .role("worker", json!({ "issuer": "mesh", "everyone": { "reason": "the mesh names them" } }))
        .route(
            "jobs",
            json!({ "path": "/jobs/{*rest}", "accept": { "issuers": ["mesh"], "evidence": ["client_certificate"] } }),
        )
        .policy(r#"@id("workers-may") permit(principal in Role::"worker", action, resource);"#)
        .start()
        .await;
    let good = gate.client_with(&authority.client_pair("spiffe://test/worker"));
    assert_eq!(good.get("/jobs/1").send().await.status, 200);
    let stranger = Authority::new().client_pair("spiffe://test/worker");
    assert!(!gate.client_with(&stranger).is_served().await, "a stranger's certificate was taken");
    assert!(!gate.is_served().await, "no certificate was taken where one is required");
    assert_eq!(upstream.only().target, "/jobs/1");
}
