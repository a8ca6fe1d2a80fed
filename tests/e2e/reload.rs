//! Configuration that changes while the gate serves: a good one takes effect at once, a bad one changes nothing.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Authority, Gate, RecordingUpstream, RunningGate, StaticIssuer, eventually, within};

pub(crate) const WRITERS_READ: &str =
    r#"@id("writers-read") permit(principal in Role::"writer", action in Action::"read", resource);"#;

async fn world() -> (StaticIssuer, RecordingUpstream, RunningGate) {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    gate.becomes_ready(200).await;
    (issuer, upstream, gate)
}

async fn status(gate: &RunningGate, token: &str) -> u16 {
    gate.get("/things/1").bearer(token).send().await.status.as_u16()
}

async fn becomes(gate: &RunningGate, token: &str, wanted: u16) {
    eventually(&format!("status {wanted}"), || async { (status(gate, token).await == wanted).then_some(()) }).await;
}

#[tokio::test]
async fn a_broken_policy_changes_nothing_says_where_and_its_mending_takes_effect() {
    let (issuer, _upstream, gate) = world().await;
    let reader = issuer.token().mint();
    let writer = issuer.token().groups(&["writers"]).mint();
    let good = gate.read("policies/rules.cedar");

    let broken = format!("{good}\n{}", WRITERS_READ.replace("principal in", "principal inn"));
    gate.write("policies/rules.cedar", &broken);
    let reasons = gate.becomes_degraded().await;
    assert!(reasons.contains("rules.cedar"), "/readyz does not say which file: {reasons}");
    assert_eq!((status(&gate, &reader).await, status(&gate, &writer).await), (200, 403), "the old rules are in force");
    gate.audited("the refused configuration", |record| record.event() == "config.refused").await;
    assert!(gate.log().contains("rules.cedar"));

    gate.write("policies/rules.cedar", &format!("{good}\n{WRITERS_READ}"));
    gate.becomes_ready(200).await;
    becomes(&gate, &writer, 200).await;
    gate.audited("the loaded configuration", |record| record.event() == "config.loaded").await;
}

#[tokio::test]
async fn a_misspelt_attribute_is_a_load_error() {
    let (_issuer, _upstream, gate) = world().await;
    let good = gate.read("policies/rules.cedar");
    let typo = r#"@id("typo") forbid(principal, action, resource) when { context.pathh == "/x" };"#;
    gate.write("policies/rules.cedar", &format!("{good}\n{typo}"));
    let reasons = gate.becomes_degraded().await;
    assert!(reasons.contains("pathh"), "{reasons}");
}

#[tokio::test]
async fn a_new_rule_takes_effect_without_a_signal_and_a_lost_one_too() {
    let (issuer, _upstream, gate) = world().await;
    let writer = issuer.token().groups(&["writers"]).mint();
    assert_eq!(status(&gate, &writer).await, 403);
    gate.write("policies/more.cedar", WRITERS_READ);
    becomes(&gate, &writer, 200).await;
    std::fs::remove_file(gate.path("policies/more.cedar")).unwrap();
    becomes(&gate, &writer, 403).await;
}

