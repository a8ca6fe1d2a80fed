//! What the rest of a configuration has to know of a credential, whatever its kind.

use super::{aws, mtls, oauth};
use crate::config::placed::Placed;
use crate::config::raw;

/// Whether Doorward has to sign for it.
pub(super) fn signs(raw: &raw::Credential) -> bool {
    raw.signed_assertion.is_some() || oauth::signs(raw) || raw.aws.as_ref().is_some_and(aws::signs)
}

/// Whether it is made of the caller's own token.
pub(super) fn takes_callers_token(raw: &raw::Credential) -> bool {
    oauth::takes_callers_token(raw) || raw.aws.as_ref().is_some_and(aws::takes_callers_token)
}

/// The header that carries it, as it is written or by default.
pub(super) fn header(raw: &raw::Credential) -> Option<&str> {
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
    let aws = raw.aws.iter().flat_map(aws::templates);
    aws.chain(raw.mtls.iter().flat_map(mtls::templates)).collect()
}

/// Whether it is a certificate that the connection to the upstream shows.
pub(super) fn is_certificate(raw: &raw::Credential) -> bool {
    raw.mtls.is_some()
}
