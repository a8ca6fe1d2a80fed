//! Credentials, one provider for each route, and the headers that nobody else may set.

use std::sync::Arc;

use super::runtime::Runtime;
use super::{Note, aws, azure, gcp, mtls, oauth, vault};
use crate::config::checked::{Checked, CredentialKind, RouteSettings};
use crate::config::faults::Declared;
use crate::credential::{
    Algorithm, AssertionSettings, CredentialProvider, Documents, FixedSecret, FixedSecretSettings, NoCredential,
    PlainIdentity, SignedAssertion,
};
use crate::proxy::ServedDocuments;
use crate::upstream::ProtectedHeaders;

/// Doorward's own documents, once a credential is signed; the keys that it needs are made.
pub(super) fn documents(checked: &Checked, runtime: &Runtime, note: Note<'_>) -> Option<ServedDocuments> {
    let assertions = checked.assertions.as_ref()?;
    let keys = runtime.signing_keys()?;
    for credential in &checked.credentials {
        if let CredentialKind::SignedAssertion { algorithm, .. } = &credential.kind
            && let Some(algorithm) = signature(algorithm)
            && let Err(error) = keys.ensure(algorithm, runtime.clock().now())
        {
            note(&credential.declared, "signing_key", format!("credential `{}`: {error}", credential.name));
        }
    }
    let base_path = url::Url::parse(&assertions.issuer).ok()?.path().trim_end_matches('/').into();
    Some(ServedDocuments { documents: Documents::new(assertions.issuer.as_str(), keys.clone()), base_path })
}

fn signature(name: &str) -> Option<Algorithm> {
    [Algorithm::Es256, Algorithm::Rs256].into_iter().find(|algorithm| algorithm.as_str() == name)
}

/// What the upstream of a route is shown.
pub(super) fn provider(
    checked: &Checked,
    settings: &RouteSettings,
    runtime: &Runtime,
    note: Note<'_>,
) -> Option<Arc<dyn CredentialProvider>> {
    let credential = checked.credentials.iter().find(|credential| credential.name == settings.credential)?;
    let name: Arc<str> = credential.name.as_str().into();
    let made = match &credential.kind {
        CredentialKind::SignedAssertion { algorithm, lifetime, header } => {
            let settings = AssertionSettings {
                name,
                issuer: "".into(),
                audience: settings.audience.as_str().into(),
                algorithm: Algorithm::Es256,
                lifetime: *lifetime,
                header: header.clone(),
            };
            shared(assertion(checked, runtime, algorithm, settings))
        }
        CredentialKind::Oauth(configured) => shared(oauth::provider(checked, &name, configured, runtime)),
        CredentialKind::Aws(configured) => shared(aws::provider(checked, &name, configured, runtime)),
        CredentialKind::Gcp(configured) => {
            shared(gcp::provider(checked, &name, configured, &settings.audience, runtime))
        }
        CredentialKind::Azure(configured) => shared(azure::provider(checked, &name, configured, runtime)),
        CredentialKind::Mtls(configured) => mtls::provider(&name, configured, runtime),
        CredentialKind::Vault(configured) => shared(vault::provider(checked, &name, configured, runtime)),
        CredentialKind::Fixed { header, file, prefix } => {
            let settings =
                FixedSecretSettings { name, header: header.clone(), prefix: prefix.clone(), file: file.clone() };
            shared(FixedSecret::load(settings, runtime.clock().now()).map_err(|error| error.to_string()))
        }
        CredentialKind::None { reason } => {
            shared(NoCredential::new(name, reason.as_str().into()).map_err(|error| error.to_string()))
        }
    };
    made.map_err(|error| {
        let message = format!("credential `{}` of route `{}`: {error}", credential.name, settings.route.name);
        note(&credential.declared, "credential", message);
    })
    .ok()
}

fn shared(made: Result<impl CredentialProvider + 'static, String>) -> Result<Arc<dyn CredentialProvider>, String> {
    made.map(|provider| Arc::new(provider) as _)
}

/// Completes `settings` by what the whole configuration says of assertions.
fn assertion(
    checked: &Checked,
    runtime: &Runtime,
    algorithm: &str,
    settings: AssertionSettings,
) -> Result<SignedAssertion, String> {
    let (Some(keys), Some(assertions)) = (runtime.signing_keys(), &checked.assertions) else {
        return Err("signing needs `state.dir`, which is read at the start only: start again to add it".to_owned());
    };
    let algorithm = signature(algorithm).ok_or_else(|| format!("`{algorithm}` is no algorithm for assertions"))?;
    let settings = AssertionSettings { issuer: assertions.issuer.as_str().into(), algorithm, ..settings };
    SignedAssertion::new(settings, keys.clone(), runtime.assertions()).map_err(|error| error.to_string())
}

/// The provider of a route, for questions: it can say what it would ask, and asks nobody. `None` where Doorward makes
/// the credential by itself.
///
/// # Errors
/// What keeps it from being made.
pub fn provider_for_questions(
    checked: &Checked,
    settings: &RouteSettings,
) -> Result<Option<Arc<dyn CredentialProvider>>, String> {
    let credential = checked.credentials.iter().find(|credential| credential.name == settings.credential);
    if !credential.is_some_and(|credential| credential.kind.is_issued()) {
        return Ok(None);
    }
    let mut told = String::new();
    let mut note = |_: &Declared, _: &'static str, message: String| told = message;
    provider(checked, settings, &Runtime::of_nothing(), &mut note).map(Some).ok_or(told)
}

/// Plain identity headers of a route.
pub(super) fn plain_identity(settings: &RouteSettings, runtime: &Runtime, note: Note<'_>) -> Option<PlainIdentity> {
    let route = &settings.route;
    let names = route.identity_headers.clone()?;
    match PlainIdentity::new(names, runtime.identity_headers()) {
        Ok(plain) => Some(plain),
        Err(error) => {
            let message = format!("identity headers of route `{}`: {error}", route.name);
            note(&settings.declared, "identity_headers", message);
            None
        }
    }
}

/// Headers that only Doorward may set: on every route those of all routes, because an upstream behind several of them
/// cannot tell which one a header came by.
pub(super) fn protected(
    credentials: &[Arc<dyn CredentialProvider>],
    plain_identities: &[PlainIdentity],
) -> Arc<ProtectedHeaders> {
    let credentials = credentials.iter().flat_map(|credential| credential.headers());
    let names: Vec<_> = credentials.chain(plain_identities.iter().flat_map(PlainIdentity::headers)).collect();
    Arc::new(ProtectedHeaders::new(&names))
}