#[tokio::test]
async fn sighup_reloads_and_never_ends_the_process() {
    let (issuer, _upstream, gate) = world().await;
    let reader = issuer.token().mint();
    let loads = || gate.audit().iter().filter(|record| record.event() == "config.loaded").count();
    let before = loads();
    gate.write("policies/more.cedar", WRITERS_READ);
    gate.hang_up().await;
    eventually("a load", || async { (loads() > before).then_some(()) }).await;
    gate.hang_up().await;
    gate.hang_up().await;
    assert_eq!(status(&gate, &reader).await, 200);
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_connection_through_a_reload() {
    let (issuer, upstream, gate) = world().await;
    let token = issuer.token().mint();
    let (pieces, script) = crate::support::Script::pieces("text/plain");
    upstream.script("/things/slow", script);
    let answer = gate.get("/things/slow").bearer(&token).begin().await;
    let writer = issuer.token().groups(&["writers"]).mint();
    gate.write("policies/more.cedar", WRITERS_READ);
    becomes(&gate, &writer, 200).await;
    pieces.send("all of it".into()).await.unwrap();
    drop(pieces);
    assert_eq!(crate::support::Answer::read(answer).await.text(), "all of it");
}

const RULES: &str = "\
roles:
  reader:
    environment: test
    trust:
      - issuer: machines
        groups: [readers]
        claims: { client_id: [machine-1] }
routes:
  things:
    path: /things/{*rest}
    host: gate.test
    environment: test
    upstream: api
    credential: assertion
    accept:
      evidence: [bearer]
      issuers: [machines]
";

#[tokio::test]
async fn a_configuration_cut_off_anywhere_never_opens_what_the_whole_keeps_shut() {
    let (issuer, upstream, gate) = world().await;
    gate.write(
        "policies/rules.cedar",
        r#"@id("readers-read") permit(principal in Role::"reader", action in Action::"read", resource);"#,
    );
    let nobody = issuer.token().groups(&["nobodies"]).mint();
    let loads = || gate.audit().iter().filter(|record| record.event().starts_with("config.")).count();
    for cut in (0..RULES.len()).step_by(11) {
        let before = loads();
        gate.write("policies/rules.yaml", &RULES[..cut]);
        gate.hang_up().await;
        eventually("a verdict on the cut file", || async { (loads() > before).then_some(()) }).await;
        let anonymous = gate.get("/things/1").send().await.status.as_u16();
        let powerless = status(&gate, &nobody).await;
        assert!(matches!((anonymous, powerless), (401 | 404, 403 | 404)), "cut at {cut}: {anonymous}, {powerless}");
    }
    gate.write("policies/rules.yaml", RULES);
    gate.becomes_ready(200).await;
    upstream.heard_nothing();
    becomes(&gate, &issuer.token().mint(), 200).await;
}

#[tokio::test]
async fn a_certificate_is_replaced_while_running_and_old_connections_live_on() {
    let (issuer, _upstream, gate) = world().await;
    let token = issuer.token().mint();
    let mut old = gate.http1().await;
    let request = || gate.get("/things/1").bearer(&token).into_http1();
    let first = old.send_request(request()).await.unwrap();
    crate::support::Answer::read(first).await;

    let other = Authority::new();
    let pair = other.server_pair(&[crate::support::HOST]);
    gate.write("server.key", &pair.key);
    gate.write("server.pem", &pair.certificate);
    let newcomer = crate::support::Client::tls(
        ([127, 0, 0, 1], gate.port()).into(),
        crate::support::HOST,
        other.client_config(None),
    );
    eventually("the new certificate", || async { newcomer.is_served().await.then_some(()) }).await;
    assert_eq!(newcomer.get("/things/1").bearer(&token).send().await.status, 200);
    assert_eq!(old.send_request(request()).await.unwrap().status(), 200);
}

/// How a client shakes hands that keeps the tickets it was given.
async fn handshake(gate: &RunningGate, client: &Arc<rustls::ClientConfig>) -> rustls::HandshakeKind {
    let connection = tokio::net::TcpStream::connect(gate.address()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(crate::support::HOST).unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(client.clone()).connect(name, connection).await.unwrap();
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: gate.test\r\nconnection: close\r\n\r\n").await.unwrap();
    // A ticket comes with the answer.
    let mut answer = Vec::new();
    within("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{answer:?}");
    stream.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test]
async fn an_edited_policy_voids_no_ticket_and_a_new_certificate_does() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream).start().await;
    gate.becomes_ready(200).await;
    let mut client = rustls::ClientConfig::clone(&authority.client_config(None));
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let client = Arc::new(client);
    assert_eq!(handshake(&gate, &client).await, rustls::HandshakeKind::Full);
    assert_eq!(handshake(&gate, &client).await, rustls::HandshakeKind::Resumed);
    let writer = issuer.token().groups(&["writers"]).mint();
    gate.write("policies/more.cedar", WRITERS_READ);
    becomes(&gate, &writer, 200).await;
    assert_eq!(handshake(&gate, &client).await, rustls::HandshakeKind::Resumed);

    let pair = authority.server_pair(&[crate::support::HOST]);
    let loads = || gate.audit().iter().filter(|record| record.event() == "config.loaded").count();
    let before = loads();
    gate.write("server.key", &pair.key);
    gate.write("server.pem", &pair.certificate);
    eventually("the new certificate", || async { (loads() > before).then_some(()) }).await;
    assert_eq!(handshake(&gate, &client).await, rustls::HandshakeKind::Full);
}

#[tokio::test]
async fn a_missing_client_authority_refuses_to_start() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let certificates = serde_json::json!({ "mode": "required", "authorities": "no-such-file.pem" });
    let (code, log) = Gate::standard(&authority, &issuer, &upstream)
        .config(serde_json::json!({ "listeners": { "public": { "tls": { "client_certificates": certificates } } } }))
        .refuses_to_start()
        .await;
    assert!(code == 2 || code == 3, "exit code {code}");
    assert!(log.contains("no-such-file.pem"), "{log}");
}

#[tokio::test]
async fn a_changed_rotation_of_keys_says_that_it_waits_for_a_restart() {
    let (_issuer, _upstream, gate) = world().await;
    let config = gate.read("doorward.yaml");
    let changed = config.replacen("\"admin\"", "\"assertions\": { \"rotate_every\": \"20d\" }, \"admin\"", 1);
    assert_ne!(config, changed);
    gate.write("doorward.yaml", &changed);
    let waits = |record: &crate::support::AuditRecord| {
        record.event() == "config.loaded" && record.value("restart_needed") == true
    };
    gate.audited("the wait for a restart", waits).await;
}

#[tokio::test]
async fn a_policy_that_goes_too_deep_is_a_fault_and_ends_no_process() {
    let (issuer, _upstream, gate) = world().await;
    let token = issuer.token().mint();
    let refusals = || gate.audit().iter().filter(|record| record.event() == "config.refused").count();
    for condition in [
        format!("{}true{}", "(".repeat(160), ")".repeat(160)),
        format!("{}true{}", "(".repeat(20_000), ")".repeat(20_000)),
        "true || ".repeat(100_000) + "true",
        "if true then true else ".repeat(3000) + "true",
        format!("{}[]{} == []", "[".repeat(5000), "]".repeat(5000)),
    ] {
        let before = refusals();
        let policy = format!("@id(\"deep\") permit(principal, action, resource) when {{ {condition} }};\n");
        gate.write("policies/deep.cedar", &policy);
        eventually("a verdict on the deep file", || async { (refusals() > before).then_some(()) }).await;
        let (_, told) = gate.readiness().await;
        assert!(told.contains("deep.cedar") && told.contains("more than"), "{told}");
        assert_eq!(status(&gate, &token).await, 200);
    }
}
