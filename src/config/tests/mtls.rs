//! Client certificates as credentials, and those by which authorization servers know Doorward.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

use super::world::World;
use crate::config::checked::{CredentialKind, MtlsCredential, OauthClient};
use crate::credential::Template;

struct Pair {
    certificate: String,
    key: String,
}

fn pair(change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "a test's");
    change(&mut parameters);
    Pair { certificate: parameters.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn authority() -> Pair {
    pair(|parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
}

const ENDED: fn(&mut CertificateParams) = |parameters| parameters.not_after = rcgen::date_time_ymd(2001, 1, 1);

const AUTHORITY: &str = "{ certificate: mesh/ca.pem, key: file:mesh/ca.key, trust_domain: acme.example }";
const FILES: &str = "{ certificate: mesh/leaf.pem, key: file:mesh/leaf.key }";

/// The valid configuration with a credential of this text, at 59:3, and the files that it may name.
fn world(credential: &str) -> World {
    let world = World::new();
    world.replace("doorward.yaml", "credentials:\n", &format!("credentials:\n  mesh: {credential}\n"));
    std::fs::create_dir(world.path().join("mesh")).unwrap();
    for (name, pair) in [("ca", authority()), ("leaf", pair(|_| {})), ("old", pair(ENDED))] {
        world.write(&format!("mesh/{name}.pem"), &pair.certificate);
        world.write(&format!("mesh/{name}.key"), &pair.key);
    }
    world
}

/// The credential has one fault, at `COLUMN CODE` of line 56.
#[track_caller]
fn refused(credential: &str, told: &str) {
    assert_eq!(world(credential).told(), [format!("doorward.yaml:56:{told}")], "{credential}");
}

fn kind(credential: &str) -> CredentialKind {
    let checked = world(credential).load().unwrap_or_else(|faults| panic!("{credential}: {faults}"));
    checked.credentials.into_iter().find(|credential| credential.name == "mesh").unwrap().kind
}

#[test]
fn an_authority_has_defaults_that_give_every_principal_a_uri() {
    let CredentialKind::Mtls(MtlsCredential::Authority(mesh)) =
        kind(&format!("{{ mtls: {{ authority: {AUTHORITY} }} }}"))
    else {
        panic!("an authority")
    };
    assert_eq!((mesh.lifetime.as_secs(), &mesh.common_name), (900, &None));
    assert_eq!(mesh.uri.sample(), "spiffe://acme.example/x/x/x");
    let own = "{ certificate: mesh/ca.pem, key: file:mesh/ca.key, lifetime: 24h, \
               uri: \"https://acme.example/{{principal.id}}\", common_name: \"{{principal.email}}\" }";
    let CredentialKind::Mtls(MtlsCredential::Authority(mesh)) = kind(&format!("{{ mtls: {{ authority: {own} }} }}"))
    else {
        panic!("an authority")
    };
    assert_eq!(mesh.lifetime.as_secs(), 24 * 3600);
    assert_eq!(
        (mesh.uri.sample(), &mesh.common_name),
        ("https://acme.example/x".to_owned(), &Some(Template::parse("{{principal.email}}").unwrap()),)
    );
}

#[test]
fn files_are_looked_at_and_kept_by_their_paths() {
    let CredentialKind::Mtls(MtlsCredential::Files { certificate, key }) =
        kind(&format!("{{ mtls: {{ files: {FILES} }} }}"))
    else {
        panic!("files")
    };
    assert!(certificate.ends_with("mesh/leaf.pem") && key.ends_with("mesh/leaf.key"));
}

#[test]
fn a_client_certificate_comes_from_exactly_one_place() {
    let help = "name exactly one of `files`, `authority` and `workload_api`";
    let message = "`mtls` of credential `mesh` is not of exactly one kind";
    refused("{ mtls: {} }", &format!("3 mtls_kind: {message} ({help})"));
    let both = format!("{{ mtls: {{ files: {FILES}, authority: {AUTHORITY} }} }}");
    refused(&both, &format!("3 mtls_kind: {message} ({help})"));
}

#[cfg(feature = "spiffe")]
#[test]
fn an_agent_is_named_by_its_socket_and_an_identity_in_full() {
    let CredentialKind::Mtls(MtlsCredential::WorkloadApi { socket, spiffe_id }) =
        kind("{ mtls: { workload_api: { socket: unix:///run/agent.sock, spiffe_id: spiffe://acme.example/a/b-c } } }")
    else {
        panic!("an agent")
    };
    assert_eq!((&*socket, spiffe_id.as_deref()), ("unix:///run/agent.sock", Some("spiffe://acme.example/a/b-c")));
    let help = "write `socket: unix:///PATH`, or set `SPIFFE_ENDPOINT_SOCKET` where Doorward is started";
    let fault = format!("workload_api_socket: the socket of the SPIFFE Workload API is not named ({help})");
    refused("{ mtls: { workload_api: {} } }", &format!("33 {fault}"));
    for socket in ["tcp://127.0.0.1:1", "unix://agent.sock", "unix:///", "unix:///a?b", "/run/agent.sock"] {
        let fault = format!(
            "workload_api_socket: `{socket}` is no socket of a SPIFFE Workload API (write it as `unix:///PATH`)"
        );
        refused(&format!("{{ mtls: {{ workload_api: {{ socket: \"{socket}\" }} }} }}"), &format!("43 {fault}"));
    }
    for id in [
        "spiffe://acme.example",
        "spiffe://acme.example/",
        "spiffe://Acme/a",
        "https://acme.example/a",
        "spiffe://a/../b",
    ] {
        let credential = format!("{{ mtls: {{ workload_api: {{ socket: unix:///a, spiffe_id: \"{id}\" }} }} }}");
        let fault = format!("spiffe_id: `{id}` is no SPIFFE ID of a workload (write `spiffe://DOMAIN/PATH`)");
        refused(&credential, &format!("65 {fault}"));
    }
}

#[test]
fn what_is_missing_is_told_by_its_key() {
    let missing = |key: &str| format!("doorward.yaml:56:3 missing_key: `mesh` lacks `{key}` (add `{key}: …`)");
    let told = |credential: &str| world(credential).told();
    let files = told("{ mtls: { files: {} } }");
    assert_eq!(files, ["mtls.files.certificate", "mtls.files.key"].map(missing));
    let all = ["mtls.authority.certificate", "mtls.authority.key", "mtls.authority.trust_domain"].map(missing);
    assert_eq!(told("{ mtls: { authority: {} } }"), all);
}

/// Spoils the text of a credential and expects one fault at the place of what was put in.
#[track_caller]
fn spoiled(credential: &str, (from, to): (&str, &str), code: &str, message: &str, help: &str) {
    assert_eq!(credential.matches(from).count(), 1, "{from}");
    let column = "  mesh: ".len() + credential.find(from).unwrap() + 1;
    let told = world(&credential.replace(from, to)).told();
    assert_eq!(told.len(), 1, "{told:?}");
    let told = told[0].replace(&format!("doorward.yaml:56:{column} "), "");
    assert_eq!(told, format!("{code}: {message} ({help})"));
}

#[test]
fn an_authority_that_cannot_sign_is_refused_with_its_mend() {
    let credential = format!("{{ mtls: {{ authority: {AUTHORITY} }} }}");
    let says = |file: &str, fault: &str| format!("`mesh/{file}.pem` is no certificate authority that signs: {fault}");
    let mut with_leaf = credential.replace("mesh/ca.key", "mesh/leaf.key");
    spoiled(
        &with_leaf,
        ("mesh/ca.pem", "mesh/leaf.pem"),
        "mtls_authority",
        &says("leaf", "the certificate is not one of an authority"),
        "name one with basic constraints `CA:TRUE`, not a leaf",
    );
    with_leaf = credential.clone();
    spoiled(
        &with_leaf,
        ("file:mesh/ca.key", "file:mesh/leaf.key"),
        "mtls_authority",
        &says("ca", "the private key is not the certificate's"),
        "point it at the key of the certificate that stands first in the file",
    );
    let ended = world(&credential.replace("mesh/ca", "mesh/old")).told();
    assert!(
        ended.len() == 1 && ended[0].contains("mtls_authority: ") && ended[0].contains("is not valid now"),
        "{ended:?}"
    );
    assert!(ended[0].ends_with("(renew the certificate, or mend this machine's clock)"), "{ended:?}");
    spoiled(
        &credential,
        ("mesh/ca.pem", "mesh/none.pem"),
        "file_unreadable",
        "file `mesh/none.pem` cannot be read: No such file or directory (os error 2)",
        "relative paths begin at the directory of this file",
    );
}

#[test]
fn a_leaf_lives_between_a_minute_and_a_day() {
    let credential = format!("{{ mtls: {{ authority: {} }} }}", AUTHORITY.replace("}", ", lifetime: 15m }"));
    let short = "`59s` is too short for a certificate to be of use";
    spoiled(&credential, ("15m", "59s"), "too_short", short, "at least `1m` is needed here");
    let help = "at most `24h` is allowed here";
    spoiled(&credential, ("15m", "25h"), "too_long", "`25h` is longer than `24h`", help);
}

#[test]
fn a_uri_that_two_callers_could_share_is_refused() {
    let path = "{{environment}}/{{principal.issuer}}/{{principal.subject}}";
    let uri = format!("\"spiffe://acme.example/{path}\"");
    let credential = format!(
        "{{ mtls: {{ authority: {} }} }}",
        AUTHORITY.replace("trust_domain: acme.example", &format!("uri: {uri}"))
    );
    let form = format!("write `spiffe://acme.example/{path}`");
    let shared = "add `/{{principal.id}}`, or `/{{principal.issuer}}/{{principal.subject}}`";
    for (bad, fault, help) in [
        ("acme.example", "it must be a URI whose scheme and domain are fixed, with a path", form.as_str()),
        (
            "spiffe://acme.example/{{environment}}",
            "it does not name the principal, so that two callers could have the same URI",
            shared,
        ),
        (
            "spiffe://acme.example/{{principal.issuer}}:{{principal.subject}}",
            "a segment of its path holds two variables, so that two callers could have the same URI",
            "put a `/` between them",
        ),
    ] {
        spoiled(&credential, (&uri, &format!("\"{bad}\"")), "mtls_uri", &format!("`{bad}`: {fault}"), help);
    }
    let domain = format!("{{ mtls: {{ authority: {AUTHORITY} }} }}");
    let help = "write a DNS name in lower case";
    spoiled(&domain, ("acme.example", "Acme/x"), "mtls_uri", "`Acme/x` is not a trust domain", help);
    let message = "`trust_domain` is part of the default `uri`, and this one is another";
    let both = format!("{{ mtls: {{ authority: {} }} }}", AUTHORITY.replace(" }", &format!(", uri: {uri} }}")));
    spoiled(&both, (&uri, &uri), "mtls_uri", message, "write one of them");
}

#[test]
fn files_that_are_no_pair_are_refused_with_their_mend() {
    let credential = format!("{{ mtls: {{ files: {FILES} }} }}");
    let help = "name the PEM files of one pair: a certificate for clients that is valid now, and its key";
    spoiled(
        &credential,
        ("mesh/leaf.pem", "mesh/ca.pem"),
        "client_certificate",
        "no client certificate in `mesh/ca.pem`: the private key is not the certificate's",
        help,
    );
    let old = world(&credential.replace("mesh/leaf", "mesh/old")).told();
    assert!(
        old.len() == 1 && old[0].contains("client_certificate: ") && old[0].contains("is not valid now"),
        "{old:?}"
    );
    let from_variable = world(&credential.replace("file:mesh/leaf.key", "env:API_KEY")).told();
    assert!(from_variable[0].contains("key_not_pem"), "{from_variable:?}");
}

/// Gives the route `site`, whose upstream `pages` has an https address, or `invoices`, whose has http ones, the
/// credential.
fn routed(credential: &str, from: &str, to: &str) -> World {
    let world = world(credential);
    world.replace("policies/rules.yaml", from, to);
    world
}

#[test]
fn an_upstream_is_shown_one_certificate_and_by_tls() {
    let credential = format!("{{ mtls: {{ files: {FILES} }} }}");
    assert!(routed(&credential, "credential: open", "credential: mesh").load().is_ok());
    let plain = routed(&credential, "credential: assertion", "credential: mesh");
    assert_eq!(
        plain.told(),
        ["policies/rules.yaml:21:17 mtls_plain_upstream: upstream `billing` is not reached by TLS, which credential \
         `mesh` needs (give the upstream https addresses, or the route another credential)"]
    );
    let two = routed(&credential, "credential: open", "credential: mesh");
    let own = "authorities: ../tls/ca.pem, certificate: ../mesh/leaf.pem, key: file:../mesh/leaf.key";
    two.replace("policies/rules.yaml", "authorities: ../tls/ca.pem", own);
    assert_eq!(
        two.told(),
        ["policies/rules.yaml:34:17 mtls_two_certificates: upstream `pages` has a client certificate, and credential \
         `mesh` is another (remove `tls.certificate` and `tls.key` from the upstream, or give the route another \
         credential)"]
    );
}

#[test]
fn a_certificate_is_made_of_what_the_path_catches() {
    let authority =
        AUTHORITY.replace("trust_domain: acme.example", "uri: \"spiffe://a/{{path.team}}/{{principal.id}}\"");
    let world = routed(&format!("{{ mtls: {{ authority: {authority} }} }}"), "credential: open", "credential: mesh");
    let told = world.told();
    assert!(told.len() == 1 && told[0].contains("template_parameter: credential `mesh` needs `{team}`"), "{told:?}");
}

#[test]
fn an_authorization_server_is_shown_a_pair_over_tls() {
    let client = "{ id: gate, authentication: tls_client_auth, certificate: mesh/leaf.pem, key: file:mesh/leaf.key }";
    let credential = format!(
        "{{ client_credentials: {{ endpoint: {{ url: https://login.acme.example/token, client: {client} }} }} }}"
    );
    let CredentialKind::Oauth(oauth) = kind(&credential) else { panic!("an OAuth credential") };
    assert!(matches!(oauth.client, Some(OauthClient::TlsClientAuth { ref id, .. }) if id == "gate"));
    let help = "name the PEM files of one pair: a certificate for clients that is valid now, and its key";
    spoiled(
        &credential,
        ("file:mesh/leaf.key", "file:mesh/ca.key"),
        "client_certificate",
        "no client certificate in `mesh/leaf.pem`: the private key is not the certificate's",
        help,
    );
    spoiled(
        &credential,
        ("https://login.acme.example/token", "http://localhost/token"),
        "client_certificate_plain",
        "`tls_client_auth` needs a token endpoint that is reached by TLS",
        "write an https URL",
    );
    let unused = credential.replace("authentication: tls_client_auth", "authentication: private_key_jwt");
    let told = world(&unused).told();
    assert!(told.len() == 1 && told[0].contains("certificate_unused: "), "{told:?}");
    let secret = credential.replace("id: gate,", "id: gate, secret: file:api.secret,");
    assert!(world(&secret).told()[0].contains("secret_unused: "));
    let missing = credential.replace(", certificate: mesh/leaf.pem, key: file:mesh/leaf.key", "");
    let told = world(&missing).told();
    assert!(told.len() == 2 && told.iter().all(|fault| fault.contains("missing_key: `mesh` lacks")), "{told:?}");
}
