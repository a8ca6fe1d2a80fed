use serde_json::json;

use crate::support::World;

#[test]
fn credentials_are_listed_with_the_routes_that_use_them() {
    let world = World::new();
    let output = world.run(&["creds", "list"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.contains("signed_assertion"), "{}", output.stdout);
    let listed = world.run(&["creds", "list", "--json"]).json();
    assert!(listed["credentials"].as_array().is_some_and(|list| !list.is_empty()), "{listed}");
}

#[test]
fn a_route_that_is_not_there_is_said_with_those_that_are() {
    let world = World::new();
    let output = world.run(&["creds", "mint", "--dry-run", "--route", "none"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("no route is named `none`; there are "), "{}", output.stderr);
    assert_eq!(world.run(&["creds", "mint", "--route", "none"]).code, 2, "nothing but a dry run is offered");
}

#[test]
fn a_token_is_printed_in_the_form_that_sdks_take() {
    let world = World::new();
    let token = |exp: i64| {
        use base64::Engine as _;
        let encode =
            |value: serde_json::Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", encode(json!({ "alg": "ES256" })), encode(json!({ "sub": "x", "exp": exp })))
    };
    let good = token(4_102_444_800);
    world.write("token.jwt", &format!("{good}\n"));
    let output = world.run(&["creds", "process", "--token", "token.jwt"]);
    let printed = output.json();
    assert_eq!((output.code, &printed["Version"]), (0, &json!(1)), "{}", output.stderr);
    assert_eq!((&printed["SessionToken"], &printed["Expiration"]), (&json!(good), &json!("2100-01-01T00:00:00.000Z")));
    world.write("token.jwt", &token(1));
    let output = world.run(&["creds", "process", "--token", "token.jwt"]);
    assert!(output.code == 3 && output.stderr.contains("ended at 1970-01-01"), "{}", output.stderr);
    world.write("token.jwt", "opaque");
    assert_eq!(world.run(&["creds", "process", "--token", "token.jwt"]).code, 2);
}

/// A world in which the invoices are objects of S3.
fn with_objects() -> World {
    let world = World::new();
    world.replace(
        "doorward.yaml",
        "  open: { none",
        "  objects:\n    aws:\n      role: arn:aws:iam::123456789012:role/invoices\n      region: eu-central-1\n      services: [s3]\n      \
         source_identity: \"{{principal.subject}}\"\n      session_policy:\n        - actions: [s3:GetObject]\n          \
         resources: [\"arn:aws:s3:::invoices/{{path.rest}}\"]\n  open: { none",
    );
    world.replace(
        "policies/rules.yaml",
        "    credential: assertion\n    accept: { issuers: [okta, ci]",
        "    credential: objects\n    accept: { issuers: [okta, ci]",
    );
    world.write("claims.json", &json!({ "uid": "00u1", "groups": ["admins"] }).to_string());
    world
}

#[test]
fn a_dry_run_shows_what_would_be_asked_of_whom_and_leaves_nothing_behind() {
    let world = with_objects();
    let mint = |path: &str| {
        let asked = ["creds", "mint", "--dry-run", "--route", "invoices", "--path", path];
        world.run(&[&asked[..], &["--issuer", "okta", "--as", "claims.json"]].concat())
    };
    let output = mint("/invoices/2026/7.pdf");
    let shown = output.json();
    assert_eq!((output.code, &shown["decision"], &shown["kind"]), (0, &json!("allow"), &json!("aws")), "{shown:#}");
    let request = &shown["request"];
    assert_eq!(request["role"], "arn:aws:iam::123456789012:role/invoices");
    assert_eq!(request["endpoint"], "https://sts.eu-central-1.amazonaws.com/");
    assert_eq!(
        (&request["action"], &request["source_identity"]),
        (&json!("AssumeRoleWithWebIdentity"), &json!("00u1"))
    );
    assert_eq!(request["by"]["sub"], "doorward:production:invoices");
    assert_eq!(request["policy"]["Statement"][0]["Resource"], json!(["arn:aws:s3:::invoices/2026/7.pdf"]));
    assert!(request["session_name"].as_str().unwrap().starts_with("okta-00u1-"), "{request}");
    assert!(!world.path().join("state").exists(), "a dry run makes no keys");

    let hostile = mint("/invoices/*");
    let shown = hostile.json();
    assert_eq!((hostile.code, &shown["code"]), (1, &json!("credential_value_refused")), "{shown:#}");
    world.write("claims.json", &json!({ "uid": "00u1", "groups": [] }).to_string());
    let denied = mint("/invoices/7");
    assert_eq!((denied.code, &denied.json()["code"]), (1, &json!("not_permitted")));
}

#[test]
fn the_trust_policy_is_written_from_the_configuration() {
    let world = with_objects();
    let output = world.run(&["export", "trust", "--credential", "objects"]);
    let statement = &output.json()["Statement"][0];
    let provider = "api.example.com/.doorward";
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(statement["Principal"]["Federated"], format!("arn:aws:iam::123456789012:oidc-provider/{provider}"));
    assert_eq!(statement["Action"], json!(["sts:AssumeRoleWithWebIdentity", "sts:SetSourceIdentity"]));
    let equals = &statement["Condition"]["StringEquals"];
    assert_eq!(equals[format!("{provider}:aud")], "sts.amazonaws.com");
    assert_eq!(equals[format!("{provider}:sub")], json!(["doorward:production:invoices"]));
    for (name, said) in
        [("open", "nothing of Doorward's own to tell"), ("none", "no credential is named `none`; there are ")]
    {
        let output = world.run(&["export", "trust", "--credential", name]);
        assert!(output.code == 2 && output.stderr.contains(said), "{}", output.stderr);
    }
}

/// What is to be pasted for a credential on the route of the invoices.
fn exported(credential: &str) -> String {
    let world = World::new();
    world.replace("doorward.yaml", "  open: { none", &format!("{credential}  open: {{ none"));
    world.replace(
        "policies/rules.yaml",
        "    credential: assertion\n    accept: { issuers: [okta, ci]",
        "    credential: other\n    accept: { issuers: [okta, ci]",
    );
    let output = world.run(&["export", "trust", "--credential", "other"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    output.stdout
}

#[test]
fn a_vault_is_told_in_commands_of_the_least_that_it_may_give_and_to_whom() {
    let vault = |settings: &str| {
        let address = "address: https://vault.example.com, namespace: team, login: { role: billing }";
        exported(&format!("  other: {{ vault: {{ {address}, {settings} }} }}\n"))
    };
    let commands = vault("kv: { path: \"apps/x-{{path.rest}}/y\", field: key, header: X-Key }");
    assert!(
        commands.starts_with("set -e\n# Once for the mount: bao auth enable -namespace=team -path=jwt jwt\n"),
        "{commands}"
    );
    let [_, _, method, policy, role] = commands.split("bao ").collect::<Vec<_>>().try_into().unwrap();
    let body = |command: &str| -> serde_json::Value {
        let (_, body) = command.split_once("<<'END'\n").unwrap();
        serde_json::from_str(body.strip_suffix("\nEND\n").unwrap()).unwrap()
    };
    assert!(method.starts_with("write -namespace=team auth/jwt/config - <<"), "{method}");
    assert_eq!(body(method)["jwks_url"], "https://api.example.com/.doorward/jwks.json");
    let rule = "path \"secret/data/apps/+/y\" { capabilities = [\"read\"] }";
    assert_eq!(policy, format!("policy write -namespace=team billing - <<'END'\n{rule}\nEND\n"));
    assert!(role.starts_with("write -namespace=team auth/jwt/role/billing - <<"), "{role}");
    let role = body(role);
    assert_eq!(
        role["bound_claims"],
        json!({ "environment": ["production"] }),
        "a subject that is anybody binds nothing"
    );
    assert_eq!(
        (&role["bound_audiences"], &role["token_policies"]),
        (&json!(["https://vault.example.com"]), &json!(["billing"]))
    );

    let commands = vault("token_subject: \"doorward:{{route}}\", database: { role: \"app-{{environment}}\" }");
    assert!(commands.contains("path \"database/creds/app-production\" { capabilities = [\"read\"] }"), "{commands}");
    assert!(commands.contains("path \"sys/leases/revoke\" { capabilities = [\"update\"] }"), "{commands}");
    let role = body(commands.rsplit("bao ").next().unwrap());
    assert_eq!(
        (&role["bound_claims"]["sub"], &role["bound_claims_type"]),
        (&json!(["doorward:invoices"]), &json!("string"))
    );
}

#[test]
fn google_is_told_in_commands_which_subjects_may_come() {
    let gcp = |settings: &str| {
        let provider = "//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/gate/providers/doorward";
        exported(&format!("  other: {{ gcp: {{ audience: \"{provider}\", {settings} }} }}\n"))
    };
    let commands =
        gcp("service_account: { email: b@acme.iam.gserviceaccount.com, delegates: [a@acme.iam.gserviceaccount.com] }");
    let condition = r#"--attribute-condition='assertion.sub in ["doorward:production:invoices"]'"#;
    assert!(commands.contains(condition), "{commands}");
    for (account, member) in [
        (
            "a@acme",
            "principal://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/gate/subject/doorward:production:invoices",
        ),
        ("b@acme", "serviceAccount:a@acme.iam.gserviceaccount.com"),
    ] {
        let binding = format!(
            "add-iam-policy-binding {account}.iam.gserviceaccount.com \\\n  --role=roles/iam.serviceAccountTokenCreator \\\n  --member={member}\n"
        );
        assert!(commands.contains(&binding), "{commands}");
    }
    let commands = gcp("token_subject: \"it's.{{principal.subject}}\"");
    let condition = r#"--attribute-condition='assertion.sub.matches("^it\\'\''s\\..*$")'"#;
    assert!(commands.contains(condition), "{commands}");
    assert!(commands.contains("principalSet://iam.googleapis.com/projects/7/"), "{commands}");
}
