//! Configuration with faults: a clear error, nothing lost, and whole again once it is mended.

use serde_json::{Value, json};

use crate::support::{World, eventually};

async fn keyed() -> World {
    World::start(|gate| {
        gate.file("api.key", "secret\n")
            .config(
                json!({ "credentials": { "key": { "fixed": { "header": "X-Api-Key", "secret": "file:api.key" } } } }),
            )
            .route("keyed", json!({ "path": "/keyed/{*rest}", "credential": "key" }))
    })
    .await
}

/// A file of the configuration with one text replaced.
fn spoiled(world: &World, file: &str, from: &str, to: &str) -> String {
    let good = world.gate.read(file);
    assert!(good.contains(from), "{from} is not in {good}");
    good.replacen(from, to, 1)
}

#[tokio::test]
async fn a_broken_file_of_any_kind_changes_nothing_is_told_everywhere_and_its_mending_recovers() {
    let world = keyed().await;
    world.gate.becomes_ready(200).await;
    let token = world.token();
    let gate = &world.gate;
    let unknown_key = spoiled(&world, "doorward.yaml", r#""audience""#, r#""audiense""#);
    let inline = spoiled(&world, "doorward.yaml", "file:api.key", "the-secret-itself");
    let no_certificate =
        spoiled(&world, "doorward.yaml", r#""certificate": "server.pem""#, r#""certificate": "gone.pem""#);
    let unknown_upstream = spoiled(&world, "policies/rules.yaml", r#""upstream": "api""#, r#""upstream": "apo""#);
    let cedar = |from: &str, to: &str| spoiled(&world, "policies/rules.cedar", from, to);
    let kinds: [(&str, Option<String>, &[&str]); 12] = [
        ("doorward.yaml", Some("listeners: [unfinished".to_owned()), &["doorward.yaml:"]),
        ("doorward.yaml", Some(unknown_key), &["doorward.yaml:", "audiense", "audience"]),
        ("doorward.yaml", Some(inline), &["doorward.yaml:", "file:PATH"]),
        ("doorward.yaml", Some(no_certificate), &["doorward.yaml:", "gone.pem"]),
        ("policies/rules.yaml", Some("routes:\n\t- x".to_owned()), &["rules.yaml:"]),
        ("policies/rules.yaml", Some(unknown_upstream), &["rules.yaml:", "apo", "api"]),
        ("policies/rules.cedar", Some(cedar("principal in", "principle in")), &["rules.cedar:"]),
        ("policies/rules.cedar", Some(cedar(r#"Role::"reader""#, r#"Role::"raeder""#)), &["rules.cedar:", "raeder"]),
        ("server.key", None, &["server.key"]),
        ("server.pem", Some("no certificate\n".to_owned()), &["server.pem", "CERTIFICATE"]),
        ("api.key", None, &["api.key"]),
        ("api.key", Some("two\nlines\n".to_owned()), &["doorward.yaml:", "one line"]),
    ];
    for (number, (file, content, expected)) in kinds.into_iter().enumerate() {
        let good = gate.read(file);
        match &content {
            Some(content) => gate.write(file, content),
            None => std::fs::remove_file(gate.path(file)).unwrap(),
        }
        let reasons = gate.becomes_degraded().await;
        let log = gate.log();
        for expected in expected {
            assert!(reasons.contains(expected), "{file}, kind {number}: /readyz lacks {expected}: {reasons}");
            assert!(log.contains(expected), "{file}, kind {number}: the log lacks {expected}");
        }
        assert!(!reasons.contains("the-secret-itself"), "{reasons}");
        assert_eq!(gate.metric("doorward_config_healthy", &[]).await, 0.0);
        for path in ["/things/1", "/keyed/1"] {
            assert_eq!(gate.get(path).bearer(&token).send().await.status, 200, "{file}, kind {number}");
        }
        let key = world.upstream.received().last().unwrap().header("x-api-key").map(str::to_owned);
        assert_eq!(key.as_deref(), Some("secret"), "{file}, kind {number}");
        assert_eq!(gate.get("/things/1").send().await.status, 401);
        gate.write(file, &good);
        gate.becomes_ready(200).await;
        assert_eq!(gate.metric("doorward_config_healthy", &[]).await, 1.0);
    }
    let refusals = gate.audit().iter().filter(|record| record.event() == "config.refused").count();
    assert!(refusals >= 12, "{refusals} refusals on record");
    assert!(gate.metric("doorward_config_failures_total", &[]).await >= 12.0);
    gate.never_wrote("the-secret-itself");
}

#[tokio::test]
async fn a_file_that_only_the_new_configuration_names_mends_it_when_it_comes() {
    let world = keyed().await;
    world.gate.becomes_ready(200).await;
    let moved = spoiled(&world, "doorward.yaml", "file:api.key", "file:secrets/new.key");
    world.gate.write("doorward.yaml", &moved);
    let reasons = world.gate.becomes_degraded().await;
    assert!(reasons.contains("new.key"), "{reasons}");
    std::fs::create_dir(world.gate.path("secrets")).unwrap();
    world.gate.write("secrets/new.key", "new-secret\n");
    world.gate.becomes_ready(200).await;
    let token = world.token();
    assert_eq!(world.gate.get("/keyed/1").bearer(&token).send().await.status, 200);
    assert_eq!(world.upstream.only().header("x-api-key"), Some("new-secret"));
}

#[tokio::test]
async fn a_policies_directory_that_is_gone_opens_nothing() {
    let world = keyed().await;
    world.gate.becomes_ready(200).await;
    std::fs::rename(world.gate.path("policies"), world.gate.path("away")).unwrap();
    let reasons = world.gate.becomes_degraded().await;
    assert!(reasons.contains("policies"), "{reasons}");
    assert_eq!(world.gate.get("/things/1").bearer(&world.token()).send().await.status, 200);
    assert_eq!(world.gate.get("/things/1").send().await.status, 401);
    std::fs::rename(world.gate.path("away"), world.gate.path("policies")).unwrap();
    world.gate.becomes_ready(200).await;
}

#[tokio::test]
async fn half_a_change_over_two_files_is_never_in_force() {
    let world = keyed().await;
    world.gate.becomes_ready(200).await;
    let rules = world.gate.read("policies/rules.yaml");
    let renamed = rules.replace(r#""reader""#, r#""viewer""#);
    world.gate.write("policies/rules.yaml", &renamed);
    let reasons = world.gate.becomes_degraded().await;
    assert!(reasons.contains("rules.cedar") && reasons.contains("reader"), "{reasons}");
    let reader = world.issuer.token().mint();
    assert_eq!(world.gate.get("/things/1").bearer(&reader).send().await.status, 200, "the old rules are in force");
    let cedar = spoiled(&world, "policies/rules.cedar", r#"Role::"reader""#, r#"Role::"viewer""#);
    world.gate.write("policies/rules.cedar", &cedar);
    world.gate.becomes_ready(200).await;
    assert_eq!(world.gate.get("/things/2").bearer(&reader).send().await.status, 200);
    let record = world.gate.only_record_of("/things/2").await;
    assert_eq!(record.value("roles"), &json!(["viewer"]));
}

#[tokio::test]
async fn sighup_tells_the_faults_again_and_the_file_stays_refused() {
    let world = keyed().await;
    world.gate.becomes_ready(200).await;
    world.gate.write("policies/rules.cedar", "permit(principal, action, resource)\n");
    world.gate.becomes_degraded().await;
    let refusals = || world.gate.audit().iter().filter(|record| record.event() == "config.refused").count();
    let before = refusals();
    world.gate.hang_up().await;
    eventually("another verdict", || async { (refusals() > before).then_some(()) }).await;
    world.gate.becomes_degraded().await;
    assert_eq!(world.gate.get("/nowhere").bearer(&world.token()).send().await.status, 404);
}

#[tokio::test]
async fn all_faults_of_all_files_are_told_at_once_with_their_places() {
    let (code, told) = World::refused(|gate| {
        let stranger = crate::support::Authority::new();
        gate.config(json!({ "limits": { "drain": "30" }, "admin": { "address": "0.0.0.0:1" } }))
            .file("server.key", &stranger.server_pair(&["gate.test"]).key)
            .route("other", json!({ "path": "/other/{*rest}", "upstream": "nowhere" }))
            .policy("permit(principal, action, resource);")
            .cedar("broken.cedar", "permit(principal, action, resource)\n")
    })
    .await;
    assert_eq!(code, 2, "{told}");
    for expected in [
        "`30` has no unit",
        "the admin listener is open to others",
        "does not match",
        "nowhere",
        "every policy needs an `@id` of its own",
        "doorward.yaml:",
        "rules.yaml:",
        "rules.cedar:3:1",
        "broken.cedar:1:",
    ] {
        assert!(told.contains(expected), "no {expected} in {told}");
    }
}

#[tokio::test]
async fn a_missing_file_of_any_kind_refuses_to_start() {
    let file = |pointer: &str, value: &str| {
        let mut settings = json!({
            "issuers": { "machines": { "keys": {} } },
            "listeners": { "public": { "tls": {} } },
            "credentials": {},
        });
        settings[pointer.split('/').next().unwrap()] = serde_json::from_str(value).unwrap();
        settings
    };
    let cases: [(Value, &str); 3] = [
        (file("issuers", r#"{"machines":{"keys":{"discovery":null,"file":"gone.json"}}}"#), "gone.json"),
        (
            file(
                "listeners",
                r#"{"public":{"tls":{"certificates":[{"certificate":"server.pem","key":"file:gone.key"}]}}}"#,
            ),
            "gone.key",
        ),
        (file("credentials", r#"{"key":{"fixed":{"header":"X-Key","secret":"file:gone.secret"}}}"#), "gone.secret"),
    ];
    for (settings, name) in cases {
        let (code, told) = World::refused(|gate| gate.config(settings)).await;
        assert_eq!(code, 2, "{told}");
        assert!(told.contains(name) && told.contains("doorward.yaml:"), "{told}");
    }
}
