//! What the rest of a configuration has to know of a credential, whatever its kind.

use super::{aws, oauth, vault};
use crate::config::placed::Placed;
use crate::config::raw;

/// Whether Doorward has to sign for it.
pub(super) fn signs(raw: &raw::Credential) -> bool {
    raw.signed_assertion.is_some()
        || oauth::signs(raw)
        || raw.aws.as_ref().is_some_and(aws::signs)
        || raw.vault.as_ref().is_some_and(vault::signs)
}

/// Whether it is made of the caller's own token.
pub(super) fn takes_callers_token(raw: &raw::Credential) -> bool {
    oauth::takes_callers_token(raw)
        || raw.aws.as_ref().is_some_and(aws::takes_callers_token)
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
    oauth::header(raw)
}

/// Every text of it that is filled from the request.
pub(super) fn templates(raw: &raw::Credential) -> Vec<&Placed<String>> {
    let aws = raw.aws.as_ref().map(aws::templates).unwrap_or_default();
    let vault = raw.vault.as_ref().map(vault::templates).unwrap_or_default();
    [aws, vault].concat()
}
