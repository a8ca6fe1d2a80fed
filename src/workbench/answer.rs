//! What an explanation says: plain data, for people and as JSON. No claim's value, no token and no secret is in it,
//! save what names the caller.

use serde::Serialize;

use crate::config::checked::{Checked, CredentialKind, MtlsCredential, RouteSettings};
use crate::policy::Explanation;
use crate::route::{Access, PathMode};

/// What would happen to a request, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `allow`, `deny`, or `own` where Doorward answers itself.
    pub decision: &'static str,
    /// `ok`, or the stable code of the refusal.
    pub code: &'static str,
    /// Status of the refusal.
    pub status: Option<u16>,
    /// One sentence.
    pub sentence: String,
    /// What went wrong, as the audit record would say it.
    pub detail: Option<String>,
    /// Request method.
    pub method: String,
    /// Host, as routes see it.
    pub host: String,
    /// Path, as route, policies and upstream see it.
    pub path: String,
    /// The caller's address.
    pub source_ip: String,
    /// The request's time.
    pub at: String,
    /// The caller.
    pub caller: CallerAnswer,
    /// The route; `None` where there is none.
    pub route: Option<RouteAnswer>,
    /// What the path pattern caught.
    pub parameters: Vec<(String, String)>,
    /// Roles and policies; `None` where the request does not come so far.
    pub policy: Option<Explanation>,
    /// What the upstream would see; `None` where nothing is forwarded.
    pub forwarded: Option<Forwarded>,
    /// What else to know.
    pub notes: Vec<String>,
}

/// The caller, as it was stated and as it was recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallerAnswer {
    /// Kind of evidence; `None` for nobody.
    pub evidence: Option<&'static str>,
    /// Configured name of the issuer.
    pub issuer: Option<String>,
    /// Always false: an explanation verifies nothing.
    pub verified: bool,
    /// Name of the principal, where the route recognised one.
    pub principal: Option<String>,
    /// `User`, `Workload` or `Anonymous`.
    pub kind: Option<&'static str>,
    /// What was not stated, and was taken as good.
    pub taken_as_good: Vec<&'static str>,
}

/// A route and whom it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteAnswer {
    /// Name.
    pub name: String,
    /// Where it is declared, as `file:line:column`.
    pub declared: String,
    /// Which hosts.
    pub host: String,
    /// Which paths.
    pub path: String,
    /// Environment.
    pub environment: String,
    /// Labels.
    pub tags: Vec<String>,
    /// Why anybody may come; `None` where callers show who they are.
    pub public: Option<String>,
    /// Kinds of evidence that it takes.
    pub evidence: Vec<&'static str>,
    /// Names of the issuers that it takes.
    pub issuers: Vec<String>,
    /// Authentication context classes of which a caller has one.
    pub acr_values: Vec<String>,
    /// Longest time since authentication, seconds.
    pub max_age_seconds: Option<u64>,
    /// Why paths are read as raw bytes.
    pub opaque_paths: Option<String>,
}

/// What the upstream would see of the caller: kinds and names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forwarded {
    /// Name of the upstream.
    pub upstream: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Configured name of the credential.
    pub credential: String,
    /// `signed_assertion`, `fixed` or `none`.
    pub credential_kind: &'static str,
    /// The header that carries it.
    pub credential_header: Option<String>,
    /// Audience of an assertion.
    pub audience: Option<String>,
    /// Life of an assertion, seconds.
    pub lifetime_seconds: Option<u64>,
    /// Plain identity headers.
    pub identity_headers: Vec<String>,
}

impl RouteAnswer {
    pub(super) fn of(settings: &RouteSettings, checked: &Checked) -> Self {
        let route = &settings.route;
        let (mut public, mut evidence, mut issuers) = (None, Vec::new(), Vec::new());
        match &route.access {
            Access::Public { reason } => public = Some(reason.to_string()),
            Access::Authenticated(accepts) => {
                evidence = accepts.kinds.iter().map(|kind| kind.as_str()).collect();
                let tokens = checked.issuers.iter().map(|issuer| &issuer.name);
                let certificates = checked.certificate_issuers.iter().map(|issuer| &issuer.name);
                issuers = tokens.chain(certificates).filter(|name| accepts.issuer(name)).cloned().collect();
            }
        }
        Self {
            name: route.name.to_string(),
            declared: settings.declared.to_string(),
            host: route.host.to_string(),
            path: route.path.to_string(),
            environment: route.environment.to_string(),
            tags: route.tags.iter().map(ToString::to_string).collect(),
            public,
            evidence,
            issuers,
            acr_values: route.login.acr_values.clone(),
            max_age_seconds: route.login.max_age.map(|longest| longest.as_secs()),
            opaque_paths: match &route.path_mode {
                PathMode::Normal => None,
                PathMode::Opaque { reason } => Some(reason.to_string()),
            },
        }
    }
}

impl Forwarded {
    pub(super) fn of(settings: &RouteSettings, checked: &Checked) -> Self {
        let upstream = checked.upstreams.iter().find(|upstream| upstream.name == settings.upstream);
        let credential = checked.credentials.iter().find(|credential| credential.name == settings.credential);
        let mut forwarded = Self {
            upstream: settings.upstream.clone(),
            addresses: upstream.map(|upstream| upstream.addresses.clone()).unwrap_or_default(),
            credential: settings.credential.clone(),
            credential_kind: credential.map_or("none", |credential| credential.kind.as_str()),
            credential_header: None,
            audience: None,
            lifetime_seconds: None,
            identity_headers: Vec::new(),
        };
        match credential.map(|credential| &credential.kind) {
            Some(CredentialKind::SignedAssertion { lifetime, header, .. }) => {
                forwarded.credential_header = Some(header.to_string());
                forwarded.audience = Some(settings.audience.clone());
                forwarded.lifetime_seconds = Some(lifetime.as_secs());
            }
            Some(CredentialKind::Oauth(oauth)) => {
                forwarded.credential_header = Some(oauth.header.to_string());
            }
            Some(CredentialKind::Aws(_)) => {
                forwarded.credential_header = Some(http::header::AUTHORIZATION.to_string());
            }
            Some(CredentialKind::Gcp(gcp)) => {
                forwarded.credential_header = Some(gcp.header.to_string());
            }
            Some(CredentialKind::Azure(azure)) => {
                forwarded.credential_header = Some(azure.header.to_string());
            }
            Some(CredentialKind::Vault(vault)) => {
                let names: Vec<_> = vault.secret.headers().iter().map(ToString::to_string).collect();
                forwarded.credential_header = Some(names.join(", "));
            }
            Some(CredentialKind::Mtls(mtls)) => {
                if let MtlsCredential::Authority(authority) = mtls {
                    forwarded.lifetime_seconds = Some(authority.lifetime.as_secs());
                }
            }
            Some(CredentialKind::Fixed { header, .. }) => {
                forwarded.credential_header = Some(header.to_string());
            }
            Some(CredentialKind::None { .. }) | None => {}
        }
        if let Some(names) = &settings.route.identity_headers {
            let names = [&names.subject, &names.issuer, &names.email, &names.groups, &names.roles];
            forwarded.identity_headers = names.into_iter().flatten().map(ToString::to_string).collect();
        }
        forwarded
    }
}
