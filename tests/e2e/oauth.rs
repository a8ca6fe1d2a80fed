//! Tokens of a real authorization server: each grant, each way of client authentication.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    Authority, Gate, Provider, Received, RecordingUpstream, RunningGate, Script, StaticIssuer, free_port,
};

struct World {
    authority: Arc<Authority>,
    provider: Provider,
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
}

impl World {
    /// A route `/NAME/…` for each of these credentials, whose endpoints are completed.
    async fn with(credentials: Value) -> Self {
        Self::changed(credentials, |gate| gate).await
    }

    async fn changed(mut credentials: Value, change: impl FnOnce(Gate) -> Gate) -> Self {
        let authority = Authority::new();
        let port = free_port();
        let documents = format!("http://127.0.0.1:{port}/.doorward");
        let provider = Provider::trusting(&authority, Some(&documents)).await;
        let (issuer, upstream) = (StaticIssuer::start(&authority).await, RecordingUpstream::start().await);
        let mut gate = Gate::standard(&authority, &issuer, &upstream).config(json!({
            "listeners": { "documents": { "address": format!("127.0.0.1:{port}") } },
            "assertions": { "issuer": documents, "listener": "documents" },
            // For the provider's own access tokens.
            "issuers": { "provider": {
                "issuer": provider.url(), "principals": "workloads", "audience": [crate::support::ORIGIN],
                "algorithms": ["ES256"], "keys": { "discovery": { "authorities": "ca.pem" } }, "principal": ["sub"],
            } },
        }));
        for (name, credential) in credentials.as_object_mut().unwrap() {
            let (_, settings) = credential.as_object_mut().unwrap().iter_mut().next().unwrap();
            let endpoint = settings["endpoint"].as_object_mut().unwrap();
            endpoint.entry("url").or_insert_with(|| format!("{}/token", provider.url()).into());
            endpoint.insert("authorities".to_owned(), "ca.pem".into());
            gate = gate
                .config(json!({ "credentials": { name: credential } }))
                .route(name, json!({ "path": format!("/{name}/{{*rest}}"), "credential": name }));
        }
        let gate = gate
            .file("basic.secret", "se cret+%/")
            .file("post.secret", "secret")
            .role("provided", json!({ "issuer": "provider", "everyone": { "reason": "one client of the tests" } }))
            .policy(r#"@id("provided-may") permit(principal in Role::"provided", action, resource);"#);
        let gate = change(gate).start().await;
        gate.becomes_ready(200).await;
        Self { authority, provider, issuer, upstream, gate }
    }

    async fn shown(&self, path: &str, token: &str) -> Received {
        let answer = self.gate.get(path).bearer(token).send().await;
        assert_eq!(
            answer.status,
            200,
            "{}: {:?}",
            answer.text(),
            self.gate.audit().last().map(|record| record.verdict().1.to_owned())
        );
        self.upstream.received().pop().unwrap()
    }
}

fn claims(received: &Received) -> Value {
    let token = received.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_shows_that_it_is_the_one_in_each_way_and_the_token_is_shared_by_all_callers() {
    let resource = json!({ "resource": "https://ledger.test/es256", "scope": "api:read" });
    let of =
        |client: Value| json!({ "client_credentials": { "endpoint": { "client": client }, "parameters": resource } });
    let world = World::with(json!({
        "basic": of(json!({ "id": "by:basic", "secret": "file:basic.secret" })),
        "post": of(json!({ "id": "by-post", "secret": "file:post.secret", "authentication": "client_secret_post" })),
        "key": of(json!({ "id": "by-key" })),
    }))
    .await;
    let (one, two) = (world.issuer.token().mint(), world.issuer.token().subject("machine-2").mint());
    for (path, client) in [("/basic/1", "by:basic"), ("/post/1", "by-post"), ("/key/1", "by-key")] {
        let first = world.shown(path, &one).await;
        let found = claims(&first);
        assert_eq!((&found["client_id"], &found["aud"]), (&json!(client), &json!("https://ledger.test")));
        let again = world.shown(path, &two).await;
        assert_eq!(first.header("authorization"), again.header("authorization"), "one token for every caller");
        let issued = world
            .gate
            .audited("the token", |record| {
                record.event() == "credential.issued" && record.text("route") == &path[1..path.len() - 2]
            })
            .await;
        assert_eq!(issued.text("id"), found["jti"].as_str().unwrap());
        world.gate.never_wrote(first.header("authorization").unwrap().strip_prefix("Bearer ").unwrap());
    }
    assert_eq!(world.provider.count("token").await, 3);
    assert_eq!(
        world.gate.metric("doorward_credentials_total", &[r#"credential="basic""#, r#"outcome="reused""#]).await,
        1.0
    );
}

#[tokio::test]
async fn an_exchanged_token_is_about_the_caller_and_says_who_acts() {
    let client = json!({ "id": "by-post", "secret": "file:post.secret", "authentication": "client_secret_post" });
    let parameters = json!({ "audience": "https://payroll.test", "scope": "api:read" });
    let of = |subject: &str| {
        json!({ "token_exchange": {
        "endpoint": { "client": client }, "subject": subject, "actor": "doorward", "parameters": parameters,
    } })
    };
    let world = World::with(json!({ "doorward": of("doorward"), "caller": of("caller") })).await;
    let token = world.issuer.token().claim("act", json!({ "sub": "agent-7" })).mint();
    let found = claims(&world.shown("/doorward/1", &token).await);
    assert_eq!((&found["sub"], &found["aud"]), (&json!("machines|machine-1"), &json!("https://payroll.test")));
    assert_eq!(found["act"], json!({ "sub": "doorward", "act": { "sub": "agent-7" } }), "the chain is kept");
    let other = world.issuer.token().subject("machine-2").mint();
    assert_eq!(claims(&world.shown("/doorward/1", &other).await)["sub"], "machines|machine-2");

    let own = world.provider.service_token(&world.authority, "ES256").await;
    let found = claims(&world.shown("/caller/1", &own).await);
    assert_eq!((&found["sub"], &found["act"]), (&json!("service"), &json!({ "sub": "doorward" })));
    let exchanged = world.provider.count("token").await;
    world.shown("/caller/2", &own).await;
    assert_eq!(world.provider.count("token").await, exchanged, "kept for this token");

    // A token that the server did not issue is refused by the server, and that route alone fails.
    let refused = world.gate.get("/caller/1").bearer(&token).send().await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let record = world.gate.audited("the refusal", |record| record.event() == "credential.refused").await;
    assert_eq!(record.text("code"), "credential_refused");
    assert!(record.text("detail").contains("invalid_grant"), "{}", record.text("detail"));
    world.gate.never_wrote(&token);
    assert_eq!(world.gate.get("/things/1").bearer(&token).send().await.status, 200);
}

#[tokio::test]
async fn an_assertion_about_the_caller_gives_a_token() {
    let client = json!({ "id": "by:basic", "secret": "file:basic.secret" });
    let world = World::with(json!({ "archive": { "jwt_bearer": {
        "endpoint": { "client": client }, "subject": "doorward", "header": "X-Archive-Token",
    } } }))
    .await;
    let received = world.shown("/archive/1", &world.issuer.token().mint()).await;
    assert_eq!(received.header("authorization"), None);
    let token = received.header("x-archive-token").unwrap();
    let found: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    assert_eq!((&found["sub"], &found["aud"]), (&json!("machines|machine-1"), &json!("https://archive.test")));
    let hostile = world.gate.get("/things/1").bearer(&world.issuer.token().mint()).header("x-archive-token", "mine");
    assert_eq!(hostile.send().await.status, 200);
    assert_eq!(world.upstream.received().pop().unwrap().header("x-archive-token"), None, "nobody else sets it");
}

#[tokio::test]
async fn a_server_that_is_away_is_bridged_until_the_tokens_end_and_a_wrong_secret_is_told() {
    let resource = json!({ "resource": "https://ledger.test/es256" });
    let world = World::changed(
        json!({
            "good": { "client_credentials": {
                "endpoint": { "client": { "id": "by-post", "secret": "file:post.secret", "authentication": "client_secret_post" } },
                "parameters": resource,
            } },
            "bad": { "client_credentials": {
                "endpoint": { "client": { "id": "by-post", "secret": "file:basic.secret", "authentication": "client_secret_post" } },
                "parameters": resource,
            } },
        }),
        |gate| gate,
    )
    .await;
    let token = world.issuer.token().mint();
    let first = world.shown("/good/1", &token).await;
    world.provider.go_away().await;
    let second = world.shown("/good/2", &token).await;
    assert_eq!(first.header("authorization"), second.header("authorization"));
    world.provider.come_back().await;
    let refused = world.gate.get("/bad/1").bearer(&token).send().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (503, &json!("credential_unavailable")));
    let record = world.gate.audited("the refusal", |record| record.event() == "credential.refused").await;
    assert!(record.text("detail").contains("invalid_client"), "{}", record.text("detail"));
}

#[tokio::test]
async fn a_token_that_the_upstream_finds_expired_is_replaced_and_what_cannot_be_sent_again_is_not() {
    let client = json!({ "id": "by-post", "secret": "file:post.secret", "authentication": "client_secret_post" });
    let resource = json!({ "resource": "https://ledger.test/es256" });
    let credential = json!({ "client_credentials": { "endpoint": { "client": client }, "parameters": resource } });
    let writes = r#"@id("readers-write") permit(principal in Role::"reader", action == Action::"POST", resource);"#;
    let world = World::changed(json!({ "ledger": credential }), |gate| gate.policy(writes)).await;
    let token = world.issuer.token().mint();
    let first = world.shown("/ledger/1", &token).await;
    let challenge = vec![("www-authenticate", r#"Bearer error="invalid_token""#)];
    world.upstream.script("/ledger/late", Script::Fixed(StatusCode::UNAUTHORIZED, challenge, "late"));
    let shown = || {
        let received = world.upstream.received();
        let late = received.iter().filter(|received| received.target == "/ledger/late");
        late.map(|received| received.header("authorization").unwrap().to_owned()).collect::<Vec<_>>()
    };

    // What was issued so short a time ago is not replaced, whatever an upstream says.
    let believed = || tokio::time::sleep(std::time::Duration::from_secs(6));
    believed().await;
    let answer = world.gate.get("/ledger/late").bearer(&token).send().await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (401, "late"), "the second answer stands");
    let twice = shown();
    assert_eq!(twice.len(), 2);
    assert_eq!(Some(twice[0].as_str()), first.header("authorization"));
    assert_ne!(twice[0], twice[1], "sent again with another");
    let record = world.gate.audited("the request", |record| record.is_request_to("/ledger/late")).await;
    assert_eq!(record.text("credential.refused"), "expired");

    believed().await;
    let post = world.gate.request(Method::POST, "/ledger/late").bearer(&token).body("streamed").send().await;
    assert_eq!((post.status.as_u16(), shown().len()), (401, 3), "what streamed away is not sent again");
    let next = world.shown("/ledger/2", &token).await;
    assert_ne!(next.header("authorization"), Some(shown()[2].as_str()), "and what has expired is not used again");
}
