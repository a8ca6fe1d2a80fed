//! Where an issuer's keys come from, and how often they are asked for.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Authority, Gate, ORIGIN, RecordingUpstream, SigningKey, StaticIssuer, TokenDraft, eventually};

#[tokio::test]
async fn keys_come_from_a_fixed_address_without_discovery() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let keys = json!({ "discovery": null, "jwks_uri": format!("{}/keys", issuer.url()), "authorities": "ca.pem" });
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .config(json!({ "issuers": { "machines": { "keys": keys } } }))
        .start()
        .await;
    gate.becomes_ready(200).await;
    assert_eq!(gate.get("/things/1").bearer(&issuer.token().mint()).send().await.status, 200);
    assert_eq!((issuer.discoveries(), issuer.key_fetches()), (0, 1));
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_it_changes_and_a_broken_one_changes_nothing() {
    let authority = Authority::new();
    let machines = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let (old, new) = (SigningKey::es256("old"), SigningKey::es256("new"));
    let file = |key: &SigningKey| json!({ "keys": [key.public()] }).to_string();
    let iss = "https://robots.test";
    let gate = Gate::standard(&authority, &machines, &upstream)
        .file("robots.json", &file(&old))
        .config(json!({ "issuers": { "robots": {
            "issuer": iss, "principals": "workloads", "audience": [ORIGIN], "algorithms": ["ES256"],
            "keys": { "file": "robots.json" }, "principal": ["sub"],
        } } }))
        .role("robot", json!({ "issuer": "robots", "groups": ["readers"] }))
        .route("robots", json!({ "path": "/robots/{*rest}" }))
        .policy(r#"@id("robots-read") permit(principal in Role::"robot", action, resource);"#)
        .start()
        .await;
    gate.becomes_ready(200).await;
    let (by_old, by_new) = (TokenDraft::new(old, iss, ORIGIN).mint(), TokenDraft::new(new.clone(), iss, ORIGIN).mint());
    let status = async |token: &str| gate.get("/robots/1").bearer(token).send().await.status.as_u16();
    assert_eq!((status(&by_old).await, status(&by_new).await), (200, 401));

    gate.write("robots.json", "{ \"keys\": [");
    eventually("the broken file to be read", || async { gate.log().contains("issuer's keys").then_some(()) }).await;
    assert_eq!(status(&by_old).await, 200, "the last good keys serve");

    gate.write("robots.json", &file(&new));
    eventually("the new key", || async { (status(&by_new).await == 200).then_some(()) }).await;
    assert_eq!(status(&by_old).await, 401, "a withdrawn key ends its tokens, remembered ones too");
    gate.becomes_ready(200).await;
}

#[tokio::test]
async fn three_hundred_unknown_key_ids_make_one_fetch_however_they_come() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    gate.becomes_ready(200).await;
    let good = issuer.token().mint();
    assert_eq!(gate.get("/things/1").bearer(&good).send().await.status, 200);
    let before = (issuer.discoveries(), issuer.key_fetches());
    for round in 0..10 {
        let asked = (0..30).map(|number| {
            let token = issuer.token().header("kid", format!("unknown-{round}-{number}")).mint();
            async { gate.get("/things/2").bearer(&{ token }).send().await.status.as_u16() }
        });
        assert_eq!(join_all(asked).await, [401; 30]);
    }
    let fetched = (issuer.discoveries() - before.0, issuer.key_fetches() - before.1);
    assert!(fetched.0 <= 1 && fetched.1 <= 1, "300 unknown key ids made {fetched:?} fetches; one a 30 s is the bound");
    assert_eq!(gate.get("/things/3").bearer(&good).send().await.status, 200, "the good key serves on");
    assert!(upstream.received().iter().all(|received| received.target != "/things/2"));
}

#[tokio::test]
async fn the_first_tokens_after_an_outage_share_one_fetch() {
    let authority = Authority::new();
    let issuer = StaticIssuer::away(&authority);
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    gate.becomes_ready(503).await;
    issuer.come_up().await;
    gate.becomes_ready(200).await;
    let asked = (0..20).map(|number| {
        let token = issuer.token().subject(&format!("machine-{number}")).mint();
        async { gate.get("/things/1").bearer(&{ token }).send().await.status.as_u16() }
    });
    assert_eq!(join_all(asked).await, [200; 20]);
    assert_eq!(issuer.key_fetches(), 1);
}

#[tokio::test]
async fn one_issuer_away_costs_no_caller_of_another() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let away = StaticIssuer::away(&authority);
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .config(json!({ "issuers": { "away": {
            "issuer": away.url(), "principals": "workloads", "audience": [ORIGIN], "algorithms": ["ES256"],
            "keys": { "discovery": { "authorities": "ca.pem" } }, "principal": ["sub"],
        } } }))
        .start()
        .await;
    eventually("one issuer alone to be away", || async {
        let (status, reasons) = gate.readiness().await;
        (status == 503 && reasons.contains("away") && !reasons.contains("machines")).then_some(())
    })
    .await;
    assert_eq!(gate.get("/things/1").bearer(&issuer.token().mint()).send().await.status, 200);
    assert_eq!(gate.get("/things/2").bearer(&away.token().mint()).send().await.status, 503);
}
