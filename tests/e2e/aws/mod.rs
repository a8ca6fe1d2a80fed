//! AWS: role sessions assumed at a real STS, and requests signed for a real S3, by SDKs that hold placeholder keys.

mod command_line;
mod matrix;
mod refusals;
mod services;
mod walk;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{Authority, Gate, ObjectGateway, RunningGate, StaticIssuer, free_port, python, uuid};

/// The `aud` of Doorward's own tokens.
const AUDIENCE: &str = "sts.amazonaws.com";
const EVERYTHING: &str = r#"@id("readers-may") permit(principal in Role::"reader", action, resource);"#;

/// A gateway, a gate in front of it, and callers.
struct World {
    authority: Arc<Authority>,
    issuer: StaticIssuer,
    gate: RunningGate,
    /// Of this test alone: all share one gateway.
    bucket: String,
    role: String,
}

fn whatever_role_may() -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*" }],
    })
}

impl World {
    /// `change` is given the settings of the credential and the name of the bucket.
    async fn start(change: impl FnOnce(Gate, Value, &str) -> Gate) -> Self {
        let authority = Authority::new();
        let (issuer, gateway) = tokio::join!(StaticIssuer::start(&authority), ObjectGateway::shared());
        let (role, bucket) = (format!("role-{}", uuid()), format!("bucket-{}", uuid()));
        // Its STS reads the gate's documents where the tokens say, so their port must be known beforehand.
        let port = free_port();
        let documents = format!("http://127.0.0.1:{port}/.doorward");
        let aws = json!({
            "role": format!("arn:aws:iam:::role/{role}"), "region": "us-east-1", "services": ["s3"],
            "sts": { "url": gateway.url() },
            "whole_role": { "reason": "the role of each test is its own" },
        });
        let gate = Gate::new(&authority)
            .issuer(&issuer)
            .role("reader", json!({ "issuer": "machines", "groups": ["readers"] }))
            .policy(EVERYTHING)
            .config(json!({
                "listeners": { "documents": { "address": format!("127.0.0.1:{port}") } },
                "assertions": { "issuer": documents, "listener": "documents" },
                "credentials": { "storage": { "aws": with_copies(&aws) } },
                "upstreams": { "storage": { "addresses": [gateway.url()] } },
            }))
            .route("storage", storage_route("/{bucket}/{*key}", "storage"))
            .route("bucket", storage_route("/{bucket}", "storage"));
        let gate = change(gate, aws, &bucket).start().await;
        gate.becomes_ready(200).await;
        gateway.trust(&documents, AUDIENCE, &role, whatever_role_may()).await;
        Self { authority, issuer, gate, bucket, role }
    }

    /// What an SDK with placeholder keys and this token does.
    async fn walk(&self, token: &str, further: Value) -> Value {
        let mut settings = json!({
            "url": format!("https://127.0.0.1:{}", self.gate.port()),
            "token": token,
            "bucket": self.bucket,
            "authorities": self.authority.folder().join("ca.pem"),
        });
        settings.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        python("aws/walk.py", &settings).await
    }
}

/// The same for callers who may copy.
fn with_copies(aws: &Value) -> Value {
    let mut aws = aws.clone();
    aws["widening_headers"] = json!({ "reason": "the walk copies objects" });
    aws
}

/// A route for S3's own paths.
fn storage_route(path: &str, credential: &str) -> Value {
    json!({
        "host": "127.0.0.1", "path": path, "upstream": "storage", "credential": credential,
        "path_mode": { "opaque": { "reason": "keys of objects are bytes" } },
        "limits": { "body": "2GiB", "first_byte": "60s" },
    })
}
