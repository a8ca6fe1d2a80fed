//! The demo's own configuration file, and the policies that it stands on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::certificates::DemoCertificates;

/// The policies of the repository, for a binary that runs elsewhere.
const SHIPPED: [(&str, &str); 4] = [
    ("roles.yaml", include_str!("../../policies/roles.yaml")),
    ("routes.yaml", include_str!("../../policies/routes.yaml")),
    ("access.cedar", include_str!("../../policies/access.cedar")),
    ("guardrails.cedar", include_str!("../../policies/guardrails.cedar")),
];

/// What the demo's configuration has to name.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) certificates: &'a DemoCertificates,
    pub(super) client_secret: &'a Path,
    pub(super) policies: &'a Path,
    pub(super) state: &'a Path,
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) sample: &'a str,
    pub(super) port: u16,
    pub(super) admin_port: u16,
}

/// The directory of policies: `policies/` here when it is the repository's, else shipped ones under `directory`.
pub(super) fn policies(directory: &Path) -> io::Result<PathBuf> {
    let here = Path::new("policies");
    if here.join("roles.yaml").is_file() && here.join("routes.yaml").is_file() {
        return fs::canonicalize(here);
    }
    let target = directory.join("policies");
    fs::create_dir_all(&target)?;
    for (name, text) in SHIPPED {
        let path = target.join(name);
        if !path.exists() {
            fs::write(path, text)?;
        }
    }
    fs::canonicalize(target)
}

/// The text of the demo's `doorward.yaml`.
pub(super) fn text(facts: &Facts<'_>) -> String {
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    let secret = |path: &Path| serde_json::Value::from(format!("file:{}", path.to_string_lossy())).to_string();
    let Facts { issuer, client_id, sample, port, admin_port, .. } = facts;
    format!(
        r#"# Made by `doorward demo`, anew at each start.
external_origin: https://localhost:{port}
policies: {policies}
state: {{ dir: {state} }}
listeners:
  demo:
    address: 127.0.0.1:{port}
    tls:
      certificates:
        - {{ certificate: {certificate}, key: {key} }}
issuers:
  dev:
    issuer: {issuer}
    principals: users
    audience: [doorward-demo]
    algorithms: [ES256]
    keys: {{ discovery: {{}} }}
    token_type: at+jwt
    principal: [sub]
    login:
      client_id: {client_id}
      client_secret: {client_secret}
      scopes: [openid, profile, email, groups, offline_access]
upstreams:
  sample: {{ addresses: [{sample}] }}
credentials:
  assertion: {{ signed_assertion: {{}} }}
  open: {{ none: {{ reason: "the health page needs no caller" }} }}
audit: {{ destination: stdout }}
# Within the open files of any machine.
limits: {{ connections: 200, concurrent_requests: 200 }}
admin: {{ address: "127.0.0.1:{admin_port}" }}
"#,
        policies = quoted(facts.policies),
        state = quoted(facts.state),
        certificate = quoted(&facts.certificates.certificate),
        key = secret(&facts.certificates.key),
        client_secret = secret(facts.client_secret),
    )
}
