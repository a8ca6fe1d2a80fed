//! Credentials that are client certificates.

use std::path::Path;
use std::sync::Arc;

use super::runtime::Runtime;
use crate::config::checked::{MtlsAuthority, MtlsCredential};
use crate::credential::{
    CertificateFiles, CertificateFilesSettings, CredentialProvider, MtlsSettings, MtlsSource, PATIENCE, Remote,
    RemoteSettings,
};

/// The provider of one such credential.
///
/// # Errors
/// What is wrong with it, for whoever mends it.
pub(super) fn provider(
    name: &Arc<str>,
    configured: &MtlsCredential,
    runtime: &Runtime,
) -> Result<Arc<dyn CredentialProvider>, String> {
    match configured {
        MtlsCredential::Files { certificate, key } => files(name, certificate, key, runtime),
        MtlsCredential::Authority(configured) => Ok(Arc::new(authority(name, configured, runtime))),
    }
}

fn files(
    name: &Arc<str>,
    certificate: &Path,
    key: &Path,
    runtime: &Runtime,
) -> Result<Arc<dyn CredentialProvider>, String> {
    let settings =
        CertificateFilesSettings { name: name.clone(), certificate: certificate.to_owned(), key: key.to_owned() };
    let provider = CertificateFiles::load(settings, runtime.clock().now()).map_err(|error| error.to_string())?;
    Ok(Arc::new(provider))
}

fn authority(name: &Arc<str>, configured: &MtlsAuthority, runtime: &Runtime) -> Remote<MtlsSource> {
    let source = MtlsSource::new(MtlsSettings {
        authority: configured.authority.clone(),
        uri: configured.uri.clone(),
        common_name: configured.common_name.clone(),
        lifetime: configured.lifetime,
        clock: runtime.clock().clone(),
    });
    let settings = RemoteSettings { name: name.clone(), lifetime: None, patience: PATIENCE };
    Remote::new(source, settings, runtime.issued(), runtime.credential_events(name), runtime.clock().clone())
}
