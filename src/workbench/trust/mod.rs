//! What stands on the other side, so that it trusts what Doorward shows: written from the configuration, so that the two
//! cannot drift apart.

mod aws;
mod clouds;
mod oauth;
mod shell;
mod vault;

use std::fmt;

use serde_json::{Value, json};

use crate::config::checked::{Checked, CredentialKind, Issuer, MtlsCredential, RouteSettings};
use crate::credential::{Template, Variable};
use crate::hex::hex;
use crate::route::Access;

/// What to paste on the other side.
#[derive(Clone, Debug, PartialEq)]
pub enum Trust {
    /// A document.
    Document(Value),
    /// Commands for a shell.
    Commands(String),
}

/// Pretty JSON, or the commands as they are typed; each ends its line.
impl fmt::Display for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(document) => writeln!(formatter, "{document:#}"),
            Self::Commands(commands) => formatter.write_str(commands),
        }
    }
}

/// Why there is nothing to export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No credential of that name.
    #[error("no credential is named `{name}`; there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that are there.
        known: String,
    },
    /// Nobody has to trust it.
    #[error(
        "credential `{name}` is of kind `{kind}`: there is nothing of Doorward's own to tell anybody; see its page in docs/credentials"
    )]
    Nobody {
        /// The name.
        name: String,
        /// Its kind.
        kind: &'static str,
    },
    /// No route uses it, so nothing can be said of whom it is for.
    #[error("no route uses credential `{name}`")]
    Unused {
        /// The name.
        name: String,
    },
    /// Doorward's own issuer is not known.
    #[error("the issuer of Doorward's tokens is not known: add `external_origin`, or `assertions: {{ issuer: … }}`")]
    NoIssuer,
}

/// What to paste on the other side of the credential `name`: a trust policy for `aws`, the commands that make the provider
/// for `gcp`, the federated credential for `azure`, the commands that make method, policy and role for `vault`, what to
/// register for an authorization server.
///
/// # Errors
/// [`TrustError`]
pub fn trust(checked: &Checked, name: &str) -> Result<Trust, TrustError> {
    let credential = checked.credentials.iter().find(|credential| credential.name == name).ok_or_else(|| {
        let known: Vec<&str> = checked.credentials.iter().map(|credential| credential.name.as_str()).collect();
        TrustError::Unknown { name: name.to_owned(), known: known.join(", ") }
    })?;
    let uses = uses_of(checked, name);
    if uses.is_empty() {
        return Err(TrustError::Unused { name: name.to_owned() });
    }
    let nobody = || TrustError::Nobody { name: name.to_owned(), kind: credential.kind.as_str() };
    let document = match &credential.kind {
        CredentialKind::Gcp(gcp) => return clouds::gcp(checked, gcp, &uses)?.ok_or_else(nobody),
        CredentialKind::Vault(vault) => return vault::trust(checked, vault, &uses),
        CredentialKind::Aws(aws) => aws::trust(checked, aws, &uses)?,
        CredentialKind::Azure(azure) => clouds::azure(checked, name, azure)?.ok_or_else(nobody)?,
        CredentialKind::Oauth(oauth) => oauth::registration(checked, name, oauth)?,
        CredentialKind::SignedAssertion { .. } => {
            let issuer = issuer(checked)?;
            let audiences: Vec<&str> = uses.iter().map(|settings| settings.audience.as_str()).collect();
            json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks.json"), "audiences": audiences })
        }
        CredentialKind::Mtls(MtlsCredential::Authority(authority)) => {
            let (exact, patterns) = on_routes(authority.uri.template(), &uses);
            json!({
                "authority_sha256": hex(authority.authority.fingerprint()),
                "authority_ends_at": authority.authority.expires_at().rfc3339(),
                // As a value is written within a segment of a URI.
                "uris": exact.into_iter().chain(patterns).map(|uri| uri.replace('|', "%7C")).collect::<Vec<_>>(),
            })
        }
        CredentialKind::Mtls(MtlsCredential::Files { .. } | MtlsCredential::WorkloadApi { .. })
        | CredentialKind::Fixed { .. }
        | CredentialKind::None { .. } => return Err(nobody()),
    };
    Ok(Trust::Document(document))
}

fn issuer(checked: &Checked) -> Result<&str, TrustError> {
    checked.assertions.as_ref().map(|assertions| assertions.issuer.as_str()).ok_or(TrustError::NoIssuer)
}

/// The routes of a credential.
fn uses_of<'a>(checked: &'a Checked, name: &str) -> Vec<&'a RouteSettings> {
    checked.routes.iter().filter(|route| route.credential == name).collect()
}

/// The issuers of whom one of the routes takes tokens.
fn accepted_issuers<'a>(checked: &'a Checked, uses: &[&RouteSettings]) -> impl Iterator<Item = &'a Issuer> {
    let accepted = move |issuer: &&Issuer| {
        uses.iter().any(|settings| match &settings.route.access {
            Access::Authenticated(accepts) => accepts.issuer(&issuer.name),
            Access::Public { .. } => false,
        })
    };
    checked.issuers.iter().filter(accepted)
}

/// What a template comes to on each of the routes: exact where nothing of a request is in it, and else with `*` for
/// each value of one. An issuer's name is known where a route takes the evidence of one alone.
fn on_routes(template: &Template, uses: &[&RouteSettings]) -> (Vec<String>, Vec<String>) {
    let (mut exact, mut patterns) = (Vec::new(), Vec::new());
    for settings in uses {
        let route = &settings.route;
        let issuer = match &route.access {
            Access::Authenticated(accepts) => accepts.only_issuer().unwrap_or("*"),
            Access::Public { .. } => "*",
        };
        let mut open = false;
        let text = template.with(|variable| {
            let (text, is_open) = match variable {
                Variable::Route => (route.name.to_string(), false),
                Variable::Environment => (route.environment.to_string(), false),
                Variable::Issuer => (issuer.to_owned(), issuer == "*"),
                Variable::PrincipalId => (if issuer == "*" { "*".to_owned() } else { format!("{issuer}|*") }, true),
                Variable::Subject | Variable::Email | Variable::Roles | Variable::Claim(_) | Variable::Path(_) => {
                    ("*".to_owned(), true)
                }
            };
            open |= is_open;
            text
        });
        let list = if open { &mut patterns } else { &mut exact };
        if !list.contains(&text) {
            list.push(text);
        }
    }
    (exact, patterns)
}
