//! What works.

use serde_json::json;

use super::World;
use crate::load::share;

#[tokio::test]
async fn an_unmodified_sdk_with_placeholder_keys_works_on_a_bucket_and_every_session_is_on_record() {
    let world = World::start(|gate, _, _| gate).await;
    let token = world.issuer.token().mint();
    let large = share(1 << 30);
    let before = world.gate.resident_kib();
    let outcome = world.walk(&token, json!({ "large_bytes": large })).await;
    let grown = world.gate.resident_kib().saturating_sub(before);
    for (step, found) in outcome.as_object().unwrap() {
        let expected = if step == "gone" { "NoSuchKey" } else { "ok" };
        assert_eq!(found, expected, "{step} of {outcome:#}");
    }
    assert!(grown < 32 * 1024, "{grown} KiB more, for an object of {large} bytes");

    let of = |route: &'static str| {
        world
            .gate
            .audited("a session", move |record| record.event() == "credential.issued" && record.text("route") == route)
    };
    // The role's trust policy can ask for the route, so each route has a session of its own.
    let (issued, for_buckets) = (of("storage").await, of("bucket").await);
    assert_eq!(issued.text("credential"), "storage");
    assert_eq!(issued.text("kind"), "aws");
    assert_eq!(issued.text("role"), format!("arn:aws:iam:::role/{}", world.role));
    let session = issued.text("session_name");
    assert!(session.starts_with("machines-machine-1-"), "{session}");
    assert_eq!(issued.value("roles"), &json!(["reader"]));
    let records = world.gate.settled_audit().await;
    let mut requests = 0;
    for record in records.iter().filter(|record| record.event() == "request" && record.text("code") == "ok") {
        let session = match record.text("route") {
            "storage" => &issued,
            "bucket" => &for_buckets,
            _ => continue,
        };
        assert_eq!(record.text("credential.id"), session.text("id"), "each request names its session's key");
        requests += 1;
    }
    assert!(requests > 30, "{requests}");
    let sessions = records.iter().filter(|record| record.event() == "credential.issued").count();
    assert_eq!(sessions, 2, "one caller, one policy, one session a route");
    world.gate.never_wrote(&token);
}
