//! One record for each request, whatever happened to it.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use crate::support::{AuditRecord, HOST, Script, World, eventually, within};

/// The only record of `path` among all.
fn only<'a>(records: &'a [AuditRecord], path: &str) -> &'a AuditRecord {
    let of_it: Vec<_> = records.iter().filter(|record| record.is_request_to(path)).collect();
    assert_eq!(of_it.len(), 1, "{path}: {of_it:#?}");
    of_it[0]
}

#[tokio::test]
async fn every_outcome_leaves_one_record_with_the_status_that_the_caller_saw_and_every_field() {
    let route = json!({ "path": "/things/{*rest}", "limits": { "body": "1KiB" } });
    let silent = json!({ "path": "/things/silent", "limits": { "first_byte": "500ms" } });
    let away = json!({ "upstreams": { "away": { "addresses": ["http://127.0.0.1:1"] } } });
    let world = World::start(|gate| {
        gate.route("things", route)
            .route("silent", silent)
            .config(away)
            .route("away", json!({ "path": "/away", "upstream": "away" }))
    })
    .await;
    world.upstream.script("/things/silent", Script::Silence);
    let (good, reader) = (world.token(), world.issuer.token().mint());
    let large = vec![0; 2048];
    let gate = &world.gate;
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let answers = [
        (gate.get("/things/allowed?q=secret-query").bearer(&good), 200, "ok"),
        (gate.get("/things/nobody"), 401, "unauthenticated"),
        (gate.get("/things/garbage").bearer("not.a.token"), 401, ""),
        (gate.post("/things/denied").bearer(&reader), 403, "not_permitted"),
        (gate.get("/nowhere").bearer(&good), 404, "no_route"),
        (gate.request(purge, "/things/purged").bearer(&good), 405, ""),
        (gate.get("/things/a%2fb").bearer(&good), 400, ""),
        (gate.post("/things/large").bearer(&good).body(large), 413, "body_too_large"),
        (gate.get("/things/silent").bearer(&good), 504, "upstream_first_byte_timeout"),
        (gate.get("/away").bearer(&good), 502, "upstream_connect_failed"),
        (gate.get("/.doorward/jwks.json"), 200, "ok"),
    ];
    let paths = [
        "/things/allowed",
        "/things/nobody",
        "/things/garbage",
        "/things/denied",
        "/nowhere",
        "/things/purged",
        "/things/a%2fb",
        "/things/large",
        "/things/silent",
        "/away",
        "/.doorward/jwks.json",
    ];
    let mut expected = Vec::new();
    for (path, (draft, status, code)) in paths.into_iter().zip(answers) {
        let answer = draft.send().await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        expected.push((path, status, code, answer.header("x-request-id").map(str::to_owned)));
    }
    let records = gate.settled_audit().await;
    let fields = |record: &AuditRecord| record.0.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let all = fields(only(&records, "/things/allowed"));
    for (path, status, code, request_id) in expected {
        let record = only(&records, path);
        assert_eq!(record.number("status"), i64::from(status), "{path}");
        assert_eq!(Some(record.text("request_id")), request_id.as_deref(), "{path}");
        assert!(code.is_empty() || record.text("code") == code, "{path}: {}", record.0);
        assert_eq!(fields(record), all, "{path}");
        assert_eq!((record.text("host"), record.text("peer")), (HOST, "127.0.0.1"), "{path}");
        assert_eq!(record.text("snapshot").len(), only(&records, "/things/allowed").text("snapshot").len(), "{path}");
        assert!(record.value("duration_us.total").is_u64(), "{path}");
    }
    let allowed = only(&records, "/things/allowed");
    assert_eq!((allowed.text("principal.kind"), allowed.text("route")), ("Workload", "things"));
    assert_eq!(allowed.value("roles"), &json!(["reader", "writer"]));
    assert_eq!(allowed.value("policy_ids"), &json!(["readers-read"]));
    assert_eq!((allowed.text("trace_id").len(), allowed.text("upstream.name")), (32, "api"));
    assert!(!allowed.text("credential.id").is_empty() && !allowed.text("credential.expires_at").is_empty());
    assert!(allowed.number("response_bytes") > 0);
    for (path, name) in [("/things/silent", "api"), ("/away", "away")] {
        let failed = only(&records, path);
        assert_eq!(failed.text("upstream.name"), name);
        assert!(failed.text("upstream.address").starts_with("http://127.0.0.1:"), "{path}: {}", failed.0);
    }
    for step in ["identify", "authorize", "credential", "upstream"] {
        assert!(allowed.value(&format!("duration_us.{step}")).is_u64(), "{step}");
    }
    let denied = only(&records, "/things/denied");
    assert_eq!((denied.text("principal.issuer"), denied.text("route")), ("machines", "things"));
    gate.never_wrote("secret-query");
    gate.never_wrote(&good);
    gate.never_wrote("not.a.token");
}

#[tokio::test]
async fn a_head_request_is_recorded_as_what_it_was() {
    let world = World::start(|gate| gate).await;
    let ask = async |path: &str, token: Option<&str>| {
        let draft = world.gate.request(Method::HEAD, path);
        let draft = if let Some(token) = token { draft.bearer(token) } else { draft };
        draft.send().await.status.as_u16()
    };
    assert_eq!(ask("/things/allowed", Some(&world.token())).await, 200);
    assert_eq!(ask("/things/nobody", None).await, 401);
    assert_eq!(ask("/.doorward/jwks.json", None).await, 200);
    let records = world.gate.settled_audit().await;
    assert_eq!(only(&records, "/things/allowed").verdict(), ("allow", "ok"));
    assert_eq!(only(&records, "/things/nobody").verdict(), ("deny", "unauthenticated"));
    assert_eq!(only(&records, "/.doorward/jwks.json").verdict(), ("own", "ok"));
}

