use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::placed::Placed;

/// A token of Microsoft Entra ID: for an application that trusts Doorward's tokens (`federated`), on behalf of a caller
/// (`on_behalf_of` besides), or for a managed identity.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["scope"]))]
pub struct Azure {
    /// Id or domain of the tenant.
    pub tenant: Option<Placed<String>>,
    /// Id of the application.
    pub client_id: Option<Placed<String>>,
    /// What the token is for: `https://storage.azure.com/.default`.
    pub scope: Option<Placed<String>>,
    /// The application's federated credential, which trusts Doorward's tokens.
    pub federated: Option<Placed<AzureFederated>>,
    /// On whose behalf the application asks, by a token for the application. Default: its own.
    pub on_behalf_of: Option<Placed<AzureOnBehalfOf>>,
    /// The identity of the place where Doorward runs, in place of an application.
    pub managed_identity: Option<Placed<AzureManagedIdentity>>,
    /// Entra's host. Default `https://login.microsoftonline.com`; national clouds have their own.
    pub authority_host: Option<Placed<String>>,
    /// PEM file of the authorities that vouch for it. Default: the operating system's.
    pub authorities: Option<Placed<String>>,
    /// The header that carries the token. Default `Authorization`, as a bearer token.
    pub header: Option<Placed<String>>,
}

/// A federated credential of an application.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["subject"]))]
pub struct AzureFederated {
    /// `sub` of Doorward's token, as the federated credential has it, letter for letter.
    pub subject: Option<Placed<String>>,
    /// `aud` of Doorward's token. Default `api://AzureADTokenExchange`.
    pub audience: Option<Placed<String>>,
}

/// On whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AzureOnBehalfOf {
    /// The caller's, by the caller's own token: for routes that take bearer tokens only.
    Caller,
}

/// A managed identity.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["host"]))]
pub struct AzureManagedIdentity {
    /// Where it is asked for.
    pub host: Option<Placed<AzureManagedIdentityHost>>,
    /// Client id of a user-assigned identity. Default: the system-assigned one.
    pub client_id: Option<Placed<String>>,
    /// Base URL of instance metadata. Default `http://169.254.169.254`.
    pub url: Option<Placed<String>>,
}

/// Where a managed identity is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AzureManagedIdentityHost {
    /// Instance metadata of a virtual machine.
    Imds,
    /// `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` of App Service and Functions.
    AppService,
}
