//! A file of policies.

use std::sync::{Arc, LazyLock};

use super::target::parts_of;
use crate::clock::Timestamp;
use crate::identity::{Principal, PrincipalKind, VerifiedIdentity, testing};
use crate::policy::{
    AttributeType, DeclaredAttribute, Policies, PolicyFault, PolicySettings, PolicySource, RequestFacts, RoleSettings,
    RoleTrust, form_faults,
};
use crate::route::{EvidenceKind, Route, Router};
use crate::target::RequestTarget;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

/// What no other file may undo.
const GUARDRAIL: &str = r#"@id("no-admin") forbid(principal, action, resource == Route::"admin");"#;

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let route = |(index, (name, path)): (usize, (&str, &str))| Route {
        name: name.into(),
        index,
        path: path.into(),
        ..testing::route()
    };
    let routes = [("things", "/things/{id}"), ("admin", "/admin/{*rest}")];
    Router::new(routes.into_iter().enumerate().map(route).collect()).expect("the routes are sound")
});

/// Cedar text: its faults have a place within it, as a guardrail it permits nothing, and beside a guardrail it permits
/// nothing of what that forbids, whatever it says.
///
/// # Panics
/// When it does.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let source = |guardrail| PolicySource { file: "rules.cedar".into(), text: text.into(), guardrail };
    let faults = form_faults(vec![source(false)]);
    have_places(&faults, text);
    if !faults.is_empty() {
        assert!(load(vec![source(false)]).is_err(), "a fault of form is a fault");
        return;
    }
    let guardrail = PolicySource { file: "guardrails.cedar".into(), text: GUARDRAIL.into(), guardrail: true };
    match load(vec![source(false), guardrail]) {
        Err(faults) => have_places(&faults, text),
        Ok(policies) => {
            have_places(policies.warnings(), text);
            for caller in callers() {
                assert!(!permits(&policies, &caller, "/admin/x"), "a guardrail was undone");
                assert_eq!(permits(&policies, &caller, "/things/1"), permits(&policies, &caller, "/things/1"));
            }
        }
    }
    match load(vec![source(true)]) {
        Err(faults) => have_places(&faults, text),
        Ok(policies) => {
            for (caller, path) in callers().iter().flat_map(|caller| [(caller, "/admin/x"), (caller, "/things/1")]) {
                assert!(!permits(&policies, caller, path), "a guardrail permits");
            }
        }
    }
}

fn have_places(faults: &[PolicyFault], text: &str) {
    for fault in faults.iter().filter(|fault| fault.file() == Some("rules.cedar")) {
        let (start, length) = fault.span().expect("a fault of a file has a place");
        assert!(text.get(start..start.saturating_add(length)).is_some(), "{start}+{length} of {}", text.len());
        let (line, column) = (fault.line().expect("a line"), fault.column().expect("a column"));
        assert!((1..=text.matches('\n').count() + 1).contains(&line) && column >= 1, "{line}:{column}");
    }
}

fn load(sources: Vec<PolicySource>) -> Result<Policies, Vec<PolicyFault>> {
    let trust = RoleTrust { issuer: "okta".into(), groups: vec!["readers".to_owned()], claims: Vec::new() };
    let role = RoleSettings {
        name: "reader".into(),
        trust: vec![trust],
        environment: "production".into(),
        longest_session: None,
    };
    let declared = |name: &str, kind| DeclaredAttribute { issuer: "okta".into(), name: name.into(), kind };
    let settings = PolicySettings {
        issuers: [("okta".into(), PrincipalKind::User)].into(),
        attributes: vec![declared("level", AttributeType::Long), declared("teams", AttributeType::Set)],
        roles: vec![role],
        routes: ROUTER.routes().to_vec(),
        sources,
    };
    Policies::load(settings, Arc::default())
}

/// One with the role and one without.
fn callers() -> [Arc<Principal>; 2] {
    ["readers", "others"].map(|group| {
        let anonymous = Principal::anonymous(NOW);
        let [first, ..] = *group.as_bytes() else { panic!("a group has a name") };
        Arc::new(Principal::verified(VerifiedIdentity {
            kind: PrincipalKind::User,
            issuer: "okta".into(),
            subject: "alice".into(),
            evidence: EvidenceKind::Bearer,
            groups: vec![group.to_owned()],
            fingerprint: [first; 32],
            ..(*anonymous).clone()
        }))
    })
}

fn permits(policies: &Policies, caller: &Arc<Principal>, path: &str) -> bool {
    let parts = parts_of(b"api.test", path.as_bytes()).expect("a sound request");
    let request = RequestTarget::of(&parts).expect("a sound target");
    let found = ROUTER.find(request).expect("a sound path").expect("a route");
    let facts = RequestFacts {
        route: &found.route,
        target: &found.target,
        parameters: &found.parameters,
        source_ip: [192, 0, 2, 1].into(),
        now: NOW,
    };
    policies.authorize(caller, &facts).is_ok()
}
