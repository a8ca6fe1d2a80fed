//! Google's workload identity provider and Microsoft's federated identity credential.

use serde_json::{Value, json};

use super::{TrustError, issuer, on_routes};
use crate::config::checked::{
    AzureCredential, AzureOrigin, Checked, GcpCredential, GcpOrigin, GcpProof, RouteSettings,
};

/// The commands that make the provider and let its callers use the service account.
pub(super) fn gcp(
    checked: &Checked,
    name: &str,
    gcp: &GcpCredential,
    uses: &[&RouteSettings],
) -> Result<Value, TrustError> {
    let nobody = || TrustError::Nobody { name: name.to_owned(), kind: "gcp" };
    let GcpOrigin::Federation(federation) = &gcp.origin else { return Err(nobody()) };
    let GcpProof::Doorward { audience, subject } = &federation.proof else { return Err(nobody()) };
    // //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER
    let parts: Vec<&str> = federation.audience.split('/').collect();
    let after = |key: &str| {
        let place = parts.iter().position(|part| *part == key);
        place.and_then(|place| parts.get(place + 1)).copied().unwrap_or_default()
    };
    let (pool, provider, project) = (after("workloadIdentityPools"), after("providers"), after("projects"));
    let location = after("locations");
    let create = format!(
        "gcloud iam workload-identity-pools providers create-oidc {provider} --project={project} --location={location} \
         --workload-identity-pool={pool} --issuer-uri={} --allowed-audiences={audience} \
         --attribute-mapping=google.subject=assertion.sub",
        issuer(checked)?
    );
    let (exact, patterns) = on_routes(subject, uses);
    let members = |subjects: &[String]| -> Vec<String> {
        let pool = format!("//iam.googleapis.com/projects/{project}/locations/{location}/workloadIdentityPools/{pool}");
        subjects.iter().map(|subject| format!("principal:{pool}/subject/{subject}")).collect()
    };
    let members = members(&exact);
    let bindings: Vec<String> = match &federation.service_account {
        None => Vec::new(),
        Some(account) => members
            .iter()
            .map(|member| {
                format!(
                    "gcloud iam service-accounts add-iam-policy-binding {} --role=roles/iam.workloadIdentityUser \
                     --member={member}",
                    account.email
                )
            })
            .collect(),
    };
    Ok(json!({ "provider": create, "members": members, "bindings": bindings, "subjects_by_caller": patterns }))
}

/// The parameters of `az ad app federated-credential create --id CLIENT_ID --parameters FILE`.
pub(super) fn azure(checked: &Checked, name: &str, azure: &AzureCredential) -> Result<Value, TrustError> {
    match &azure.origin {
        AzureOrigin::Application { subject, audience, .. } => Ok(json!({
            "name": format!("doorward-{name}"),
            "issuer": issuer(checked)?,
            "subject": subject,
            "audiences": [audience],
        })),
        AzureOrigin::ManagedIdentity { .. } => Err(TrustError::Nobody { name: name.to_owned(), kind: "azure" }),
    }
}
