//! Google's workload identity provider and Microsoft's federated identity credential.

use serde_json::{Value, json};

use super::shell::{command, word};
use super::{Trust, TrustError, issuer, on_routes, uses_of};
use crate::config::checked::{
    AzureCredential, AzureOrigin, Checked, CredentialKind, GcpCredential, GcpOrigin, GcpProof, GcpServiceAccount,
    GcpToken, RouteSettings,
};

/// The commands that make the provider and let its callers use the service account; `None` where no token of Doorward's
/// is shown.
pub(super) fn gcp(
    checked: &Checked,
    gcp: &GcpCredential,
    uses: &[&RouteSettings],
) -> Result<Option<Trust>, TrustError> {
    let GcpOrigin::Federation(federation) = &gcp.origin else { return Ok(None) };
    let GcpProof::Doorward { audience, subject } = &federation.proof else { return Ok(None) };
    // //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER
    let parts: Vec<&str> = federation.audience.split('/').collect();
    let after = |key: &str| {
        let place = parts.iter().position(|part| *part == key);
        place.and_then(|place| parts.get(place + 1)).copied().unwrap_or_default()
    };
    let (pool, provider, project) = (after("workloadIdentityPools"), after("providers"), after("projects"));
    let location = after("locations");
    let (exact, patterns) = on_routes(subject, uses);
    let condition = condition(&subjects_of(checked, &federation.audience));
    let create = command(
        &["gcloud", "iam", "workload-identity-pools", "providers", "create-oidc", provider],
        &[
            ("project", project),
            ("location", location),
            ("workload-identity-pool", pool),
            ("issuer-uri", issuer(checked)?),
            ("allowed-audiences", audience),
            ("attribute-mapping", "google.subject=assertion.sub"),
            ("attribute-condition", &condition),
        ],
    );
    let pool = format!("//iam.googleapis.com/projects/{project}/locations/{location}/workloadIdentityPools/{pool}");
    // Nothing narrower than the pool names subjects that callers are part of; the condition above holds for all of it.
    let members: Vec<String> = match patterns.is_empty() {
        true => exact.iter().map(|subject| format!("principal:{pool}/subject/{subject}")).collect(),
        false => vec![format!("principalSet:{pool}/*")],
    };
    let granted = match &federation.service_account {
        Some(account) => bindings(account, members),
        None => members.iter().map(|member| format!("# Grant what the upstream needs to {}\n", word(member))).collect(),
    };
    let once = "# Once for the provider, whichever of its credentials is exported. Google must reach its issuer.\n";
    Ok(Some(Trust::Commands(format!("set -e\n{once}{create}{granted}"))))
}

/// The commands that let `members` act as a service account, each of those between as the next.
fn bindings(account: &GcpServiceAccount, members: Vec<String>) -> String {
    let role = match account.token {
        _ if !account.delegates.is_empty() => "roles/iam.serviceAccountTokenCreator",
        GcpToken::Access { .. } => "roles/iam.workloadIdentityUser",
        GcpToken::Identity { .. } => "roles/iam.serviceAccountOpenIdTokenCreator",
    };
    let (mut members, mut commands) = (members, String::new());
    for email in account.delegates.iter().chain([&account.email]) {
        for member in &members {
            let words = ["gcloud", "iam", "service-accounts", "add-iam-policy-binding", email];
            commands.push_str(&command(&words, &[("role", role), ("member", member)]));
        }
        members = vec![format!("serviceAccount:{email}")];
    }
    commands
}

/// Every subject that a provider is shown, by whichever credential: it has one condition for all of them.
fn subjects_of(checked: &Checked, provider: &str) -> (Vec<String>, Vec<String>) {
    let mut all = (Vec::new(), Vec::new());
    for credential in &checked.credentials {
        let CredentialKind::Gcp(gcp) = &credential.kind else { continue };
        let GcpOrigin::Federation(federation) = &gcp.origin else { continue };
        let GcpProof::Doorward { subject, .. } = &federation.proof else { continue };
        if federation.audience == provider {
            let (exact, patterns) = on_routes(subject, &uses_of(checked, &credential.name));
            all.0.extend(exact);
            all.1.extend(patterns);
        }
    }
    all
}

/// A condition in CEL that a token of Doorward's for one of these subjects meets, and no other.
fn condition((exact, patterns): &(Vec<String>, Vec<String>)) -> String {
    let mut any: Vec<String> = Vec::new();
    if !exact.is_empty() {
        any.push(format!("assertion.sub in {}", json!(exact)));
    }
    for pattern in patterns {
        any.push(format!("assertion.sub.matches({})", json!(format!("^{}$", expression(pattern)))));
    }
    any.join(" || ")
}

/// A pattern with `*` as a regular expression.
fn expression(pattern: &str) -> String {
    pattern.chars().fold(String::new(), |mut expression, character| {
        match character {
            '*' => expression.push('.'),
            _ if character.is_ascii_punctuation() => expression.push('\\'),
            _ => {}
        }
        expression.push(character);
        expression
    })
}

/// The parameters of `az ad app federated-credential create --id CLIENT_ID --parameters FILE`; `None` where no token of
/// Doorward's is shown.
pub(super) fn azure(checked: &Checked, name: &str, azure: &AzureCredential) -> Result<Option<Value>, TrustError> {
    Ok(match &azure.origin {
        AzureOrigin::Application { subject, audience, .. } => Some(json!({
            "name": format!("doorward-{name}"),
            "issuer": issuer(checked)?,
            "subject": subject,
            "audiences": [audience],
        })),
        AzureOrigin::ManagedIdentity { .. } => None,
    })
}