fn post(path: &str, token: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test]
async fn a_caller_that_hangs_up_in_any_phase_leaves_one_record() {
    let world = World::start(|gate| gate).await;
    world.upstream.script("/things/silent", Script::Silence);
    let token = world.token();

    let mut before_answer = world.gate.raw().await;
    let request = format!("GET /things/silent HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n");
    before_answer.send(request).await;
    world.upstream.receives("the request", |received| received.target == "/things/silent").await;
    drop(before_answer);

    let mut before_body = world.gate.raw().await;
    before_body.send(post("/things/bodiless", &token, 100)).await;
    world.upstream.receives("the head", |received| received.target == "/things/bodiless").await;
    drop(before_body);

    let mut mid_upload = world.gate.raw().await;
    mid_upload.send(post("/things/upload", &token, 100)).await;
    mid_upload.send("fifty bytes".repeat(5)).await;
    world.upstream.receives("half", |received| received.target == "/things/upload" && received.body_bytes > 0).await;
    drop(mid_upload);

    let (pieces, script) = Script::pieces("text/plain");
    world.upstream.script("/things/download", script);
    let mut mid_download = world.gate.raw().await;
    let request = format!("GET /things/download HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n");
    mid_download.send(request).await;
    // The second fits only once the first was taken, so the answer is on its way.
    pieces.send("half".into()).await.unwrap();
    pieces.send("more".into()).await.unwrap();
    drop(mid_download);
    within("the upstream to be let go", pieces.closed()).await;

    for path in ["/things/silent", "/things/bodiless", "/things/upload", "/things/download"] {
        world.gate.audited(path, |record| record.is_request_to(path)).await;
    }
    let records = world.gate.settled_audit().await;
    for path in ["/things/silent", "/things/bodiless", "/things/upload", "/things/download"] {
        let record = only(&records, path);
        assert_eq!(record.text("decision"), "allow", "{path}");
        assert_ne!(record.text("code"), "ok", "{path}");
    }
    assert!(only(&records, "/things/upload").number("request_bytes") > 0);
    assert!(world.upstream.received().iter().all(|received| received.method == Method::GET || !received.complete));
    eventually("nothing to be under way", || async {
        (world.gate.metric("doorward_requests_in_flight", &[]).await < 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_its_caller_takes_back_leaves_one_record_over_http2_too() {
    let world = World::start(|gate| gate).await;
    world.upstream.script("/things/silent", Script::Silence);
    let token = world.token();
    let mut sender = world.gate.http2().await;
    let asking = tokio::spawn(sender.send_request(world.gate.get("/things/silent").bearer(&token).into_http2()));
    world.upstream.receives("the request", |received| received.target == "/things/silent").await;
    asking.abort();
    let half = futures_util::stream::once(async { Ok(Frame::data(Bytes::from_static(b"half"))) });
    let body = BodyExt::boxed_unsync(StreamBody::new(half.chain(futures_util::stream::pending())));
    let request = world.gate.post("/things/upload").bearer(&token).stream(body).into_http2();
    let uploading = tokio::spawn(sender.send_request(request));
    world.upstream.receives("half", |received| received.target == "/things/upload" && received.body_bytes > 0).await;
    uploading.abort();
    for path in ["/things/silent", "/things/upload"] {
        world.gate.audited(path, |record| record.is_request_to(path)).await;
    }
    let records = world.gate.settled_audit().await;
    for path in ["/things/silent", "/things/upload"] {
        assert_ne!(only(&records, path).text("code"), "ok");
    }
    assert_eq!(
        sender.send_request(world.gate.get("/things/1").bearer(&token).into_http2()).await.unwrap().status(),
        200
    );
}

#[tokio::test]
async fn control_characters_stay_text() {
    let world = World::start(|gate| gate).await;
    for bytes in [
        "GET /things/%1b[2J%0a HTTP/1.1\r\nHost: gate.test\r\n\r\n",
        "GET /things/\u{9b}31m\u{202e} HTTP/1.1\r\nHost: gate.test\r\n\r\n",
        "GET /things/1 HTTP/1.1\r\nHost: gate.test\u{85}\u{2028}{\"event\":\"request\"}\r\n\r\n",
        "GET /things/1 HTTP/1.1\r\nHost: user:pass-word@gate.test\r\n\r\n",
        "GET /things/1 HTTP/1.1\r\nHost: gate.test\r\nX-Request-Id: \u{9b}\"\r\ntraceparent: 00-\u{9b}\r\n\r\n",
    ] {
        let mut connection = world.gate.raw().await;
        connection.send(bytes).await;
        connection.answer().await;
    }
    world.gate.settled_audit().await;
    let text = world.gate.read("audit.jsonl");
    let acts = |character: char| {
        character != '\n' && (character.is_control() || "\u{2028}\u{2029}\u{202e}".contains(character))
    };
    assert!(!text.contains(acts), "{text:?}");
    world.gate.never_wrote("pass-word");
}
