//! Known traps of issuers: entries that look right and let strangers in.

use super::desk::Scope;
use crate::config::placed::{Named, Placed};
use crate::config::raw::ClaimValues;

/// Claims that a person or an administrator can change, and that somebody else can get afterwards.
const MUTABLE: [&str; 9] =
    ["email", "preferred_username", "upn", "name", "nickname", "username", "unique_name", "login", "given_name"];

/// Issuers that sign for everybody who has an account there, and the claims that tell one customer from another.
const SHARED: [(&str, &str, &[&str]); 2] = [
    ("Vercel", "https://oidc.vercel.com", &["owner_id", "project_id", "environment"]),
    ("GitHub Actions", "https://token.actions.githubusercontent.com", &["repository_owner_id", "repository_id"]),
];

/// Refuses a principal that is named by nothing but claims that change hands.
pub(super) fn mutable_principal(scope: &Scope<'_>, principal: &Placed<Vec<Placed<String>>>) {
    let is_mutable = |claim: &Placed<String>| {
        let last = claim.rsplit('.').next().unwrap_or_default();
        MUTABLE.contains(&last)
    };
    if !principal.value.is_empty() && principal.value.iter().all(is_mutable) {
        let names: Vec<String> = principal.value.iter().map(|claim| format!("`{}`", claim.value)).collect();
        let message = format!("{} can be changed and given to somebody else", names.join(", "));
        let help = "name the principal by an immutable claim, such as `sub`, `oid` or Okta's `uid`";
        scope.refuse("principal_mutable", principal.place, message, help);
    }
}

/// Refuses an issuer that signs for all its customers unless the entry says which of them is meant.
pub(super) fn shared_issuer(
    scope: &Scope<'_>,
    issuer: &Placed<String>,
    principal: &Placed<Vec<Placed<String>>>,
    required: &Named<Placed<ClaimValues>>,
) {
    let below = |prefix: &str| issuer.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some((vendor, _, claims)) = SHARED.iter().find(|(_, prefix, _)| below(prefix)) else { return };
    let bound = |claim: &str| {
        principal.value.iter().any(|bound| bound.value == claim) || required.iter().any(|(path, _)| path.value == claim)
    };
    let missing: Vec<String> = claims.iter().filter(|claim| !bound(claim)).map(|claim| format!("`{claim}`")).collect();
    if missing.is_empty() {
        return;
    }
    let message = format!("{vendor} signs for all its customers, and nothing here binds {}", missing.join(", "));
    let help = format!("add {} to `principal` or `required_claims`", missing.join(", "));
    scope.refuse("issuer_shared", issuer.place, message, help);
}
