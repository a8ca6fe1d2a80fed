//! Google's workload identity provider and Microsoft's federated identity credential.

use serde_json::{Value, json};

use super::{Trust, TrustError, issuer, on_routes};
use crate::config::checked::{
    AzureCredential, AzureOrigin, Checked, GcpCredential, GcpOrigin, GcpProof, GcpServiceAccount, GcpToken,
    RouteSettings,
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
    let create = command(
        &["gcloud", "iam", "workload-identity-pools", "providers", "create-oidc", provider],
        &[
            ("project", project),
            ("location", location),
            ("workload-identity-pool", pool),
            ("issuer-uri", issuer(checked)?),
            ("allowed-audiences", audience),
            ("attribute-mapping", "google.subject=assertion.sub"),
            ("attribute-condition", &condition(&exact, &patterns)),
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
        None => members.iter().map(|member| format!("# Grant what the upstream needs to {member}\n")).collect(),
    };
    Ok(Some(Trust::Commands(create + &granted)))
}

/// The commands that let `members` act as a service account, each of those between as the next.
fn bindings(account: &GcpServiceAccount, members: Vec<String>) -> String {
    let role = match account.token {
        GcpToken::Access { .. } if account.delegates.is_empty() => "roles/iam.workloadIdentityUser",
        GcpToken::Access { .. } | GcpToken::Identity { .. } => "roles/iam.serviceAccountTokenCreator",
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

/// A condition in CEL that a token of Doorward's for one of these subjects meets, and no other.
fn condition(exact: &[String], patterns: &[String]) -> String {
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

/// A command line with its flags, one a line, as a POSIX shell reads them.
fn command(words: &[&str], flags: &[(&str, &str)]) -> String {
    let plain = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@=,+".contains(&byte);
        if !text.is_empty() && text.bytes().all(plain) {
            text.to_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let words: Vec<String> = words.iter().map(|word| plain(word)).collect();
    let flags = flags.iter().map(|(flag, value)| format!(" \\\n  --{flag}={}", plain(value)));
    words.join(" ") + &flags.collect::<String>() + "\n"
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
