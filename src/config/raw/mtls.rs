use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::placed::Placed;
use crate::config::units::DurationText;

/// A client certificate that the connection to the upstream shows: exactly one of `files`, `authority` and
/// `workload_api`. For upstreams with https addresses and no `tls.certificate` of their own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1), extend("maxProperties" = 1))]
pub struct Mtls {
    /// One certificate for every caller.
    pub files: Option<Placed<MtlsFiles>>,
    /// A certificate of minutes for each principal, minted here.
    pub authority: Option<Placed<MtlsAuthority>>,
    /// The certificate of Doorward's own workload, from the SPIFFE Workload API. Needs a build with the feature `spiffe`.
    pub workload_api: Option<Placed<MtlsWorkloadApi>>,
}

/// An agent that issues SPIFFE identities to the workloads beside it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MtlsWorkloadApi {
    /// Its socket: `unix:///PATH`. Default: the environment's `SPIFFE_ENDPOINT_SOCKET`.
    pub socket: Option<Placed<String>>,
    /// Which identity, where the agent has several for this workload: `spiffe://DOMAIN/PATH`. Default: the first.
    pub spiffe_id: Option<Placed<String>>,
}

/// A certificate and its key, read again when the files change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub struct MtlsFiles {
    /// PEM file of the certificate and its chain, leaf first.
    pub certificate: Option<Placed<String>>,
    /// Its private key, PEM: `file:PATH`.
    pub key: Option<Placed<String>>,
}

/// A certificate authority, and what its certificates say.
///
/// Texts with `{{…}}` are filled from the request: `{{path.NAME}}`, `{{claim.NAME}}`, `{{principal.id}}`,
/// `{{principal.subject}}`, `{{principal.issuer}}`, `{{principal.email}}`, `{{route}}`, `{{environment}}`, `{{roles}}`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub struct MtlsAuthority {
    /// PEM file of the authority's certificate, then of those above it.
    pub certificate: Option<Placed<String>>,
    /// The authority's private key, PEM: `file:PATH` or `env:NAME`.
    pub key: Option<Placed<String>>,
    /// How long a certificate lives, one minute to 24 hours. Default `15m`.
    pub lifetime: Option<Placed<DurationText>>,
    /// The domain of the default `uri`.
    pub trust_domain: Option<Placed<String>>,
    /// The URI that names the holder, each value percent-encoded in a path segment of its own. Default
    /// `spiffe://TRUST_DOMAIN/{{environment}}/{{principal.issuer}}/{{principal.subject}}`.
    pub uri: Option<Placed<String>>,
    /// The subject's common name, for people. Default none.
    pub common_name: Option<Placed<String>>,
}
