use crate::config::checked::{CredentialKind, VaultSubject};
use crate::credential::{UserHeaders, VaultSecret};

use super::world::World;

const KV: &str = "kv: { path: app, field: api_key, header: X-Other-Key }";

/// The valid configuration with a credential `vault` of these settings beside the others.
fn world(settings: &str) -> World {
    let key = "  key: { fixed";
    World::with("doorward.yaml", key, &format!("  db: {{ vault: {{ {settings} }} }}\n{key}"))
}

/// The one fault of these settings, without its place.
#[track_caller]
fn refused(settings: &str, code_and_message: &str) {
    let told = world(settings).told();
    assert_eq!(told.len(), 1, "{told:#?}");
    let (place, rest) = told[0].split_once(' ').unwrap();
    assert!(place.starts_with("doorward.yaml:57:"), "{place}");
    assert_eq!(rest, code_and_message);
}

fn kind(settings: &str) -> CredentialKind {
    let checked = world(settings).load().unwrap_or_else(|faults| panic!("{faults}"));
    checked.credentials.into_iter().find(|credential| credential.name == "db").unwrap().kind
}

fn with(secret: &str) -> String {
    format!("address: https://vault.internal:8200/, login: {{ role: doorward }}, {secret}")
}

#[test]
fn what_is_left_out_has_its_usual_value() {
    let CredentialKind::Vault(vault) = kind(&with(KV)) else { panic!("another kind") };
    assert_eq!((vault.address.as_str(), vault.mount.as_str()), ("https://vault.internal:8200", "jwt"));
    assert_eq!((vault.role.as_str(), &vault.namespace), ("doorward", &None));
    let VaultSubject::Doorward { audience, .. } = &vault.subject else { panic!("another subject") };
    assert_eq!(audience, "https://vault.internal:8200");
    let VaultSecret::Kv(kv) = &vault.secret else { panic!("another secret") };
    assert_eq!((&*kv.mount, &*kv.prefix, kv.refresh.as_secs()), ("secret", "", 300));

    let CredentialKind::Vault(vault) = kind(&with("database: { role: app }")) else { panic!("another kind") };
    let VaultSecret::Database(database) = &vault.secret else { panic!("another secret") };
    assert!(&*database.mount == "database" && matches!(database.headers, UserHeaders::Basic));
}

#[test]
fn a_vault_is_asked_over_https_and_exactly_one_secret_is_read() {
    refused(
        &format!("address: http://vault.internal:8200, login: {{ role: doorward }}, {KV}"),
        "url_not_https: the vault's address must be an https URL (http is taken for loopback hosts only)",
    );
    assert!(world(&format!("address: http://127.0.0.1:8200, login: {{ role: a }}, {KV}")).load().is_ok());
    refused(
        &with("namespace: a"),
        "vault_secret: credential `db` reads no secret (add `kv: …`, `database: …` or `pki: …`)",
    );
    refused(
        &with(&format!("{KV}, database: {{ role: app }}")),
        "vault_secret: credential `db` reads two secrets (keep one of `kv`, `database` and `pki`)",
    );
    refused(&format!("login: {{ role: a }}, {KV}"), "missing_key: `db` lacks `vault.address` (add `vault.address: …`)");
    refused(&format!("address: https://a.test, {KV}"), "missing_key: `db` lacks `vault.login` (add `vault.login: …`)");
    refused(
        &format!("address: https://a.test, login: {{}}, {KV}"),
        "missing_key: `db` lacks `login.role` (add `login.role: …`)",
    );
    refused(
        &format!("address: https://a.test, login: {{ role: \" \" }}, {KV}"),
        "empty_value: `role` is empty (name the role of the vault's JWT method)",
    );
}

#[test]
fn a_path_of_a_vault_is_plain_segments() {
    let form = "segments of letters, digits, `-`, `_`, `.`, `@`, `:` and `|` between slashes, without `..` and without a \
                slash at either end";
    for (settings, path) in [
        (with(&format!("namespace: team/, {KV}")), "team/"),
        (with("kv: { path: /app, field: a, header: X-Other-Key }"), "/app"),
        (with("kv: { path: a/../b, field: a, header: X-Other-Key }"), "a/../b"),
        (with("kv: { path: \"a/{{path.x}}?b\", field: a, header: X-Other-Key }"), "a/{{path.x}}?b"),
        (with("kv: { mount: \"a b\", path: app, field: a, header: X-Other-Key }"), "a b"),
        (with("database: { mount: \"\", role: app }"), ""),
        (with("database: { role: \"a%2Fb\" }"), "a%2Fb"),
        (format!("address: https://a.test, login: {{ mount: jwt/login/x/.., role: a }}, {KV}"), "jwt/login/x/.."),
    ] {
        refused(&settings, &format!("vault_path: `{path}` is no path of a vault ({form})"));
    }
}

