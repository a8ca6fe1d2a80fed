//! Credentials that others issue: what each fault of them says.

use super::world::World;

const AWS: &str = r#"  cloud:
    aws:
      role: arn:aws:iam::123456789012:role/reports
      region: eu-central-1
      services: [s3]
      tags: { team: "{{claim.team}}" }
      session_policy:
        - actions: [s3:GetObject]
          resources: ["arn:aws:s3:::reports/{{path.rest}}"]
"#;
const POLICY: &str = r#"      session_policy:
        - actions: [s3:GetObject]
          resources: ["arn:aws:s3:::reports/{{path.rest}}"]
"#;
const EXCHANGE: &str = r#"  swapped:
    token_exchange:
      endpoint:
        url: https://login.example.com/token
        client: { id: doorward, secret: file:api.secret }
      subject: doorward
      parameters: { audience: payroll }
"#;

/// A whole configuration in which the route `invoices` has this credential.
fn with(credential: &str, name: &str) -> World {
    let open = "  open: { none";
    let world = World::with("doorward.yaml", open, &format!("{credential}{open}"));
    world.replace("policies/rules.yaml", "credential: assertion", &format!("credential: {name}"));
    world
}

/// The same where the upstream is reached by TLS.
fn secure(credential: &str) -> World {
    secured(with(credential, "cloud"))
}

fn secured(world: World) -> World {
    world.replace(
        "doorward.yaml",
        "addresses: [http://10.0.0.7:8080, http://10.0.0.8:8080]",
        "addresses: [https://10.0.0.7]",
    );
    world
}

/// Spoils one text of a credential, and expects exactly one fault whose text begins so, past its place.
#[track_caller]
fn spoiled((credential, name): (&str, &str), from: &str, to: &str, fault: &str) {
    assert_eq!(credential.matches(from).count(), 1, "`{from}` must stand once");
    let told = secured(with(&credential.replace(from, to), name)).told();
    let [only] = told.as_slice() else { panic!("{told:#?}") };
    let (place, text) = only.split_once(' ').unwrap();
    assert!(text.starts_with(fault), "{only}");
    assert!(place.contains(".yaml:") && only.ends_with(')'), "place and mend: {only}");
}

#[test]
fn a_sound_credential_of_each_kind_is_taken() {
    for (credential, name) in [(AWS, "cloud"), (EXCHANGE, "swapped")] {
        if let Err(faults) = secured(with(credential, name)).load() {
            panic!("{}", faults.render(false, 100));
        }
    }
}

#[test]
fn what_aws_would_refuse_is_refused_at_load() {
    let aws = |from, to, fault| spoiled((AWS, "cloud"), from, to, fault);
    aws("arn:aws:iam::123456789012:role/reports", "reports", "role_arn: `reports` is no role");
    aws("arn:aws:iam::123456789012:role/reports", "arn:aws:iam::12345x:role/reports", "role_arn: ");
    aws("arn:aws:iam::123456789012:role/reports", "arn:aws:iam::12345:role/reports", "role_arn: ");
    aws("eu-central-1", "Frankfurt", "aws_name: `Frankfurt` is no region");
    aws("services: [s3]", "services: []", "empty_list: ");
    aws("services: [s3]", "services: [s3]\n      duration: 10m", "too_short: `10m` is shorter than any session");
    aws("services: [s3]", "services: [s3]\n      duration: 13h", "too_long: ");
    aws("services: [s3]", "services: [s3]\n      external_id: x", "aws_subject: `external_id` does not go");
    aws("services: [s3]", "services: [s3]\n      subject: ambient", "missing_key: `cloud` lacks `aws.ambient`");
    aws(
        "services: [s3]",
        "services: [s3]\n      subject: ambient\n      ambient: container",
        "ambient_missing: the environment has no `AWS_CONTAINER_CREDENTIALS_FULL_URI`",
    );
    aws("services: [s3]", "services: [s3]\n      transitive_tags: [cost]", "session_tag: `cost` is none of the `tags`");
    aws("services: [s3]", "services: [s3]\n      session_name: \"\"", "empty_value: ");
    aws("services: [s3]", "services: [s3]\n      source_identity: \" \"", "empty_value: ");
    aws("tags: { team:", "tags: { \"AWS:team\":", "session_tag: session tags such as `AWS:team`");
    aws("services: [s3]", "services: [s3]\n      signed_body: 1GiB", "too_large: ");
    aws("services: [s3]", "services: [s3]\n      sts: { url: \"http://sts.example.com\" }", "url_not_https: ");
    aws("{{claim.team}}", "{{claims.team}}", "template: `{{claims.team}}`: `claims.team` is no variable");
    aws("{{claim.team}}", "{{claim.team", "template: `{{claim.team`: `{{` has no `}}` after it");
}

