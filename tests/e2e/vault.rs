//! Secrets of a vault, as upstreams are shown them: against OpenBao, which verifies Doorward's tokens by its published
//! keys, and a store whose users it makes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{
    AuditRecord, Authority, Gate, OpenBao, Received, RecordingUpstream, RunningGate, StaticIssuer, Valkey, eventually,
};

const ISSUER: &str = "https://tokens.test/doorward";
const SECRET: &str = "the-secret-of-billing";

struct World {
    bao: OpenBao,
    authority: std::sync::Arc<Authority>,
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
}

/// A credential `NAME` of this vault.
fn vault(bao: &OpenBao, settings: Value) -> Value {
    let mut vault = json!({ "address": bao.url(), "login": { "role": "app" }, "token_audience": "openbao" });
    vault.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    json!({ "vault": vault })
}

fn kv(path: &str) -> Value {
    json!({ "kv": { "path": path, "field": "api_key", "header": "X-Api-Key", "prefix": "Token " } })
}

impl World {
    /// A gate whose documents OpenBao reads, and OpenBao trusting it in the root namespace.
    async fn start(change: impl FnOnce(Gate, &OpenBao) -> Gate) -> Self {
        let world = Self::untrusted(change).await;
        world.bao.trust(None, "jwt", world.keys(), world.role()).await;
        world.bao.write("secret/data/apps/billing", json!({ "data": { "api_key": SECRET } })).await;
        world
    }

    async fn untrusted(change: impl FnOnce(Gate, &OpenBao) -> Gate) -> Self {
        let bao = OpenBao::start().await;
        let authority = Authority::new();
        let issuer = StaticIssuer::start(&authority).await;
        let upstream = RecordingUpstream::start().await;
        let gate = Gate::standard(&authority, &issuer, &upstream).config(json!({
            "listeners": { "documents": { "address": "127.0.0.1:0" } },
            "assertions": { "issuer": ISSUER, "listener": "documents" },
        }));
        let gate = change(gate, &bao).start().await;
        gate.becomes_ready(200).await;
        Self { bao, authority, issuer, upstream, gate }
    }

    /// How OpenBao knows Doorward's tokens.
    fn keys(&self) -> Value {
        let documents = self.gate.listener_address("documents");
        json!({ "jwks_url": format!("http://{documents}/doorward/jwks.json"), "bound_issuer": ISSUER })
    }

    /// Whom it lets in by them.
    fn role(&self) -> Value {
        json!({ "bound_audiences": ["openbao"], "bound_claims": { "environment": "test", "roles": ["reader"] } })
    }

    /// What the upstream received for a GET of `path`.
    async fn shown(&self, path: &str) -> Received {
        self.shown_for(path, &self.issuer.token().mint()).await
    }

    async fn shown_for(&self, path: &str, token: &str) -> Received {
        let answer = self.gate.get(path).bearer(token).send().await;
        assert_eq!(answer.status, 200, "{}\n{:#?}", answer.text(), self.gate.audit());
        self.upstream.received().pop().unwrap()
    }

    async fn credentials(&self, event: &str) -> Vec<AuditRecord> {
        let records = self.gate.settled_audit().await.into_iter();
        records.filter(|record| record.event() == event).collect()
    }
}

/// Name and password of `Authorization: Basic`.
fn basic(received: &Received) -> (String, String) {
    let encoded = received.header("authorization").unwrap().strip_prefix("Basic ").unwrap();
    let pair = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
    let (name, password) = pair.split_once(':').unwrap();
    (name.to_owned(), password.to_owned())
}

#[tokio::test]
async fn a_secret_of_a_vault_goes_upstream_in_its_header_and_the_caller_never_sees_it() {
    let world = World::start(|gate, bao| {
        gate.config(json!({ "credentials": { "billing": vault(bao, kv("apps/billing")) } }))
            .route("billing", json!({ "path": "/billing/{*rest}", "credential": "billing" }))
    })
    .await;
    let token = world.issuer.token().mint();
    for path in ["/billing/1", "/billing/2"] {
        let answer = world.gate.get(path).bearer(&token).header("x-api-key", "mine").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!format!("{answer:?}").contains(SECRET));
        let received = world.upstream.received().pop().unwrap();
        assert_eq!(received.header("x-api-key"), Some(&*format!("Token {SECRET}")));
        assert_eq!(received.header("authorization"), None);
    }
    let issued = world.credentials("credential.issued").await;
    assert_eq!(issued.len(), 1, "it is read once: {issued:#?}");
    assert_eq!((issued[0].text("kind"), issued[0].text("path")), ("vault", "secret/data/apps/billing"));
    assert_eq!(issued[0].number("version"), 1);
    assert!(!issued[0].text("vault_request_id").is_empty() && !issued[0].text("expires_at").is_empty());
    let record = world.gate.only_record_of("/billing/1").await;
    assert_eq!(record.text("credential.id"), "secret/data/apps/billing@1");
    world.gate.never_wrote(SECRET);
}

