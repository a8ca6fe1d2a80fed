//! Services other than S3, and an SDK's defaults: moto, whose signatures are checked by botocore's own signer.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Authority, Client, Gate, Peer, RunningGate, StaticIssuer, python, python_peer};

struct World {
    authority: Arc<Authority>,
    issuer: StaticIssuer,
    gate: RunningGate,
    services: Client,
    _process: Peer,
}

impl World {
    async fn start(aws: Value) -> Self {
        let authority = Authority::new();
        let (process, ready) = python_peer("aws/moto_services.py", &json!({})).await;
        let address = ready["address"].as_str().unwrap();
        let issuer = StaticIssuer::start(&authority).await;
        let mut credential = json!({
            "role": "arn:aws:iam::123456789012:role/services", "region": "us-east-1",
            "services": ["dynamodb", "sqs", "s3"], "sts": { "url": format!("http://{address}") },
            "whole_role": { "reason": "the role of each test is its own" },
        });
        credential.as_object_mut().unwrap().extend(aws.as_object().unwrap().clone());
        let route = |path: &str| {
            json!({
                "host": "127.0.0.1", "path": path, "upstream": "aws", "credential": "services",
                "path_mode": { "opaque": { "reason": "keys of objects are bytes" } },
            })
        };
        let gate = Gate::new(&authority)
            .issuer(&issuer)
            .role("reader", json!({ "issuer": "machines", "groups": ["readers"] }))
            .policy(super::EVERYTHING)
            .config(json!({
                "credentials": { "services": { "aws": credential } },
                "upstreams": { "aws": { "addresses": [format!("http://{address}")] } },
            }))
            .route("root", route("/"))
            .route("below", route("/{*rest}"))
            .start()
            .await;
        gate.becomes_ready(200).await;
        let services = Client::plain(address.parse().unwrap());
        let world = Self { authority, issuer, gate, services, _process: process };
        world.make_role().await;
        world
    }

    async fn make_role(&self) {
        let policy = json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": ["dynamodb:*", "sqs:*", "s3:*"], "Resource": "*",
        }] });
        let trust = json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": "*", "Action": "sts:*",
        }] });
        for form in [
            format!(
                "Action=CreateRole&Version=2010-05-08&RoleName=services&AssumeRolePolicyDocument={}",
                encoded(&trust)
            ),
            format!(
                "Action=PutRolePolicy&Version=2010-05-08&RoleName=services&PolicyName=p&PolicyDocument={}",
                encoded(&policy)
            ),
        ] {
            // Which service is meant stands in the signature, of which nobody looks at more yet.
            let signed =
                "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
            let draft = self.services.post("/").header("content-type", "application/x-www-form-urlencoded");
            let made = draft.header("authorization", signed).body(form).send().await;
            assert_eq!(made.status, 200, "{}", made.text());
        }
    }

    /// From now on a wrong signature is refused.
    async fn check_signatures(&self) {
        assert_eq!(self.services.post("/moto-api/reset-auth").body("0").send().await.status, 200);
    }

    async fn walk(&self, token: &str, s3: bool) -> Value {
        let settings = json!({
            "url": format!("https://127.0.0.1:{}", self.gate.port()), "token": token, "s3": s3,
            "authorities": self.authority.folder().join("ca.pem"),
        });
        python("aws/services.py", &settings).await
    }
}

fn encoded(value: &Value) -> String {
    url::form_urlencoded::byte_serialize(value.to_string().as_bytes()).collect()
}

#[track_caller]
fn all_good(outcome: &Value) {
    for (step, found) in outcome.as_object().unwrap() {
        assert_eq!(found, "ok", "{step} of {outcome:#}");
    }
}

#[tokio::test]
async fn services_that_want_a_hash_of_the_body_are_signed_for_as_botocore_signs() {
    let world = World::start(json!({})).await;
    let token = world.issuer.token().mint();
    // The session first: moto takes no web identity once it looks at signatures.
    let client = world.gate.listener("public");
    let signed = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let first = client.get("/").header("host", "127.0.0.1").header("x-amz-security-token", &token);
    let first = first.header("authorization", signed).send().await;
    assert_eq!(first.status, 200, "{}", first.text());
    world.check_signatures().await;
    all_good(&world.walk(&token, false).await);
}

#[tokio::test]
async fn an_sdks_defaults_pass_and_a_body_too_long_to_hold_is_refused() {
    let world = World::start(json!({ "signed_body": "1MiB" })).await;
    let token = world.issuer.token().mint();
    all_good(&world.walk(&token, true).await);
    let client = world.gate.listener("public");
    let long = client.post("/").header("host", "127.0.0.1").bearer(&token).body(vec![b'x'; (1 << 20) + 1]).send().await;
    assert_eq!((long.status.as_u16(), &long.json()["code"]), (413, &json!("body_too_large")));
    let chunks = client
        .request(http::Method::PUT, "/defaults/x")
        .header("host", "127.0.0.1")
        .header("x-amz-security-token", &token)
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0",
        )
        .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .body("x");
    let chunks = chunks.send().await;
    assert_eq!((chunks.status.as_u16(), &chunks.json()["code"]), (501, &json!("signed_chunks")));
}
