use super::world::{World, spoiled_in};

/// Spoils `policies/rules.yaml` in one place and expects exactly one fault.
#[track_caller]
fn spoiled(from: &str, to: &str, place_and_code: &str, message: &str, help: &str) {
    spoiled_in("policies/rules.yaml", (from, to), place_and_code, message, help);
}

#[test]
fn a_role_trusts_callers_of_an_issuer_for_a_reason() {
    spoiled(
        "      - issuer: okta\n        groups",
        "      - groups",
        "4:9 trust_issuer",
        "an entry of `billing-admin`'s trust names no issuer",
        "add `issuer: …`: groups and claims mean nothing without one",
    );
    spoiled(
        "issuer: okta\n        groups",
        "issuer: otka\n        groups",
        "4:17 unknown_issuer",
        "issuer `otka` is not declared",
        "did you mean `okta`?",
    );
    spoiled(
        "{ issuer: ci, claims: { repository_id: [\"123\"] } }",
        "{ issuer: ci }",
        "7:19 trust_open",
        "every caller of issuer `ci` would hold `billing-admin`",
        "add `groups` or `claims`, or say why in `everyone: { reason: … }`",
    );
    spoiled(
        "groups: [billing-admins]",
        "groups: []",
        "5:17 empty_list",
        "`groups` is empty",
        "name at least one; an empty list guards nothing",
    );
    spoiled(
        "claims: { department: [finance] }",
        "claims: { department: [] }",
        "6:31 empty_list",
        "`department` of `claims` takes no value at all",
        "name the values of which any will do",
    );
    spoiled(
        "claims: { department: [finance] }",
        "everyone: { reason: all of finance }",
        "6:29 trust_everyone",
        "`everyone` stands beside groups or claims",
        "remove `everyone`, or the groups and claims",
    );
    let everyone = "{ issuer: ci, everyone: { reason: one repository only } }";
    let world = World::with("policies/rules.yaml", "{ issuer: ci, claims: { repository_id: [\"123\"] } }", everyone);
    assert!(world.load().is_ok());
}

#[test]
fn a_role_holds_in_an_environment_for_a_while() {
    spoiled(
        "    environment: production\n    longest_session: 1h",
        "    longest_session: 1h",
        "2:3 missing_key",
        "`billing-admin` lacks `environment`",
        "add `environment: …`",
    );
    spoiled(
        "environment: production\n    longest_session",
        "environment: prodction\n    longest_session",
        "8:18 unknown_environment",
        "no route is of environment `prodction`",
        "did you mean `production`?",
    );
    spoiled(
        "longest_session: 1h",
        "longest_session: 0h",
        "9:22 zero",
        "the duration is zero",
        "give it a length, such as `30s`",
    );
}

#[test]
fn a_role_without_trust_is_refused() {
    let world = World::new();
    world
        .write("policies/more.yaml", "roles:\n  a: { trust: [], environment: public }\n  b: { environment: public }\n");
    assert_eq!(
        world.told(),
        [
            "policies/more.yaml:2:15 empty_list: `trust` is empty (name at least one; an empty list guards nothing)",
            "policies/more.yaml:3:3 missing_key: `b` lacks `trust` (add `trust: …`)"
        ]
    );
}

#[test]
fn a_route_refers_to_what_is_declared() {
    spoiled(
        "upstream: billing",
        "upstream: biling",
        "20:15 unknown_upstream",
        "upstream `biling` is not declared",
        "did you mean `billing`?",
    );
    spoiled(
        "credential: assertion",
        "credential: asertion",
        "21:17 unknown_credential",
        "credential `asertion` is not declared",
        "did you mean `assertion`?",
    );
    spoiled(
        "issuers: [okta, ci, mesh]",
        "issuers: [okta, ci, mesh, zebra]",
        "23:33 unknown_issuer",
        "issuer `zebra` is not declared",
        "known are `ci`, `mesh`, `okta`",
    );
    spoiled(
        "login: { issuer: okta,",
        "login: { issuer: okra,",
        "25:22 unknown_issuer",
        "issuer `okra` is not declared",
        "did you mean `okta`?",
    );
}

