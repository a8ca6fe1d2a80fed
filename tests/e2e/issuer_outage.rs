//! An issuer that is away, and one that changes its keys.

use crate::support::{Authority, Gate, RecordingUpstream, StaticIssuer, eventually};

#[tokio::test]
async fn an_issuer_unreachable_at_start_delays_nothing_and_is_found_when_it_comes() {
    let authority = Authority::new();
    let issuer = StaticIssuer::away(&authority);
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    let reasons = gate.becomes_ready(503).await;
    assert!(reasons.contains("machines"), "/readyz names no issuer: {reasons}");
    assert_eq!(gate.admin().get("/livez").send().await.status, 200);

    let token = issuer.token().mint();
    let refused = gate.get("/things/1").bearer(&token).send().await;
    assert_eq!(refused.status, 503, "without keys nothing can be said of a token: {}", refused.text());
    assert_eq!(gate.only_record_of("/things/1").await.verdict(), ("deny", "issuer_unavailable"));
    upstream.heard_nothing();

    issuer.come_up().await;
    gate.becomes_ready(200).await;
    assert_eq!(gate.get("/things/2").bearer(&token).send().await.status, 200);
}

#[tokio::test]
async fn the_last_good_keys_serve_while_the_issuer_is_away() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    gate.becomes_ready(200).await;
    issuer.go_away().await;
    for path in ["/things/1", "/things/2"] {
        assert_eq!(gate.get(path).bearer(&issuer.token().mint()).send().await.status, 200);
    }
}

#[tokio::test]
async fn an_issuer_that_comes_with_a_reload_and_is_away_keeps_no_traffic_of_others_away() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let away = StaticIssuer::away(&authority);
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    gate.becomes_ready(200).await;
    let mut config: serde_json::Value = serde_json::from_str(&gate.read("doorward.yaml")).unwrap();
    let mut second = config["issuers"]["machines"].clone();
    second["issuer"] = away.url().into();
    config["issuers"]["second"] = second;
    gate.write("doorward.yaml", &format!("{config}\n"));
    let reasons = gate.becomes_degraded().await;
    assert!(reasons.contains("issuer second") && !reasons.contains("issuer machines"), "{reasons}");
    assert_eq!(gate.get("/things/1").bearer(&issuer.token().mint()).send().await.status, 200);
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_found_by_its_first_token() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    gate.becomes_ready(200).await;
    issuer.rotate("es-2");
    let token = issuer.token().mint();
    let found = || async { (gate.get("/things/1").bearer(&token).send().await.status == 200).then_some(()) };
    eventually("the new key", found).await;
}

#[tokio::test]
async fn unknown_keys_do_not_turn_into_a_flood_at_the_issuer() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    gate.becomes_ready(200).await;
    let before = issuer.key_fetches();
    for number in 0..30 {
        let token = issuer.token().header("kid", format!("unknown-{number}")).mint();
        assert_eq!(gate.get("/things/1").bearer(&token).send().await.status, 401);
    }
    let fetches = issuer.key_fetches() - before;
    assert!(fetches <= 2, "30 unknown keys made {fetches} fetches; one a 30 s is the bound");
    upstream.heard_nothing();
}
