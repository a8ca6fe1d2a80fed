//! A vault in a few lines: it refuses whatever a real one would.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clock::{Clock, Timestamp};
use crate::credential::vault::{
    VaultLeases, VaultLogin, VaultSecret, VaultServer, VaultSettings, VaultSource, VaultSubject,
};
use crate::credential::{
    Algorithm, IssuedCache, Leases, Places, SHORTEST_ROTATION, SigningKeys, SubjectTokens, Template,
};
use crate::outbound::testing::{TestServer, answer};
use crate::outbound::{OutboundClient, OutboundSettings};

pub(super) const NAMESPACE: &str = "team-a";
const LEASE_SECONDS: u64 = 60;
const LONGEST_LEASE_SECONDS: u64 = 180;

/// A fake vault, and what logs in to it.
pub(super) struct VaultWorld {
    pub(super) vault: Vault,
    pub(super) clock: Clock,
    pub(super) all_leases: Leases,
    pub(super) leases: VaultLeases,
    cache: IssuedCache,
    tokens: SubjectTokens,
    server: TestServer,
    _keys: TempDir,
}

/// Its books.
#[derive(Clone)]
pub(super) struct Vault(Arc<Mutex<Books>>);

struct Books {
    clock: Clock,
    secrets: BTreeMap<String, Value>,
    denied: BTreeSet<String>,
    /// Live tokens, and their ends.
    tokens: BTreeMap<String, Timestamp>,
    token_seconds: u64,
    auth: Option<Value>,
    no_role: bool,
    claims: Vec<Value>,
    leases: BTreeMap<String, Lease>,
    username: Option<String>,
    renewable: bool,
    made: usize,
    renewals: usize,
    revocations: usize,
    always: Option<u16>,
}

#[derive(Clone)]
struct Lease {
    token: String,
    began: Timestamp,
    ends: Timestamp,
}

