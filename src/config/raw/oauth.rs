use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::placed::{Named, Placed};
use crate::config::units::DurationText;

/// Where tokens are asked for, and as whom.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub struct TokenEndpoint {
    /// The token endpoint's URL.
    pub url: Option<Placed<String>>,
    /// PEM file of the authorities that vouch for it. Default: the operating system's.
    pub authorities: Option<Placed<String>>,
    /// Doorward as its client.
    pub client: Option<Placed<OauthClient>>,
}

/// Doorward as a client of an authorization server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["id"]))]
pub struct OauthClient {
    /// Client id.
    pub id: Option<Placed<String>>,
    /// How it shows that it is the client. Default: `client_secret_basic` with a secret, `private_key_jwt` without.
    pub authentication: Option<Placed<OauthClientAuthentication>>,
    /// Client secret: `file:PATH` or `env:NAME`.
    pub secret: Option<Placed<String>>,
    /// `aud` of the assertions of `private_key_jwt`: the server's issuer. Default: the token endpoint.
    pub assertion_audience: Option<Placed<String>>,
    /// PEM file of the client certificate of `tls_client_auth`, leaf first.
    pub certificate: Option<Placed<String>>,
    /// Private key of the client certificate, PEM: `file:PATH` or `env:NAME`.
    pub key: Option<Placed<String>>,
}

/// How a client shows that it is the one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OauthClientAuthentication {
    /// The secret in `Authorization`, both parts form-encoded first.
    ClientSecretBasic,
    /// The secret in the form.
    ClientSecretPost,
    /// A JWT signed by Doorward's own key, which the server reads from Doorward's key set.
    PrivateKeyJwt,
    /// A client certificate, shown by the connection to the token endpoint (RFC 8705).
    TlsClientAuth,
    /// Nothing but the id.
    None,
}

/// A token for Doorward itself (RFC 6749 section 4.4), the same for every caller.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["endpoint"]))]
pub struct ClientCredentials {
    /// Where to ask, and as whom.
    pub endpoint: Option<TokenEndpoint>,
    /// `scope`, `audience`, `resource` and whatever else the server wants.
    pub parameters: Named<Placed<String>>,
    /// The header that carries the token. Default `Authorization`, as a bearer token.
    pub header: Option<Placed<String>>,
    /// Longest time that a request is given it for. Default: as long as the server says.
    pub lifetime: Option<Placed<DurationText>>,
}

/// A token for the caller, in exchange for one about the caller (RFC 8693).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["endpoint", "subject"]))]
pub struct TokenExchange {
    /// Where to ask, and as whom.
    pub endpoint: Option<TokenEndpoint>,
    /// Whose token says who the caller is.
    pub subject: Option<Placed<OauthSubject>>,
    /// `subject_token_type`. Default: an access token for `caller`, a JWT for `doorward`.
    pub subject_token_type: Option<Placed<String>>,
    /// `aud` of Doorward's own tokens. Default: the token endpoint.
    pub token_audience: Option<Placed<String>>,
    /// `sub` of a token by which Doorward says that it acts for the caller. Default: it says nothing.
    pub actor: Option<Placed<String>>,
    /// `requested_token_type`. Default: what the server gives.
    pub requested_token_type: Option<Placed<String>>,
    /// `scope`, `audience`, `resource` and whatever else the server wants.
    pub parameters: Named<Placed<String>>,
    /// The header that carries the token. Default `Authorization`, as a bearer token.
    pub header: Option<Placed<String>>,
    /// Longest time that a request is given it for. Default: as long as the server says.
    pub lifetime: Option<Placed<DurationText>>,
}

/// A token for the caller, for an assertion about the caller (RFC 7523 section 2.1).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["endpoint", "subject"]))]
pub struct JwtBearer {
    /// Where to ask, and as whom.
    pub endpoint: Option<TokenEndpoint>,
    /// Whose token says who the caller is.
    pub subject: Option<Placed<OauthSubject>>,
    /// `aud` of Doorward's own tokens. Default: the token endpoint.
    pub token_audience: Option<Placed<String>>,
    /// `scope`, `resource` and whatever else the server wants.
    pub parameters: Named<Placed<String>>,
    /// The header that carries the token. Default `Authorization`, as a bearer token.
    pub header: Option<Placed<String>>,
    /// Longest time that a request is given it for. Default: as long as the server says.
    pub lifetime: Option<Placed<DurationText>>,
}

/// Whose token says who a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OauthSubject {
    /// The caller's own token, as it came: for routes that take bearer tokens only.
    Caller,
    /// A token of Doorward's about the principal, whatever the caller came by.
    Doorward,
}
