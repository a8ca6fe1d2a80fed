//! Tokens of the vendors' shapes against the shipped examples, as compiled; only the keys are the test's own.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use serde_json::{Value, json};

use super::issuers::{Recognition, recognition};
use super::{Runtime, access};
use crate::audit::{Destination, WhenFull, Writer, WriterSettings};
use crate::clock::Clock;
use crate::config::checked::{Checked, Keys};
use crate::config::tests::examples::loaded;
use crate::identity::testing::{Claims, SigningKey, jwks};
use crate::identity::{Presented, Principal, identify};
use crate::peer::{Downstream, Peer, Scheme, Transport};
use crate::policy::{Policies, RequestFacts};
use crate::route::Router;
use crate::target::RequestTarget;
use crate::telemetry::Metrics;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::rsa("k1", "RS256"));

/// A shipped example in force.
struct Example {
    _world: tempfile::TempDir,
    _writer: Writer,
    checked: Checked,
    runtime: Runtime,
    recognition: Recognition,
    router: Router,
    policies: Policies,
    clock: Clock,
}

impl Example {
    fn new(name: &str) -> Self {
        let (world, mut checked) = loaded(name);
        let keys = world.path().join("keys.json");
        std::fs::write(&keys, jwks(&[&KEY])).unwrap();
        for issuer in &mut checked.issuers {
            (issuer.keys, issuer.login) = (Keys::File(keys.clone()), None);
        }
        checked.state_dir = None;
        let destination = Destination::Callback(Box::new(|_: &str| Ok(())));
        let settings = WriterSettings { destination, queue: 1, when_full: WhenFull::Refuse };
        let (writer, audit) = Writer::start(settings).unwrap();
        let clock = Clock::system();
        let runtime = Runtime::open(&checked, clock.clone(), Arc::new(Metrics::new()), &audit).unwrap();
        let recognition = recognised(&checked, &runtime);
        let routes = checked.routes.iter().map(|settings| settings.route.clone()).collect();
        let router = Router::new(routes).unwrap();
        let policies = access::policies(&checked, &router, runtime.role_uses()).unwrap();
        Self { _world: world, _writer: writer, checked, runtime, recognition, router, policies, clock }
    }

    /// The claims that every token has, and these; null takes one away.
    fn claims(&self, own: &Value) -> Value {
        let now = self.clock.now().unix_seconds();
        merged(json!({ "iat": now, "nbf": now, "exp": now + 300 }), own)
    }

