use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::placed::Placed;
use crate::config::units::DurationText;

/// A secret of HashiCorp Vault or OpenBao, read with a login by JWT: `kv` or `database`.
///
/// Texts with `{{…}}` are filled from the request: `{{path.NAME}}`, `{{claim.NAME}}`, `{{principal.id}}`,
/// `{{principal.subject}}`, `{{principal.issuer}}`, `{{principal.email}}`, `{{route}}`, `{{environment}}`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["address", "login"]))]
pub struct Vault {
    /// The vault's URL, such as `https://vault.internal:8200`.
    pub address: Option<Placed<String>>,
    /// PEM file of the authorities that vouch for it. Default: the operating system's.
    pub authorities: Option<Placed<String>>,
    /// Namespace. Default: the root's.
    pub namespace: Option<Placed<String>>,
    /// How Doorward logs in.
    pub login: Option<VaultLogin>,
    /// Whose token it logs in with. Default `doorward`.
    pub subject: Option<Placed<VaultSubject>>,
    /// `aud` of Doorward's token. Default: the address.
    pub token_audience: Option<Placed<String>>,
    /// `sub` of Doorward's token. Default `{{principal.id}}`.
    pub token_subject: Option<Placed<String>>,
    /// A secret that is kept in a key-value engine, version 2.
    pub kv: Option<Placed<VaultKv>>,
    /// A user that an engine with leases makes: `MOUNT/creds/ROLE`.
    pub database: Option<Placed<VaultDatabase>>,
    /// A client certificate that the connection itself shows.
    pub pki: Option<Placed<VaultPki>>,
}

/// A JWT login.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["role"]))]
pub struct VaultLogin {
    /// Where the JWT method is mounted, below `auth/`. Default `jwt`.
    pub mount: Option<Placed<String>>,
    /// The method's role.
    pub role: Option<Placed<String>>,
}

/// Whose token logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VaultSubject {
    /// A token of Doorward's about the principal, whatever the caller came by.
    Doorward,
    /// The caller's own token, as it came: for routes that take bearer tokens only.
    Caller,
}

/// A secret of a key-value engine.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["path", "field", "header"]))]
pub struct VaultKv {
    /// Where the engine is mounted. Default `secret`.
    pub mount: Option<Placed<String>>,
    /// The secret's path there, such as `apps/{{path.app}}`. A value is one segment of it, or a part of one.
    pub path: Option<Placed<String>>,
    /// Which of its fields.
    pub field: Option<Placed<String>>,
    /// The header that carries it.
    pub header: Option<Placed<String>>,
    /// Text before it, such as `"Bearer "`. Default none.
    pub prefix: Option<Placed<String>>,
    /// When it is read again at the latest, `10s` to `1d`. Default `5m`.
    pub refresh: Option<Placed<DurationText>>,
}

/// A user that an engine makes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["role"]))]
pub struct VaultDatabase {
    /// Where the engine is mounted. Default `database`.
    pub mount: Option<Placed<String>>,
    /// Its role, such as `{{environment}}-reader`. A value is one segment of its path, or a part of one.
    pub role: Option<Placed<String>>,
    /// Headers that carry name and password. Default: both as `Authorization: Basic`.
    pub headers: Option<VaultUserHeaders>,
}

/// A client certificate that a PKI engine issues, for the connection to the upstream.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["role"]))]
pub struct VaultPki {
    /// Where the engine is mounted. Default `pki`.
    pub mount: Option<Placed<String>>,
    /// Its role, which must allow the URI.
    pub role: Option<Placed<String>>,
    /// How long a certificate is to live, one minute to 24 hours. Default `15m`.
    pub lifetime: Option<Placed<DurationText>>,
    /// The domain of the default `uri`.
    pub trust_domain: Option<Placed<String>>,
    /// The URI that names the holder, each value percent-encoded in a path segment of its own. Default
    /// `spiffe://TRUST_DOMAIN/{{environment}}/{{principal.issuer}}/{{principal.subject}}`.
    pub uri: Option<Placed<String>>,
    /// The subject's common name, for people. Default none; then the role must not require one.
    pub common_name: Option<Placed<String>>,
}

/// A header for each.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["username", "password"]))]
pub struct VaultUserHeaders {
    /// For the name.
    pub username: Option<Placed<String>>,
    /// For the password.
    pub password: Option<Placed<String>>,
}
