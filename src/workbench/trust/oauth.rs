//! What an authorization server is told of Doorward: a client, and an issuer that it trusts.

use serde_json::{Value, json};

use super::{TrustError, issuer};
use crate::config::checked::{Checked, OauthClient, OauthCredential, OauthGrant, OauthSubject};

pub(super) fn registration(checked: &Checked, name: &str, oauth: &OauthCredential) -> Result<Value, TrustError> {
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
        Some(OauthClient::TlsClientAuth { id, .. }) => (Some(id), "tls_client_auth"),
        Some(OauthClient::Public { id }) => (Some(id), "none"),
        None => (None, "none"),
    };
    client["client_id"] = id.map(String::as_str).into();
    client["token_endpoint_auth_method"] = method.into();
    let mut registration = json!({ "credential": name, "client": client });
    if subject == Some(OauthSubject::Doorward) || actor.is_some() {
        let issuer = issuer(checked)?;
        registration["trusted_issuer"] = json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/jwks.json"), "audience": oauth.token_audience,
            "algorithm": "RS256", "actor": actor,
        });
    }
    Ok(registration)
}
