//! Credentials that are client certificates.

use std::path::Path;
use std::sync::Arc;

use super::runtime::Runtime;
use crate::config::checked::{MtlsAuthority, MtlsCredential};
use crate::credential::{
    CertificateFiles, CertificateFilesSettings, CredentialProvider, MtlsSettings, MtlsSource, Remote,
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
        MtlsCredential::WorkloadApi { socket, spiffe_id } => workload_api(name, socket, spiffe_id.as_deref(), runtime),
    }
}

#[cfg(feature = "spiffe")]
fn workload_api(
    name: &Arc<str>,
    socket: &str,
    spiffe_id: Option<&str>,
    runtime: &Runtime,
) -> Result<Arc<dyn CredentialProvider>, String> {
    let settings =
        crate::credential::WorkloadApiSettings { socket: socket.into(), spiffe_id: spiffe_id.map(Into::into) };
    let source = runtime.workload_apis().source(&settings, runtime.clock().clone());
    Ok(Arc::new(runtime.remote(name, source, None)))
}

/// The check of a configuration has refused it before.
#[cfg(not(feature = "spiffe"))]
fn workload_api(
    _name: &Arc<str>,
    _socket: &str,
    _spiffe_id: Option<&str>,
    _runtime: &Runtime,
) -> Result<Arc<dyn CredentialProvider>, String> {
    Err("this build knows no SPIFFE Workload API".to_owned())
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
    runtime.remote(name, source, None)
}
