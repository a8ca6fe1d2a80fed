//! A directory with everything that Doorward is started with: certificates, an issuer's key set, a configuration of
//! routes, roles and policies, and the tokens that callers show.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tempfile::TempDir;

/// Who signs the tokens.
pub const ISSUER: &str = "https://issuer.example";
/// Whom the tokens are for.
pub const AUDIENCE: &str = "api://bench";
const KEY_ID: &str = "bench-1";
/// Policies that are in force on each route.
const POLICIES_A_ROUTE: usize = 5;
/// Doorward reads no file that is larger than 1 MiB.
const ROUTES_A_FILE: usize = 200;

/// The world of one benchmark. Its directory goes with it.
pub struct World {
    directory: TempDir,
    key: EncodingKey,
    certificate: CertificateDer<'static>,
    tokens: AtomicU64,
}

impl World {
    /// A configuration of `policies` policies in front of `upstream`, five on each route.
    ///
    /// Path `/api/…` is a route whose decisions hold for a whole role session; `/context/…` one whose policies read
    /// the time, so that every request is judged anew.
    pub fn new(upstream: SocketAddr, policies: usize) -> Self {
        Self::with(upstream, (policies / POLICIES_A_ROUTE).max(2), POLICIES_A_ROUTE)
    }

    /// A configuration of `routes` routes with `policies_a_route` policies on each.
    pub fn with(upstream: SocketAddr, routes: usize, policies_a_route: usize) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a public key");
        public.common.key_id = Some(KEY_ID.to_owned());

        let tls_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let names = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = names.self_signed(&tls_key).expect("a certificate");

        let world = Self::empty(key, certificate.der().clone());
        world.write("server.pem", &certificate.pem());
        world.write("server.key", &tls_key.serialize_pem());
        world.write("keys.json", &json!({ "keys": [public] }).to_string());
        world.write("issuer.pem", &pair.public_key_pem());
        world.furnish(upstream, routes, policies_a_route);
        world
    }

    /// Another directory with the same certificates and the same issuer, for one more process beside this one's.
    pub fn beside(&self, upstream: SocketAddr, routes: usize, policies_a_route: usize) -> Self {
        let world = Self::empty(self.key.clone(), self.certificate.clone());
        for name in ["server.pem", "server.key", "keys.json", "issuer.pem"] {
            fs::copy(self.path(name), world.path(name)).expect("a file");
        }
        world.furnish(upstream, routes, policies_a_route);
        world
    }

    fn empty(key: EncodingKey, certificate: CertificateDer<'static>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory, key, certificate, tokens: AtomicU64::new(0) }
    }

    fn furnish(&self, upstream: SocketAddr, routes: usize, policies_a_route: usize) {
        self.write("doorward.yaml", &configuration(upstream));
        // Records stand apart: the directories of a configuration are watched.
        for name in ["policies", "records"] {
            fs::create_dir(self.path(name)).expect("a directory");
        }
        self.write_rules(routes, policies_a_route);
    }

    /// Writes roles, routes and policies, in as many files as their limit of one MiB asks for.
    fn write_rules(&self, routes: usize, policies_a_route: usize) {
        self.write("policies/roles.yaml", &roles());
        let routes: Vec<usize> = (0..routes).collect();
        for (number, some) in routes.chunks(ROUTES_A_FILE).enumerate() {
            self.write(&format!("policies/access-{number}.yaml"), &access(some));
            self.write(&format!("policies/access-{number}.cedar"), &rules(some, policies_a_route));
        }
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.path("doorward.yaml")
    }

    /// A file of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What clients trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// `Authorization` with a token that no other call gave: ES256, good for an hour.
    pub fn authorization(&self) -> String {
        self.authorization_of("caller-1", &["developers", "on-call"])
    }

    /// The same for a caller of this name and these groups.
    pub fn authorization_of(&self, subject: &str, groups: &[&str]) -> String {
        self.signed(&self.key, subject, groups)
    }

    /// The same by somebody who has not the issuer's key.
    pub fn forged_authorization(&self) -> String {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        self.signed(&EncodingKey::from_ec_der(&pair.serialize_der()), "caller-1", &["developers", "on-call"])
    }

    fn signed(&self, key: &EncodingKey, subject: &str, groups: &[&str]) -> String {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = now + Duration::from_secs(3600);
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "jti": number.to_string(), "client_id": "bench",
            "iat": now.as_secs(), "exp": end.as_secs(), "groups": groups, "email": "dev@example.com",
        });
        let token = jsonwebtoken::encode(&header, &claims, key).expect("a token");
        format!("Bearer {token}")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }
}

