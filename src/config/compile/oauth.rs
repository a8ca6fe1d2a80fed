//! Credentials of an authorization server.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::runtime::Runtime;
use crate::config::checked::{self, Checked, OauthClient, OauthCredential};
use crate::credential::{
    Actor, Algorithm, ClientAuthentication, ClientIdentity, OauthGrant, OauthSettings, OauthSource, Remote, Subject,
    SubjectTokens, TokenEndpoint,
};
use crate::outbound::{OutboundClient, OutboundSettings};

/// The provider of one such credential.
///
/// # Errors
/// What is wrong with it, for whoever mends it.
pub(super) fn provider(
    checked: &Checked,
    name: &Arc<str>,
    configured: &OauthCredential,
    runtime: &Runtime,
) -> Result<Remote<OauthSource>, String> {
    let tokens = || own_tokens(checked, runtime);
    let audience: Arc<str> = configured.token_audience.as_str().into();
    let subject = |subject: checked::OauthSubject| {
        Ok::<_, String>(match subject {
            checked::OauthSubject::Caller => Subject::Caller,
            checked::OauthSubject::Doorward => Subject::Doorward { tokens: tokens()?, audience: audience.clone() },
        })
    };
    let grant = match &configured.grant {
        checked::OauthGrant::ClientCredentials => OauthGrant::ClientCredentials,
        checked::OauthGrant::JwtBearer { subject: of } => OauthGrant::JwtBearer { subject: subject(*of)? },
        checked::OauthGrant::TokenExchange { subject: of, subject_token_type, actor, requested_token_type } => {
            let actor = actor
                .as_deref()
                .map(|of| Ok::<_, String>(Actor { tokens: tokens()?, subject: of.into(), audience: audience.clone() }));
            OauthGrant::TokenExchange {
                subject: subject(*of)?,
                subject_token_type: subject_token_type.clone(),
                actor: actor.transpose()?,
                requested_token_type: requested_token_type.clone(),
            }
        }
    };
    let endpoint = TokenEndpoint {
        url: configured.url.as_str().into(),
        client: client_with(configured.authorities.as_deref(), certificate(configured))?,
        authentication: authentication(configured, tokens)?,
        clock: runtime.clock().clone(),
    };
    let header = configured.header.clone();
    let source = OauthSource::new(OauthSettings { endpoint, grant, parameters: configured.parameters.clone(), header });
    Ok(runtime.remote(name, source, configured.lifetime))
}

/// A client for those who issue, by the authorities of a file or else the system's.
pub(super) fn client(authorities: Option<&Path>) -> Result<OutboundClient, String> {
    client_with(authorities, None)
}

/// The certificate by which the client authenticates itself.
fn certificate(configured: &OauthCredential) -> Option<&ClientIdentity> {
    let Some(OauthClient::TlsClientAuth { certificate, .. }) = &configured.client else { return None };
    Some(certificate)
}

fn client_with(
    authorities: Option<&Path>,
    client_certificate: Option<&ClientIdentity>,
) -> Result<OutboundClient, String> {
    let client_certificate = client_certificate.cloned();
    let authorities_pem = match authorities {
        None => None,
        Some(path) => Some(fs::read(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?),
    };
    let response_limit_bytes = 64 * 1024;
    let settings =
        OutboundSettings { authorities_pem, client_certificate, response_limit_bytes, ..OutboundSettings::default() };
    OutboundClient::new(&settings).map_err(|error| error.to_string())
}

fn authentication(
    configured: &OauthCredential,
    tokens: impl Fn() -> Result<SubjectTokens, String>,
) -> Result<ClientAuthentication, String> {
    Ok(match &configured.client {
        None => ClientAuthentication::None,
        Some(OauthClient::Public { id }) => ClientAuthentication::Public { id: id.clone() },
        Some(OauthClient::Basic { id, secret }) => {
            ClientAuthentication::Basic { id: id.clone(), secret: secret.clone() }
        }
        Some(OauthClient::Post { id, secret }) => ClientAuthentication::Post { id: id.clone(), secret: secret.clone() },
        Some(OauthClient::TlsClientAuth { id, certificate }) => {
            ClientAuthentication::TlsClientAuth { id: id.clone(), fingerprint: *certificate.fingerprint() }
        }
        Some(OauthClient::PrivateKeyJwt { id, audience }) => ClientAuthentication::PrivateKeyJwt {
            id: id.clone(),
            audience: audience.as_ref().unwrap_or(&configured.url).as_str().into(),
            tokens: tokens()?,
        },
    })
}

/// Doorward as an issuer. RS256: every authorization server and every cloud takes it.
pub(super) fn own_tokens(checked: &Checked, runtime: &Runtime) -> Result<SubjectTokens, String> {
    if let (false, Some(assertions)) = (runtime.serves(), &checked.assertions) {
        return Ok(SubjectTokens::unsigned(assertions.issuer.as_str().into(), runtime.clock().clone()));
    }
    let (Some(keys), Some(assertions)) = (runtime.signing_keys(), &checked.assertions) else {
        return Err("signing needs `state.dir`, which is read at the start only: start again to add it".to_owned());
    };
    keys.ensure(Algorithm::Rs256, runtime.clock().now()).map_err(|error| error.to_string())?;
    let issuer = assertions.issuer.as_str().into();
    Ok(SubjectTokens::new(keys.clone(), issuer, Algorithm::Rs256, runtime.clock().clone()))
}
