//! What an authorization server is told of Doorward: a client, and an issuer that it trusts.

use serde_json::{Map, Value, json};

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
    let mut client = Map::from_iter([("grant_types".to_owned(), json!([grant]))]);
    let (id, method) = match &oauth.client {
        Some(OauthClient::Basic { id, .. }) => (Some(id), "client_secret_basic"),
        Some(OauthClient::Post { id, .. }) => (Some(id), "client_secret_post"),
        Some(OauthClient::PrivateKeyJwt { id, .. }) => {
            client.insert("jwks_uri".to_owned(), format!("{}/jwks.json", issuer(checked)?).into());
            client.insert("token_endpoint_auth_signing_alg".to_owned(), "RS256".into());
            (Some(id), "private_key_jwt")
        }
        Some(OauthClient::TlsClientAuth { id, .. }) => (Some(id), "tls_client_auth"),
        Some(OauthClient::Public { id }) => (Some(id), "none"),
        None => (None, "none"),
    };
    client.insert("client_id".to_owned(), id.map(String::as_str).into());
    client.insert("token_endpoint_auth_method".to_owned(), method.into());
    let trusted_issuer = if subject == Some(OauthSubject::Doorward) || actor.is_some() {
        let issuer = issuer(checked)?;
        json!({
            "issuer": issuer, "jwks_uri": format!("{issuer}/jwks.json"), "audience": oauth.token_audience,
            "algorithm": "RS256", "actor": actor,
        })
    } else {
        Value::Null
    };
    Ok(json!({ "credential": name, "client": client, "trusted_issuer": trusted_issuer }))
}
