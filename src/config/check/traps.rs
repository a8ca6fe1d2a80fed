//! Known traps of issuers: entries that look right and let strangers in.

use super::desk::Scope;
use crate::config::placed::{Named, Placed};
use crate::config::raw::ClaimValues;

/// Claims that a person or an administrator can change, and that somebody else can get afterwards.
const MUTABLE: [&str; 9] =
    ["email", "preferred_username", "upn", "name", "nickname", "username", "unique_name", "login", "given_name"];

/// What to name a principal by where nothing is known of its issuer.
const IMMUTABLE: &str = "an immutable claim, such as `sub` where the issuer promises that, or Entra's `oid`";

/// Issuers whose tokens hold further names that change hands.
const VENDORS: [Vendor; 3] = [
    Vendor { is: is_okta_authorization_server, mutable: &["sub"], immutable: "Okta's `uid`: `sub` is the login name" },
    Vendor {
        is: |issuer| is_below(issuer, GITHUB),
        mutable: &[
            "sub",
            "repository",
            "repository_owner",
            "actor",
            "workflow",
            "workflow_ref",
            "job_workflow_ref",
            "environment",
            "ref",
        ],
        immutable: "`repository_owner_id` and `repository_id`",
    },
    Vendor {
        is: |issuer| is_below(issuer, VERCEL),
        mutable: &["sub", "scope", "owner", "project", "environment"],
        immutable: "`owner_id`, `project_id` and `environment`",
    },
];

const VERCEL: &str = "https://oidc.vercel.com";
const GITHUB: &str = "https://token.actions.githubusercontent.com";
const GOOGLE: &str = "https://accounts.google.com";

/// Issuers that sign by the same keys for everybody who has an account there.
const SHARED: [Shared; 3] = [
    Shared {
        vendor: "Vercel",
        prefix: VERCEL,
        // A preview deployment runs the code of whoever opened the pull request.
        pinned: &[&["owner_id", "project_id"], &["environment"]],
        told_apart: &["owner_id", "project_id", "environment"],
    },
    Shared {
        vendor: "GitHub Actions",
        prefix: GITHUB,
        pinned: &[&["repository_owner_id", "repository_id"]],
        told_apart: &["repository_owner_id", "repository_id"],
    },
    // People of one organisation by `hd`; of a service account, whose token may have any audience, `sub` is the id.
    Shared { vendor: "Google", prefix: GOOGLE, pinned: &[&["hd", "sub"]], told_apart: &[] },
];

struct Vendor {
    is: fn(&str) -> bool,
    mutable: &'static [&'static str],
    /// Ends the sentence "name the principal by …".
    immutable: &'static str,
}

struct Shared {
    vendor: &'static str,
    prefix: &'static str,
    /// Of each group, one claim has its value in `required_claims`. To name it in `principal` tells strangers apart and
    /// keeps none out, and neither does a role's trust: a rule may permit callers who hold no role.
    pinned: &'static [&'static [&'static str]],
    /// Claims without which two callers would be one principal.
    told_apart: &'static [&'static str],
}

/// Refuses a principal that is named by nothing but claims that change hands.
pub(super) fn mutable_principal(scope: &Scope<'_>, issuer: Option<&str>, principal: &Placed<Vec<Placed<String>>>) {
    let vendor = VENDORS.iter().find(|vendor| issuer.is_some_and(vendor.is));
    let is_mutable = |claim: &Placed<String>| {
        let last = claim.rsplit('.').next().unwrap_or_default();
        MUTABLE.contains(&last) || vendor.is_some_and(|vendor| vendor.mutable.contains(&last))
    };
    if !principal.value.is_empty() && principal.value.iter().all(is_mutable) {
        let names: Vec<String> = principal.value.iter().map(|claim| format!("`{}`", claim.value)).collect();
        let message = format!("{} can be changed and given to somebody else", names.join(", "));
        let immutable = vendor.map_or(IMMUTABLE, |vendor| vendor.immutable);
        scope.refuse("principal_mutable", principal.place, message, format!("name the principal by {immutable}"));
    }
}

/// Refuses an issuer that signs for all its customers unless the entry says which of them is meant.
pub(super) fn shared_issuer(
    scope: &Scope<'_>,
    issuer: &Placed<String>,
    principal: &Placed<Vec<Placed<String>>>,
    required: &Named<Placed<ClaimValues>>,
) {
    let Some(shared) = SHARED.iter().find(|shared| is_below(issuer, shared.prefix)) else { return };
    let is_pinned = |claim: &str| required.iter().any(|(path, _)| path.value == claim);
    let open = shared.pinned.iter().filter(|group| !group.iter().any(|claim| is_pinned(claim)));
    let open: Vec<String> = open.map(|group| one_of(group)).collect();
    if !open.is_empty() {
        let (vendor, unsaid) = (shared.vendor, open.join(", and of "));
        let message =
            format!("{vendor} signs for all its customers, and nothing here says which value of {unsaid} is yours");
        let help = format!("give {} a value in `required_claims`; `principal` alone binds nobody", open.join(", and "));
        scope.refuse("issuer_shared", issuer.place, message, help);
        return;
    }
    let is_told = |claim: &str| is_pinned(claim) || principal.value.iter().any(|told| told.value == claim);
    let missing: Vec<String> =
        shared.told_apart.iter().filter(|claim| !is_told(claim)).map(|claim| format!("`{claim}`")).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        let message = format!("callers of {} who differ in {missing} would be one principal", shared.vendor);
        let help = format!("add {missing} to `principal`, or a value to `required_claims`");
        scope.refuse("issuer_shared", issuer.place, message, help);
    }
}

fn one_of(claims: &[&str]) -> String {
    claims.iter().map(|claim| format!("`{claim}`")).collect::<Vec<_>>().join(" or ")
}

fn is_below(issuer: &str, prefix: &str) -> bool {
    issuer.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `https://acme.okta.com/oauth2/ID`. The organisation's own server, without `/oauth2/`, signs ID tokens only, whose
/// `sub` is the user's id.
fn is_okta_authorization_server(issuer: &str) -> bool {
    let Some((host, path)) = issuer.strip_prefix("https://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let host = host.to_ascii_lowercase();
    let is_okta = [".okta.com", ".oktapreview.com", ".okta-emea.com"].iter().any(|domain| host.ends_with(domain));
    is_okta && path.starts_with("oauth2/")
}
