//! The standard configuration file of workload identity federation (AIP-4117), as far as it says whom to ask.
//!
//! Doorward shows a token of its own or the caller's, so the file's source of tokens is not used. A source that would
//! have a program run or an address fetched is refused all the same: such a file is not the one for this.

use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::desk::Scope;
use crate::config::placed::Placed;

pub(super) const PROVIDER_HELP: &str =
    "write `//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/NAME`";
/// Token types of a JWT.
const JWT_TYPES: [&str; 2] = ["urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"];
const FORBIDDEN_SOURCES: [&str; 4] = ["executable", "url", "environment_id", "certificate"];

/// What such a file says.
pub(super) struct ExternalAccount {
    /// Resource name of the provider.
    pub(super) audience: String,
    /// Security Token Service.
    pub(super) token_url: String,
    /// Base URL of IAM Credentials, where a service account is impersonated.
    pub(super) iam_url: Option<String>,
    /// The service account.
    pub(super) email: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    audience: String,
    #[serde(default)]
    subject_token_type: String,
    #[serde(default)]
    token_url: String,
    service_account_impersonation_url: Option<String>,
    #[serde(default)]
    credential_source: Map<String, Value>,
}

/// Reads the file. Hosts are Google's, or those of the endpoints that the configuration names itself.
pub(super) fn read(
    scope: &Scope<'_>,
    path: &Placed<String>,
    sts: Option<&str>,
    iam: Option<&str>,
) -> Option<ExternalAccount> {
    let bytes = scope.bytes(path)?;
    // The parser's own message would quote the file, which may be one with a key in it.
    let refused = |message: &str, help: &str| {
        scope.refuse("gcp_external_account", path.place, message, help);
        None
    };
    let Ok(file) = serde_json::from_slice::<File>(&bytes) else {
        let help = "`gcloud iam workload-identity-pools create-cred-config` writes one";
        return refused("the file is no credential configuration", help);
    };
    match &*file.kind {
        "external_account" => {}
        "service_account" => {
            let help = "delete the key, and use workload identity federation";
            return refused("the file holds a service account's key, which does not expire", help);
        }
        _ => return refused("the file is of another kind than `external_account`", "name one of that `type`"),
    }
    if let Some(source) = FORBIDDEN_SOURCES.iter().find(|source| file.credential_source.contains_key(**source)) {
        let message = format!("the file would take its token from `credential_source.{source}`");
        return refused(&message, "Doorward shows a token of its own: make the file with `--credential-source-file`");
    }
    if !JWT_TYPES.contains(&&*file.subject_token_type) {
        return refused("the file's `subject_token_type` is no JWT", "use an OIDC provider of the pool");
    }
    if !is_provider(&file.audience) {
        return refused("the file's `audience` is no provider of a workload identity pool", PROVIDER_HELP);
    }
    let refused_url = |key: &str, setting: &str| {
        let message = format!("the file's `{key}` does not lead to Google");
        refused(&message, &format!("hosts end in `.googleapis.com`; name another in `{setting}` if it is meant"))
    };
    let Some(token_url) = trusted(&file.token_url, sts) else { return refused_url("token_url", "sts.url") };
    let mut account =
        ExternalAccount { audience: file.audience, token_url: token_url.into(), iam_url: None, email: None };
    if let Some(text) = &file.service_account_impersonation_url {
        const KEY: &str = "service_account_impersonation_url";
        let Some(url) = trusted(text, iam) else { return refused_url(KEY, "iam_credentials.url") };
        let email = url.path().strip_prefix("/v1/projects/-/serviceAccounts/");
        let email = email.and_then(|rest| rest.strip_suffix(":generateAccessToken"));
        let Some(email) = email.filter(|email| is_service_account(email)) else {
            let help = "it ends in `/v1/projects/-/serviceAccounts/EMAIL:generateAccessToken`";
            return refused(&format!("the file's `{KEY}` names no service account"), help);
        };
        account.iam_url = Some(url.origin().ascii_serialization());
        account.email = Some(email.to_owned());
    }
    Some(account)
}

/// An https URL at Google, or at the origin that the configuration names.
fn trusted(text: &str, configured: Option<&str>) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let configured = configured.and_then(|configured| Url::parse(configured).ok());
    let named = configured.is_some_and(|configured| configured.origin() == url.origin());
    let google = url.scheme() == "https"
        && url.port().is_none()
        && url.host_str().is_some_and(|host| host.ends_with(".googleapis.com"));
    (plain && (named || google)).then_some(url)
}

/// A provider's resource name: a workload identity pool's, not a workforce pool's.
pub(super) fn is_provider(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !text.is_empty() && text.len() <= 63 && text.bytes().all(plain)
    };
    let parts = || {
        let rest = text.strip_prefix("//iam.googleapis.com/projects/")?;
        let (project, rest) = rest.split_once("/locations/global/workloadIdentityPools/")?;
        let (pool, provider) = rest.split_once("/providers/")?;
        Some((project, pool, provider))
    };
    parts().is_some_and(|(project, pool, provider)| number(project) && id(pool) && id(provider))
}

/// A service account's address.
pub(super) fn is_service_account(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.len() <= 254
        && text.split_once('@').is_some_and(|(name, domain)| {
            let ours = domain.ends_with(".gserviceaccount.com");
            !name.is_empty() && name.bytes().all(plain) && ours && domain.bytes().all(plain)
        })
}
