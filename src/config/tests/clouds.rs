//! Credentials of Google Cloud and of Entra ID: what is taken, and every fault with its mend.

use super::world::World;
use crate::config::checked::{AzureHost, AzureOrigin, CredentialKind, GcpOrigin, GcpProof, GcpToken};
use crate::config::{Environment, load_with};

const GCP: &str = "//iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/pool/providers/gate";
const APP: &str = "11111111-2222-3333-4444-555555555555";

/// The whole configuration with the credential `key` replaced by this one.
fn world(credential: &str) -> World {
    let world = World::new();
    world.replace(
        "doorward.yaml",
        "  key: { fixed: { header: X-Api-Key, secret: file:api.secret } }",
        &format!("  key: {credential}"),
    );
    world
}

fn kind(world: &World) -> CredentialKind {
    let checked = world.load().unwrap_or_else(|faults| panic!("{faults:?}"));
    checked.credentials.into_iter().find(|credential| credential.name == "key").unwrap().kind
}

/// Codes, messages and mends of every fault, without places.
#[track_caller]
fn faults(world: &World) -> Vec<String> {
    world.told().into_iter().map(|told| told.split_once(' ').unwrap().1.to_owned()).collect()
}

#[track_caller]
fn refused(credential: &str, expected: &str) {
    assert_eq!(faults(&world(credential)), [expected], "{credential}");
}

#[test]
fn federation_needs_no_more_than_its_provider() {
    let CredentialKind::Gcp(gcp) = kind(&world(&format!("{{ gcp: {{ audience: {GCP} }} }}"))) else { panic!() };
    let GcpOrigin::Federation(federation) = gcp.origin else { panic!() };
    assert_eq!(federation.sts.url, "https://sts.googleapis.com/v1/token");
    assert_eq!(federation.scopes, ["https://www.googleapis.com/auth/cloud-platform"]);
    assert!(federation.service_account.is_none());
    let GcpProof::Doorward { audience, .. } = federation.proof else { panic!() };
    assert_eq!(audience, format!("https:{GCP}"));
}

#[test]
fn a_service_account_has_ten_minutes_and_an_id_token_the_routes_audience() {
    let account = "email: a@acme.iam.gserviceaccount.com";
    let text = format!("{{ gcp: {{ audience: {GCP}, subject: caller, service_account: {{ {account} }} }} }}");
    let CredentialKind::Gcp(gcp) = kind(&world(&text)) else { panic!() };
    let GcpOrigin::Federation(federation) = gcp.origin else { panic!() };
    assert_eq!(federation.scopes, ["https://www.googleapis.com/auth/iam"]);
    assert!(matches!(federation.proof, GcpProof::Caller));
    let account_of = federation.service_account.unwrap();
    assert_eq!(account_of.endpoint.url, "https://iamcredentials.googleapis.com");
    assert!(matches!(&account_of.token, GcpToken::Access { lifetime, .. } if lifetime.as_secs() == 600));
    let text = format!("{{ gcp: {{ audience: {GCP}, service_account: {{ {account}, id_token: {{}} }} }} }}");
    let CredentialKind::Gcp(gcp) = kind(&world(&text)) else { panic!() };
    let GcpOrigin::Federation(federation) = gcp.origin else { panic!() };
    let token = federation.service_account.unwrap().token;
    assert!(matches!(token, GcpToken::Identity { audience: None, include_email: true }));
}

