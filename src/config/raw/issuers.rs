use schemars::JsonSchema;
use serde::Deserialize;

use super::ClaimValues;
use crate::config::placed::{Named, Placed};
use crate::config::units::DurationText;

/// An authority that is trusted to say who a caller is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["issuer", "principals", "audience", "algorithms", "keys", "principal"]))]
pub struct Issuer {
    /// Exactly the `iss` of its tokens; nothing is added or taken away.
    pub issuer: Option<Placed<String>>,
    /// Whether its callers are people or programs.
    pub principals: Option<Placed<Principals>>,
    /// Audiences of which a token must hold one.
    pub audience: Option<Placed<Vec<Placed<String>>>>,
    /// Signature algorithms that are accepted: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA.
    pub algorithms: Option<Placed<Vec<Placed<String>>>>,
    /// Where its keys come from: exactly one of `discovery`, `jwks_uri` and `file`.
    pub keys: Option<Placed<Keys>>,
    /// `any` (default), or `at+jwt` to take access tokens of RFC 9068 only.
    pub token_type: Option<TokenType>,
    /// Immutable claims that name the principal, joined by `/`. A dot nests, `\.` is a dot.
    pub principal: Option<Placed<Vec<Placed<String>>>>,
    /// Claims that a token must hold: path, and a value or a list of values of which any will do.
    pub required_claims: Named<Placed<ClaimValues>>,
    /// Claims that a token must not hold: path, and the refused values; `[]` refuses the claim altogether.
    pub forbidden_claims: Named<Placed<ClaimValues>>,
    /// Claim of groups. Default `groups`.
    pub groups: Option<Placed<String>>,
    /// Claim of the e-mail address, for display and headers; never an identity. Default `email`.
    pub email: Option<Placed<String>>,
    /// Claims that policies can read, by the names that they use.
    pub attributes: Named<Attribute>,
    /// Longest life of a token, `exp` minus `iat`. Default `24h`.
    pub longest_token: Option<Placed<DurationText>>,
    /// Difference of clocks that is forgiven, at most `5m`. Default `60s`.
    pub leeway: Option<Placed<DurationText>>,
    /// Environments whose routes and roles may take its callers. Default: the one that does.
    pub environments: Option<Placed<Vec<Placed<String>>>>,
    /// A claim that says which environment a caller belongs to. It may come to no other.
    pub environment_claim: Option<EnvironmentClaim>,
    /// Browser login with this issuer.
    pub login: Option<Placed<IssuerLogin>>,
}

/// A claim that says which environment a caller belongs to.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["claim"]))]
pub struct EnvironmentClaim {
    /// Path of the claim.
    pub claim: Option<Placed<String>>,
    /// Environment by value of the claim. Default: the value is the environment's name.
    pub values: Named<Placed<String>>,
}

/// Kind of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Principals {
    /// People.
    Users,
    /// Programs.
    Workloads,
}

/// Which `typ` a token must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TokenType {
    /// Any that is not another protocol's.
    #[serde(rename = "any")]
    Any,
    /// An access token of RFC 9068.
    #[serde(rename = "at+jwt")]
    AccessToken,
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("oneOf" = [{ "required": ["discovery"] }, { "required": ["jwks_uri"] }, { "required": ["file"] }]))]
pub struct Keys {
    /// From the issuer's discovery document: `discovery: {}`.
    pub discovery: Option<Discovery>,
    /// From this URL.
    pub jwks_uri: Option<Placed<String>>,
    /// From this JWKS file, read again when it changes.
    pub file: Option<Placed<String>>,
    /// PEM file of the authorities that alone vouch for the server of `jwks_uri`, and for the issuer's at login.
    /// Default: the system's.
    pub authorities: Option<Placed<String>>,
}

/// Keys by discovery.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// PEM file of the authorities that alone vouch for the issuer's servers, at login too. Default: the system's.
    pub authorities: Option<Placed<String>>,
}

/// A claim that policies can read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// Path of the claim. A dot nests, `\.` is a dot.
    pub claim: Placed<String>,
    /// Its type in policies.
    #[serde(rename = "type")]
    pub kind: Placed<AttributeType>,
}

/// Type of an attribute in policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttributeType {
    /// Text.
    String,
    /// Whole number.
    Long,
    /// Truth value.
    Bool,
    /// Set of texts.
    Set,
}

/// Browser login with an issuer: authorization code flow with PKCE.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["client_id"]))]
pub struct IssuerLogin {
    /// The client's id at the issuer.
    pub client_id: Option<Placed<String>>,
    /// The client's secret: `file:PATH` or `env:NAME`. Absent: a public client.
    pub client_secret: Option<Placed<String>>,
    /// Scopes to ask for. Default `[openid, profile, email]`; `offline_access` where the issuer grants refresh so.
    pub scopes: Option<Placed<Vec<Placed<String>>>>,
    /// Further parameters of the authorization request, such as Google's `access_type: offline`.
    pub parameters: Named<Placed<String>>,
    /// A session ends after this silence. Default `30m`.
    pub idle: Option<Placed<DurationText>>,
    /// A session ends after this time. Default `12h`.
    pub longest: Option<Placed<DurationText>>,
}

/// A name for the principals that come by client certificate.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateIssuer {
    /// Listeners whose client certificates it stands for.
    pub listeners: Placed<Vec<Placed<String>>>,
    /// Whether a DNS name names a workload. Default true.
    pub dns: Option<Placed<bool>>,
    /// Whether a URI, such as a SPIFFE ID, names a workload. Default true.
    pub uri: Option<Placed<bool>>,
    /// Environments whose routes and roles may take its callers. Default: the one that does.
    pub environments: Option<Placed<Vec<Placed<String>>>>,
}
