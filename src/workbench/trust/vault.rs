//! The JWT method of a vault and its role.

use serde_json::{Value, json};

use super::{TrustError, issuer, on_routes};
use crate::config::checked::{Checked, RouteSettings, VaultCredential, VaultSubject};

/// What is written to `auth/MOUNT/config` and `auth/MOUNT/role/ROLE`. Which policies the role has is the vault's to say.
pub(super) fn trust(checked: &Checked, vault: &VaultCredential, uses: &[&RouteSettings]) -> Result<Value, TrustError> {
    let VaultSubject::Doorward { audience, subject } = &vault.subject else {
        return Ok(json!({
            "role": { "path": format!("auth/{}/role/{}", vault.mount, vault.role), "role_type": "jwt",
                      "user_claim": "sub", "token_type": "batch" },
        }));
    };
    let issuer = issuer(checked)?;
    let (exact, patterns) = on_routes(subject, uses);
    let subjects: Vec<String> = exact.into_iter().chain(patterns).collect();
    Ok(json!({
        "config": {
            "path": format!("auth/{}/config", vault.mount),
            "jwks_url": format!("{issuer}/jwks.json"),
            "bound_issuer": issuer,
        },
        "role": {
            "path": format!("auth/{}/role/{}", vault.mount, vault.role),
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": [audience],
            "bound_claims_type": "glob",
            "bound_claims": { "sub": subjects },
            "token_type": "batch",
        },
    }))
}