#[test]
fn a_route_says_who_may_come_exactly_once() {
    spoiled(
        "    public: { reason: \"the company's front page\" }\n",
        "",
        "29:3 access_missing",
        "route `site` says neither `accept` nor `public`",
        "add `accept: { issuers: […], evidence: [bearer, session] }`, or `public: { reason: … }`",
    );
    let both = "identity_headers: {}\n    public: { reason: everybody may read }";
    spoiled(
        "identity_headers: {}",
        both,
        "28:13 access_twice",
        "route `invoices` says both `accept` and `public`",
        "keep one of them",
    );
    spoiled(
        "the company's front page",
        "open",
        "35:23 reason",
        "the reason says too little",
        "write at least 8 characters for whoever reads this file next",
    );
    spoiled(
        "      issuers: [okta, ci, mesh]\n",
        "",
        "15:3 missing_key",
        "`invoices` lacks `accept.issuers`",
        "add `accept.issuers: …`",
    );
    spoiled(
        "      evidence: [bearer, session, client_certificate]\n",
        "",
        "15:3 missing_key",
        "`invoices` lacks `accept.evidence`",
        "add `accept.evidence: …`",
    );
    spoiled(
        "evidence: [bearer, session, client_certificate]",
        "evidence: []",
        "24:17 empty_list",
        "`evidence` is empty",
        "name at least one; an empty list guards nothing",
    );
}

#[test]
fn a_route_lacks_nothing_that_it_needs() {
    spoiled("    environment: public\n", "", "29:3 missing_key", "`site` lacks `environment`", "add `environment: …`");
    spoiled("    credential: open\n", "", "29:3 missing_key", "`site` lacks `credential`", "add `credential: …`");
    spoiled("    upstream: pages\n", "", "29:3 missing_key", "`site` lacks `upstream`", "add `upstream: …`");
    spoiled("    path: /{*rest}\n", "", "29:3 missing_key", "`site` lacks `path`", "add `path: …`");
}

#[test]
fn evidence_that_nobody_can_give_is_refused() {
    spoiled(
        "issuers: [okta, ci, mesh]",
        "issuers: [okta, ci]",
        "24:35 evidence_unreachable",
        "no accepted issuer stands for client certificates",
        "declare one under `certificate_issuers` and name it in `issuers`",
    );
    spoiled(
        "issuers: [okta, ci, mesh]\n      evidence: [bearer, session, client_certificate]\n    login: { issuer: okta,",
        "issuers: [ci]\n      evidence: [bearer, session]\n    login: {",
        "24:26 evidence_unreachable",
        "no accepted issuer has `login`",
        "add `login` to an accepted issuer, or remove `session`",
    );
    let world = World::with("policies/rules.yaml", "credential: assertion", "credential: key");
    let own = "evidence: [bearer]\n    pass_authorization: { reason: its own API keys }";
    world.replace("policies/rules.yaml", "evidence: [bearer, session, client_certificate]", own);
    let told = "policies/rules.yaml:25:25 evidence_unreachable: `Authorization` belongs to the upstream here, so no \
                bearer token can be shown (accept `session` or `client_certificate`, or remove `pass_authorization`)";
    assert_eq!(world.told(), [told]);
}

#[test]
fn login_asks_for_something_at_an_issuer_that_has_it() {
    spoiled(
        "{ issuer: okta, acr_values: [urn:mfa], max_age: 1h }",
        "{}",
        "25:12 login_empty",
        "`login` asks for nothing",
        "name `issuer`, `acr_values` or `max_age`",
    );
    spoiled(
        "login: { issuer: okta,",
        "login: { issuer: ci,",
        "25:22 issuer_without_login",
        "issuer `ci` has no `login`",
        "name one that has",
    );
    spoiled(
        "acr_values: [urn:mfa]",
        "acr_values: []",
        "25:40 empty_list",
        "`acr_values` is empty",
        "name at least one; an empty list guards nothing",
    );
    spoiled(
        "    public: {",
        "    login: { max_age: 1h }\n    public: {",
        "35:12 public_login",
        "a public route never asks for a login",
        "remove `login`, or write `accept` instead of `public`",
    );
}

