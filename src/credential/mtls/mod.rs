//! `mtls`: a client certificate, shown by the connection itself.

mod authority;
mod files;
mod uri;
#[cfg(feature = "spiffe")]
mod workload_api;

pub use authority::{MtlsSettings, MtlsSource};
pub use files::{CertificateFiles, CertificateFilesSettings};
pub use uri::{LONGEST_URI, UriTemplate, UriTemplateError};
#[cfg(feature = "spiffe")]
pub use workload_api::{WorkloadApiSettings, WorkloadApiSource, WorkloadApis};

const KIND: &str = "mtls";
