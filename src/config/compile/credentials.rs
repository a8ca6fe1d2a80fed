//! Credentials, one provider for each route, and the headers that nobody else may set.

use std::sync::Arc;

use super::runtime::Runtime;
use super::{Note, aws, mtls, oauth};
use crate::config::checked::{Checked, CredentialKind, RouteSettings};
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
    let mut failed = |error: String| {
        let message = format!("credential `{}` of route `{}`: {error}", credential.name, settings.route.name);
        note(&credential.declared, "credential", message);
        None
    };
    match &credential.kind {
        CredentialKind::SignedAssertion { algorithm, lifetime, header } => {
            let (Some(keys), Some(assertions)) = (runtime.signing_keys(), &checked.assertions) else {
                return failed(
                    "signing needs `state.dir`, which is read at the start only: start again to add it".to_owned(),
                );
            };
            let Some(algorithm) = signature(algorithm) else {
                return failed(format!("`{algorithm}` is no algorithm for assertions"));
            };
            let settings = AssertionSettings {
                name,
                issuer: assertions.issuer.as_str().into(),
                audience: settings.audience.as_str().into(),
                algorithm,
                lifetime: *lifetime,
                header: header.clone(),
            };
            match SignedAssertion::new(settings, keys.clone(), runtime.assertions()) {
                Ok(provider) => Some(Arc::new(provider)),
                Err(error) => failed(error.to_string()),
            }
        }
        CredentialKind::Oauth(configured) => match oauth::provider(checked, &name, configured, runtime) {
            Ok(provider) => Some(Arc::new(provider)),
            Err(error) => failed(error),
        },
        CredentialKind::Aws(configured) => match aws::provider(checked, &name, configured, runtime) {
            Ok(provider) => Some(Arc::new(provider)),
            Err(error) => failed(error),
        },
        CredentialKind::Mtls(configured) => match mtls::provider(&name, configured, runtime) {
            Ok(provider) => Some(provider),
            Err(error) => failed(error),
        },
        CredentialKind::Fixed { header, file, prefix } => {
            let settings =
                FixedSecretSettings { name, header: header.clone(), prefix: prefix.clone(), file: file.clone() };
            match FixedSecret::load(settings, runtime.clock().now()) {
                Ok(provider) => Some(Arc::new(provider)),
                Err(error) => failed(error.to_string()),
            }
        }
        CredentialKind::None { reason } => match NoCredential::new(name, reason.as_str().into()) {
            Ok(provider) => Some(Arc::new(provider)),
            Err(error) => failed(error.to_string()),
        },
    }
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
