//! Configuration as written: what serde reads, before any of it is believed.
//!
//! The comments of the fields become the help that editors show. What must be present is optional here, so that
//! the check can name everything that is missing at once.

mod admin;
mod audit;
mod aws;
mod azure;
mod credentials;
mod gcp;
mod issuers;
mod listeners;
mod mtls;
mod oauth;
mod roles;
mod routes;
mod upstreams;
mod vault;

pub use admin::Admin;
pub use audit::{Audit, AuditDestination, AuditFile, AuditMode, WhenFull};
pub use aws::{Aws, AwsAmbient, AwsStatement, AwsSts, AwsSubject};
pub use azure::{Azure, AzureFederated, AzureManagedIdentity, AzureManagedIdentityHost, AzureOnBehalfOf};
pub use credentials::{Assertions, Credential, Fixed, SignedAssertion};
pub use gcp::{Gcp, GcpEndpoint, GcpIdToken, GcpMetadataServer, GcpServiceAccount};
pub use issuers::{
    Attribute, AttributeType, CertificateIssuer, Discovery, EnvironmentClaim, Issuer, IssuerLogin, Keys, Principals,
    TokenType,
};
pub use listeners::{
    ClientCertificateMode, ClientCertificates, Limits, Listener, ListenerTls, ProxyProtocol, ServerCertificate,
};
pub use mtls::{Mtls, MtlsAuthority, MtlsFiles, MtlsWorkloadApi};
pub use oauth::{
    ClientCredentials, JwtBearer, OauthClient, OauthClientAuthentication, OauthSubject, TokenEndpoint, TokenExchange,
};
pub use roles::{Role, Trust};
pub use routes::{
    Accept, Evidence, IdentityHeaders, Origins, PathMode, Rate, Route, RouteLimits, RouteLogin, RouteRates,
};
pub use upstreams::{Ejection, Protocol, Upstream, UpstreamTimeouts, UpstreamTls};
pub use vault::{Vault, VaultDatabase, VaultKv, VaultLogin, VaultPki, VaultSubject, VaultUserHeaders};

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;

use super::placed::{Named, Placed};

/// Doorward's configuration: mechanisms, owned by operators. Rules stand in the `policies` directory beside it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "doorward.yaml", extend("required" = ["listeners"]))]
pub struct Config {
    /// What browsers see, such as `https://api.example.com`. Required when any issuer has `login`.
    pub external_origin: Option<Placed<String>>,
    /// Directory of routes, roles and Cedar policies. Default `policies`.
    pub policies: Option<Placed<String>>,
    /// Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Never the whole internet.
    pub trusted_proxies: Vec<Placed<String>>,
    /// What Doorward keeps over a restart. Required when login or `signed_assertion` is used.
    pub state: Option<State>,
    /// Where callers connect, by name.
    pub listeners: Named<Listener>,
    /// Limits of connections and request heads.
    pub limits: Option<Limits>,
    /// Authorities that are trusted to say who a caller is, by name. The name is part of every principal's id.
    pub issuers: Named<Issuer>,
    /// Names for the principals that come by client certificate.
    pub certificate_issuers: Named<CertificateIssuer>,
    /// Doorward itself as an issuer of signed assertions.
    pub assertions: Option<Placed<Assertions>>,
    /// What upstreams are shown about a caller, by name.
    pub credentials: Named<Credential>,
    /// APIs behind Doorward, by name. Also allowed in `policies/*.yaml`.
    pub upstreams: Named<Upstream>,
    /// The record of every request.
    pub audit: Option<Audit>,
    /// Listener for health, readiness and metrics. Absent: none is opened.
    pub admin: Option<Admin>,
}

/// Rules of a team: routes, and roles with their trust. Every name is declared once over all files.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "policies/*.yaml")]
pub struct Policies {
    /// Roles by name, each with the callers that hold it.
    pub roles: Named<Role>,
    /// Routes by name: which requests belong together, where they go and who may come.
    pub routes: Named<Route>,
    /// APIs behind Doorward, by name.
    pub upstreams: Named<Upstream>,
}

/// What Doorward keeps over a restart.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Directory of keys, refresh tokens and ended sessions; kept at mode 0700.
    pub dir: Placed<String>,
}

/// Why something that is normally refused is allowed here.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reasoned {
    /// The reason, at least eight characters, for whoever reads this file next.
    pub reason: Placed<String>,
}

/// One value of a claim or a list of them, of which any will do.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimValues(pub Vec<Value>);

impl<'de> Deserialize<'de> for ClaimValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = Vec<Value>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a text, a whole number, true or false, or a list of them")
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
                Ok(vec![value.into()])
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
                Ok(vec![value.into()])
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                Ok(vec![value.into()])
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                Ok(vec![value.into()])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(ClaimValues(one)) = list.next_element()? {
                    values.extend(one);
                }
                Ok(values)
            }
        }

        deserializer.deserialize_any(Values).map(Self)
    }
}

impl JsonSchema for ClaimValues {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ClaimValues".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let scalar = serde_json::json!({ "type": ["string", "integer", "boolean"] });
        schemars::json_schema!({ "anyOf": [scalar, { "type": "array", "items": scalar }] })
    }
}