#[test]
fn managed_policies_narrow_and_stand_alone() {
    let arns =
        |arns: &str, fault: &str| spoiled((AWS, "cloud"), POLICY, &format!("      policy_arns: {arns}\n"), fault);
    arns("[]", "empty_list: ");
    for arn in
        ["ReadOnly", "arn:x", "arn:aws:iam::12345:policy/a", "arn:aws:iam::aws:role/a", "arn:aws:iam::aws:policy/*"]
    {
        arns(&format!("[\"{arn}\"]"), &format!("arn: `{arn}` is no ARN of a managed policy"));
    }
    let everything = "arn:aws:iam::aws:policy/AdministratorAccess";
    arns(&format!("[\"{everything}\"]"), &format!("session_policy_wide: `{everything}` narrows nothing"));
    let narrow = "      policy_arns: [\"arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess\"]\n";
    assert!(secure(&AWS.replace(POLICY, narrow)).load().is_ok());
    spoiled(
        (AWS, "cloud"),
        POLICY,
        &format!("{POLICY}{narrow}"),
        "session_policies: AWS adds what `policy_arns` allow",
    );
}

#[test]
fn a_session_policy_narrows_or_says_why_it_does_not() {
    let aws = |from, to, fault| spoiled((AWS, "cloud"), from, to, fault);
    aws("[s3:GetObject]", "[\"s3:*\"]", "session_policy_wide: `s3:*` narrows nothing");
    aws("[s3:GetObject]", "[\"*\"]", "session_policy_wide: `*` narrows nothing");
    for action in ["s3:?*", "s3:", "s?:GetObject", "*:GetObject"] {
        let fault = format!("session_policy_wide: `{action}` narrows nothing");
        spoiled((AWS, "cloud"), "[s3:GetObject]", &format!("[\"{action}\"]"), &fault);
    }
    let resources = [
        "*",
        "arn:*",
        "arn:aws:s3*",
        "arn:aws:*:::*",
        "arn:aws:*:::reports",
        "arn:aws:s3:::*/*",
        "arn:aws:s3:::",
        "arn:aws:dynamodb:*:*:table/*",
        "arn:aws:lambda:eu-central-1:123456789012:function:*",
        "arn:aws:s3:::{{path.rest}}*",
        "arn:{{path.rest}}",
        "arn:{{claim.a}}:s3:::reports",
    ];
    for resource in resources {
        let fault = format!("session_policy_wide: `{resource}` narrows nothing");
        spoiled((AWS, "cloud"), "arn:aws:s3:::reports/{{path.rest}}", resource, &fault);
    }
    let variable = "arn:aws:s3:::reports/${aws:username}";
    aws("arn:aws:s3:::reports/{{path.rest}}", variable, "session_policy_variable: ");
    let indexes = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/index/*";
    assert!(secure(&AWS.replace("arn:aws:s3:::reports/{{path.rest}}", indexes)).load().is_ok());
    aws("[s3:GetObject]", "[GetObject]", "session_policy_action: `GetObject` is no action");
    aws("arn:aws:s3:::reports/{{path.rest}}", "reports", "arn: `reports` is no ARN");
    aws("arn:aws:s3:::reports/", &format!("arn:aws:s3:::{}/", "a".repeat(2000)), "session_policy_large: ");
    let reasoned = "[\"s3:*\"]\n          wildcard: { reason: the whole prefix is theirs }";
    assert!(secure(&AWS.replace("[s3:GetObject]", reasoned)).load().is_ok());
}

#[test]
fn a_session_that_keeps_the_whole_role_says_why_and_keys_do_not_cross_the_network_in_the_clear() {
    spoiled((AWS, "cloud"), POLICY, "", "session_policy_missing: sessions of credential `cloud` keep all");
    let reasoned = "      whole_role: { reason: the role itself is narrow }\n";
    spoiled((AWS, "cloud"), POLICY, &format!("{POLICY}{reasoned}"), "session_policy_unused: ");
    assert!(secure(&AWS.replace(POLICY, reasoned)).load().is_ok());
    let told = with(AWS, "cloud").told();
    assert!(told.len() == 1 && told[0].contains("aws_plain_upstream: upstream `billing`"), "{told:?}");
}

#[test]
fn a_route_must_catch_what_its_credential_is_made_of() {
    spoiled((AWS, "cloud"), "{{path.rest}}", "{{path.team}}", "template_parameter: credential `cloud` needs `{team}`");
}

#[test]
fn a_credential_of_the_callers_token_takes_no_other_evidence() {
    let subject = "subject: doorward";
    spoiled((EXCHANGE, "swapped"), subject, "subject: caller", "caller_token_missing: credential `swapped` is made of");
    let caller = AWS
        .replace("services: [s3]", "services: [s3]\n      subject: caller")
        .replace("      tags: { team: \"{{claim.team}}\" }\n", "");
    let told = secure(&caller).told();
    assert!(told.iter().all(|fault| fault.contains("caller_token_missing")), "{told:?}");
}

#[test]
fn what_an_authorization_server_could_not_take_is_refused_at_load() {
    let exchange = |from, to, fault| spoiled((EXCHANGE, "swapped"), from, to, fault);
    exchange("https://login", "http://login", "url_not_https: ");
    exchange("audience: payroll", "subject_token: x", "parameter_own: `subject_token` is written by the grant itself");
    exchange("secret: file:api.secret", "secret: hunter2", "secret_inline: ");
    exchange("secret: file:api.secret", "secret: file:api.secret, authentication: private_key_jwt", "secret_unused: ");
    exchange("secret: file:api.secret", "authentication: client_secret_post", "missing_key: ");
    exchange("parameters:", "lifetime: 1s\n      parameters:", "too_short: ");
    exchange("subject: doorward", "header: Content-Length\n      subject: doorward", "header_reserved: ");
}

#[test]
fn nothing_is_used_from_two_environments_unless_both_are_named() {
    let staging = |world: &World| {
        world.write(
            "policies/staging.yaml",
            "routes:\n  trial:\n    host: trial.example.com\n    path: /{*rest}\n    environment: staging\n    upstream: billing\n    \
             credential: assertion\n    accept: { issuers: [okta], evidence: [bearer] }\n",
        );
    };
    let world = World::new();
    staging(&world);
    let told = world.told();
    assert_eq!(told.len(), 2, "{told:#?}");
    for (fault, what, name) in [(&told[0], "credential", "assertion"), (&told[1], "issuer", "okta")] {
        assert!(fault.starts_with("policies/staging.yaml:") && fault.contains("environment_crossed"), "{fault}");
        assert!(fault.contains(&format!("route `trial` of `staging` uses {what} `{name}`, and so does ")), "{fault}");
        assert!(fault.contains("of `production` (declare one"), "{fault}");
    }
    world.replace(
        "doorward.yaml",
        "    principal: [uid]",
        "    principal: [uid]\n    environments: [production, staging]",
    );
    let assertion = "{ signed_assertion: { algorithm: ES256, lifetime: 5m } }";
    world.replace("doorward.yaml", assertion, "{ signed_assertion: {}, environments: [production] }");
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("route `trial` of `staging` uses credential `assertion` of `production`"), "{told:?}");
    world.replace("doorward.yaml", "environments: [production] }", "environments: [production, staging] }");
    assert!(world.load().is_ok());
}