#[test]
fn every_host_needs_a_reason() {
    spoiled(
        "host: \"*.example.com\"",
        "host: \"*\"",
        "30:11 host_any",
        "the route takes every host without a reason",
        "name the host, or say why in `reason: …`",
    );
    spoiled(
        "host: api.example.com",
        "host: api.example.com:8443",
        "16:11 host",
        "`api.example.com:8443` is not a host",
        "write `api.example.com` or `*.example.com`: lower case, no port",
    );
    spoiled(
        "host: api.example.com",
        "host: API.example.com",
        "16:11 host",
        "`API.example.com` is not a host",
        "write `api.example.com` or `*.example.com`: lower case, no port",
    );
    let reason = "host: \"*\"\n    reason: one API behind many names";
    assert!(World::with("policies/rules.yaml", "host: \"*.example.com\"", reason).load().is_ok());
}

#[test]
fn a_path_is_one_that_requests_can_have() {
    let path = "path: /billing/{*rest}";
    spoiled(path, "path: billing", "17:11 route_path", "path `billing` does not begin with `/`", "write `/billing`");
    spoiled(
        path,
        "path: /a//b",
        "17:11 route_path",
        "no request can have the path `/a//b`",
        "write it in normal form: no `//`, no dot segments, no query, other characters as `%C3%A9`",
    );
    spoiled(
        path,
        "path: /a/../b",
        "17:11 route_path",
        "no request can have the path `/a/../b`",
        "write it in normal form: no `//`, no dot segments, no query, other characters as `%C3%A9`",
    );
    spoiled(
        path,
        "path: /a%2fb",
        "17:11 route_path",
        "no request can have the path `/a%2fb`",
        "write it in normal form: no `//`, no dot segments, no query, other characters as `%C3%A9`",
    );
    spoiled(
        path,
        "path: /{a-b}",
        "17:11 route_path",
        "`{a-b}` cannot be a path parameter",
        "policies read it by name: use letters, digits and `_`",
    );
    spoiled(
        path,
        "path: \"/{*rest}/more\"",
        "17:11 route_path",
        "path `/{*rest}/more` is malformed: Catch-all parameters are only allowed at the end of a route",
        "write `/a/{id}/b`, or `/a/{*rest}` for everything below",
    );
    spoiled(
        path,
        "path: \"/a/{id}/b/{id}\"",
        "17:11 route_path",
        "path parameter `id` stands twice",
        "policies read it by name: give each its own",
    );
    spoiled(
        path,
        "path: /.doorward/login",
        "17:11 route_path",
        "`/.doorward/` is Doorward's own",
        "choose another path",
    );
    spoiled(
        path,
        "path: /a;b",
        "17:11 route_path",
        "no request can have the path `/a;b`",
        "write it in normal form: no `//`, no dot segments, no query, other characters as `%C3%A9`",
    );
    let opaque = "path: /a;b\n    path_mode: { opaque: { reason: object names hold anything } }";
    assert!(World::with("policies/rules.yaml", path, opaque).load().is_ok());
    spoiled(
        path,
        "path: /a%2fb\n    path_mode: { opaque: { reason: object names hold anything } }",
        "17:11 route_path",
        "no request can have the path `/a%2fb`",
        "write it in normal form: no `//`, no dot segments, no query, other characters as `%C3%A9`",
    );
    spoiled(
        path,
        "path: /a\n    path_mode: { opaque: { reason: x } }",
        "18:36 reason",
        "the reason says too little",
        "write at least 8 characters for whoever reads this file next",
    );
}

#[test]
fn two_routes_of_the_same_paths_are_both_named() {
    let world = World::new();
    let route = "{ host: api.example.com, path: \"/billing/{*all}\", environment: production, upstream: billing, \
                 credential: open, public: { reason: nothing secret here } }";
    world.write("policies/other.yaml", &format!("routes:\n  bills: {route}\n"));
    assert_eq!(
        world.told(),
        [
            "policies/rules.yaml:17:11 route_conflict: route `invoices` catches what route `bills` already catches on host `api.example.com` (the other path stands at policies/other.yaml:2:41; make one of them differ)"
        ]
    );
}

#[test]
fn a_name_declared_twice_names_both_places() {
    let world = World::new();
    world.write("policies/other.yaml", "upstreams:\n  billing: { addresses: [http://10.0.0.9] }\n");
    assert_eq!(
        world.told(),
        [
            "policies/other.yaml:2:3 name_twice: upstream `billing` is declared twice (it is first declared at doorward.yaml:60:3; rename or remove one)"
        ]
    );
    world.write(
        "policies/other.yaml",
        "roles:\n  billing-admin: { environment: production, trust: [{ issuer: okta, groups: [a] }] }\n",
    );
    assert_eq!(
        world.told(),
        [
            "policies/rules.yaml:2:3 name_twice: role `billing-admin` is declared twice (it is first declared at policies/other.yaml:2:3; rename or remove one)"
        ]
    );
}

