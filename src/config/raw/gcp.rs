use schemars::JsonSchema;
use serde::Deserialize;

use super::{OauthSubject, Reasoned};
use crate::config::placed::Placed;
use crate::config::units::DurationText;

/// A token of Google Cloud: by workload identity federation, or of the instance's own service account.
///
/// Federation needs `audience` or `external_account`. With `service_account` the token is that account's, with
/// `id_token` below it an ID token; without, it is the federated token itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gcp {
    /// The provider: `//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/NAME`.
    pub audience: Option<Placed<String>>,
    /// A configuration file for workload identity federation as `gcloud iam workload-identity-pools create-cred-config`
    /// writes it: `audience`, `token_url` and `service_account_impersonation_url` are read from it.
    pub external_account: Option<Placed<String>>,
    /// By whose token Google knows who asks. Default `doorward`.
    pub subject: Option<Placed<OauthSubject>>,
    /// `aud` of Doorward's token. Default: `https:` and the provider's name, which every provider takes.
    pub token_audience: Option<Placed<String>>,
    /// `sub` of Doorward's token, at most 127 bytes. Default `doorward:{{environment}}:{{route}}`.
    pub token_subject: Option<Placed<String>>,
    /// The service account whose token goes upstream. Default: the federated token itself does.
    pub service_account: Option<Placed<GcpServiceAccount>>,
    /// Scopes of a federated token that goes upstream itself. Default `https://www.googleapis.com/auth/cloud-platform`.
    pub scopes: Vec<Placed<String>>,
    /// Security Token Service. Default `https://sts.googleapis.com/v1/token`.
    pub sts: Option<GcpEndpoint>,
    /// IAM Service Account Credentials API. Default `https://iamcredentials.googleapis.com`.
    pub iam_credentials: Option<GcpEndpoint>,
    /// The metadata server of the instance that Doorward runs on, in place of all of the above.
    pub metadata_server: Option<Placed<GcpMetadataServer>>,
    /// The project whose quota requests count on (`X-Goog-User-Project`). Default: the token's own.
    pub user_project: Option<Placed<String>>,
    /// The header that carries the token. Default `Authorization`, as a bearer token.
    pub header: Option<Placed<String>>,
}

/// A service account that is impersonated.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GcpServiceAccount {
    /// Its address. Required unless `external_account` names it.
    pub email: Option<Placed<String>>,
    /// Addresses of the service accounts between, each of which may create tokens of the next.
    pub delegates: Vec<Placed<String>>,
    /// How long an access token lives, one minute to one hour. Default `10m`.
    pub lifetime: Option<Placed<DurationText>>,
    /// Why `lifetime` is longer than an hour, up to 12 hours: the organisation's policy must allow it.
    pub long_lifetime: Option<Reasoned>,
    /// Scopes of an access token. Default `https://www.googleapis.com/auth/cloud-platform`.
    pub scopes: Vec<Placed<String>>,
    /// An ID token in place of an access token.
    pub id_token: Option<Placed<GcpIdToken>>,
}

/// An ID token, for what verifies Google's: Cloud Run, IAP, an API of one's own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GcpIdToken {
    /// Its `aud`. Default: the route's `audience`, which is the upstream's origin unless the route says otherwise.
    pub audience: Option<Placed<String>>,
    /// Whether it says the service account's address. Default true.
    pub include_email: Option<bool>,
}

/// The metadata server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GcpMetadataServer {
    /// Its base URL. Default `http://metadata.google.internal`.
    pub url: Option<Placed<String>>,
    /// Address of one of the instance's service accounts. Default: the instance's default.
    pub service_account: Option<Placed<String>>,
    /// Scopes of an access token, among those of the instance. Default: all of those.
    pub scopes: Vec<Placed<String>>,
    /// An ID token in place of an access token.
    pub id_token: Option<Placed<GcpIdToken>>,
}

/// An API of Google's.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub struct GcpEndpoint {
    /// Its URL.
    pub url: Option<Placed<String>>,
    /// PEM file of the authorities that vouch for it. Default: the operating system's.
    pub authorities: Option<Placed<String>>,
}
