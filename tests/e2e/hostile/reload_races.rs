//! What outlives a configuration that no longer allows it.

use serde_json::json;

use crate::support::{Answer, Authority, Gate, RecordingUpstream, StaticIssuer, eventually};

#[tokio::test]
async fn a_client_certificate_counts_no_longer_than_its_authority_on_an_open_connection_too() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .file("clients.pem", &authority.certificate())
        .config(json!({
            "listeners": { "public": { "tls": {
                "client_certificates": { "mode": "optional", "authorities": "clients.pem" },
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
    let worker = gate.client_with(&authority.client_pair("spiffe://test/worker"));
    let (mut http1, mut http2) = (worker.http1().await, worker.http2().await);
    let first = http1.send_request(worker.get("/jobs/1").into_http1()).await.unwrap();
    assert_eq!(Answer::read(first).await.status, 200);
    let first = http2.send_request(worker.get("/jobs/2").into_http2()).await.unwrap();
    assert_eq!(Answer::read(first).await.status, 200);

    gate.write("clients.pem", &Authority::new().certificate());
    eventually("the other authority", || async { (!worker.is_served().await).then_some(()) }).await;
    let before = upstream.received().len();
    if let Ok(answer) = http1.send_request(worker.get("/jobs/3").into_http1()).await {
        assert_eq!(answer.status(), 401);
    }
    if let Ok(answer) = http2.send_request(worker.get("/jobs/4").into_http2()).await {
        assert_eq!(answer.status(), 401);
    }
    assert_eq!(upstream.received().len(), before);
}

#[tokio::test]
async fn a_required_certificate_that_is_revoked_serves_no_request_more_and_each_is_on_record() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .file("clients.crl", &authority.revocations(&[666]))
        .config(json!({
            "listeners": { "public": { "tls": {
                "client_certificates": {
                    "mode": "required", "authorities": "ca.pem", "revocations": "clients.crl",
                },
            } } },
        }))
        .start()
        .await;
    let worker = gate.client_with(&authority.client_pair_by_dns("worker.mesh.test", 7));
    let other = gate.client_with(&authority.client_pair_by_dns("other.mesh.test", 8));
    let token = issuer.token().mint();
    let (mut http1, mut http2) = (worker.http1().await, worker.http2().await);
    let first = http1.send_request(worker.get("/things/1").bearer(&token).into_http1()).await.unwrap();
    assert_eq!(Answer::read(first).await.status, 200);
    let first = http2.send_request(worker.get("/things/2").bearer(&token).into_http2()).await.unwrap();
    assert_eq!(Answer::read(first).await.status, 200);

    gate.write("clients.crl", &authority.revocations(&[666, 7]));
    eventually("the new list", || async { (!worker.is_served().await).then_some(()) }).await;
    let refused = http1.send_request(worker.get("/things/3").bearer(&token).into_http1()).await.unwrap();
    assert_eq!(Answer::read(refused).await.json()["code"], "certificate_barred");
    let refused = http2.send_request(worker.get("/things/4").bearer(&token).into_http2()).await.unwrap();
    assert_eq!(Answer::read(refused).await.status, 403);
    for path in ["/things/3", "/things/4"] {
        let record = gate.audited("the refusal", |record| record.is_request_to(path)).await;
        assert_eq!((record.verdict(), record.number("status")), (("deny", "certificate_barred"), 403));
    }
    assert_eq!(upstream.received().len(), 2);
    assert_eq!(other.get("/things/5").bearer(&token).send().await.status, 200);
}
