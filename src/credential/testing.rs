//! Grants for the tests of providers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;

use super::Ask;
use super::source::{CredentialRequest, CredentialSource, KeyDigest};
use crate::clock::{Clock, Timestamp};
use crate::identity::{Principal, PrincipalKind, VerifiedIdentity};
use crate::policy::{Grant, RoleSession};
use crate::route::{
    Accepts, Access, Cors, EvidenceKind, HostPattern, LoginRequirement, PathMode, PathParameters, Route, RouteLimits,
};

/// What a test says about its caller; the rest is as usual.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) subject: &'static str,
    pub(super) email: Option<&'static str>,
    pub(super) groups: Vec<String>,
    pub(super) roles: Vec<&'static str>,
    /// When each of the roles ends.
    pub(super) roles_end_at: Option<Timestamp>,
    pub(super) fingerprint: u8,
    pub(super) expires_at: Option<Timestamp>,
}

impl Default for Caller {
    fn default() -> Self {
        Self {
            subject: "ada",
            email: Some("ada@example.com"),
            groups: vec!["finance".to_owned(), "Staff, all".to_owned()],
            roles: vec!["billing-admin", "reader"],
            roles_end_at: None,
            fingerprint: 1,
            expires_at: None,
        }
    }
}

impl Caller {
    pub(super) fn grant(&self) -> Grant {
        let principal = Principal::verified(VerifiedIdentity {
            kind: PrincipalKind::User,
            issuer: "okta".into(),
            subject: self.subject.into(),
            evidence: EvidenceKind::Bearer,
            email: self.email.map(str::to_owned),
            groups: self.groups.clone(),
            scopes: Vec::new(),
            acr: None,
            amr: Vec::new(),
            authenticated_at: None,
            began_at: Timestamp::default(),
            expires_at: None,
            environment: None,
            attributes: BTreeMap::new(),
            claims: Map::new(),
            fingerprint: [self.fingerprint; 32],
        });
        let (began_at, ends_at) = (Timestamp::default(), self.roles_end_at);
        let session = |role: &&str| RoleSession { role: (*role).into(), began_at, ends_at };
        let roles = self.roles.iter().map(session).collect();
        Grant::for_tests(Arc::new(principal), Arc::new(route()), roles, self.expires_at)
    }
}

/// A grant and what else goes with it when a credential is asked for.
pub(super) struct Asked {
    pub(super) grant: Grant,
    pub(super) parameters: PathParameters,
    pub(super) token: Option<String>,
    request_id: Arc<str>,
}

impl Asked {
    pub(super) fn of(grant: Grant) -> Self {
        Self { grant, parameters: PathParameters::default(), token: None, request_id: "r1".into() }
    }

    pub(super) fn at(&self, now: Timestamp) -> Ask<'_> {
        let (grant, parameters, token) = (&self.grant, &self.parameters, self.token.as_deref());
        Ask { grant, now, parameters, token, request_id: &self.request_id }
    }
}

/// Something that makes settings differ from the usual ones.
pub(super) type Change<S> = Box<dyn Fn(&mut S)>;

/// What tells what `source` is asked for from anything else.
pub(super) fn key(source: &impl CredentialSource, asked: &Asked) -> [u8; 32] {
    let mut key = KeyDigest::default();
    source.digest(&mut key);
    source.request(&asked.at(now())).unwrap().digest(&mut key);
    key.finish()
}

/// No two of `keys` are one, each named by what it differs by.
pub(super) fn assert_all_differ(keys: &[(&str, [u8; 32])]) {
    for (place, (what, key)) in keys.iter().enumerate() {
        let same = keys.iter().take(place).find(|(_, other)| other == key);
        assert!(same.is_none(), "`{what}` and `{}` are told apart by nothing", same.map_or("", |(other, _)| other));
    }
}

fn route() -> Route {
    Route {
        name: "invoices".into(),
        index: 0,
        host: HostPattern::Any,
        path: "/{*rest}".into(),
        path_mode: PathMode::Normal,
        environment: "production".into(),
        tags: BTreeSet::new(),
        access: Access::Authenticated(Accepts::default()),
        login: LoginRequirement::default(),
        cors: Cors::default(),
        csrf_origins: BTreeSet::new(),
        pass_authorization: None,
        pass_cookies: None,
        speaks_aws: false,
        websocket: false,
        identity_headers: None,
        limits: RouteLimits::default(),
    }
}

/// The wall clock's time in whole seconds: what a verifier with a clock of its own will agree with.
pub(super) fn now() -> Timestamp {
    Timestamp::from_unix_seconds(Clock::system().now().unix_seconds())
}

pub(super) const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