#[test]
fn origins_are_origins() {
    spoiled(
        "origins: [https://app.example.com]",
        "origins: [\"*\"]",
        "26:23 origin",
        "`*` is every origin",
        "name each origin, such as `https://app.example.com`",
    );
    spoiled(
        "origins: [https://app.example.com]",
        "origins: [https://app.example.com/]",
        "26:23 origin",
        "`https://app.example.com/` is not an origin",
        "an origin is scheme, host and port, without a path: `https://app.example.com`",
    );
    spoiled(
        "origins: [https://app.example.com]",
        "origins: []",
        "26:22 empty_list",
        "`origins` is empty",
        "name at least one; an empty list guards nothing",
    );
}

#[test]
fn identity_headers_have_names_of_their_own() {
    spoiled(
        "identity_headers: {}",
        "identity_headers: { subject: Connection }",
        "27:34 header_reserved",
        "header `Connection` has a meaning of its own",
        "choose a name such as `X-Doorward-Subject`",
    );
    spoiled(
        "identity_headers: {}",
        "identity_headers: { subject: X_User }",
        "27:34 identity_header",
        "header `X_User` cannot carry an identity",
        "choose a name such as `X-Doorward-Subject`",
    );
    spoiled(
        "identity_headers: {}",
        "identity_headers: { subject: X-User, email: x-user }",
        "27:49 identity_header",
        "header `x-user` is named twice",
        "give each fact its own header",
    );
}

#[test]
fn a_credential_never_writes_over_a_header_of_its_route() {
    spoiled(
        "identity_headers: {}",
        "pass_authorization: { reason: its own API keys }",
        "27:25 header_twice",
        "credential `assertion` takes the place of the caller's `Authorization`",
        "give the credential another `header`, or remove `pass_authorization`",
    );
    let world = World::with("policies/rules.yaml", "credential: assertion", "credential: key");
    world.replace("policies/rules.yaml", "identity_headers: {}", "identity_headers: { subject: x-api-KEY }");
    let told = "policies/rules.yaml:27:34 header_twice: credential `key` has the header `x-api-KEY` already \
                (give one of them another name)";
    assert_eq!(world.told(), [told]);
    for header in ["X-Doorward-Roles", "x_doorward_roles"] {
        let world = World::with("policies/rules.yaml", "credential: assertion", "credential: key");
        world.replace("doorward.yaml", "header: X-Api-Key", &format!("header: {header}"));
        let told = "policies/rules.yaml:21:17 header_twice: credential `key` has the header `x-doorward-roles` already \
                    (give one of them another name)";
        assert_eq!(world.told(), [told], "a default name counts as a written one");
    }
}

#[test]
fn a_rate_is_a_number_in_a_time_of_somebody_with_a_name() {
    let limits = "limits: { body: 10MiB, idle: 60s }";
    let with = |rate: &str| format!("limits: {{ rate: {rate} }}");
    let good = with(
        "{ source: { requests: 5, per: 1s }, principal: { requests: 1, per: 1m }, route: { requests: 9, per: 1h } }",
    );
    assert!(World::with("policies/rules.yaml", limits, &good).load().is_ok());
    for (rate, place, message, help) in [
        (
            "{ source: { requests: 0, per: 1s } }",
            "28:43 count",
            "`0` is out of range",
            "give a number from 1 to 1000000",
        ),
        (
            "{ source: { requests: 5, per: 0s } }",
            "28:51 zero",
            "the duration is zero",
            "give it a length, such as `30s`",
        ),
    ] {
        spoiled(limits, &with(rate), place, message, help);
    }
    spoiled(
        "public: { reason: \"the company's front page\" }",
        "public: { reason: the front page }\n    limits: { rate: { principal: { requests: 5, per: 1s } } }",
        "36:34 rate_of_nobody",
        "a rate of each principal, on a route where nobody has to say who calls",
        "write `source` instead of `principal`",
    );
}
