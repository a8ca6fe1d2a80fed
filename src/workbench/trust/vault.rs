//! The JWT method of a vault, its role, and the policy of that role.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::shell::{fed, word};
use super::{Trust, TrustError, accepted_issuers, issuer, on_routes};
use crate::config::checked::{Checked, RouteSettings, VaultCredential, VaultSubject};
use crate::credential::VaultSecret;

/// What the command line of a vault takes. The method is enabled by whoever may.
pub(super) fn trust(checked: &Checked, vault: &VaultCredential, uses: &[&RouteSettings]) -> Result<Trust, TrustError> {
    let namespace = vault.namespace.as_ref().map(|name| format!("-namespace={name}"));
    let write = |words: &[&str], path: &str, body: &str| {
        let words: Vec<&str> = words.iter().copied().chain(namespace.as_deref()).chain([path]).collect();
        fed(&words, body)
    };
    let documents = |path: String, body: Value| write(&["bao", "write"], &path, &format!("{body:#}"));
    let mount = format!("-path={}", vault.mount);
    let enable: Vec<String> = namespace.as_deref().into_iter().chain([&*mount]).map(word).collect();
    let mut script = format!(
        "set -e\n# Once for the mount: bao auth enable {} jwt\n# What follows replaces all settings of the mount. The vault \
         reads the keys at once, so whoever serves them must be up.\n",
        enable.join(" ")
    );
    let mut bound = Map::new();
    match &vault.subject {
        VaultSubject::Doorward { audience, subject } => {
            let issuer = issuer(checked)?;
            let method = json!({ "jwks_url": format!("{issuer}/jwks.json"), "bound_issuer": issuer });
            script.push_str(&documents(format!("auth/{}/config", vault.mount), method));
            bound.insert("bound_audiences".to_owned(), json!([audience]));
            let environments: BTreeSet<&str> = uses.iter().map(|settings| &*settings.route.environment).collect();
            let mut claims = Map::from_iter([("environment".to_owned(), json!(environments))]);
            let (exact, patterns) = on_routes(subject, uses);
            // A subject that may be anything binds nothing.
            if patterns.iter().all(|pattern| pattern != "*") {
                let how = if patterns.is_empty() { "string" } else { "glob" };
                bound.insert("bound_claims_type".to_owned(), how.into());
                claims.insert("sub".to_owned(), exact.into_iter().chain(patterns).collect());
            }
            bound.insert("bound_claims".to_owned(), claims.into());
        }
        VaultSubject::Caller => {
            let issuers: Vec<_> = accepted_issuers(checked, uses).collect();
            script.push_str("# Whoever has such a token can log in past Doorward, and read what this policy allows.\n");
            for issuer in &issuers {
                let method = json!({ "oidc_discovery_url": issuer.issuer, "bound_issuer": issuer.issuer });
                script.push_str(&documents(format!("auth/{}/config", vault.mount), method));
            }
            let audiences: Value = issuers.iter().flat_map(|issuer| issuer.audience.iter().cloned()).collect();
            bound.insert("bound_audiences".to_owned(), audiences);
        }
    }
    let mut role = json!({
        "role_type": "jwt",
        "user_claim": "sub",
        "token_policies": [vault.role],
        "token_type": "batch",
        "token_ttl": "1h",
    });
    if let Value::Object(role) = &mut role {
        role.append(&mut bound);
    }
    script.push_str(&write(&["bao", "policy", "write"], &vault.role, &policy(vault, uses)));
    script.push_str(&documents(format!("auth/{}/role/{}", vault.mount, vault.role), role));
    Ok(Trust::Commands(script))
}

/// The least that reads the secret on each of the routes. Where a caller's value is a part of a segment, the whole segment
/// is free: a policy can say no less.
fn policy(vault: &VaultCredential, uses: &[&RouteSettings]) -> String {
    let (paths, capability) = vault.secret.api_paths(|template| {
        let (exact, patterns) = on_routes(template, uses);
        let open = |segment: &str| if segment.contains('*') { "+".to_owned() } else { segment.to_owned() };
        let patterns = patterns.iter().map(|path| path.split('/').map(open).collect::<Vec<_>>().join("/"));
        exact.into_iter().chain(patterns).collect()
    });
    let rule = |path: &str, capability: &str| format!("path \"{path}\" {{ capabilities = [\"{capability}\"] }}\n");
    let mut policy: String = paths.iter().map(|path| rule(path, capability)).collect();
    if matches!(vault.secret, VaultSecret::Database(_)) {
        policy.push_str(&rule("sys/leases/revoke", "update"));
    }
    policy
}
