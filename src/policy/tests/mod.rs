//! The policy step as its callers see it.

mod authorizing;
mod explaining;
mod loading;
mod sessions;
mod slicing;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use serde_json::{Map, Value, json};

use super::*;
use crate::identity::{Attribute, PrincipalKind, VerifiedIdentity};
use crate::route::{Accepts, Access, Cors, EvidenceKind, HostPattern, LoginRequirement, PathMode, RouteLimits};
use crate::route::{RouteMatch, Router};
use crate::target::RequestTarget;

/// 2026-11-22T08:00:00Z.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_795_334_400);
const HOUR: Duration = Duration::from_secs(3600);

/// Rules over a few routes and roles.
struct World {
    policies: Policies,
    router: Router,
}

fn route(index: usize, name: &str, path: &str, environment: &str, access: Access) -> Route {
    let origins = if name == "shop" { ["https://app.example.com".to_owned()].into() } else { BTreeSet::new() };
    Route {
        name: name.into(),
        index,
        host: HostPattern::Any,
        path: path.into(),
        path_mode: PathMode::Normal,
        environment: environment.into(),
        tags: if name == "invoices" { [Arc::from("finance")].into() } else { BTreeSet::new() },
        access,
        login: LoginRequirement::default(),
        cors: Cors { origins },
        csrf_origins: BTreeSet::new(),
        pass_authorization: None,
        pass_cookies: None,
        speaks_aws: false,
        websocket: false,
        identity_headers: None,
        limits: RouteLimits::default(),
    }
}

fn routes() -> Router {
    let authenticated = || Access::Authenticated(Accepts::default());
    let public = Access::Public { reason: "health page".into() };
    Router::new(vec![
        route(0, "invoices", "/invoices/{id}", "production", authenticated()),
        route(1, "reports", "/reports/{*rest}", "staging", authenticated()),
        route(2, "health", "/health", "production", public),
        route(3, "shop", "/shop", "production", authenticated()),
    ])
    .unwrap()
}

fn role(name: &str, environment: &str, longest_session: Option<Duration>) -> RoleSettings {
    let trust = RoleTrust { issuer: "okta".into(), groups: vec![name.to_owned()], claims: Vec::new() };
    RoleSettings { name: name.into(), trust: vec![trust], environment: environment.into(), longest_session }
}

/// Roles that the group of the same name may assume, and `deployer` for one repository of `ci`.
fn settings(sources: &[(&str, &str)]) -> PolicySettings {
    let repository = (vec!["repository".to_owned(), "id".to_owned()], vec![json!("123")]);
    let deployer = RoleTrust { issuer: "ci".into(), groups: Vec::new(), claims: vec![repository] };
    let declared = |name: &str, kind| DeclaredAttribute { issuer: "okta".into(), name: name.into(), kind };
    PolicySettings {
        issuers: [("okta".into(), PrincipalKind::User), ("ci".into(), PrincipalKind::Workload)].into(),
        attributes: vec![
            declared("department", AttributeType::String),
            declared("level", AttributeType::Long),
            declared("on_call", AttributeType::Bool),
            declared("teams", AttributeType::Set),
        ],
        roles: vec![
            role("reader", "production", None),
            role("admin", "production", Some(HOUR)),
            role("contractor", "production", Some(HOUR)),
            role("tester", "staging", None),
            RoleSettings { trust: vec![deployer], ..role("deployer", "production", None) },
        ],
        routes: routes().routes().to_vec(),
        sources: sources
            .iter()
            .map(|(file, text)| PolicySource {
                file: (*file).into(),
                text: (*text).into(),
                guardrail: file.starts_with("guardrails"),
            })
            .collect(),
    }
}

impl World {
    fn new(sources: &[(&str, &str)]) -> Self {
        Self::load(settings(sources), Arc::default())
    }

    fn load(mut settings: PolicySettings, uses: Arc<RoleUses>) -> Self {
        let router = routes();
        settings.routes = router.routes().to_vec();
        let policies = Policies::load(settings, uses)
            .unwrap_or_else(|faults| panic!("{:?}", faults.iter().map(ToString::to_string).collect::<Vec<_>>()));
        Self { policies, router }
    }

    fn of(text: &str) -> Self {
        Self::new(&[("rules.cedar", text)])
    }

    fn found(&self, method: &str, path: &str) -> RouteMatch {
        let request = Request::builder().method(method).uri(path).header("host", "api.test").body(()).unwrap();
        self.router.find(RequestTarget::of(&request.into_parts().0).unwrap()).unwrap().unwrap()
    }

    fn at(&self, now: Timestamp, caller: &Arc<Principal>, method: &str, path: &str) -> Result<Grant, Denied> {
        let found = self.found(method, path);
        self.policies.authorize(caller, &facts(&found, now))
    }

    fn ask(&self, caller: &Arc<Principal>, method: &str, path: &str) -> Result<Grant, Denied> {
        self.at(NOW, caller, method, path)
    }

    fn reason(&self, caller: &Arc<Principal>, method: &str, path: &str) -> DenyReason {
        self.ask(caller, method, path).unwrap_err().reason
    }
}

fn facts(found: &RouteMatch, now: Timestamp) -> RequestFacts<'_> {
    RequestFacts {
        route: &found.route,
        target: &found.target,
        parameters: &found.parameters,
        source_ip: "::ffff:10.1.2.3".parse().unwrap(),
        now,
    }
}

fn ids(ids: &[Arc<str>]) -> Vec<&str> {
    ids.iter().map(|id| &**id).collect()
}

fn verified(groups: &[&str]) -> VerifiedIdentity {
    VerifiedIdentity {
        kind: PrincipalKind::User,
        issuer: "okta".into(),
        subject: "alice".into(),
        evidence: EvidenceKind::Bearer,
        email: Some("alice@example.com".to_owned()),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        scopes: vec!["billing".to_owned()],
        acr: None,
        amr: vec!["pwd".to_owned()],
        authenticated_at: Some(NOW),
        began_at: NOW,
        expires_at: Some(NOW.plus(4 * HOUR)),
        environment: None,
        attributes: [("department".to_owned(), Attribute::String("finance".to_owned()))].into(),
        claims: Map::new(),
        fingerprint: fingerprint(groups),
    }
}

/// Different for different groups: a fingerprint changes with everything it stands for.
fn fingerprint(groups: &[&str]) -> [u8; 32] {
    let mut fingerprint = [7; 32];
    for (place, byte) in groups.join(",").bytes().enumerate() {
        fingerprint[place % 32] ^= byte;
    }
    fingerprint
}

fn alice(groups: &[&str]) -> Arc<Principal> {
    Arc::new(Principal::verified(verified(groups)))
}

fn nobody() -> Arc<Principal> {
    Arc::new(Principal::anonymous(NOW))
}

fn workload(claims: Value) -> Arc<Principal> {
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    let identity = verified(&[]);
    Arc::new(Principal::verified(VerifiedIdentity {
        kind: PrincipalKind::Workload,
        issuer: "ci".into(),
        subject: "acme/web".into(),
        fingerprint: [9; 32],
        claims,
        ..identity
    }))
}