#[test]
fn what_google_would_refuse_is_refused_at_load() {
    let help =
        "write `//iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/NAME`";
    for audience in [
        format!("https:{GCP}"),
        GCP.replace("workloadIdentityPools", "workforcePools"),
        GCP.replace("/12/", "/acme/"),
        format!("{GCP}/"),
    ] {
        refused(
            &format!("{{ gcp: {{ audience: \"{audience}\" }} }}"),
            &format!("gcp_audience: `{audience}` is no provider of a workload identity pool ({help})"),
        );
    }
    refused("{ gcp: {} }", "missing_key: `key` lacks `gcp.audience` (add `gcp.audience: …`)");
    let with = |more: &str| format!("{{ gcp: {{ audience: {GCP}, {more} }} }}");
    refused(
        &with("service_account: { email: ada@example.com }"),
        "gcp_service_account: `ada@example.com` is no service account's address \
         (write `NAME@PROJECT.iam.gserviceaccount.com`)",
    );
    refused(
        &with(&format!("token_subject: \"{}{{{{route}}}}\"", "x".repeat(127))),
        "gcp_subject: the subject has more than 127 bytes (Google takes no longer one: write a shorter one)",
    );
    let longest = format!("token_subject: \"{}{{{{route}}}}:{{{{environment}}}}\"", "x".repeat(124));
    assert!(world(&with(&longest)).load().is_ok());
    refused(
        &with("scopes: [\"a b\"]"),
        "gcp_scope: `a b` is no scope \
         (write one entry for each, such as `https://www.googleapis.com/auth/cloud-platform`)",
    );
    refused(&with("user_project: \"Acme Inc\""), "gcp_project: `Acme Inc` is no project (write its id or its number)");
    refused(
        &with("sts: { url: \"http://sts.example.com\" }"),
        "url_not_https: the endpoint must be an https URL (http is taken for loopback hosts only)",
    );
    refused(
        &with("iam_credentials: { url: \"https://a.test\" }"),
        "gcp_unused: `iam_credentials` does not go with no `service_account` (remove one of them)",
    );
    refused(
        &with("subject: caller, token_subject: x"),
        "gcp_unused: `token_subject` does not go with `subject: caller` (remove one of them)",
    );
    refused(
        &with("metadata_server: {}"),
        "gcp_unused: `audience` does not go with `metadata_server` (remove one of them)",
    );
}

#[test]
fn a_long_life_of_a_token_needs_a_reason() {
    let with = |more: &str| {
        format!("{{ gcp: {{ audience: {GCP}, service_account: {{ email: a@b.iam.gserviceaccount.com, {more} }} }} }}")
    };
    refused(
        &with("lifetime: 2h"),
        "too_long: `2h` is longer than Google lets a token live \
         (at most `1h`, or up to `12h` with `long_lifetime: { reason: … }`)",
    );
    refused(
        &with("lifetime: 30s"),
        "too_short: `30s` is too short for a token to arrive (at least `1m` is needed here)",
    );
    assert!(world(&with("lifetime: 12h, long_lifetime: { reason: nightly exports }")).load().is_ok());
    refused(
        &with("lifetime: 13h, long_lifetime: { reason: nightly exports }"),
        "too_long: `13h` is longer than Google lets a token live (at most `12h` is allowed here)",
    );
    refused(
        &with("id_token: {}, lifetime: 10m"),
        "gcp_unused: `lifetime` does not go with `id_token`, which always lives an hour (remove one of them)",
    );
}

const FILE: &str = r#"{
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/pool/providers/gate",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@acme.iam.gserviceaccount.com:generateAccessToken",
    "credential_source": { "file": "/var/run/token" }
}"#;

fn with_file(from: &str, to: &str) -> World {
    let world = world("{ gcp: { external_account: wif.json } }");
    assert!(FILE.contains(from));
    world.write("wif.json", &FILE.replace(from, to));
    world
}

#[test]
fn the_standard_file_says_whom_to_ask() {
    let CredentialKind::Gcp(gcp) = kind(&with_file("external_account", "external_account")) else { panic!() };
    let GcpOrigin::Federation(federation) = gcp.origin else { panic!() };
    assert_eq!((&*federation.audience, &*federation.sts.url), (GCP, "https://sts.googleapis.com/v1/token"));
    let account = federation.service_account.unwrap();
    assert_eq!(account.email, "a@acme.iam.gserviceaccount.com");
    assert_eq!(account.endpoint.url, "https://iamcredentials.googleapis.com");
}

