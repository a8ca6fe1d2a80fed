//! The trust policy of an AWS role (AWS IAM user guide, "Create a role for OpenID Connect federation").

use serde_json::{Map, Value, json};

use super::{TrustError, accepted_issuers, issuer, on_routes};
use crate::config::checked::{AwsAmbient, AwsCredential, AwsProof, Checked, RouteSettings};

pub(super) fn trust(checked: &Checked, aws: &AwsCredential, uses: &[&RouteSettings]) -> Result<Value, TrustError> {
    let mut actions = vec![match aws.proof {
        AwsProof::Ambient { .. } => "sts:AssumeRole",
        AwsProof::Doorward { .. } | AwsProof::Caller => "sts:AssumeRoleWithWebIdentity",
    }];
    if aws.source_identity.is_some() {
        actions.push("sts:SetSourceIdentity");
    }
    if !aws.tags.is_empty() {
        actions.push("sts:TagSession");
    }
    let mut conditions = Map::new();
    let principal = match &aws.proof {
        AwsProof::Doorward { audience } => {
            let provider = issuer(checked)?.trim_start_matches("https://").trim_start_matches("http://");
            let (exact, patterns) = on_routes(&aws.token_subject, uses);
            let mut equals = Map::from_iter([(format!("{provider}:aud"), Value::from(audience.as_str()))]);
            if !exact.is_empty() && patterns.is_empty() {
                equals.insert(format!("{provider}:sub"), exact.into());
            } else {
                let all: Vec<String> = exact.into_iter().chain(patterns).collect();
                conditions.insert("StringLike".to_owned(), json!({ format!("{provider}:sub"): all }));
            }
            conditions.insert("StringEquals".to_owned(), equals.into());
            json!({ "Federated": provider_arn(&aws.role, provider) })
        }
        AwsProof::Caller => {
            // A statement for each: their audiences are their own.
            let statements = accepted_issuers(checked, uses).map(|issuer| {
                let provider = issuer.issuer.trim_start_matches("https://");
                json!({
                    "Effect": "Allow",
                    "Principal": { "Federated": provider_arn(&aws.role, provider) },
                    "Action": actions,
                    "Condition": { "StringEquals": { format!("{provider}:aud"): issuer.audience } },
                })
            });
            let statements: Vec<Value> = statements.collect();
            return Ok(json!({ "Version": "2012-10-17", "Statement": statements }));
        }
        AwsProof::Ambient { keys, external_id } => {
            if let Some(id) = external_id {
                conditions.insert("StringEquals".to_owned(), json!({ "sts:ExternalId": id }));
            }
            let whose = match keys {
                AwsAmbient::Environment { .. } => "the keys in Doorward's environment",
                AwsAmbient::Container { .. } => "the role of Doorward's task or pod",
                AwsAmbient::Instance { .. } => "the role of Doorward's instance",
            };
            json!({ "AWS": format!("ARN of {whose}") })
        }
    };
    let mut statement = json!({ "Effect": "Allow", "Principal": principal, "Action": actions });
    if let (Value::Object(statement), false) = (&mut statement, conditions.is_empty()) {
        statement.insert("Condition".to_owned(), conditions.into());
    }
    Ok(json!({ "Version": "2012-10-17", "Statement": [statement] }))
}

/// ARN of an OpenID provider in the account and partition of a role.
fn provider_arn(role: &str, provider: &str) -> String {
    let mut parts = role.split(':');
    let (_, partition) = (parts.next(), parts.next().unwrap_or("aws"));
    let account = parts.nth(2).unwrap_or_default();
    format!("arn:{partition}:iam::{account}:oidc-provider/{provider}")
}
