//! What does not.

use http::{Method, StatusCode};
use serde_json::json;

use super::{World, storage_route};
use crate::support::{RecordingUpstream, Script};

#[tokio::test]
async fn a_role_that_does_not_trust_the_token_fails_its_own_route_alone() {
    let world = World::start(|gate, mut aws, _| {
        aws["token_audience"] = "somebody-else".into();
        let route = storage_route("/{bucket}/{*key}", "other");
        gate.config(json!({ "credentials": { "other": { "aws": aws } } })).route("other", {
            let mut route = route;
            route["path"] = "/other/{*key}".into();
            route
        })
    })
    .await;
    let client = world.gate.listener("public");
    let token = world.issuer.token().mint();
    let ask = |path: &'static str| {
        client.get(path).header("host", "127.0.0.1").header("authorization", &format!("Bearer {token}")).send()
    };
    let refused = ask("/other/x").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let record = world.gate.audited("the refusal", |record| record.event() == "credential.refused").await;
    assert_eq!((record.text("credential"), record.text("code")), ("other", "credential_refused"));
    assert!(record.text("detail").contains("AccessDenied"), "{}", record.text("detail"));
    let request = world.gate.audited("the request", |record| record.is_request_to("/other/x")).await;
    assert_eq!(request.text("code"), "credential_unavailable");
    assert_eq!(ask("/missing/x").await.status, 404, "the other route asks its upstream");
    assert_eq!(world.gate.readiness().await.0, 200);
}

#[tokio::test]
async fn a_signature_by_placeholder_keys_is_evidence_of_nobody() {
    let world = World::start(|gate, _, _| gate).await;
    let client = world.gate.listener("public");
    let signed =
        "AWS4-HMAC-SHA256 Credential=placeholder/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00";
    let token = world.issuer.token().mint();
    let ask = |headers: Vec<(&'static str, String)>| {
        let mut draft = client.get("/reports/x").header("host", "127.0.0.1");
        for (name, value) in &headers {
            draft = draft.header(name, value);
        }
        draft.send()
    };
    let authorization = ("authorization", signed.to_owned());
    assert_eq!(ask(vec![authorization.clone()]).await.status, 401);
    let forged = world.issuer.token().mint().replace('.', ".A");
    assert_eq!(ask(vec![authorization.clone(), ("x-amz-security-token", forged)]).await.status, 401);
    let good = ask(vec![authorization.clone(), ("x-amz-security-token", token.clone())]).await;
    assert_eq!(good.status, 404, "S3 answers: {}", good.text());
    let bearer = ("authorization", format!("Bearer {token}"));
    assert_eq!(ask(vec![bearer.clone()]).await.status, 404);
    assert_eq!(ask(vec![bearer, ("x-amz-security-token", token.clone())]).await.status, 400, "two kinds of evidence");
    let elsewhere = signed.replace("us-east-1/s3", "us-east-1/iam");
    let refused = ask(vec![("authorization", elsewhere), ("x-amz-security-token", token)]).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (403, &json!("signing_scope_refused")));
}

#[tokio::test]
async fn two_path_prefixes_are_two_sessions_that_cannot_touch_each_others_objects() {
    let world = World::start(|gate, mut aws, bucket| {
        aws["session_policy"] = json!([{
            "actions": ["s3:GetObject", "s3:PutObject"],
            "resources": [format!("arn:aws:s3:::{bucket}/{{{{path.team}}}}/*")],
        }]);
        aws.as_object_mut().unwrap().remove("whole_role");
        // The upstream path is the caller's: what one team's session may not do is told by S3 itself.
        let mut misrouted = aws.clone();
        misrouted["session_policy"][0]["resources"] = json!([format!("arn:aws:s3:::{bucket}/other/*")]);
        gate.config(json!({ "credentials": { "team": { "aws": aws }, "misrouted": { "aws": misrouted } } }))
            .route("team", storage_route(&format!("/{bucket}/{{team}}/{{*key}}"), "team"))
            .route("misrouted", storage_route(&format!("/{bucket}/red/locked"), "misrouted"))
    })
    .await;
    let client = world.gate.listener("public");
    let token = world.issuer.token().mint();
    let put = async |path: String, body: &'static str| {
        let draft = client.request(Method::PUT, &path).header("host", "127.0.0.1").bearer(&token);
        if body.is_empty() { draft.send().await } else { draft.body(body).send().await }
    };
    let bucket = format!("/{}", world.bucket);
    let made = put(bucket.clone(), "").await;
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(put(format!("{bucket}/red/a"), "x").await.status, 200);
    assert_eq!(put(format!("{bucket}/blue/a"), "x").await.status, 200);
    let locked = format!("{bucket}/red/locked");
    assert_eq!(put(locked.clone(), "x").await.status, 403, "a session for another prefix");
    let record = world.gate.audited("the refusal", |record| record.is_request_to(&locked)).await;
    assert_eq!(record.text("credential.refused"), "AccessDenied");
    let copy = client.request(Method::PUT, &format!("{bucket}/red/copied")).header("host", "127.0.0.1").bearer(&token);
    let copy = copy.header("x-amz-copy-source", &format!("{bucket}/blue/a")).send().await;
    assert_eq!((copy.status.as_u16(), &copy.json()["code"]), (403, &json!("signed_header_refused")));
    for hostile in ["r*d", "%2A", "$%7Baws:username%7D", "a%22b", "a%00b"] {
        let answer = put(format!("{bucket}/{hostile}/a"), "x").await;
        assert!([400, 403].contains(&answer.status.as_u16()), "{hostile}: {}", answer.status);
    }
    let records = world.gate.settled_audit().await;
    let sessions: Vec<_> = records
        .iter()
        .filter(|record| record.event() == "credential.issued" && record.text("credential") == "team")
        .map(|record| record.text("id"))
        .collect();
    assert_eq!(sessions.len(), 2, "one for each prefix");
    assert_ne!(sessions[0], sessions[1]);
}

