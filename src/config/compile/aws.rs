//! Credentials of AWS role sessions.

use std::sync::Arc;

use super::oauth::own_tokens;
use super::runtime::Runtime;
use crate::config::checked::{AwsAmbient, AwsCredential, AwsProof, Checked};
use crate::credential::{
    AmbientKeys, AwsKeys, AwsSettings, AwsSource, ContainerToken, INSTANCE_METADATA, Remote, RoleProof, Sts,
};
use crate::outbound::{OutboundClient, OutboundSettings, PlainHttp};

/// The provider of one such credential.
///
/// # Errors
/// What is wrong with it, for whoever mends it.
pub(super) fn provider(
    checked: &Checked,
    name: &Arc<str>,
    configured: &AwsCredential,
    runtime: &Runtime,
) -> Result<Remote<AwsSource>, String> {
    let shared = |texts: &[String]| texts.iter().map(|text| Arc::from(text.as_str())).collect::<Arc<[Arc<str>]>>();
    let regions = shared(&configured.regions);
    let sts = Sts {
        url: configured.sts_url.as_str().into(),
        region: regions.first().cloned().unwrap_or_else(|| "us-east-1".into()),
        client: super::oauth::client(configured.authorities.as_deref())?,
        clock: runtime.clock().clone(),
    };
    let proof = match &configured.proof {
        AwsProof::Caller => RoleProof::Caller,
        AwsProof::Doorward { audience } => RoleProof::Doorward {
            tokens: own_tokens(checked, runtime)?,
            audience: audience.as_str().into(),
            subject: configured.token_subject.clone(),
        },
        AwsProof::Ambient { keys, external_id } => {
            RoleProof::Ambient { keys: Box::new(ambient(keys)?), external_id: external_id.clone() }
        }
    };
    let source = AwsSource::new(AwsSettings {
        sts,
        role: configured.role.as_str().into(),
        proof,
        duration: configured.duration,
        session_name: configured.session_name.clone(),
        source_identity: configured.source_identity.clone(),
        tags: configured.tags.clone(),
        transitive_tags: configured.transitive_tags.clone(),
        policy: configured.policy.clone(),
        policy_arns: configured.policy_arns.clone(),
        services: shared(&configured.services),
        regions,
        widening_headers: configured.widening_headers,
        signed_body_bytes: configured.signed_body_bytes,
        memory: runtime.body_memory(),
    });
    Ok(runtime.remote(name, source, None))
}

fn ambient(configured: &AwsAmbient) -> Result<AmbientKeys, String> {
    let settings = OutboundSettings { plain_http: PlainHttp::LinkLocal, ..OutboundSettings::default() };
    let client = || OutboundClient::new(&settings).map_err(|error| error.to_string());
    Ok(match configured {
        AwsAmbient::Environment { access_key_id, secret_access_key, session_token } => {
            AmbientKeys::Environment(AwsKeys {
                access_key_id: access_key_id.as_str().into(),
                secret_access_key: secret_access_key.clone(),
                session_token: session_token.clone(),
            })
        }
        AwsAmbient::Container { url, token, token_file } => AmbientKeys::Container {
            url: url.as_str().into(),
            authorization: match (token_file, token) {
                (Some(path), _) => Some(ContainerToken::File(path.clone())),
                (None, token) => token.clone().map(ContainerToken::Text),
            },
            client: client()?,
        },
        AwsAmbient::Instance { url } => {
            let url = url.as_deref().unwrap_or(INSTANCE_METADATA).trim_end_matches('/');
            AmbientKeys::Instance { url: url.into(), client: client()? }
        }
    })
}