#[tokio::test]
async fn a_login_that_the_vault_refuses_stops_its_route_alone_and_says_why_in_the_record() {
    let world = World::start(|gate, bao| {
        let mut nobody = vault(bao, kv("apps/billing"));
        nobody["vault"]["login"]["role"] = json!("nobody");
        let mut stranger = vault(bao, kv("apps/billing"));
        stranger["vault"]["token_audience"] = json!("somebody-else");
        gate.config(json!({ "credentials": {
            "billing": vault(bao, kv("apps/billing")), "nobody": nobody, "stranger": stranger,
            "forbidden": vault(bao, kv("other")),
        } }))
        .route("billing", json!({ "path": "/billing/{*rest}", "credential": "billing" }))
        .route("nobody", json!({ "path": "/nobody/{*rest}", "credential": "nobody" }))
        .route("stranger", json!({ "path": "/stranger/{*rest}", "credential": "stranger" }))
        .route("forbidden", json!({ "path": "/forbidden/{*rest}", "credential": "forbidden" }))
    })
    .await;
    let token = world.issuer.token().mint();
    let refusals = [
        ("/nobody/1", "400 at `auth/jwt/login`: role \"nobody\" could not be found"),
        ("/stranger/1", "400 at `auth/jwt/login`"),
        ("/forbidden/1", "403 at `secret/data/other`"),
    ];
    for (path, says) in refusals {
        let answer = world.gate.get(path).bearer(&token).send().await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (503, &json!("credential_unavailable")), "{path}");
        assert!(!answer.text().contains("vault"), "{}", answer.text());
        let record = world.gate.only_record_of(path).await;
        assert_eq!(record.verdict(), ("allow", "credential_unavailable"), "{path}");
        let refused = world.credentials("credential.refused").await.pop().unwrap();
        assert_eq!(refused.text("code"), "credential_refused");
        assert!(refused.text("detail").contains(says), "{path}: {}", refused.text("detail"));
    }
    assert_eq!(world.upstream.received().len(), 0);
    assert!(world.shown("/billing/1").await.header("x-api-key").is_some());
    assert!(world.shown("/things/1").await.header("authorization").is_some());
}

#[tokio::test]
async fn what_the_path_catches_chooses_the_secret_and_cannot_leave_its_place() {
    let world = World::start(|gate, bao| {
        gate.config(json!({ "credentials": { "apps": vault(bao, kv("apps/{{path.app}}")) } }))
            .route("apps", json!({ "path": "/apps/{app}/{*rest}", "credential": "apps" }))
    })
    .await;
    world.bao.write("secret/data/apps/shop", json!({ "data": { "api_key": "the-secret-of-shop" } })).await;
    world.bao.write("secret/data/root", json!({ "data": { "api_key": "the-secret-of-all" } })).await;
    assert_eq!(world.shown("/apps/billing/1").await.header("x-api-key"), Some(&*format!("Token {SECRET}")));
    assert_eq!(world.shown("/apps/shop/1").await.header("x-api-key"), Some("Token the-secret-of-shop"));
    let (before, token) = (world.upstream.received().len(), world.issuer.token().mint());
    for app in
        ["..%2Froot", "%2e%2e%2froot", "..", "billing%2F..%2F..%2Froot", "a..b", "billing%3Fversion=1", "b%23", "a*"]
    {
        let path = format!("/apps/{app}/1");
        let answer = world.gate.get(&path).bearer(&token).send().await;
        assert!([400, 403, 404].contains(&answer.status.as_u16()), "{path}: {} {}", answer.status, answer.text());
    }
    let absent = world.gate.get("/apps/absent/1").bearer(&token).send().await;
    assert_eq!(absent.status, 503);
    let refused = world.credentials("credential.refused").await;
    assert_eq!(refused.len(), 1, "{refused:#?}");
    assert!(refused[0].text("detail").ends_with("404 at `secret/data/apps/absent`: there is nothing"));
    assert_eq!(world.upstream.received().len(), before);
}

#[tokio::test]
async fn a_namespace_has_its_own_logins_and_secrets() {
    let world = World::untrusted(|gate, bao| {
        let mut settings = kv("apps/billing");
        settings["namespace"] = json!("team-a");
        gate.config(json!({ "credentials": { "billing": vault(bao, settings) } }))
            .route("billing", json!({ "path": "/billing/{*rest}", "credential": "billing" }))
    })
    .await;
    let team = Some("team-a");
    world.bao.write("sys/namespaces/team-a", json!({})).await;
    world.bao.write_in(team, "sys/mounts/secret", json!({ "type": "kv", "options": { "version": "2" } })).await;
    world.bao.trust(team, "jwt", world.keys(), world.role()).await;
    let written = || async {
        // An engine of version 2 takes a moment to be ready for its first secret.
        let secret = json!({ "data": { "api_key": "the-secret-of-team-a" } });
        world.bao.try_write_in(team, "secret/data/apps/billing", secret).await
    };
    eventually("the engine", written).await;
    assert_eq!(world.shown("/billing/1").await.header("x-api-key"), Some("Token the-secret-of-team-a"));
}

