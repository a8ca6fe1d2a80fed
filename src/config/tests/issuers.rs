use super::world::{World, spoiled_in};

/// Spoils `doorward.yaml` in one place and expects exactly one fault.
#[track_caller]
fn spoiled(from: &str, to: &str, place_and_code: &str, message: &str, help: &str) {
    spoiled_in("doorward.yaml", (from, to), place_and_code, message, help);
}

#[test]
fn leeway_and_assertions_live_five_minutes_at_most() {
    spoiled("leeway: 60s", "leeway: 6m", "34:13 too_long", "`6m` is longer than `5m`", "at most `5m` is allowed here");
    spoiled(
        "lifetime: 5m",
        "lifetime: 301s",
        "56:64 too_long",
        "`301s` is longer than `5m`",
        "at most `5m` is allowed here",
    );
    spoiled(
        "lifetime: 5m",
        "lifetime: 1s",
        "56:64 too_short",
        "`1s` is too short for an assertion to arrive",
        "at least `10s` is needed here",
    );
    spoiled(
        "rotate_every: 30d",
        "rotate_every: 1m",
        "54:17 too_short",
        "`1m` is too short for upstreams to follow",
        "at least `1d` is needed here",
    );
}

#[test]
fn an_issuer_is_a_https_url() {
    spoiled(
        "https://acme.okta.com/",
        "http://acme.okta.com/",
        "25:13 url_not_https",
        "an issuer must be an https URL",
        "http is taken for loopback hosts only",
    );
    spoiled(
        "https://acme.okta.com/",
        "acme.okta.com/",
        "25:13 url",
        "`acme.okta.com/oauth2/default` is not a URL",
        "an issuer is written as `https://HOST/…`",
    );
    spoiled(
        "oauth2/default",
        "oauth2/default?x=1",
        "25:13 url",
        "an issuer holds a user, a query or a fragment",
        "leave them out",
    );
    let local = World::with("doorward.yaml", "https://acme.okta.com/", "http://127.0.0.1:4000/");
    assert!(local.load().is_ok(), "a development issuer on this machine may speak http");
}

#[test]
fn what_guards_an_issuer_is_never_empty_or_missing() {
    spoiled(
        "audience: [api://acme]",
        "audience: []",
        "27:15 empty_list",
        "`audience` is empty",
        "name at least one; an empty list guards nothing",
    );
    spoiled("    audience: [api://acme]\n", "", "24:3 missing_key", "`okta` lacks `audience`", "add `audience: …`");
    spoiled(
        "    algorithms: [RS256]\n    keys: { discovery: {} }",
        "    keys: { discovery: {} }",
        "24:3 missing_key",
        "`okta` lacks `algorithms`",
        "add `algorithms: …`",
    );
    spoiled(
        "algorithms: [RS256]\n    keys: { discovery: {} }",
        "algorithms: []\n    keys: { discovery: {} }",
        "28:17 empty_list",
        "`algorithms` is empty",
        "name at least one; an empty list guards nothing",
    );
    spoiled(
        "principal: [uid]",
        "principal: []",
        "30:16 empty_list",
        "`principal` is empty",
        "name at least one; an empty list guards nothing",
    );
    spoiled(
        "keys: { discovery: {} }",
        "keys: {}",
        "29:11 keys_kind",
        "keys come from exactly one place",
        "name exactly one of `discovery: {}`, `jwks_uri: https://…` and `file: keys.json`",
    );
    spoiled(
        "keys: { discovery: {} }",
        "keys: { discovery: {}, file: keys.json }",
        "29:11 keys_kind",
        "keys come from exactly one place",
        "name exactly one of `discovery: {}`, `jwks_uri: https://…` and `file: keys.json`",
    );
    spoiled(
        "forbidden_claims: { act: [] }",
        "required_claims: { act: [] }",
        "31:29 empty_list",
        "`act` of `required_claims` takes no value at all",
        "name the values of which any will do",
    );
}