impl VaultWorld {
    pub(super) async fn start() -> Self {
        let clock = Clock::system();
        let vault = Vault(Arc::new(Mutex::new(Books {
            clock: clock.clone(),
            secrets: BTreeMap::new(),
            denied: BTreeSet::new(),
            tokens: BTreeMap::new(),
            token_seconds: 3600,
            auth: None,
            no_role: false,
            claims: Vec::new(),
            leases: BTreeMap::new(),
            username: None,
            renewable: true,
            made: 0,
            renewals: 0,
            revocations: 0,
            always: None,
        })));
        let serving = vault.clone();
        let server = TestServer::start_async(move |request| {
            let vault = serving.clone();
            async move { vault.serve(request).await }
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let keys = SigningKeys::open(folder.path(), SHORTEST_ROTATION).unwrap();
        keys.ensure(Algorithm::Es256, clock.now()).unwrap();
        let tokens = SubjectTokens::new(Arc::new(keys), "https://gate.test".into(), Algorithm::Es256, clock.clone());
        let (cache, all_leases) = (IssuedCache::new(100, clock.clone()), Leases::new(clock.clone()));
        let leases = VaultLeases::new(all_leases.clone());
        Self { vault, clock, all_leases, leases, cache, tokens, server, _keys: folder }
    }

    pub(super) fn doorward(&self, subject: &str) -> VaultSubject {
        VaultSubject::Doorward {
            tokens: self.tokens.clone(),
            audience: "https://vault.test".into(),
            subject: Template::parse(subject).unwrap(),
        }
    }

    pub(super) fn source(&self, secret: VaultSecret) -> Arc<VaultSource> {
        self.source_as(secret, self.doorward("{{principal.id}}"))
    }

    pub(super) fn source_as(&self, secret: VaultSecret, subject: VaultSubject) -> Arc<VaultSource> {
        let server = Arc::new(VaultServer {
            address: self.server.origin().into(),
            namespace: Some(NAMESPACE.into()),
            client: OutboundClient::new(&OutboundSettings::default()).unwrap(),
            clock: self.clock.clone(),
            places: Places::default(),
        });
        let (mount, role, cache) = ("jwt".into(), "app".into(), self.cache.clone());
        let login = VaultLogin { server, mount, role, subject, cache };
        let leases = self.leases.clone();
        Arc::new(VaultSource::new(VaultSettings { name: "billing".into(), login, secret, leases }))
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

impl Vault {
    fn with<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    pub(super) fn put(&self, path: &str, secret: Value) {
        self.with(|books| _ = books.secrets.insert(path.to_owned(), secret));
    }

    pub(super) fn remove(&self, path: &str) {
        self.with(|books| _ = books.secrets.remove(path));
    }

    pub(super) fn deny(&self, path: &str) {
        self.with(|books| _ = books.denied.insert(path.to_owned()));
    }

    pub(super) fn deny_renewals(&self) {
        self.deny("sys/leases/renew");
    }

    /// Leases from now on can be renewed, and no path is denied.
    pub(super) fn allow_all(&self) {
        self.with(|books| {
            books.denied.clear();
            books.renewable = true;
        });
    }

    /// No lease can be renewed, whatever was said of it.
    pub(super) fn lease_for_once(&self) {
        self.with(|books| books.renewable = false);
    }

    pub(super) fn forget_leases(&self) {
        self.with(|books| books.leases.clear());
    }

    pub(super) fn forget_tokens(&self) {
        self.with(|books| books.tokens.clear());
    }

    pub(super) fn tokens_live(&self, seconds: u64) {
        self.with(|books| books.token_seconds = seconds);
    }

    pub(super) fn logins_give(&self, auth: Value) {
        self.with(|books| books.auth = Some(auth));
    }

    pub(super) fn knows_no_role(&self) {
        self.with(|books| books.no_role = true);
    }

    pub(super) fn users_are_called(&self, name: &str) {
        self.with(|books| books.username = Some(name.to_owned()));
    }

    pub(super) fn answers_all_with(&self, status: Option<u16>) {
        self.with(|books| books.always = status);
    }

    /// Claims of every token that logged in.
    pub(super) fn claims(&self) -> Vec<Value> {
        self.with(|books| books.claims.clone())
    }

    pub(super) fn logins(&self) -> usize {
        self.with(|books| books.claims.len())
    }

    /// Ids of live leases.
    pub(super) fn leases(&self) -> Vec<String> {
        self.with(|books| books.leases.keys().cloned().collect())
    }

    pub(super) fn renewals(&self) -> usize {
        self.with(|books| books.renewals)
    }

    pub(super) fn revocations(&self) -> usize {
        self.with(|books| books.revocations)
    }

    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let header = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        // What a real one would let pass is a fault of ours all the same.
        assert_eq!(header("x-vault-request").as_deref(), Some("true"));
        let path = head.uri.path().strip_prefix("/v1/").unwrap().to_owned();
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let token = header("x-vault-token");
        if header("x-vault-namespace").as_deref() != Some(NAMESPACE) {
            return answer(404, r#"{"errors":["namespace not found"]}"#);
        }
        let (status, body) = self.with(|books| books.answer(&head.method, &path, token, &body));
        answer(status, body.to_string())
    }
}

impl Books {
    fn answer(&mut self, method: &Method, path: &str, token: Option<String>, body: &Value) -> (u16, Value) {
        if let Some(status) = self.always {
            return (status, json!({ "errors": ["as it was told"] }));
        }
        if path == "auth/jwt/login" {
            assert!(method == Method::POST && token.is_none());
            return self.log_in(body);
        }
        let now = self.clock.now();
        let live = token.filter(|token| self.tokens.get(token).is_some_and(|end| *end > now));
        let Some(token) = live.filter(|_| !self.denied.contains(path)) else {
            return (403, json!({ "errors": ["permission denied"] }));
        };
        self.leases.retain(|_, lease| lease.ends > now);
        match (method.as_str(), path) {
            ("POST", "sys/leases/renew") => self.renew(body, &token, now),
            ("POST", "sys/leases/revoke") => {
                self.revocations += 1;
                let id = body["lease_id"].as_str().unwrap();
                let own = self.leases.get(id).is_some_and(|lease| lease.token == token);
                if own { (204, self.leases.remove(id).map_or(json!(""), |_| json!(""))) } else { (403, Value::Null) }
            }
            ("GET", "database/creds/app") => self.lease(&token, now),
            ("GET", path) => match self.secrets.get(path) {
                Some(Value::String(text)) => (200, Value::from(text.as_str())),
                Some(secret) => {
                    let data = json!({ "data": secret, "metadata": { "version": 7 } });
                    (200, json!({ "request_id": "r-1", "lease_duration": 0, "data": data, "auth": null }))
                }
                None => (404, json!({ "errors": [] })),
            },
            (method, path) => panic!("{method} {path}"),
        }
    }

    fn log_in(&mut self, body: &Value) -> (u16, Value) {
        assert_eq!(body["role"], "app");
        let claims = body["jwt"].as_str().unwrap().split('.').nth(1).unwrap();
        self.claims.push(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap());
        if self.no_role {
            return (400, json!({ "errors": ["role \"app\" could not be found"] }));
        }
        let token = format!("b.{}", self.claims.len());
        self.tokens.insert(token.clone(), self.clock.now().plus(Duration::from_secs(self.token_seconds)));
        let auth = json!({ "client_token": token, "lease_duration": self.token_seconds, "num_uses": 0 });
        (200, json!({ "data": null, "auth": self.auth.clone().unwrap_or(auth) }))
    }

    fn lease(&mut self, token: &str, now: Timestamp) -> (u16, Value) {
        self.made += 1;
        let (made, id) = (self.made, format!("database/creds/app/{}", self.made));
        let ends = now.plus(Duration::from_secs(LEASE_SECONDS));
        self.leases.insert(id.clone(), Lease { token: token.to_owned(), began: now, ends });
        let username = self.username.clone().unwrap_or_else(|| format!("u-{made}"));
        let data = json!({ "username": username, "password": format!("p:{made}") });
        let renewable = self.renewable;
        (200, json!({ "lease_id": id, "renewable": renewable, "lease_duration": LEASE_SECONDS, "data": data }))
    }

    fn renew(&mut self, body: &Value, token: &str, now: Timestamp) -> (u16, Value) {
        let id = body["lease_id"].as_str().unwrap().to_owned();
        let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.token == token) else {
            return (400, json!({ "errors": ["lease not found"] }));
        };
        if !self.renewable {
            return (400, json!({ "errors": ["lease is not renewable"] }));
        }
        self.renewals += 1;
        let longest = lease.began.plus(Duration::from_secs(LONGEST_LEASE_SECONDS));
        lease.ends = now.plus(Duration::from_secs(LEASE_SECONDS)).min(longest);
        (200, json!({ "lease_id": id, "renewable": true, "lease_duration": lease.ends.since(now).as_secs() }))
    }
}