#[tokio::test]
async fn the_callers_own_token_logs_in_where_the_vault_trusts_its_issuer() {
    let world = World::start(|gate, bao| {
        let mut settings = kv("apps/billing");
        settings["subject"] = json!("caller");
        settings["login"] = json!({ "mount": "callers", "role": "app" });
        let mut billing = vault(bao, settings);
        billing["vault"].as_object_mut().unwrap().remove("token_audience");
        gate.config(json!({ "credentials": { "billing": billing } }))
            .route("billing", json!({ "path": "/billing/{*rest}", "credential": "billing" }))
    })
    .await;
    let keys = json!({
        "jwks_url": format!("{}/keys", world.issuer.url()), "jwks_ca_pem": world.authority.certificate(),
        "bound_issuer": world.issuer.url(), "jwt_supported_algs": ["RS256", "ES256"],
    });
    let role = json!({ "bound_audiences": [crate::support::ORIGIN], "bound_subject": "machine-1" });
    world.bao.trust(None, "callers", keys, role).await;
    assert_eq!(world.shown("/billing/1").await.header("x-api-key"), Some(&*format!("Token {SECRET}")));
    let other = world.issuer.token().subject("machine-2").mint();
    assert_eq!(world.gate.get("/billing/2").bearer(&other).send().await.status, 503);
}

/// A gate whose route `/db/…` shows its upstream a user of the store.
async fn leased(life: &str, longest: &str) -> (Valkey, World) {
    let store = Valkey::start().await;
    let world = World::start(|gate, bao| {
        gate.config(json!({ "credentials": { "db": vault(bao, json!({ "database": { "role": "app" } })) } }))
            .route("db", json!({ "path": "/db/{*rest}", "credential": "db" }))
    })
    .await;
    store.given_to(&world.bao, life, longest).await;
    (store, world)
}

#[tokio::test]
async fn a_user_is_made_for_each_caller_and_revoked_when_the_gate_ends() {
    let (store, mut world) = leased("1h", "2h").await;
    let (name, password) = basic(&world.shown("/db/1").await);
    assert!(store.opens(&name, &password).await);
    assert_eq!(basic(&world.shown("/db/2").await).0, name);
    let other = world.issuer.token().subject("machine-2").mint();
    let (other, _) = basic(&world.shown_for("/db/3", &other).await);
    assert_ne!(other, name);
    let issued = world.credentials("credential.issued").await;
    assert_eq!(issued.len(), 2, "{issued:#?}");
    assert_eq!((issued[0].text("path"), issued[0].text("username")), ("database/creds/app", name.as_str()));
    let lease = issued[0].text("id").to_owned();
    assert!(world.bao.lease(&lease).await.is_some());
    world.gate.never_wrote(&password);

    world.gate.terminate().await;
    assert!(world.gate.exit().await.success());
    for name in [&name, &other] {
        eventually("the user to be gone", || async { (!store.knows(name).await).then_some(()) }).await;
    }
    assert!(!store.opens(&name, &password).await);
    assert!(world.bao.lease(&lease).await.is_none());
}

#[tokio::test]
async fn when_a_lease_has_ended_its_user_is_shown_no_more() {
    let (store, world) = leased("4s", "4s").await;
    let (name, _) = basic(&world.shown("/db/1").await);
    let next = eventually("another user", || async {
        let (next, password) = basic(&world.shown("/db/2").await);
        (next != name).then_some((next, password))
    })
    .await;
    assert!(store.knows(&next.0).await);
    eventually("the first user to be gone", || async { (!store.knows(&name).await).then_some(()) }).await;
}

#[tokio::test]
async fn a_lease_is_renewed_at_the_vault_and_its_user_stays() {
    let (store, world) = leased("60s", "1h").await;
    let (name, password) = basic(&world.shown("/db/1").await);
    let lease = world.credentials("credential.issued").await[0].text("id").to_owned();
    assert!(world.bao.lease(&lease).await.unwrap()["last_renewal"].is_null());
    // Two thirds of a minute: shorter leases are not renewed beside requests.
    let renewed = async {
        loop {
            assert_eq!(basic(&world.shown("/db/2").await).0, name);
            let state = world.bao.lease(&lease).await.expect("the lease lives");
            if !state["last_renewal"].is_null() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), renewed).await.expect("a renewal");
    let issued = world.gate.audited("the renewal", |record| {
        record.event() == "credential.issued" && record.value("renewed") == &json!(true)
    });
    assert_eq!(issued.await.text("id"), lease);
    assert_eq!(basic(&world.shown("/db/3").await), (name.clone(), password.clone()));
    assert!(store.opens(&name, &password).await);
}