    async fn recognise(&self, (method, url): (&str, &str), claims: &Value) -> Result<Arc<Principal>, &'static str> {
        let token = KEY.sign_with_header(&json!({ "alg": "RS256", "kid": "k1" }), &Claims(self.claims(claims)));
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        let request = Request::builder().method(method).uri(url).header(AUTHORIZATION, bearer).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let found = self.router.find(RequestTarget::of(&parts).unwrap()).unwrap().unwrap();
        let address = "10.1.2.3:1".parse().unwrap();
        let peer = Peer {
            address,
            socket_address: address,
            listener: "public".into(),
            transport: Transport::Tls,
            tls: None,
            certificate: None,
        };
        let downstream = Downstream { address: address.ip(), scheme: Scheme::Https };
        let now = self.clock.now();
        let presented = Presented {
            method: &parts.method,
            headers: &parts.headers,
            peer: &peer,
            downstream,
            route: &found.route,
            now,
        };
        let principal = identify(&self.recognition.verifiers, presented).await.map_err(|error| error.code())?;
        let facts = RequestFacts {
            route: &found.route,
            target: &found.target,
            parameters: &found.parameters,
            source_ip: address.ip(),
            now,
        };
        self.policies.authorize(&principal, &facts).map_err(|denied| denied.reason.code())?;
        Ok(principal)
    }

    /// Whom a token of these claims lets in, or why it does not.
    async fn ask(&self, request: (&str, &str), claims: &Value) -> Result<String, &'static str> {
        self.recognise(request, claims).await.map(|principal| principal.id().to_string())
    }

    /// Each change of good claims is refused for its reason, and the good ones still pass.
    async fn refuses(&self, request: (&str, &str), good: &Value, changes: &[(Value, &'static str)]) {
        for (change, code) in changes {
            let judged = self.ask(request, &merged(good.clone(), change)).await;
            assert_eq!(judged, Err(*code), "{change}");
        }
        assert!(self.ask(request, good).await.is_ok(), "the good twin is refused too");
    }
}

fn recognised(checked: &Checked, runtime: &Runtime) -> Recognition {
    recognition(checked, runtime, &mut |_, _, fault| panic!("{fault}")).unwrap()
}

/// `claims` with `changes` on top; null takes one away.
fn merged(mut claims: Value, changes: &Value) -> Value {
    let object = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    claims
}

#[tokio::test]
async fn oktas_access_tokens_get_in_and_other_tokens_of_okta_do_not() {
    let (example, read) = (Example::new("okta"), ("GET", "https://api.example.com/billing/7"));
    let good = json!({
        "ver": 1, "jti": "AT.x", "iss": "https://acme.okta.com/oauth2/default", "aud": "api://acme",
        "cid": "0oa1example", "uid": "00u1ada", "sub": "ada@acme.example", "scp": ["openid", "profile"],
        "groups": ["billing"],
    });
    assert_eq!(example.ask(read, &good).await, Ok("okta|00u1ada".to_owned()));
    let changes = [
        (json!({ "iss": "https://acme.okta.com" }), "issuer_unknown"),
        (json!({ "iss": "https://stranger.okta.com/oauth2/default" }), "issuer_unknown"),
        (json!({ "aud": "0oa1example" }), "audience_mismatch"),
        (json!({ "nonce": "n" }), "id_token_refused"),
        (json!({ "uid": null }), "claim_missing"),
        (json!({ "groups": ["marketing"] }), "not_permitted"),
        (json!({ "groups": null }), "not_permitted"),
    ];
    example.refuses(read, &good, &changes).await;
    let admin = merged(good, &json!({ "groups": ["billing-admins"], "department": "finance" }));
    let write = ("POST", read.1);
    assert!(example.ask(write, &admin).await.is_ok());
    example.refuses(write, &admin, &[(json!({ "department": "sales" }), "not_permitted")]).await;
}

/// As `POST https://oidc.vercel.com/~token` answers for another audience.
fn of_vercel() -> Value {
    json!({
        "iss": "https://oidc.vercel.com/acme", "aud": "https://api.example.com",
        "sub": "owner:acme:project:web:environment:production",
        "scope": "owner:acme:project:web:environment:production",
        "owner": "acme", "owner_id": "team_7Gw5ZMzpQA8h90F832KGp7nwbuh3",
        "project": "web", "project_id": "prj_7Gw5ZMBvQA8h9GF832KGp7nwbuh3",
        "environment": "production", "act": { "aud": "https://vercel.com/acme", "iat": 1_728_582_084 },
    })
}

#[tokio::test]
async fn vercels_production_gets_in_and_previews_and_strangers_do_not() {
    let (example, read) = (Example::new("vercel"), ("GET", "https://api.example.com/orders/7"));
    let id = "vercel|team_7Gw5ZMzpQA8h90F832KGp7nwbuh3/prj_7Gw5ZMBvQA8h9GF832KGp7nwbuh3/production";
    assert_eq!(example.ask(read, &of_vercel()).await, Ok(id.to_owned()));
    let changes = [
        (json!({ "environment": "preview" }), "claim_mismatch"),
        (json!({ "environment": "development" }), "claim_mismatch"),
        // The names are the same: what a stranger who took over the team's old name would show.
        (json!({ "owner_id": "team_stranger" }), "claim_mismatch"),
        (json!({ "project_id": "prj_stranger" }), "claim_mismatch"),
        (json!({ "owner_id": null }), "claim_missing"),
        (json!({ "iss": "https://oidc.vercel.com/stranger" }), "issuer_unknown"),
        (json!({ "iss": "https://oidc.vercel.com" }), "issuer_unknown"),
        (json!({ "aud": "https://vercel.com/acme" }), "audience_mismatch"),
    ];
    example.refuses(read, &of_vercel(), &changes).await;
}

#[tokio::test]
async fn githubs_release_workflow_gets_in_and_pull_requests_and_strangers_do_not() {
    let (example, deploy) = (Example::new("github-actions"), ("POST", "https://deploy.example.com/deployments/web"));
    let good = json!({
        "iss": "https://token.actions.githubusercontent.com", "aud": "https://deploy.example.com", "jti": "j1",
        "sub": "repo:acme/web:environment:production", "environment": "production", "event_name": "push",
        "repository": "acme/web", "repository_id": "987654321", "repository_owner": "acme",
        "repository_owner_id": "1234567", "repository_visibility": "private", "actor": "ada", "actor_id": "1",
        "ref": "refs/heads/main", "ref_type": "branch", "head_ref": "", "base_ref": "",
        "workflow": "release", "workflow_ref": "acme/web/.github/workflows/release.yml@refs/heads/main",
        "job_workflow_ref": "acme/web/.github/workflows/release.yml@refs/heads/main",
        "run_id": "1", "run_number": "1", "run_attempt": "1", "runner_environment": "github-hosted",
    });
    assert_eq!(example.ask(deploy, &good).await, Ok("github|1234567/987654321".to_owned()));
    let changes = [
        (json!({ "event_name": "pull_request" }), "claim_forbidden"),
        (json!({ "event_name": "pull_request_target" }), "claim_forbidden"),
        // The names are the same: what a stranger who took over the organisation's old name would show.
        (json!({ "repository_owner_id": "7654321" }), "claim_mismatch"),
        (json!({ "repository_owner_id": 1_234_567 }), "claim_mismatch"),
        (json!({ "repository_owner_id": null }), "claim_missing"),
        (json!({ "repository_id": "123456789" }), "not_permitted"),
        (json!({ "environment": "staging" }), "not_permitted"),
        (json!({ "job_workflow_ref": "acme/web/.github/workflows/test.yml@refs/heads/main" }), "not_permitted"),
        (json!({ "aud": "https://github.com/acme" }), "audience_mismatch"),
    ];
    example.refuses(deploy, &good, &changes).await;
}

#[tokio::test]
async fn a_reload_begins_no_role_session_anew() {
    let (mut example, read) = (Example::new("vercel"), ("GET", "https://api.example.com/orders/7"));
    let ends = example.clock.now().unix_seconds() + 3000;
    let mut timeless = of_vercel();
    (timeless["iat"], timeless["nbf"], timeless["exp"]) = (Value::Null, Value::Null, json!(ends));
    let first = example.recognise(read, &timeless).await.unwrap();
    example.clock.advance(Duration::from_secs(400));
    example.recognition = recognised(&example.checked, &example.runtime);
    let later = example.recognise(read, &timeless).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &later), "verified again");
    assert_eq!(first.began_at, later.began_at);
}