#[test]
fn a_file_that_would_run_a_program_or_fetch_from_elsewhere_is_refused() {
    let source = r#""file": "/var/run/token""#;
    let own = "Doorward shows a token of its own: make the file with `--credential-source-file`";
    for (to, key) in [
        (r#""executable": { "command": "/bin/sh" }"#, "executable"),
        (r#""url": "http://169.254.169.254/token""#, "url"),
        (r#""environment_id": "aws1", "regional_cred_verification_url": "https://x""#, "environment_id"),
    ] {
        assert_eq!(
            faults(&with_file(source, to)),
            [format!("gcp_external_account: the file would take its token from `credential_source.{key}` ({own})")]
        );
    }
    let google = "hosts end in `.googleapis.com`; name another in";
    for host in ["https://sts.example.com", "https://sts.googleapis.com.evil.test", "http://sts.googleapis.com"] {
        assert_eq!(
            faults(&with_file("https://sts.googleapis.com", host)),
            [format!(
                "gcp_external_account: the file's `token_url` does not lead to Google ({google} `sts.url` if it is meant)"
            )],
            "{host}"
        );
    }
    assert_eq!(
        faults(&with_file("https://iamcredentials.googleapis.com", "https://evil.test")),
        [format!(
            "gcp_external_account: the file's `service_account_impersonation_url` does not lead to Google \
             ({google} `iam_credentials.url` if it is meant)"
        )]
    );
    assert_eq!(
        faults(&with_file("a@acme.iam", "../a@acme.iam")),
        ["gcp_external_account: the file's `service_account_impersonation_url` names no service account \
          (it ends in `/v1/projects/-/serviceAccounts/EMAIL:generateAccessToken`)"]
    );
}

#[test]
fn a_file_of_another_kind_is_refused_without_being_quoted() {
    let world = world("{ gcp: { external_account: wif.json } }");
    world.write("wif.json", r#"{"type":"service_account","private_key":"MIIsecret"}"#);
    assert_eq!(
        faults(&world),
        ["gcp_external_account: the file holds a service account's key, which does not expire \
          (delete the key, and use workload identity federation)"]
    );
    world.write("wif.json", r#"{"type": MIIsecret"#);
    let told = faults(&world);
    assert!(told.len() == 1 && told[0].starts_with("gcp_external_account: the file is no credential configuration"));
    assert!(!told[0].contains("MIIsecret"));
}

#[test]
fn a_host_that_the_configuration_names_itself_is_trusted_in_the_file() {
    let world = world("{ gcp: { external_account: wif.json, sts: { url: \"https://sts.internal/v1/token\" } } }");
    world.write("wif.json", &FILE.replace("https://sts.googleapis.com", "https://sts.internal"));
    assert!(world.load().is_ok());
}

#[test]
fn a_metadata_server_is_on_an_address_that_is_never_routed() {
    let CredentialKind::Gcp(gcp) = kind(&world("{ gcp: { metadata_server: {} } }")) else { panic!() };
    assert!(matches!(&gcp.origin, GcpOrigin::Metadata { url: None, account, .. } if account == "default"));
    let help = "(write `http://HOST` of a loopback or link-local address, or leave it out)";
    for (url, reason) in [
        ("http://10.0.0.1", "plain http is for loopback only"),
        ("https://example.com", "its scheme is not http"),
        ("http://169.254.169.254/x", "it has a path or a query"),
    ] {
        refused(
            &format!("{{ gcp: {{ metadata_server: {{ url: \"{url}\" }} }} }}"),
            &format!("metadata_url: `{url}` is no metadata server: {reason} {help}"),
        );
    }
}

fn azure(more: &str) -> String {
    format!("{{ azure: {{ scope: \"https://storage.azure.com/.default\", {more} }} }}")
}

#[test]
fn an_application_is_asked_for_at_its_own_tenant() {
    let application = format!("tenant: contoso.onmicrosoft.com, client_id: {APP}, federated: {{ subject: gate }}");
    let CredentialKind::Azure(made) = kind(&world(&azure(&application))) else { panic!() };
    let AzureOrigin::Application { url, subject, audience, on_behalf_of_caller, .. } = made.origin else { panic!() };
    assert_eq!(url, "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token");
    assert_eq!((&*subject, &*audience, on_behalf_of_caller), ("gate", "api://AzureADTokenExchange", false));
    let national = format!("{application}, authority_host: \"https://login.microsoftonline.us\"");
    let CredentialKind::Azure(made) = kind(&world(&azure(&national))) else { panic!() };
    assert!(matches!(made.origin, AzureOrigin::Application { url, .. }
        if url == "https://login.microsoftonline.us/contoso.onmicrosoft.com/oauth2/v2.0/token"));
}

#[test]
fn what_entra_would_refuse_is_refused_at_load() {
    let with = |tenant: &str, client: &str, subject: &str, more: &str| {
        azure(&format!("tenant: {tenant}, client_id: {client}, federated: {{ subject: \"{subject}\" }}, {more}"))
    };
    for tenant in ["common", "organizations", "consumers"] {
        refused(
            &with(tenant, APP, "gate", ""),
            &format!("azure_tenant: `{tenant}` is every tenant (name the one that the application is of)"),
        );
    }
    refused(
        &with("\"a/b\"", APP, "gate", ""),
        "azure_tenant: `a/b` is no tenant (write its id, or a domain such as `contoso.onmicrosoft.com`)",
    );
    refused(
        &with(APP, "gate", "gate", ""),
        "azure_client_id: `gate` is no client id (write `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`)",
    );
    refused(
        &with(APP, APP, "doorward:{{route}}", ""),
        "azure_subject: the subject of a federated credential is no template \
         (Entra compares the whole: write it out, and a credential for each)",
    );
    refused(
        &with(APP, APP, "gate", "authority_host: \"https://login.microsoftonline.com/tenant\""),
        "azure_authority: the authority host has a path (leave it out: `tenant` is written for itself)",
    );
    refused(
        &format!(
            "{{ azure: {{ scope: User.Read, tenant: {APP}, client_id: {APP}, federated: {{ subject: gate }} }} }}"
        ),
        "azure_scope: `User.Read` is no scope (write `RESOURCE/.default`: `https://storage.azure.com/.default`)",
    );
    refused(
        &azure(&format!("tenant: {APP}, client_id: {APP}")),
        "missing_key: `key` lacks `azure.federated` (add `azure.federated: …`)",
    );
    refused(
        &azure(&format!("tenant: {APP}, managed_identity: {{ host: imds }}")),
        "azure_unused: `tenant` does not go with `managed_identity` (remove one of them)",
    );
    refused(
        &azure("managed_identity: { host: imds, url: \"http://10.0.0.1\" }"),
        "metadata_url: `url` cannot be asked: plain http is for loopback only \
         (it is `http://` and a loopback or link-local address)",
    );
}

#[test]
fn app_service_gives_its_address_by_the_environment() {
    let world = world(&azure(&format!("managed_identity: {{ host: app_service, client_id: {APP} }}")));
    assert_eq!(
        faults(&world),
        [
            "ambient_missing: the environment has no `IDENTITY_ENDPOINT` (App Service sets it once the app has an identity)",
            "ambient_missing: the environment has no `IDENTITY_HEADER` (App Service sets it once the app has an identity)",
        ]
    );
    let load = |endpoint: &'static str| {
        let environment = Environment::of(move |name| match name {
            "IDENTITY_ENDPOINT" => Some(endpoint.to_owned()),
            "IDENTITY_HEADER" => Some("h3ader".to_owned()),
            _ => None,
        });
        load_with(&world.path().join("doorward.yaml"), &environment)
    };
    let checked = load("http://127.0.0.1:41000/msi/token").unwrap_or_else(|faults| panic!("{faults:?}"));
    let kind = &checked.credentials.iter().find(|credential| credential.name == "key").unwrap().kind;
    let CredentialKind::Azure(made) = kind else { panic!() };
    let AzureOrigin::ManagedIdentity { host: AzureHost::AppService { url, .. }, client_id } = &made.origin else {
        panic!()
    };
    assert_eq!((&**url, client_id.as_deref()), ("http://127.0.0.1:41000/msi/token", Some(APP)));
    assert!(load("http://169.254.129.2:8081/msi/token").is_ok());
    for elsewhere in ["http://203.0.113.1/msi/token", "https://example.com/msi/token", "/msi/token"] {
        assert!(load(elsewhere).is_err(), "{elsewhere}");
    }
}

#[test]
fn a_credential_of_the_callers_token_is_for_routes_that_take_bearer_tokens_alone() {
    let on_behalf =
        azure(&format!("tenant: {APP}, client_id: {APP}, federated: {{ subject: gate }}, on_behalf_of: caller"));
    for credential in [on_behalf, format!("{{ gcp: {{ audience: {GCP}, subject: caller }} }}")] {
        let world = world(&credential);
        world.replace("policies/rules.yaml", "credential: assertion", "credential: key");
        let told = faults(&world);
        assert!(told.len() == 1 && told[0].starts_with("caller_token_missing: credential `key`"), "{told:?}");
    }
}
