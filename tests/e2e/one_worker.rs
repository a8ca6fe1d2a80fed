//! `--workers 1`: one thread for everything, which waits for nobody.

use std::sync::Arc;

use http_body_util::BodyExt as _;

use crate::support::{Answer, Script, World, eventually, within};

#[tokio::test]
async fn a_single_worker_streams_reloads_and_drains_while_others_wait() {
    let mut world = World::start(|gate| gate.workers(1)).await;
    world.gate.becomes_ready(200).await;
    let token = world.token();
    let (pieces, script) = Script::pieces("text/event-stream");
    world.upstream.script("/things/events", script);
    world.upstream.script("/things/silent", Script::Silence);
    let mut events = world.gate.get("/things/events").bearer(&token).begin().await;
    let _waits = tokio::spawn(
        world.gate.http1().await.send_request(world.gate.get("/things/silent").bearer(&token).into_http1()),
    );

    // Both protocols, many at once, while one is silent and one streams.
    let client = Arc::new(crate::support::Client::clone(&world.gate));
    let asked = (0..60).map(|number| {
        let (client, token) = (client.clone(), token.clone());
        async move {
            let draft = client.get(&format!("/things/{number}")).bearer(&token);
            if number % 2 == 0 { draft.send().await.status } else { draft.send_http2().await.status }
        }
    });
    for status in futures_util::future::join_all(asked).await {
        assert_eq!(status, 200);
    }
    pieces.send("data: 1\n\n".into()).await.unwrap();
    let event = within("an event", events.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(event.into_data().unwrap(), "data: 1\n\n");

    world.gate.write(
        "policies/more.cedar",
        r#"@id("none") forbid(principal, action, resource) when { context.path like "/things/9*" };"#,
    );
    let refused = || async { (world.gate.get("/things/9").bearer(&token).send().await.status == 403).then_some(()) };
    eventually("the new rule", refused).await;
    drop(pieces);
    assert!(events.body_mut().frame().await.is_none());

    let (pieces, script) = Script::pieces("text/plain");
    world.upstream.script("/things/slow", script);
    let answer = world.gate.get("/things/slow").bearer(&token).begin().await;
    world.gate.terminate().await;
    pieces.send("whole".into()).await.unwrap();
    drop(pieces);
    assert_eq!(Answer::read(answer).await.text(), "whole");
    world.upstream.go_away().await;
    assert!(world.gate.exit().await.code().is_some(), "it ended by itself");
    let records = world.gate.audit();
    for path in ["/things/events", "/things/silent", "/things/slow", "/things/59"] {
        assert_eq!(records.iter().filter(|record| record.is_request_to(path)).count(), 1, "{path}");
    }
}
