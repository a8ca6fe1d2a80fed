//! Credentials of Google Cloud.

use std::sync::Arc;

use super::oauth::{client, own_tokens};
use super::runtime::Runtime;
use crate::config::checked::{self, Checked, GcpCredential};
use crate::credential::{
    ClientAuthentication, Federation, GOOGLE_METADATA, GcpOrigin, GcpProof, GcpSettings, GcpSource, GcpToken,
    MetadataServer, Remote, ServiceAccount, TokenEndpoint,
};
use crate::outbound::{OutboundClient, OutboundSettings, PlainHttp};

/// The provider of one such credential, for a route whose upstream goes by `audience`.
///
/// # Errors
/// What is wrong with it, for whoever mends it.
pub(super) fn provider(
    checked: &Checked,
    name: &Arc<str>,
    configured: &GcpCredential,
    audience: &str,
    runtime: &Runtime,
) -> Result<Remote<GcpSource>, String> {
    let origin = match &configured.origin {
        checked::GcpOrigin::Metadata { url, account, token: wanted } => GcpOrigin::Metadata(Box::new(MetadataServer {
            url: url.as_deref().unwrap_or(GOOGLE_METADATA).trim_end_matches('/').into(),
            client: metadata_client()?,
            clock: runtime.clock().clone(),
            account: account.as_str().into(),
            token: token(wanted, audience),
        })),
        checked::GcpOrigin::Federation(federation) => GcpOrigin::Federation(Box::new(Federation {
            audience: federation.audience.as_str().into(),
            proof: match &federation.proof {
                checked::GcpProof::Caller => GcpProof::Caller,
                checked::GcpProof::Doorward { audience, subject } => GcpProof::Doorward {
                    tokens: own_tokens(checked, runtime)?,
                    audience: audience.as_str().into(),
                    subject: subject.clone(),
                },
            },
            sts: TokenEndpoint {
                url: federation.sts.url.as_str().into(),
                client: client(federation.sts.authorities.as_deref())?,
                authentication: ClientAuthentication::None,
                clock: runtime.clock().clone(),
            },
            scopes: federation.scopes.clone(),
            service_account: match &federation.service_account {
                None => None,
                Some(account) => Some(ServiceAccount {
                    url: account.endpoint.url.trim_end_matches('/').into(),
                    client: client(account.endpoint.authorities.as_deref())?,
                    clock: runtime.clock().clone(),
                    email: account.email.as_str().into(),
                    delegates: account.delegates.clone(),
                    token: token(&account.token, audience),
                }),
            },
        })),
    };
    let (user_project, header) = (configured.user_project.clone(), configured.header.clone());
    let source = GcpSource::new(GcpSettings { origin, user_project, header });
    Ok(runtime.remote(name, source, None))
}

fn token(configured: &checked::GcpToken, route_audience: &str) -> GcpToken {
    match configured {
        checked::GcpToken::Access { scopes, lifetime } => {
            GcpToken::Access { scopes: scopes.clone(), lifetime: *lifetime }
        }
        checked::GcpToken::Identity { audience, include_email } => GcpToken::Identity {
            audience: audience.as_deref().unwrap_or(route_audience).into(),
            include_email: *include_email,
        },
    }
}

/// A client for servers that clouds put on addresses which are never routed.
pub(super) fn metadata_client() -> Result<OutboundClient, String> {
    let settings = OutboundSettings {
        plain_http: PlainHttp::LinkLocal,
        response_limit_bytes: 64 * 1024,
        ..OutboundSettings::default()
    };
    OutboundClient::new(&settings).map_err(|error| error.to_string())
}
