//! Credentials: what upstreams are shown about a caller.

use std::path::PathBuf;
use std::time::Duration;

use http::header::AUTHORIZATION;

use super::desk::Scope;
use super::{aws, azure, gcp, mtls, oauth, text, vault};
use crate::config::checked::{Credential, CredentialKind};
use crate::config::placed::Placed;
use crate::config::raw;
use crate::config::secrets::SecretSource;
use crate::credential::FixedSecret;

const FIVE_MINUTES: Duration = Duration::from_secs(300);

pub(super) fn credentials(scope: &Scope<'_>, config: &raw::Config) -> Vec<Credential> {
    let one = |(name, raw): &(Placed<String>, raw::Credential)| {
        Some(Credential {
            name: name.value.clone(),
            kind: kind(scope, name, raw)?,
            declared: scope.declared(name.place),
        })
    };
    config.credentials.iter().filter_map(one).collect()
}

fn kind(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Credential) -> Option<CredentialKind> {
    let kinds = [
        raw.signed_assertion.is_some(),
        raw.client_credentials.is_some(),
        raw.token_exchange.is_some(),
        raw.jwt_bearer.is_some(),
        raw.aws.is_some(),
        raw.gcp.is_some(),
        raw.azure.is_some(),
        raw.vault.is_some(),
        raw.mtls.is_some(),
        raw.fixed.is_some(),
        raw.none.is_some(),
    ];
    if kinds.iter().filter(|given| **given).count() != 1 {
        let message = format!("credential `{}` is not of exactly one kind", name.value);
        let help = "name exactly one of `signed_assertion`, `client_credentials`, `token_exchange`, `jwt_bearer`, `aws`, \
                    `gcp`, `azure`, `vault`, `mtls`, `fixed` and `none`";
        scope.refuse("credential_kind", name.place, message, help);
        return None;
    }
    if let Some(raw) = &raw.signed_assertion {
        return signed_assertion(scope, raw);
    }
    if let Some(raw) = &raw.client_credentials {
        return oauth::client_credentials(scope, name, raw);
    }
    if let Some(raw) = &raw.token_exchange {
        return oauth::token_exchange(scope, name, raw);
    }
    if let Some(raw) = &raw.jwt_bearer {
        return oauth::jwt_bearer(scope, name, raw);
    }
    if let Some(raw) = &raw.aws {
        return aws::aws(scope, name, raw);
    }
    if let Some(raw) = &raw.gcp {
        return gcp::gcp(scope, name, raw);
    }
    if let Some(raw) = &raw.azure {
        return azure::azure(scope, name, raw);
    }
    if let Some(raw) = &raw.vault {
        return vault::vault(scope, name, raw);
    }
    if let Some(raw) = &raw.mtls {
        return mtls::mtls(scope, name, raw);
    }
    if let Some(raw) = &raw.fixed {
        return fixed(scope, name, raw);
    }
    raw.none.as_ref().map(|raw| CredentialKind::None { reason: scope.reason(raw).to_string() })
}

fn signed_assertion(scope: &Scope<'_>, raw: &raw::SignedAssertion) -> Option<CredentialKind> {
    let algorithm = raw.algorithm.as_ref();
    if let Some(text) = algorithm.filter(|text| !matches!(text.as_str(), "ES256" | "RS256")) {
        let message = format!("assertions are not signed with `{}`", text.value);
        scope.refuse("algorithm", text.place, message, "write `ES256` or `RS256`");
    }
    let lifetime = scope.duration_up_to(raw.lifetime.as_ref(), FIVE_MINUTES, (FIVE_MINUTES, "5m"));
    if let Some(text) = &raw.lifetime
        && lifetime < Duration::from_secs(10)
    {
        let message = format!("`{}` is too short for an assertion to arrive", text.value.0);
        scope.refuse("too_short", text.place, message, "at least `10s` is needed here");
    }
    Some(CredentialKind::SignedAssertion {
        algorithm: algorithm.map_or("ES256", |text| text.as_str()).to_owned(),
        lifetime,
        header: raw.header.as_ref().map_or(Some(AUTHORIZATION), |header| text::header(scope, header))?,
    })
}

fn fixed(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Fixed) -> Option<CredentialKind> {
    let header = scope.required(raw.header.as_ref(), name, "fixed.header");
    let header = header.and_then(|header| text::header(scope, header));
    let secret = scope.required(raw.secret.as_ref(), name, "fixed.secret");
    let secret = secret.and_then(|reference| Some((reference, scope.secret_line(reference)?)));
    let secret = secret.and_then(|(reference, secret)| fixed_file(scope, reference, secret.source));
    if let Some(prefix) = raw.prefix.as_ref().filter(|prefix| !prefix.bytes().all(|byte| (b' '..0x7f).contains(&byte)))
    {
        let help = "use printable ASCII, such as `\"Bearer \"`";
        scope.refuse("prefix", prefix.place, "the prefix cannot stand in a header", help);
    }
    let prefix = raw.prefix.as_ref().map(|prefix| prefix.value.clone()).unwrap_or_default();
    Some(CredentialKind::Fixed { header: header?, file: secret?, prefix })
}

/// The file of a fixed secret, which must hold what the credential can use.
fn fixed_file(scope: &Scope<'_>, reference: &Placed<String>, source: SecretSource) -> Option<PathBuf> {
    let SecretSource::File(file) = source else {
        let message = "a fixed secret comes from a file, so that it can be replaced while Doorward runs";
        scope.refuse("secret_not_a_file", reference.place, message, "write `file:PATH`");
        return None;
    };
    if let Err(error) = FixedSecret::check(&file) {
        let help = "it must be one line of printable ASCII without spaces at its ends, at most 8 KiB";
        scope.refuse("secret_unfit", reference.place, error.to_string(), help);
        return None;
    }
    Some(file)
}