/// What was issued so short a time ago is not replaced, whatever an upstream says.
const BELIEVED: std::time::Duration = std::time::Duration::from_secs(6);

#[tokio::test]
async fn what_a_service_writes_of_a_signature_stays_here() {
    let upstream = RecordingUpstream::start().await;
    let world = World::start(|gate, aws, _| {
        let mut route = storage_route("/quoting/{*key}", "quoting");
        route["upstream"] = "quoting".into();
        gate.config(json!({
            "credentials": { "quoting": { "aws": aws } },
            "upstreams": { "quoting": { "addresses": [upstream.url()] } },
        }))
        .route("quoting", route)
    })
    .await;
    let (client, token) = (world.gate.listener("public"), world.issuer.token().mint());
    let says = |path: &str, code: &str| {
        let text = format!("<Error><Code>{code}</Code><Token-0>the session token</Token-0></Error>");
        upstream.script(path, Script::Fixed(StatusCode::FORBIDDEN, Vec::new(), text.leak()));
    };
    for (path, code, on_record, sent) in [
        ("/quoting/signature", "SignatureDoesNotMatch", "SignatureDoesNotMatch", 1),
        ("/quoting/token", "ExpiredToken", "expired", 2),
    ] {
        says(path, code);
        tokio::time::sleep(BELIEVED).await;
        let answer = client.get(path).header("host", "127.0.0.1").bearer(&token).send().await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (502, &json!("credential_rejected")));
        assert!(!answer.text().contains("session token"), "{}", answer.text());
        let record = world.gate.audited("the request", |record| record.is_request_to(path)).await;
        assert_eq!(record.text("credential.refused"), on_record);
        let received = upstream.received();
        let signed: Vec<_> = received.iter().filter(|received| received.target == path).collect();
        assert_eq!(signed.len(), sent, "{code}");
        let sessions = signed.iter().map(|received| received.header("x-amz-security-token").unwrap());
        assert_eq!(sessions.collect::<std::collections::HashSet<_>>().len(), sent, "each with another session");
    }
    says("/quoting/denied", "AccessDenied");
    let denied = client.get("/quoting/denied").header("host", "127.0.0.1").bearer(&token).send().await;
    assert!(
        denied.status == 403 && denied.text().contains("AccessDenied"),
        "what its holder may not do is the caller's"
    );
}

#[tokio::test]
async fn a_preflight_leaves_a_callers_presigned_parameters_behind() {
    let upstream = RecordingUpstream::start().await;
    let world = World::start(|gate, aws, _| {
        let mut route = storage_route("/shown/{*key}", "shown");
        route["upstream"] = "shown".into();
        route["cors"] = json!({ "origins": ["https://app.test"] });
        gate.config(json!({
            "credentials": { "shown": { "aws": aws } },
            "upstreams": { "shown": { "addresses": [upstream.url()] } },
        }))
        .route("shown", route)
    })
    .await;
    let target = "/shown/a?x=1&X-Amz-Security-Token=of-the-caller&X-Amz-Signature=00";
    let client = world.gate.listener("public");
    let preflight = client.request(Method::OPTIONS, target).header("host", "127.0.0.1");
    let preflight = preflight.header("origin", "https://app.test").header("access-control-request-method", "GET");
    assert_eq!(preflight.send().await.status, 200);
    assert_eq!(upstream.only().target, "/shown/a?x=1");
}

#[tokio::test]
async fn what_sets_access_rights_or_copies_is_refused_however_it_is_spelt() {
    let world = World::start(|gate, aws, _| {
        gate.config(json!({ "credentials": { "narrow": { "aws": aws } } }))
            .route("storage", storage_route("/{bucket}/{*key}", "narrow"))
    })
    .await;
    let (client, token) = (world.gate.listener("public"), world.issuer.token().mint());
    let put = async |target: String, header: Option<(&str, &str)>| {
        let mut draft = client.request(Method::PUT, &target).header("host", "127.0.0.1").bearer(&token);
        if let Some((name, value)) = header {
            draft = draft.header(name, value);
        }
        let body = if target.matches('/').count() == 1 { "" } else { "a" };
        draft.body(body).send().await
    };
    let bucket = &world.bucket;
    assert_eq!(put(format!("/{bucket}"), None).await.status, 200);
    assert_eq!(put(format!("/{bucket}/secret"), None).await.status, 200);
    for name in
        ["x-amz-copy-source", "x_amz_copy_source", "x-amz_copy-source", "x-amz-acl", "x_amz_acl", "x-amz_grant_read"]
    {
        let answer = put(format!("/{bucket}/a"), Some((name, &format!("/{bucket}/secret")))).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("signed_header_refused")), "{name}");
    }
    for query in ["x-amz-acl=public-read", "a=b&X%2DAmz-Grant-Read=x", "x-amz-copy-source=%2Fb%2Fa"] {
        let answer = put(format!("/{bucket}/a?{query}"), None).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (403, &json!("signed_header_refused")), "{query}");
    }
    let answer = client.get(&format!("/{bucket}/a")).header("host", "127.0.0.1").bearer(&token).send().await;
    assert_eq!(answer.status, 404, "nothing was made");
}
