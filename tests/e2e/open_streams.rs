//! What is open ends when a reload or a logout takes its grant away, and nothing else does.

use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::reload::WRITERS_READ;
use crate::sessions::{header, signed_in};
use crate::streaming::open_socket;
use crate::support::{
    AuditRecord, Authority, Gate, ORIGIN, RecordingUpstream, RunningGate, Script, StaticIssuer, eventually, now, within,
};

/// Readers may read, and writers too as long as `policies/more.cedar` is there.
async fn world() -> (StaticIssuer, RecordingUpstream, RunningGate) {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .route("things", json!({ "path": "/things/{*rest}", "websocket": true }))
        .cedar("more.cedar", WRITERS_READ);
    let gate = gate.start().await;
    gate.becomes_ready(200).await;
    (issuer, upstream, gate)
}

#[tokio::test]
async fn a_stream_ends_with_a_reload_that_grants_it_no_more_and_another_goes_on() {
    let (issuer, upstream, gate) = world().await;
    let mut open = Vec::new();
    for (path, group) in [("/things/kept", "readers"), ("/things/lost", "writers")] {
        let (pieces, script) = Script::pieces("text/event-stream");
        upstream.script(path, script);
        let token = issuer.token().groups(&[group]).mint();
        let answer = gate.get(path).bearer(&token).begin().await;
        assert_eq!(answer.status(), 200, "{path}");
        open.push((pieces, answer.into_body()));
    }
    let (lost_pieces, mut lost) = open.pop().unwrap();
    let (kept_pieces, mut kept) = open.pop().unwrap();
    lost_pieces.send("data: 1\n\n".into()).await.unwrap();
    assert_eq!(within("the event", lost.frame()).await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");

    std::fs::remove_file(gate.path("policies/more.cedar")).unwrap();
    let end = within("the end of the stream", lost.frame()).await;
    assert!(end.is_some_and(|frame| frame.is_err()), "a stream that was cut must not look whole");
    within("the upstream to be let go", lost_pieces.closed()).await;
    let record = gate.only_record_of("/things/lost").await;
    assert_eq!(record.verdict(), ("allow", "grant_ended"));
    assert_eq!(record.number("response_bytes"), 9);

    kept_pieces.send("data: 2\n\n".into()).await.unwrap();
    assert_eq!(within("the event", kept.frame()).await.unwrap().unwrap().into_data().unwrap(), "data: 2\n\n");
    drop(kept_pieces);
    assert!(within("the end", kept.frame()).await.is_none());
    assert_eq!(gate.only_record_of("/things/kept").await.verdict(), ("allow", "ok"));
}

#[tokio::test]
async fn a_websocket_ends_with_a_reload_that_grants_it_no_more() {
    let (issuer, upstream, gate) = world().await;
    upstream.script("/things/socket", Script::WebSocketEcho);
    let token = issuer.token().groups(&["writers"]).mint();
    let mut socket = open_socket(&gate, "/things/socket", Some(&token)).await.unwrap();
    socket.send(Message::text("still good")).await.unwrap();
    assert!(within("the echo", socket.next()).await.unwrap().is_ok());
    std::fs::remove_file(gate.path("policies/more.cedar")).unwrap();
    within("the end of the socket", async { while let Some(Ok(_)) = socket.next().await {} }).await;
    gate.audited("the socket", |record| record.is_request_to("/things/socket")).await;
    assert_eq!(gate.only_record_of("/things/socket").await.verdict(), ("allow", "grant_ended"));
}

#[tokio::test]
async fn a_stream_ends_with_the_logout_of_its_session() {
    let (provider, upstream, gate, mut browser) = signed_in().await;
    provider.id_tokens_live(300).await;
    let (pieces, script) = Script::pieces("text/event-stream");
    upstream.script("/app/events", script);
    let cookies = header(&browser.cookies().await);
    let answer = gate.get("/app/events").header("cookie", &cookies).begin().await;
    assert_eq!(answer.status(), 200);
    let mut events = answer.into_body();
    // It was looked at more than once by then.
    let later = now() + 4;
    eventually("seconds to pass", || async { (now() > later).then_some(()) }).await;
    pieces.send("data: 1\n\n".into()).await.unwrap();
    assert_eq!(within("the event", events.frame()).await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");

    let logout = gate.post("/.doorward/logout").header("cookie", &cookies).header("sec-fetch-site", "same-origin");
    assert_eq!(logout.header("origin", ORIGIN).send().await.status, 303);
    let end = within("the end of the stream", events.frame()).await;
    assert!(end.is_some_and(|frame| frame.is_err()), "a stream that was cut must not look whole");
    within("the upstream to be let go", pieces.closed()).await;
    assert_eq!(gate.only_record_of("/app/events").await.verdict(), ("allow", "grant_ended"));
}

#[tokio::test]
async fn an_upload_ends_with_a_reload_that_grants_it_no_more() {
    let (issuer, upstream, gate) = world().await;
    let token = issuer.token().groups(&["writers"]).mint();
    let mut connection = gate.raw().await;
    let head = format!(
        "POST /things/upload HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    );
    connection.send(head).await;
    let rules = gate.read("policies/rules.cedar");
    assert!(rules.contains("writers-write"));
    upstream.receives("the upload to begin", |received| received.target == "/things/upload").await;
    gate.write(
        "policies/rules.cedar",
        &rules.replace("permit(principal in Role::\"writer\"", "forbid(principal in Role::\"writer\""),
    );
    let answer = Box::pin(within("the end of the upload", connection.answer())).await;
    assert_eq!(answer.map(|answer| answer.status), Some(401));
    let record = gate.audited("the upload", |record| record.is_request_to("/things/upload")).await;
    assert_eq!(record.text("code"), "grant_ended");
    assert!(upstream.received().iter().all(|received| !received.complete));
}

/// Writes `doorward.yaml`, and waits until it is in force.
async fn reload(gate: &RunningGate, config: &serde_json::Value) {
    let loads = || gate.audit().iter().filter(|record| record.event() == "config.loaded").count();
    let earlier = loads();
    gate.write("doorward.yaml", &format!("{config}\n"));
    eventually("the reload", || async { (loads() > earlier).then_some(()) }).await;
}

#[tokio::test]
async fn a_stream_ends_with_a_reload_whose_issuer_would_not_take_its_token_any_more() {
    let (issuer, upstream, gate) = world().await;
    let before: serde_json::Value = serde_json::from_str(&gate.read("doorward.yaml")).unwrap();
    // One change that its token meets, and then three that it does not.
    for (what, goes_on, change) in [
        ("a longer leeway", true, json!({ "leeway": "20s" })),
        ("another audience", false, json!({ "audience": ["https://elsewhere.test"] })),
        ("a required claim", false, json!({ "required_claims": { "tenant": ["acme"] } })),
        ("another name for its callers", false, json!({ "principal": ["client_id", "sub"] })),
    ] {
        gate.write("doorward.yaml", &format!("{before}\n"));
        gate.becomes_ready(200).await;
        let path = format!("/things/{}", what.replace(' ', "-"));
        let token = issuer.token().groups(&["readers"]).mint();
        let (pieces, script) = Script::pieces("text/event-stream");
        upstream.script(&path, script);
        let opened = || async {
            let answer = gate.get(&path).bearer(&token).begin().await;
            (answer.status() == 200).then_some(answer)
        };
        let mut body = eventually("the first configuration", opened).await.into_body();
        pieces.send("data: 1\n\n".into()).await.unwrap();
        within("an event", body.frame()).await.unwrap().unwrap();

        let mut config = before.clone();
        for (key, value) in change.as_object().unwrap() {
            config["issuers"]["machines"][key] = value.clone();
        }
        reload(&gate, &config).await;
        if goes_on {
            // Past the next look at open streams.
            tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
            pieces.send("data: 2\n\n".into()).await.unwrap();
            assert!(within("an event", body.frame()).await.unwrap().is_ok(), "{what}");
        } else {
            let end = within("the end of the stream", body.frame()).await;
            assert!(end.is_some_and(|frame| frame.is_err()), "{what}");
            let is_it = |record: &AuditRecord| record.is_request_to(&path) && record.text("code") == "grant_ended";
            gate.audited(what, is_it).await;
        }
    }
}

#[tokio::test]
async fn a_sessions_stream_goes_on_past_a_reload_and_ends_with_one_that_refuses_its_claims() {
    let (provider, upstream, gate, mut browser) = signed_in().await;
    provider.id_tokens_live(300).await;
    let cookie = header(&browser.cookies().await);
    let (pieces, script) = Script::pieces("text/event-stream");
    upstream.script("/app/events", script);
    let mut body = gate.get("/app/events").header("cookie", &cookie).begin().await.into_body();
    pieces.send("data: 1\n\n".into()).await.unwrap();
    within("an event", body.frame()).await.unwrap().unwrap();
    let config: serde_json::Value = serde_json::from_str(&gate.read("doorward.yaml")).unwrap();
    for (goes_on, key, value) in
        [(true, "leeway", json!("20s")), (false, "required_claims", json!({ "tenant": ["x"] }))]
    {
        let mut config = config.clone();
        config["issuers"]["people"][key] = value;
        reload(&gate, &config).await;
        if goes_on {
            tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
            pieces.send("data: 2\n\n".into()).await.unwrap();
            assert!(within("an event", body.frame()).await.unwrap().is_ok());
        } else {
            let end = within("the end of the stream", body.frame()).await;
            assert!(end.is_some_and(|frame| frame.is_err()));
        }
    }
}