/// TLS with the certificate in `directory`, for the yardstick.
pub fn server_tls(directory: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(directory.join("server.pem")).expect("a certificate");
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("key and certificate belong together");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("a ticketer");
    Arc::new(config)
}

fn configuration(upstream: SocketAddr) -> String {
    format!(
        r#"external_origin: https://localhost
state: {{ dir: state }}
listeners:
  public:
    address: 127.0.0.1:0
    tls:
      certificates: [{{ certificate: server.pem, key: "file:server.key" }}]
issuers:
  bench:
    issuer: {ISSUER}
    principals: workloads
    audience: ["{AUDIENCE}"]
    algorithms: [ES256]
    keys: {{ file: keys.json }}
    principal: [sub]
upstreams:
  api: {{ addresses: ["http://{upstream}"] }}
credentials:
  assertion: {{ signed_assertion: {{}} }}
audit: {{ destination: {{ file: {{ path: records/audit.jsonl, rotate_bytes: 100MiB, keep: 1 }} }} }}
"#
    )
}

fn roles() -> String {
    let mut text = String::from("roles:\n");
    for (role, group) in [("developer", "developers"), ("operator", "operators"), ("auditor", "auditors")] {
        let trust = format!("[{{ issuer: bench, groups: [{group}] }}]");
        line(&mut text, format_args!("  {role}: {{ environment: bench, trust: {trust}, longest_session: 1h }}"));
    }
    text
}

fn access(routes: &[usize]) -> String {
    let mut text = String::from("routes:\n");
    for &number in routes {
        let place = place(number);
        let limits = "limits: { body: 2GiB }";
        let shared = "environment: bench, upstream: api, credential: assertion";
        let accept = "accept: { issuers: [bench], evidence: [bearer] }";
        let headers = if number == 1 { ", identity_headers: {}" } else { "" };
        line(
            &mut text,
            format_args!(
                "  {place}: {{ host: localhost, path: \"/{place}/{{*rest}}\", {shared}, {accept}, {limits}{headers} }}"
            ),
        );
    }
    text
}

fn place(number: usize) -> String {
    match number {
        0 => "api".to_owned(),
        1 => "context".to_owned(),
        other => format!("service-{other}"),
    }
}

fn rules(routes: &[usize], policies_a_route: usize) -> String {
    let mut text = String::new();
    for &number in routes {
        let place = place(number);
        let reads_context = r#" || context.time < datetime("2026-01-01T00:00:00Z")"#;
        let condition = if number == 1 { reads_context } else { "" };
        let resource = format!("resource == Route::\"{place}\"");
        let may = |role: &str, action: &str| {
            format!("permit(principal in Role::\"{role}\", action in Action::\"{action}\", {resource});")
        };
        let never = |group: &str| {
            let forbidden = format!(r#"principal.groups.contains("{group}"){condition}"#);
            format!("forbid(principal is Workload, action, {resource}) when {{ {forbidden} }};")
        };
        let usual = [
            ("developers-read".to_owned(), may("developer", "read")),
            ("developers-write".to_owned(), may("developer", "write")),
            ("operators-write".to_owned(), may("operator", "write")),
            ("auditors-read".to_owned(), may("auditor", "read")),
            ("suspended".to_owned(), never("suspended")),
        ];
        let further = (1..).map(|further| (format!("barred-{further}"), never(&format!("barred-{further}"))));
        for (name, rule) in usual.into_iter().chain(further).take(policies_a_route) {
            line(&mut text, format_args!("@id(\"{place}-{name}\")\n{rule}"));
        }
    }
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("writing to a string succeeds");
}