#[test]
fn only_asymmetric_algorithms_are_accepted() {
    let keys = "algorithms: [RS256]\n    keys: { discovery";
    spoiled(
        keys,
        "algorithms: [HS256]\n    keys: { discovery",
        "28:18 algorithm",
        "algorithm `HS256` is not accepted",
        "only asymmetric signatures say who made them; most issuers sign with RS256 or ES256",
    );
    spoiled(
        keys,
        "algorithms: [none]\n    keys: { discovery",
        "28:18 algorithm",
        "algorithm `none` is not accepted",
        "only asymmetric signatures say who made them; most issuers sign with RS256 or ES256",
    );
    spoiled(
        keys,
        "algorithms: [RS265]\n    keys: { discovery",
        "28:18 algorithm",
        "algorithm `RS265` is not accepted",
        "did you mean `RS256`?",
    );
}

/// Makes `okta` another issuer with another principal.
fn named_by(issuer: &str, principal: &str) -> World {
    let world = World::with("doorward.yaml", "https://acme.okta.com/oauth2/default", issuer);
    world.replace("doorward.yaml", "principal: [uid]", &format!("principal: [{principal}]"));
    world
}

#[test]
fn a_principal_is_never_named_by_what_changes_hands() {
    let okta = "name the principal by Okta's `uid`: `sub` is the login name";
    for (issuer, principal, told, help) in [
        ("https://acme.okta.com/oauth2/default", "email", "`email`", okta),
        ("https://acme.okta.com/oauth2/default", "sub", "`sub`", okta),
        ("https://acme.oktapreview.com/oauth2/aus1", "sub, profile.name", "`sub`, `profile.name`", okta),
        (
            "https://id.example.com",
            "upn, profile.name",
            "`upn`, `profile.name`",
            "name the principal by an immutable claim, such as `sub` where the issuer promises that, or Entra's `oid`",
        ),
    ] {
        let told =
            format!("doorward.yaml:30:16 principal_mutable: {told} can be changed and given to somebody else ({help})");
        assert_eq!(named_by(issuer, principal).told(), [told]);
    }
    for (issuer, principal) in [
        ("https://acme.okta.com/oauth2/default", "uid, email"),
        ("https://acme.okta.com", "sub"),
        ("https://id.example.com", "sub"),
        ("https://okta.com.example.com/oauth2/default", "sub"),
    ] {
        assert!(named_by(issuer, principal).load().is_ok(), "{issuer} {principal}");
    }
}

