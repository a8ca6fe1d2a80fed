use schemars::JsonSchema;
use serde::Deserialize;

use super::{Aws, Azure, ClientCredentials, Gcp, JwtBearer, Mtls, Reasoned, TokenExchange, Vault};
use crate::config::placed::Placed;
use crate::config::units::DurationText;

/// What an upstream is shown about a caller: exactly one kind.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("minProperties" = 1), extend("maxProperties" = 2))]
pub struct Credential {
    /// Environments whose routes may use it. Default: the one that does.
    pub environments: Option<Placed<Vec<Placed<String>>>>,
    /// A short-lived JWT about the principal, signed by Doorward.
    pub signed_assertion: Option<SignedAssertion>,
    /// A token that an authorization server gives Doorward itself.
    pub client_credentials: Option<ClientCredentials>,
    /// A token that an authorization server gives for a token about the caller.
    pub token_exchange: Option<TokenExchange>,
    /// A token that an authorization server gives for an assertion about the caller.
    pub jwt_bearer: Option<JwtBearer>,
    /// Keys of an AWS role session, by which requests are signed.
    pub aws: Option<Aws>,
    /// A token of Google Cloud.
    pub gcp: Option<Gcp>,
    /// A token of Microsoft Entra ID.
    pub azure: Option<Azure>,
    /// A secret of HashiCorp Vault or OpenBao.
    pub vault: Option<Vault>,
    /// A client certificate that the connection itself shows.
    pub mtls: Option<Mtls>,
    /// A secret that is the same for every caller.
    pub fixed: Option<Fixed>,
    /// Nothing.
    pub none: Option<Reasoned>,
}

/// A short-lived JWT about the principal.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignedAssertion {
    /// `ES256` (default) or `RS256`.
    pub algorithm: Option<Placed<String>>,
    /// Its life, at most `5m`. Default `5m`.
    pub lifetime: Option<Placed<DurationText>>,
    /// The header that carries it. Default `Authorization`, as a bearer token.
    pub header: Option<Placed<String>>,
}

/// A secret that is the same for every caller.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["header", "secret"]))]
pub struct Fixed {
    /// The header that carries it.
    pub header: Option<Placed<String>>,
    /// The secret: `file:PATH`, read again when it changes.
    pub secret: Option<Placed<String>>,
    /// Text before the secret, such as `"Bearer "`. Default none.
    pub prefix: Option<Placed<String>>,
}

/// Doorward itself as an issuer of signed assertions.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Assertions {
    /// The `iss` of assertions and the place of their documents. Default: `external_origin` and `/.doorward`.
    pub issuer: Option<Placed<String>>,
    /// A listener that serves only the documents, at the issuer URL's path.
    pub listener: Option<Placed<String>>,
    /// Why no listener here serves the documents of `issuer`: somebody else publishes them there.
    pub hosted_elsewhere: Option<Reasoned>,
    /// How often the signing key is replaced, with overlap: at least `1d`, default `30d`.
    pub rotate_every: Option<Placed<DurationText>>,
}
