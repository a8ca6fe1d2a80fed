//! A small directory with a whole valid configuration, and ways to spoil it.

use std::path::Path;

use tempfile::TempDir;

use crate::config::{Checked, Environment, Fault, Faults, load_with};

/// A configuration that uses nearly everything.
pub(crate) const DOORWARD: &str = r#"external_origin: https://api.example.com
trusted_proxies: [10.0.0.0/8]
state:
  dir: state
listeners:
  public:
    address: 0.0.0.0:8443
    tls:
      certificates:
        - { certificate: tls/api.pem, key: file:tls/api.key }
      minimum_version: "1.2"
      client_certificates:
        mode: optional
        authorities: tls/ca.pem
    proxy_protocol: { from: [10.0.0.5/32] }
  sidecar:
    address: 127.0.0.1:8080
  documents:
    address: unix:documents.sock
limits:
  header_read: 10s
  header_bytes: 64KiB
issuers:
  okta:
    issuer: https://acme.okta.com/oauth2/default
    principals: users
    audience: [api://acme]
    algorithms: [RS256]
    keys: { discovery: {} }
    principal: [uid]
    forbidden_claims: { act: [] }
    attributes:
      department: { claim: department, type: string }
    leeway: 60s
    login:
      client_id: client
      client_secret: file:okta.secret
      scopes: [openid, offline_access]
      idle: 30m
      longest: 12h
  ci:
    issuer: https://token.actions.githubusercontent.com
    principals: workloads
    audience: [https://api.example.com]
    algorithms: [RS256]
    keys: { file: keys.json }
    principal: [repository_owner_id, repository_id]
    required_claims: { repository_owner_id: "42" }
certificate_issuers:
  mesh:
    listeners: [public]
assertions:
  listener: documents
  rotate_every: 30d
credentials:
  assertion: { signed_assertion: { algorithm: ES256, lifetime: 5m } }
  key: { fixed: { header: X-Api-Key, secret: file:api.secret } }
  open: { none: { reason: "static site without callers" } }
upstreams:
  billing:
    addresses: [http://10.0.0.7:8080, http://10.0.0.8:8080]
    protocol: http1
audit:
  destination: { file: { path: audit.jsonl, rotate_bytes: 100MiB, keep: 5 } }
  when_full: refuse
admin:
  address: 127.0.0.1:9901
  token: file:admin.token
"#;

/// Rules to go with it.
pub(crate) const RULES: &str = r#"roles:
  billing-admin:
    trust:
      - issuer: okta
        groups: [billing-admins]
        claims: { department: [finance] }
      - { issuer: ci, claims: { repository_id: ["123"] } }
    environment: production
    longest_session: 1h
upstreams:
  pages:
    addresses: [https://pages.internal]
    tls: { authorities: ../tls/ca.pem }
routes:
  invoices:
    host: api.example.com
    path: /billing/{*rest}
    environment: production
    tags: [finance]
    upstream: billing
    credential: assertion
    accept:
      issuers: [okta, ci, mesh]
      evidence: [bearer, session, client_certificate]
    login: { issuer: okta, acr_values: [urn:mfa], max_age: 1h }
    cors: { origins: [https://app.example.com] }
    identity_headers: {}
    limits: { body: 10MiB, idle: 60s }
  site:
    host: "*.example.com"
    path: /{*rest}
    environment: public
    upstream: pages
    credential: open
    public: { reason: "the company's front page" }
"#;

/// A directory with a configuration.
pub(super) struct World(TempDir);

impl World {
    /// The whole valid configuration.
    pub(super) fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for directory in ["tls", "policies", "policies/cases"] {
            std::fs::create_dir(world.path().join(directory)).unwrap();
        }
        // The shape of PEM is all that is looked at here; nothing in it is a key.
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAA==\n-----END {label}-----\n");
        world.write("tls/api.pem", &pem("CERTIFICATE"));
        world.write("tls/api.key", &pem("PRIVATE KEY"));
        world.write("tls/ca.pem", &pem("CERTIFICATE"));
        world.write("okta.secret", "s3cret\n");
        world.write("api.secret", "k3y\n");
        world.write("admin.token", "t0ken\n");
        world.write("keys.json", "{\"keys\":[]}\n");
        world.write("doorward.yaml", DOORWARD);
        world.write("policies/rules.yaml", RULES);
        world.write("policies/access.cedar", "permit(principal, action, resource);\n");
        world.write("policies/guardrails-org.cedar", "\n");
        world.write("policies/cases/case.yaml", "not: [a, policy\n");
        world
    }

    /// The valid configuration with one text of one file replaced.
    pub(super) fn with(file: &str, from: &str, to: &str) -> Self {
        let world = Self::new();
        world.replace(file, from, to);
        world
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path().join(file), text).unwrap();
    }

    pub(super) fn replace(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "`{from}` must stand once in {file}");
        self.write(file, &text.replace(from, to));
    }

    pub(super) fn load(&self) -> Result<Checked, Faults> {
        let environment = Environment::of(|name| (name == "API_KEY").then(|| "k3y".to_owned()));
        load_with(&self.path().join("doorward.yaml"), &environment)
    }

    /// Every fault as `file:line:column code: message (help)`, with paths relative to the directory.
    pub(super) fn told(&self) -> Vec<String> {
        let faults = self.load().expect_err("the configuration must have faults");
        let told = |fault: &Fault| {
            let help = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{} {}: {}{help}", fault.at(), fault.code, fault.message)
        };
        let here = format!("{}/", self.path().display());
        faults.iter().map(|fault| told(fault).replace(&here, "")).collect()
    }
}

/// Spoils one place of one file and expects exactly one fault, at `LINE:COLUMN CODE`.
#[track_caller]
pub(super) fn spoiled_in(file: &str, (from, to): (&str, &str), place_and_code: &str, message: &str, help: &str) {
    let help = if help.is_empty() { String::new() } else { format!(" ({help})") };
    assert_eq!(World::with(file, from, to).told(), [format!("{file}:{place_and_code}: {message}{help}")]);
}