#[test]
fn what_the_api_has_before_a_name_is_not_written_twice() {
    let of = |address: &str, login: &str| format!("address: {address}, login: {login}, {KV}");
    refused(
        &of("https://a.test/v1", "{ role: a }"),
        "url: `https://a.test/v1` ends with the `/v1` that every path of the API begins with (leave it out)",
    );
    refused(
        &of("https://a.test", "{ mount: auth/jwt, role: a }"),
        "vault_path: `auth/jwt` begins with the `auth/` that every mount of a method has (leave it out)",
    );
    for path in ["data/app", "secret/data/app"] {
        refused(
            &with(&format!("kv: {{ path: {path}, field: a, header: X-Other-Key }}")),
            &format!(
                "vault_path: `{path}` begins with what the API has before it (write the secret's path as `bao kv get` takes it)"
            ),
        );
    }
    for role in ["x; echo #", "x$(id)", "a/b", "team-{{claim.team}}"] {
        let help = "write its name, without a value of the request in it";
        let fault = format!("vault_role: `{role}` is no role of a vault's JWT method ({help})");
        refused(&of("https://a.test", &format!("{{ role: \"{role}\" }}")), &fault);
    }
}

#[test]
fn what_a_secret_is_told_fits_where_it_goes() {
    refused(
        &with("kv: { path: app, field: a, header: Content-Length }"),
        "header_reserved: header `Content-Length` has a meaning of its own (choose a name such as `X-Doorward-Subject`)",
    );
    refused(
        &with("kv: { path: app, field: \"\", header: X-Other-Key }"),
        "empty_value: `field` is empty (name the secret's field)",
    );
    refused(
        &with("kv: { path: app, field: a, header: X-Other-Key, prefix: \"é\" }"),
        "prefix: the prefix cannot stand in a header (use printable ASCII, such as `\"Bearer \"`)",
    );
    refused(
        &with("kv: { path: app, field: a, header: X-Other-Key, refresh: 9s }"),
        "too_short: `9s` would read the secret all the time (at least `10s` is needed here)",
    );
    refused(
        &with("kv: { path: app, field: a, header: X-Other-Key, refresh: 25h }"),
        "too_long: `25h` is longer than `1d` (at most `1d` is allowed here)",
    );
    refused(
        &with("database: { role: app, headers: { username: X-User, password: x-user } }"),
        "header_twice: header `x-user` is to carry both name and password (give one of them another name, or leave \
         `headers` out)",
    );
    refused(
        &with("database: { role: app, headers: { username: X-User } }"),
        "missing_key: `db` lacks `headers.password` (add `headers.password: …`)",
    );
}

#[test]
fn settings_of_doorwards_token_do_not_go_with_the_callers() {
    let message = |key| {
        format!(
            "vault_subject: `{key}` is of Doorward's own token, which `subject: caller` does not use (remove one of them)"
        )
    };
    refused(&with(&format!("subject: caller, token_audience: a, {KV}")), &message("token_audience"));
    refused(&with(&format!("subject: caller, token_subject: a, {KV}")), &message("token_subject"));
    let CredentialKind::Vault(vault) = kind(&with(&format!("subject: caller, {KV}"))) else { panic!("another kind") };
    assert!(matches!(vault.subject, VaultSubject::Caller));
}

#[test]
fn a_route_gives_what_its_vault_credential_needs_of_it() {
    let routed = |settings: &str, spoil: (&str, &str)| {
        let world = world(settings);
        world.replace("policies/rules.yaml", "credential: assertion", "credential: db");
        world.replace("policies/rules.yaml", spoil.0, spoil.1);
        world
    };
    let unspoiled = ("tags: [finance]", "tags: [finance]");
    let path = "kv: { path: \"apps/{{path.app}}\", field: a, header: X-Other-Key }";
    let told = routed(&with(path), unspoiled).told();
    assert!(
        told.len() == 1 && told[0].contains("template_parameter: credential `db` needs `{app}` of the path"),
        "{told:?}"
    );
    assert!(routed(&with(path), ("path: /billing/{*rest}", "path: /billing/{app}/{*rest}")).load().is_ok());
    let role = "database: { role: \"{{path.app}}\" }";
    assert!(routed(&with(role), unspoiled).told()[0].contains("template_parameter"));
    let caller = format!("subject: caller, {KV}");
    assert!(routed(&with(&caller), unspoiled).told()[0].contains("caller_token_missing"));
    let named = "database: { role: app, headers: { username: X-User, password: X-Doorward-Subject } }";
    let told = routed(&with(named), unspoiled).told();
    assert!(told.len() == 1 && told[0].contains("header_twice"), "{told:?}");
}

#[test]
fn a_certificate_of_a_vault_names_the_principal_and_goes_to_an_upstream_that_speaks_tls() {
    let pki = |settings: &str| with(&format!("pki: {{ role: app, {settings} }}"));
    let CredentialKind::Vault(vault) = kind(&pki("trust_domain: acme.example")) else { panic!("another kind") };
    let VaultSecret::Pki(secret) = &vault.secret else { panic!("another secret") };
    assert_eq!((&*secret.mount, &*secret.role, secret.lifetime.as_secs()), ("pki", "app", 900));
    refused(&pki("trust_domain: Acme"), "mtls_uri: `Acme` is not a trust domain (write a DNS name in lower case)");
    refused(
        &pki("trust_domain: a.test, lifetime: 10s"),
        "too_short: `10s` is too short for a certificate to be of use (at least `1m` is needed here)",
    );
    refused(&pki("common_name: x"), "missing_key: `db` lacks `pki.trust_domain` (add `pki.trust_domain: …`)");
}
