//! Client certificates that connections to upstreams show.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::credential::{CertificateAuthority, Template, UriTemplate};

/// A client certificate that the connection to the upstream shows.
#[derive(Clone, Debug)]
pub enum MtlsCredential {
    /// The same for every caller.
    Files {
        /// PEM file of its chain, leaf first.
        certificate: PathBuf,
        /// PEM file of its key.
        key: PathBuf,
    },
    /// One for each principal.
    Authority(Box<MtlsAuthority>),
    /// That of Doorward's own workload, as the agent beside it issues it.
    WorkloadApi {
        /// The agent's socket, `unix:///PATH`.
        socket: String,
        /// The identity, where the agent has several for this workload.
        spiffe_id: Option<String>,
    },
}

/// Client certificates that are minted here.
#[derive(Clone, Debug)]
pub struct MtlsAuthority {
    /// Who signs them; it was tried out.
    pub authority: Arc<CertificateAuthority>,
    /// The URI that names the holder.
    pub uri: UriTemplate,
    /// The subject's common name.
    pub common_name: Option<Template>,
    /// How long one lives.
    pub lifetime: Duration,
}
