//! What the rest of a configuration has to know of a credential, whatever its kind.

use super::{aws, azure, gcp, mtls, oauth, vault};
use crate::config::placed::Placed;
use crate::config::raw;

/// Whether Doorward has to sign for it.
pub(super) fn signs(raw: &raw::Credential) -> bool {
    raw.signed_assertion.is_some()
        || oauth::signs(raw)
        || raw.aws.as_ref().is_some_and(aws::signs)
        || raw.gcp.as_ref().is_some_and(gcp::signs)
        || raw.azure.as_ref().is_some_and(azure::signs)
        || raw.vault.as_ref().is_some_and(vault::signs)
}

/// Whether it is made of the caller's own token.
pub(super) fn takes_callers_token(raw: &raw::Credential) -> bool {
    oauth::takes_callers_token(raw)
        || raw.aws.as_ref().is_some_and(aws::takes_callers_token)
        || raw.gcp.as_ref().is_some_and(gcp::takes_callers_token)
        || raw.azure.as_ref().is_some_and(azure::takes_callers_token)
        || raw.vault.as_ref().is_some_and(vault::takes_callers_token)
}

/// Every header that carries a part of it.
pub(super) fn headers(raw: &raw::Credential) -> Vec<&str> {
    match &raw.vault {
        Some(raw) => vault::headers(raw),
        None => header(raw).into_iter().collect(),
    }
}

/// The header that carries it, as it is written or by default.
fn header(raw: &raw::Credential) -> Option<&str> {
    const AUTHORIZATION: &str = "Authorization";
    if let Some(raw) = &raw.signed_assertion {
        return Some(raw.header.as_ref().map_or(AUTHORIZATION, |header| header.as_str()));
    }
    if let Some(raw) = &raw.fixed {
        return raw.header.as_ref().map(|header| header.as_str());
    }
    if raw.aws.is_some() {
        return Some(AUTHORIZATION);
    }
    let of_a_cloud = raw.gcp.as_ref().map(|raw| &raw.header).or(raw.azure.as_ref().map(|raw| &raw.header));
    if let Some(header) = of_a_cloud {
        return Some(header.as_ref().map_or(AUTHORIZATION, |header| header.as_str()));
    }
    oauth::header(raw)
}

/// Every text of it that is filled from the request.
pub(super) fn templates(raw: &raw::Credential) -> Vec<&Placed<String>> {
    let mut texts = raw.aws.as_ref().map(aws::templates).unwrap_or_default();
    texts.extend(raw.gcp.as_ref().and_then(|raw| raw.token_subject.as_ref()));
    texts.extend(raw.vault.as_ref().map(vault::templates).unwrap_or_default());
    texts.extend(raw.mtls.iter().flat_map(mtls::templates));
    texts
}

/// Whether it is a certificate that the connection to the upstream shows.
pub(super) fn is_certificate(raw: &raw::Credential) -> bool {
    raw.mtls.is_some() || raw.vault.as_ref().is_some_and(|vault| vault.pki.is_some())
}
