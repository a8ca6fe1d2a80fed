//! Credentials of Microsoft Entra ID.

use std::sync::Arc;

use super::gcp::metadata_client;
use super::oauth::{client, own_tokens};
use super::runtime::Runtime;
use crate::config::checked::{self, AzureCredential, AzureHost, Checked};
use crate::credential::{
    AZURE_INSTANCE_METADATA, Application, AzureOrigin, AzureSettings, AzureSource, ClientAuthentication,
    ManagedIdentity, ManagedIdentityHost, Remote, TokenEndpoint,
};

/// The provider of one such credential.
///
/// # Errors
/// What is wrong with it, for whoever mends it.
pub(super) fn provider(
    checked: &Checked,
    name: &Arc<str>,
    configured: &AzureCredential,
    runtime: &Runtime,
) -> Result<Remote<AzureSource>, String> {
    let origin = match &configured.origin {
        checked::AzureOrigin::Application {
            url,
            authorities,
            tenant,
            client_id,
            subject,
            audience,
            on_behalf_of_caller,
        } => AzureOrigin::Application(Box::new(Application {
            endpoint: TokenEndpoint {
                url: url.as_str().into(),
                client: client(authorities.as_deref())?,
                authentication: ClientAuthentication::None,
                clock: runtime.clock().clone(),
            },
            tenant: tenant.as_str().into(),
            client_id: client_id.as_str().into(),
            tokens: own_tokens(checked, runtime)?,
            subject: subject.as_str().into(),
            audience: audience.as_str().into(),
            on_behalf_of_caller: *on_behalf_of_caller,
        })),
        checked::AzureOrigin::ManagedIdentity { host, client_id } => {
            AzureOrigin::ManagedIdentity(Box::new(ManagedIdentity {
                host: match host {
                    AzureHost::Imds { url } => ManagedIdentityHost::Imds {
                        url: url.as_deref().unwrap_or(AZURE_INSTANCE_METADATA).trim_end_matches('/').into(),
                    },
                    AzureHost::AppService { url, header } => {
                        ManagedIdentityHost::AppService { url: url.as_str().into(), header: header.clone() }
                    }
                },
                client_id: client_id.as_deref().map(Into::into),
                client: metadata_client()?,
                clock: runtime.clock().clone(),
            }))
        }
    };
    let (scope, header) = (configured.scope.as_str().into(), configured.header.clone());
    let source = AzureSource::new(AzureSettings { origin, scope, header });
    Ok(runtime.remote(name, source, None))
}
