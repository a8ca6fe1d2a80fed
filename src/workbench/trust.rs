//! What stands on the other side, so that it trusts what Doorward shows: written from the configuration, so that the two
//! cannot drift apart.

use serde_json::{Map, Value, json};

use crate::config::checked::{
    AwsAmbient, AwsCredential, AwsProof, Checked, Credential, CredentialKind, OauthClient, OauthCredential, OauthGrant,
    OauthSubject, RouteSettings,
};
use crate::credential::{Template, Variable};

/// Why there is nothing to export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No credential of that name.
    #[error("no credential is named `{name}`; there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// Nobody has to trust it.
    #[error("credential `{name}` is of kind `{kind}`: nobody else has to be told to trust it")]
    Nobody {
        /// The name.
        name: String,
        /// Its kind.
        kind: &'static str,
    },
    /// No route uses it, so nothing can be said of whom it is for.
    #[error("no route uses credential `{name}`")]
    Unused {
        /// The name.
        name: String,
    },
    /// Doorward's own issuer is not known.
    #[error("the issuer of Doorward's tokens is not known: add `external_origin`, or `assertions: {{ issuer: … }}`")]
    NoIssuer,
}

/// What to paste on the other side of the credential `name`: a trust policy for `aws`, what to register for an
/// authorization server.
///
/// # Errors
/// [`TrustError`]
pub fn trust(checked: &Checked, name: &str) -> Result<Value, TrustError> {
    let credential = checked.credentials.iter().find(|credential| credential.name == name).ok_or_else(|| {
        let known: Vec<&str> = checked.credentials.iter().map(|credential| credential.name.as_str()).collect();
        TrustError::Unknown { name: name.to_owned(), known: known.join(", ") }
    })?;
    let uses: Vec<&RouteSettings> = checked.routes.iter().filter(|route| route.credential == name).collect();
    if uses.is_empty() {
        return Err(TrustError::Unused { name: name.to_owned() });
    }
    match &credential.kind {
        CredentialKind::Aws(aws) => aws_trust(checked, aws, &uses),
        CredentialKind::Oauth(oauth) => Ok(oauth_registration(checked, credential, oauth)?),
        CredentialKind::SignedAssertion { .. } => {
            let issuer = issuer(checked)?;
            let audiences: Vec<&str> = uses.iter().map(|settings| settings.audience.as_str()).collect();
            Ok(json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks.json"), "audiences": audiences }))
        }
        CredentialKind::Fixed { .. } | CredentialKind::None { .. } => {
            Err(TrustError::Nobody { name: name.to_owned(), kind: credential.kind.as_str() })
        }
    }
}

fn issuer(checked: &Checked) -> Result<&str, TrustError> {
    checked.assertions.as_ref().map(|assertions| assertions.issuer.as_str()).ok_or(TrustError::NoIssuer)
}

/// What a template comes to on each of the routes: exact where nothing of a request is in it, and else with `*` for
/// each value of one.
fn on_routes(template: &Template, uses: &[&RouteSettings]) -> (Vec<String>, Vec<String>) {
    let (mut exact, mut patterns) = (Vec::new(), Vec::new());
    for settings in uses {
        let route = &settings.route;
        let mut open = false;
        let text = template.with(|variable| match variable {
            Variable::Route => route.name.to_string(),
            Variable::Environment => route.environment.to_string(),
            _ => {
                open = true;
                "*".to_owned()
            }
        });
        let list = if open { &mut patterns } else { &mut exact };
        if !list.contains(&text) {
            list.push(text);
        }
    }
    (exact, patterns)
}

fn aws_trust(checked: &Checked, aws: &AwsCredential, uses: &[&RouteSettings]) -> Result<Value, TrustError> {
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
            let accepted = |name: &str| {
                uses.iter().any(|settings| match &settings.route.access {
                    crate::route::Access::Authenticated(accepts) => accepts.issuer(name),
                    crate::route::Access::Public { .. } => false,
                })
            };
            let issuers = checked.issuers.iter().filter(|issuer| accepted(&issuer.name));
            let providers: Vec<String> =
                issuers.map(|issuer| provider_arn(&aws.role, issuer.issuer.trim_start_matches("https://"))).collect();
            json!({ "Federated": providers })
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

fn oauth_registration(
    checked: &Checked,
    credential: &Credential,
    oauth: &OauthCredential,
) -> Result<Value, TrustError> {
    let (grant, subject, actor) = match &oauth.grant {
        OauthGrant::ClientCredentials => ("client_credentials", None, None),
        OauthGrant::TokenExchange { subject, actor, .. } => {
            ("urn:ietf:params:oauth:grant-type:token-exchange", Some(*subject), actor.as_deref())
        }
        OauthGrant::JwtBearer { subject } => ("urn:ietf:params:oauth:grant-type:jwt-bearer", Some(*subject), None),
    };
    let mut client = json!({ "grant_types": [grant] });
    let (id, method) = match &oauth.client {
        Some(OauthClient::Basic { id, .. }) => (Some(id), "client_secret_basic"),
        Some(OauthClient::Post { id, .. }) => (Some(id), "client_secret_post"),
        Some(OauthClient::PrivateKeyJwt { id, .. }) => {
            client["jwks_uri"] = format!("{}/jwks.json", issuer(checked)?).into();
            client["token_endpoint_auth_signing_alg"] = "RS256".into();
            (Some(id), "private_key_jwt")
        }
        Some(OauthClient::Public { id }) => (Some(id), "none"),
        None => (None, "none"),
    };
    client["client_id"] = id.map(String::as_str).into();
    client["token_endpoint_auth_method"] = method.into();
    let mut registration = json!({ "credential": credential.name, "client": client });
    if subject == Some(OauthSubject::Doorward) || actor.is_some() {
        let issuer = issuer(checked)?;
        registration["trusted_issuer"] = json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/jwks.json"), "audience": oauth.token_audience,
            "algorithm": "RS256", "actor": actor,
        });
    }
    Ok(registration)
}
