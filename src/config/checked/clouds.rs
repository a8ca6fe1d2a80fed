//! Credentials of Google Cloud and of Microsoft Entra ID.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::credential::Template;
use crate::secret::Secret;

/// A token of Google Cloud.
#[derive(Clone, Debug)]
pub struct GcpCredential {
    /// Who issues it.
    pub origin: GcpOrigin,
    /// `X-Goog-User-Project`
    pub user_project: Option<HeaderValue>,
    /// The header that carries it.
    pub header: HeaderName,
}

/// Who issues a token of Google Cloud.
#[derive(Clone, Debug)]
pub enum GcpOrigin {
    /// Workload identity federation.
    Federation(GcpFederation),
    /// The metadata server of the instance.
    Metadata {
        /// Base URL; `None` is the usual one.
        url: Option<String>,
        /// `default`, or a service account's address.
        account: String,
        /// What is asked for.
        token: GcpToken,
    },
}

/// One provider of a workload identity pool.
#[derive(Clone, Debug)]
pub struct GcpFederation {
    /// Resource name of the provider.
    pub audience: String,
    /// By what Google knows who asks.
    pub proof: GcpProof,
    /// Security Token Service.
    pub sts: GcpEndpoint,
    /// Scopes of the federated token.
    pub scopes: Vec<String>,
    /// Whose token is asked for in the end.
    pub service_account: Option<GcpServiceAccount>,
}

/// By what Google knows who asks.
#[derive(Clone, Debug)]
pub enum GcpProof {
    /// A token of Doorward's.
    Doorward {
        /// Its `aud`.
        audience: String,
        /// Its `sub`.
        subject: Template,
    },
    /// The caller's token.
    Caller,
}

/// An API of Google's.
#[derive(Clone, Debug)]
pub struct GcpEndpoint {
    /// Its URL.
    pub url: String,
    /// PEM file of the authorities that vouch for it; `None` is the system's.
    pub authorities: Option<PathBuf>,
}

/// A service account that is impersonated.
#[derive(Clone, Debug)]
pub struct GcpServiceAccount {
    /// IAM Credentials, its base URL.
    pub endpoint: GcpEndpoint,
    /// Its address.
    pub email: String,
    /// Those between.
    pub delegates: Vec<String>,
    /// What is asked for.
    pub token: GcpToken,
}

/// What kind of token is asked for.
#[derive(Clone, Debug)]
pub enum GcpToken {
    /// An access token.
    Access {
        /// Its scopes.
        scopes: Vec<String>,
        /// How long it lives.
        lifetime: Duration,
    },
    /// An ID token.
    Identity {
        /// Its `aud`; `None` is the route's audience.
        audience: Option<String>,
        /// Whether it says the service account's address.
        include_email: bool,
    },
}

/// A token of Microsoft Entra ID.
#[derive(Clone, Debug)]
pub struct AzureCredential {
    /// Who asks for it.
    pub origin: AzureOrigin,
    /// `scope`
    pub scope: String,
    /// The header that carries it.
    pub header: HeaderName,
}

/// Who asks for a token of Entra ID.
#[derive(Clone, Debug)]
pub enum AzureOrigin {
    /// An application, by a token of Doorward's.
    Application {
        /// The token endpoint.
        url: String,
        /// PEM file of the authorities that vouch for it; `None` is the system's.
        authorities: Option<PathBuf>,
        /// The tenant.
        tenant: String,
        /// The application's id.
        client_id: String,
        /// `sub` of Doorward's token.
        subject: String,
        /// `aud` of Doorward's token.
        audience: String,
        /// Whether it asks on behalf of the caller.
        on_behalf_of_caller: bool,
    },
    /// A managed identity.
    ManagedIdentity {
        /// Where it is asked for.
        host: AzureHost,
        /// Which one, where it is user-assigned.
        client_id: Option<String>,
    },
}

/// Where a managed identity is asked for.
#[derive(Clone, Debug)]
pub enum AzureHost {
    /// Instance metadata.
    Imds {
        /// Base URL; `None` is the usual one.
        url: Option<String>,
    },
    /// App Service and Functions.
    AppService {
        /// `IDENTITY_ENDPOINT`
        url: String,
        /// `IDENTITY_HEADER`
        header: Secret,
    },
}