#[test]
fn the_names_of_repositories_and_projects_name_no_principal() {
    let github = "name the principal by `repository_owner_id` and `repository_id`";
    let pinned = r#"    required_claims: { repository_owner_id: "42", repository_id: "7" }"#;
    for claim in ["sub", "repository", "repository_owner", "actor", "repository_owner, sub"] {
        let world = World::with("doorward.yaml", "[repository_owner_id, repository_id]", &format!("[{claim}]"));
        world.replace("doorward.yaml", r#"    required_claims: { repository_owner_id: "42" }"#, pinned);
        let told = world.told();
        assert!(told.len() == 1 && told[0].starts_with("doorward.yaml:47:16 principal_mutable: `"), "{told:?}");
        assert!(told[0].ends_with(&format!("({github})")), "{told:?}");
    }
    for claim in ["sub", "owner", "project", "owner, project, environment"] {
        let told = vercel(claim, "{ owner_id: team_1, project_id: prj_1, environment: production }").told();
        let help = "(name the principal by `owner_id`, `project_id` and `environment`)";
        assert!(told.len() == 1 && told[0].contains("principal_mutable") && told[0].ends_with(help), "{told:?}");
    }
}

/// Makes `ci` Vercel.
fn vercel(principal: &str, required: &str) -> World {
    let github = "issuer: https://token.actions.githubusercontent.com";
    let world = World::with("doorward.yaml", github, "issuer: https://oidc.vercel.com/acme");
    world.replace("doorward.yaml", "[repository_owner_id, repository_id]", &format!("[{principal}]"));
    let before = r#"required_claims: { repository_owner_id: "42" }"#;
    world.replace("doorward.yaml", before, &format!("required_claims: {required}"));
    world
}

#[test]
fn an_issuer_that_signs_for_everybody_is_bound_to_one_customer_by_value() {
    // To name the ids in `principal` tells strangers apart, and lets all of them in.
    spoiled(
        "    required_claims: { repository_owner_id: \"42\" }\n",
        "",
        "42:13 issuer_shared",
        "GitHub Actions signs for all its customers, and nothing here says which value of `repository_owner_id` or \
         `repository_id` is yours",
        "give `repository_owner_id` or `repository_id` a value in `required_claims`; `principal` alone binds nobody",
    );
    spoiled(
        "[repository_owner_id, repository_id]",
        "[repository_owner_id]",
        "42:13 issuer_shared",
        "callers of GitHub Actions who differ in `repository_id` would be one principal",
        "add `repository_id` to `principal`, or a value to `required_claims`",
    );
    let all = "owner_id, project_id, environment";
    assert_eq!(
        vercel(all, "{}").told(),
        [
            "doorward.yaml:42:13 issuer_shared: Vercel signs for all its customers, and nothing here says which value of \
          `owner_id` or `project_id`, and of `environment` is yours (give `owner_id` or `project_id`, and \
          `environment` a value in `required_claims`; `principal` alone binds nobody)"
        ]
    );
    for open in ["{ owner_id: team_1 }", "{ environment: production }"] {
        let told = vercel(all, open).told();
        assert!(told.len() == 1 && told[0].contains("issuer_shared"), "{open}: {told:?}");
    }
    assert!(vercel(all, "{ owner_id: team_1, environment: [production, staging] }").load().is_ok());
}

#[test]
fn google_is_bound_to_one_organisation_or_one_service_account() {
    let google = |required: &str| {
        let world = named_by("https://accounts.google.com", "sub");
        world.replace("doorward.yaml", "forbidden_claims: { act: [] }", &format!("required_claims: {required}"));
        world
    };
    assert_eq!(
        google("{}").told(),
        [
            "doorward.yaml:25:13 issuer_shared: Google signs for all its customers, and nothing here says which value of \
          `hd` or `sub` is yours (give `hd` or `sub` a value in `required_claims`; `principal` alone binds nobody)"
        ]
    );
    assert!(google("{ hd: example.com }").load().is_ok());
    assert!(google("{ sub: [\"101\", \"102\"] }").load().is_ok());
    assert!(named_by("https://accounts.google.com.example.com", "sub").load().is_ok());
}

#[test]
fn one_issuer_has_one_entry_and_one_name() {
    spoiled(
        "https://token.actions.githubusercontent.com",
        "https://acme.okta.com/oauth2/default",
        "42:13 issuer_twice",
        "two entries stand for the issuer `https://acme.okta.com/oauth2/default`",
        "a token is matched to one entry by its `iss`; make them one",
    );
    let world = World::with("doorward.yaml", "  mesh:\n", "  okta:\n");
    assert_eq!(
        world.told(),
        [
            "doorward.yaml:50:3 name_twice: issuer `okta` is declared twice (it is first declared at doorward.yaml:24:3; rename or remove one)",
            "policies/rules.yaml:23:27 unknown_issuer: issuer `mesh` is not declared (known are `ci`, `okta`)"
        ]
    );
    let world = World::with("doorward.yaml", "  sidecar:\n", "  \"side|car\":\n");
    assert_eq!(
        world.told(),
        [
            "doorward.yaml:16:3 name: `side|car` cannot be the name of a listener (use at most 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit)"
        ]
    );
}

#[test]
fn claims_and_attributes_can_be_read_by_policies() {
    spoiled(
        "{ claim: department,",
        "{ claim: a..b,",
        "33:28 claim_path",
        "`a..b` is not the path of a claim",
        "part nested claims by a dot; write a dot inside a name as `\\.`",
    );
    spoiled(
        "      department: {",
        "      cost-centre: {",
        "33:7 attribute_name",
        "`cost-centre` cannot be the name of an attribute",
        "use letters, digits and `_`, beginning with a letter",
    );
    spoiled(
        "      department: {",
        "      subject: {",
        "33:7 attribute_name",
        "every principal has an attribute `subject` already",
        "give it another name",
    );
}

#[test]
fn login_belongs_to_people_and_needs_an_origin_and_state() {
    spoiled(
        "principals: users",
        "principals: workloads",
        "36:7 login_of_workloads",
        "issuer `okta` has workloads as callers, which use no browser",
        "remove `login`, or write `principals: users`",
    );
    let world = World::with("doorward.yaml", "external_origin: https://api.example.com\n", "");
    assert_eq!(
        world.told(),
        [
            "doorward.yaml:23:3 external_origin: issuer `okta` has `login`, which needs `external_origin` (add `external_origin: https://HOST`, as browsers see it)",
            "doorward.yaml:55:3 assertion_issuer: credential `assertion` signs assertions, but their issuer is not known (add `external_origin`, or `assertions: { issuer: … }`)"
        ]
    );
    spoiled(
        "state:\n  dir: state\n",
        "",
        "22:3 state_dir",
        "`okta` has `login`, which needs `state.dir`",
        "add `state: { dir: /var/lib/doorward }` for keys and sessions",
    );
    spoiled(
        "external_origin: https://api.example.com",
        "external_origin: https://api.example.com/app",
        "1:18 origin",
        "`https://api.example.com/app` is not an origin",
        "an origin is scheme, host and port, without a path: `https://api.example.com`",
    );
    spoiled(
        "external_origin: https://api.example.com",
        "external_origin: http://api.example.com",
        "1:18 url_not_https",
        "`external_origin` must be an https URL",
        "http is taken for loopback hosts only",
    );
    spoiled(
        "scopes: [openid, offline_access]",
        "scopes: [profile]",
        "38:15 scope_openid",
        "`scopes` lacks `openid`",
        "without it the issuer sends no ID token",
    );
    spoiled(
        "idle: 30m",
        "idle: 13h",
        "39:13 idle",
        "`idle` is longer than `longest`",
        "a session ends by whichever comes first",
    );
    spoiled(
        "      client_id: client\n",
        "",
        "24:3 missing_key",
        "`okta` lacks `login.client_id`",
        "add `login.client_id: …`",
    );
}

#[test]
fn certificate_issuers_stand_for_listeners_that_ask_for_certificates() {
    spoiled(
        "listeners: [public]",
        "listeners: [publik]",
        "51:17 unknown_listener",
        "listener `publik` is not declared",
        "did you mean `public`?",
    );
    spoiled(
        "listeners: [public]",
        "listeners: [sidecar]",
        "51:17 no_client_certificates",
        "listener `sidecar` asks for no client certificate",
        "add `tls.client_certificates` to it",
    );
    spoiled(
        "listeners: [public]",
        "listeners: []",
        "51:16 empty_list",
        "`listeners` is empty",
        "name at least one; an empty list guards nothing",
    );
    spoiled(
        "listeners: [public]",
        "listeners: [public]\n    dns: false\n    uri: false",
        "50:3 certificate_names",
        "certificate issuer `mesh` takes no name of a certificate",
        "leave one of `dns` and `uri` true",
    );
    spoiled(
        "  listener: documents",
        "  listener: document",
        "53:13 unknown_listener",
        "listener `document` is not declared",
        "did you mean `documents`?",
    );
}

#[test]
fn a_login_may_ask_for_more_but_not_in_the_protocols_place() {
    for own in ["state", "redirect_uri", "Scope"] {
        spoiled(
            "idle: 30m",
            &format!("parameters: {{ {own}: x }}\n      idle: 30m"),
            "39:21 login_parameter",
            &format!("`{own}` is Doorward's own parameter of a login"),
            "remove it; `scopes` has a key of its own, and `acr_values` and `max_age` belong to routes",
        );
    }
    let parameters = "parameters: { access_type: offline }\n      idle: 30m";
    let checked = World::with("doorward.yaml", "idle: 30m", parameters).load().unwrap();
    let login = checked.issuers.iter().find_map(|issuer| issuer.login.as_ref()).unwrap();
    assert_eq!(login.parameters, [("access_type".to_owned(), "offline".to_owned())]);
}
