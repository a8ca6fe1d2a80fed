//! An issuer of credentials that is slow, busy, broken or away, and callers who all come at once.

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Authority, Gate, RecordingUpstream, RunningGate, Script, StaticIssuer, eventually};

/// A gate with a route `/NAME/…` for each path of a token endpoint, which does as its script says.
struct World {
    endpoint: RecordingUpstream,
    upstream: RecordingUpstream,
    issuer: StaticIssuer,
    gate: RunningGate,
}

impl World {
    async fn of(names: &[&str]) -> Self {
        let authority = Authority::new();
        let issuer = StaticIssuer::start(&authority).await;
        let (endpoint, upstream) = (RecordingUpstream::start().await, RecordingUpstream::start().await);
        let mut gate = Gate::standard(&authority, &issuer, &upstream).file("client.secret", "the-clients-secret");
        for name in names {
            let credential = json!({ "client_credentials": { "endpoint": {
                "url": format!("{}/{name}", endpoint.url()),
                "client": { "id": "gate", "secret": "file:client.secret" },
            } } });
            gate = gate
                .config(json!({ "credentials": { *name: credential } }))
                .route(name, json!({ "path": format!("/{name}/{{*rest}}"), "credential": name }));
        }
        let gate = gate.start().await;
        gate.becomes_ready(200).await;
        Self { endpoint, upstream, issuer, gate }
    }

    fn answers(&self, name: &str, status: u16, headers: &[(&'static str, &'static str)], body: &'static str) {
        let status = StatusCode::from_u16(status).unwrap();
        self.endpoint.script(&format!("/{name}"), Script::Fixed(status, headers.to_vec(), body));
    }

    fn asked(&self, name: &str) -> usize {
        self.endpoint.received().iter().filter(|received| received.target == format!("/{name}")).count()
    }

    /// Status and code that a caller gets.
    async fn comes(&self, name: &str) -> (u16, Value) {
        let answer = self.gate.get(&format!("/{name}/1")).bearer(&self.issuer.token().mint()).send().await;
        let code = if answer.status == 200 { Value::Null } else { answer.json()["code"].clone() };
        (answer.status.as_u16(), code)
    }

    /// Code and detail on record.
    async fn refused(&self, name: &str) -> (String, String) {
        let of = name.to_owned();
        let is_it = move |record: &crate::support::AuditRecord| {
            record.event() == "credential.refused" && record.text("credential") == of
        };
        let record = self.gate.audited(&format!("the refusal of `{name}`"), is_it).await;
        (record.text("code").to_owned(), record.text("detail").to_owned())
    }
}

const TOKEN: &str = r#"{"access_token":"the-issued-token","token_type":"Bearer","expires_in":3600}"#;

#[tokio::test]
async fn two_hundred_callers_at_once_wait_for_one_fetch() {
    let world = World::of(&["slow"]).await;
    let (pieces, script) = Script::pieces("application/json");
    world.endpoint.script("/slow", script);
    let client = world.gate.listener("public");
    let connections = join_all((0..4).map(|_| client.http2())).await;
    let asked = (0..200).map(|number| {
        let token = world.issuer.token().subject(&format!("machine-{number}")).mint();
        let request = client.get(&format!("/slow/{number}")).bearer(&token).into_http2();
        let mut connection = connections[number % 4].clone();
        async move { connection.send_request(request).await.unwrap().status().as_u16() }
    });
    let answered = async {
        world.endpoint.receives("the fetch", |received| received.target == "/slow").await;
        pieces.send(TOKEN.into()).await.unwrap();
        drop(pieces);
    };
    let (statuses, ()) = tokio::join!(join_all(asked), answered);
    assert_eq!(statuses, [200; 200]);
    assert_eq!(world.asked("slow"), 1);
    let shown = world.upstream.received();
    assert_eq!(shown.len(), 200);
    assert!(shown.iter().all(|received| received.header("authorization") == Some("Bearer the-issued-token")));
    let records = world.gate.settled_audit().await;
    assert_eq!(records.iter().filter(|record| record.event() == "credential.issued").count(), 1);
    world.gate.never_wrote("the-issued-token");
}

#[tokio::test]
async fn what_an_issuer_does_wrong_fails_its_own_route_with_a_reason() {
    let names = [
        "page",
        "no-token",
        "no-header",
        "ended",
        "no-bearer",
        "moved",
        "refused",
        "broken",
        "busy",
        "cut",
        "silent",
        "good",
    ];
    let world = World::of(&names).await;
    world.answers("page", 200, &[("content-type", "text/html")], "<html>not json</html>");
    world.answers("no-token", 200, &[], r#"{"token_type":"Bearer","expires_in":60}"#);
    world.answers("no-header", 200, &[], r#"{"access_token":"the\nsecret","token_type":"Bearer","expires_in":60}"#);
    world.answers("ended", 200, &[], r#"{"access_token":"the-secret","token_type":"Bearer","expires_in":0}"#);
    world.answers("no-bearer", 200, &[], r#"{"access_token":"the-secret","token_type":"DPoP","expires_in":60}"#);
    world.answers("moved", 307, &[("location", "http://127.0.0.1:9/")], "");
    world.answers("refused", 401, &[], r#"{"error":"invalid_client","error_description":"unknown client"}"#);
    world.answers("broken", 500, &[], "it broke");
    world.answers("busy", 429, &[("retry-after", "3")], "slow down");
    world.endpoint.script("/cut", Script::Cut);
    world.endpoint.script("/silent", Script::Silence);
    world.answers("good", 200, &[], TOKEN);

    let came = join_all(names.iter().map(|name| world.comes(name))).await;
    for (name, came) in names.iter().zip(came) {
        let expected = if *name == "good" { (200, Value::Null) } else { (503, json!("credential_unavailable")) };
        assert_eq!(came, expected, "{name}");
    }
    for (name, code, detail, times) in [
        ("page", "credential_answer_unreadable", "", 1),
        ("no-token", "credential_answer_unreadable", "", 1),
        ("no-header", "credential_answer_unreadable", "the token is no header value", 1),
        ("ended", "credential_answer_unreadable", "do the clocks agree?", 1),
        ("no-bearer", "credential_answer_unreadable", "", 1),
        ("moved", "credential_answer_unreadable", "", 1),
        ("refused", "credential_refused", "invalid_client", 1),
        ("broken", "credential_issuer_unavailable", "its issuer answered 500: it broke", 3),
        ("busy", "credential_issuer_unavailable", "its issuer answered 429: slow down", 3),
        ("cut", "credential_issuer_unavailable", "", 3),
    ] {
        let refused = world.refused(name).await;
        assert!(refused.0 == code && refused.1.contains(detail), "{name}: {refused:?}");
        assert!((1..=times).contains(&world.asked(name)), "{name}: asked {} times", world.asked(name));
    }
    let records = world.gate.settled_audit().await;
    let of = |name: &str| records.iter().filter(|record| record.text("credential") == name).count();
    assert_eq!((world.asked("broken"), of("broken")), (3, 1), "three tries are told once");
    world.gate.never_wrote("the-secret");
    world.gate.never_wrote("the-clients-secret");

    for name in ["page", "refused", "busy", "silent"] {
        world.answers(name, 200, &[], TOKEN);
        let mended = format!("`{name}` to be mended");
        eventually(&mended, || async { (world.comes(name).await.0 == 200).then_some(()) }).await;
    }
}
