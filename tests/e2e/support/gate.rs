//! The gate before it starts: "add issuer, add upstream, add route, start".

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::running::Manner;
use super::{Authority, Provider, RecordingUpstream, RunningGate, StaticIssuer};

/// The host that callers name.
pub(crate) const HOST: &str = "gate.test";

/// The origin that browsers see.
pub(crate) const ORIGIN: &str = "https://gate.test";

/// A configuration in the making, in a folder of its own. JSON is YAML, so the files are written as JSON.
pub(crate) struct Gate {
    authority: Arc<Authority>,
    folder: TempDir,
    config: Value,
    rules: Value,
    policies: String,
    manner: Manner,
}

impl Gate {
    /// TLS, audit to a file, an admin listener, the credential `assertion`; no issuer, upstream, route or policy yet.
    pub(crate) fn new(authority: &Arc<Authority>) -> Self {
        let config = json!({
            "external_origin": ORIGIN,
            "state": { "dir": "state" },
            "listeners": { "public": {
                "address": "127.0.0.1:0",
                "tls": { "certificates": [{ "certificate": "server.pem", "key": "file:server.key" }] },
            } },
            "issuers": {},
            "credentials": { "assertion": { "signed_assertion": { "algorithm": "ES256", "lifetime": "5m" } } },
            "upstreams": {},
            "audit": { "destination": { "file": { "path": "audit.jsonl" } } },
            "admin": { "address": "127.0.0.1:0" },
        });
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "server.pem", "server.key"] {
            fs::copy(authority.folder().join(name), folder.path().join(name)).unwrap();
        }
        let rules = json!({ "roles": {}, "routes": {} });
        Self { authority: authority.clone(), folder, config, rules, policies: String::new(), manner: Manner::default() }
    }

    /// What most tests want: at `/things/…`, machines in the group `readers` may read, and those in `writers` write.
    pub(crate) fn standard(authority: &Arc<Authority>, issuer: &StaticIssuer, upstream: &RecordingUpstream) -> Self {
        Self::new(authority)
            .issuer(issuer)
            .upstream(upstream)
            .role("reader", json!({ "issuer": "machines", "groups": ["readers"] }))
            .role("writer", json!({ "issuer": "machines", "groups": ["writers"] }))
            .route("things", json!({ "path": "/things/{*rest}" }))
            .policy(r#"@id("readers-read") permit(principal in Role::"reader", action in Action::"read", resource);"#)
            .policy(r#"@id("writers-write") permit(principal in Role::"writer", action in Action::"write", resource);"#)
    }

    /// People who sign in at `provider`, and the role `admin` for the group `billing-admins` (which Alice is in) on
    /// `/app/…`.
    pub(crate) fn for_people(authority: &Arc<Authority>, provider: &Provider, upstream: &RecordingUpstream) -> Self {
        Self::new(authority)
            .provider(provider)
            .upstream(upstream)
            .role("admin", json!({ "issuer": "people", "groups": ["billing-admins"] }))
            .route("app", json!({ "path": "/app/{*rest}", "login": { "issuer": "people" } }))
            .policy(r#"@id("admins-may") permit(principal in Role::"admin", action, resource);"#)
    }

    /// The issuer `machines`, whose callers are workloads.
    pub(crate) fn issuer(mut self, issuer: &StaticIssuer) -> Self {
        self.config["issuers"]["machines"] = json!({
            "issuer": issuer.url(),
            "principals": "workloads",
            "audience": [ORIGIN],
            "algorithms": ["ES256", "RS256"],
            "keys": { "discovery": { "authorities": "ca.pem" } },
            "token_type": "at+jwt",
            "principal": ["sub"],
            "longest_token": "1h",
        });
        self
    }

    /// The issuer `people`, whose callers sign in with a browser.
    pub(crate) fn provider(self, provider: &Provider) -> Self {
        self.provider_named("people", provider)
    }

    /// One more issuer whose callers sign in with a browser.
    pub(crate) fn provider_named(mut self, name: &str, provider: &Provider) -> Self {
        fs::write(self.folder.path().join("client.secret"), Provider::CLIENT_SECRET).unwrap();
        self.config["issuers"][name] = json!({
            "issuer": provider.url(),
            "principals": "users",
            "audience": [Provider::CLIENT_ID],
            "algorithms": ["RS256"],
            "keys": { "discovery": { "authorities": "ca.pem" } },
            "principal": ["sub"],
            "email": "email",
            "login": {
                "client_id": Provider::CLIENT_ID,
                "client_secret": "file:client.secret",
                "scopes": ["openid", "profile", "email", "offline_access"],
            },
        });
        self
    }

    /// The upstream `api`.
    pub(crate) fn upstream(mut self, upstream: &RecordingUpstream) -> Self {
        let tls = upstream.url().starts_with("https:").then(|| json!({ "authorities": "ca.pem" }));
        self.config["upstreams"]["api"] = json!({ "addresses": [upstream.url()] });
        if let Some(tls) = tls {
            self.config["upstreams"]["api"]["tls"] = tls;
        }
        self
    }

    /// A role with one trust entry.
    pub(crate) fn role(self, name: &str, trust: Value) -> Self {
        self.role_of(name, json!({ "environment": "test", "trust": [trust] }))
    }

    /// A role as the configuration has it.
    pub(crate) fn role_of(mut self, name: &str, settings: Value) -> Self {
        self.rules["roles"][name] = settings;
        self
    }

    /// A route to the upstream `api` with the credential `assertion`, open to callers of every issuer named so far,
    /// changed by `settings`; a setting that is null is left out.
    pub(crate) fn route(mut self, name: &str, settings: Value) -> Self {
        let issuers: Vec<_> = self.config["issuers"].as_object().unwrap().keys().collect();
        let sessions = self.config["issuers"].get("people").is_some();
        let evidence = if sessions { json!(["bearer", "session"]) } else { json!(["bearer"]) };
        let mut route = json!({
            "host": HOST, "environment": "test", "upstream": "api", "credential": "assertion",
            "accept": { "issuers": issuers, "evidence": evidence },
        });
        if settings.get("public").is_some() {
            route.as_object_mut().unwrap().remove("accept");
        }
        merge(&mut route, settings);
        self.rules["routes"][name] = route;
        self
    }

    /// One more Cedar policy in `policies/rules.cedar`.
    pub(crate) fn policy(mut self, text: &str) -> Self {
        self.policies.push_str(text);
        self.policies.push('\n');
        self
    }

    /// One more Cedar file in `policies/`.
    pub(crate) fn cedar(self, name: &str, text: &str) -> Self {
        fs::create_dir_all(self.folder.path().join("policies")).unwrap();
        self.file(&format!("policies/{name}"), text)
    }

    /// The authority that signs what this test's parties show.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Changes `doorward.yaml` by merging.
    pub(crate) fn config(mut self, settings: Value) -> Self {
        merge(&mut self.config, settings);
        self
    }

    /// Puts a file beside or below `doorward.yaml`.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Lets the gate log all that it can.
    pub(crate) fn talkative(mut self) -> Self {
        self.manner.log_level = Some("trace");
        self
    }

    /// Runs the gate with this many worker threads.
    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.manner.workers = Some(workers);
        self
    }

    /// Runs the gate with one more variable in its environment.
    pub(crate) fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.manner.variables.push((name, value.to_owned()));
        self
    }

    /// Runs the gate with other limits of the system, as the shell's `ulimit` sets them.
    pub(crate) fn limited(mut self, limits: &'static str) -> Self {
        self.manner.limits = Some(limits);
        self
    }

    /// Writes audit records to a pipe that nobody reads until the test does.
    pub(crate) fn audit_to_pipe(mut self) -> Self {
        self.manner.piped = true;
        self.config(json!({ "audit": { "destination": "stdout" } }))
    }

    /// Starts the binary and waits until it serves.
    pub(crate) async fn start(self) -> RunningGate {
        let manner = self.manner.clone();
        let (authority, folder) = self.written();
        RunningGate::start(authority, folder, manner).await
    }

    /// Starts the binary, which must refuse; returns its exit code and what it said.
    pub(crate) async fn refuses_to_start(self) -> (i32, String) {
        let (_authority, folder) = self.written();
        RunningGate::refusal(&folder).await
    }

    fn written(self) -> (Arc<Authority>, TempDir) {
        let policies = self.folder.path().join("policies");
        fs::create_dir_all(&policies).unwrap();
        fs::write(self.folder.path().join("doorward.yaml"), format!("{:#}\n", self.config)).unwrap();
        fs::write(policies.join("rules.yaml"), format!("{:#}\n", self.rules)).unwrap();
        fs::write(policies.join("rules.cedar"), &self.policies).unwrap();
        (self.authority, self.folder)
    }
}

/// Objects are merged key by key, null removes, everything else replaces.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}
