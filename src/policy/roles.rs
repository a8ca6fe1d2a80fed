//! Which roles a principal holds: trust against verified claims, environment against environment, session against
//! the clock.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::RoleSession;
use super::settings::{RoleSettings, RoleTrust};
use crate::clock::Timestamp;
use crate::identity::{Principal, PrincipalKind};

impl RoleSession {
    /// Whether the session is not past at `now`.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }
}

/// Sessions of every role of `environment` whose trust `principal` meets, all at once; some may be past. Nobody in
/// particular holds none.
pub(super) fn held(roles: &[RoleSettings], principal: &Principal, environment: &str) -> Arc<[RoleSession]> {
    roles
        .iter()
        .filter(|role| &*role.environment == environment && is_trusted(role, principal))
        .map(|role| session_of(role, principal))
        .collect()
}

/// The session that `principal` has in `role`. It began at authentication, so that replicas agree.
pub(super) fn session_of(role: &RoleSettings, principal: &Principal) -> RoleSession {
    let began_at = principal.began_at;
    RoleSession {
        role: role.name.clone(),
        began_at,
        ends_at: role.longest_session.map(|longest| began_at.plus(longest)),
    }
}

/// Whether `principal` meets any entry of the role's trust.
pub(super) fn is_trusted(role: &RoleSettings, principal: &Principal) -> bool {
    principal.kind != PrincipalKind::Anonymous && role.trust.iter().any(|trust| unmet(trust, principal).is_none())
}

/// The first part of `trust` that `principal` does not meet.
pub(super) fn unmet<'a>(trust: &'a RoleTrust, principal: &Principal) -> Option<Unmet<'a>> {
    if trust.issuer != principal.issuer {
        return Some(Unmet::Issuer(&trust.issuer));
    }
    if !trust.groups.is_empty() && !trust.groups.iter().any(|group| principal.groups.contains(group)) {
        return Some(Unmet::Groups(&trust.groups));
    }
    trust.claims.iter().find_map(|(path, wanted)| match find(&principal.claims, path) {
        None => Some(Unmet::ClaimAbsent(path)),
        Some(claim) if holds_any(claim, wanted) => None,
        Some(_) => Some(Unmet::ClaimValue(path)),
    })
}

/// A part of a trust clause that a principal does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmet<'a> {
    Issuer(&'a str),
    Groups(&'a [String]),
    ClaimAbsent(&'a [String]),
    ClaimValue(&'a [String]),
}

impl std::fmt::Display for Unmet<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Issuer(issuer) => write!(formatter, "the caller's issuer is not `{issuer}`"),
            Self::Groups([group]) => write!(formatter, "the caller is not in the group `{group}`"),
            Self::Groups(groups) => write!(formatter, "the caller is in none of the groups `{}`", groups.join("`, `")),
            Self::ClaimAbsent(path) => write!(formatter, "the caller has no claim `{}`", path.join(".")),
            Self::ClaimValue(path) => write!(formatter, "the claim `{}` holds none of the values", path.join(".")),
        }
    }
}

fn find<'a>(claims: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(first)?, |value, name| value.as_object()?.get(name))
}

/// A claim that is no array is one element, never split; a value of another type never matches.
fn holds_any(claim: &Value, wanted: &[Value]) -> bool {
    match claim {
        Value::Array(elements) => elements.iter().any(|element| is_one_of(element, wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            is_one_of(claim, wanted)
        }
    }
}

fn is_one_of(element: &Value, wanted: &[Value]) -> bool {
    match element {
        Value::Bool(_) | Value::Number(_) | Value::String(_) => wanted.contains(element),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(claim: Value, wanted: Value) -> bool {
        holds_any(&claim, wanted.as_array().unwrap())
    }

    #[test]
    fn a_text_where_a_set_is_expected_is_one_element() {
        assert!(matches(json!("admin"), json!(["admin"])));
        assert!(matches(json!(["dev", "admin"]), json!(["admin"])));
        assert!(!matches(json!("dev admin"), json!(["admin"])), "never split at a space");
        assert!(!matches(json!("dev,admin"), json!(["admin"])), "never split at a comma");
        assert!(!matches(json!("administrator"), json!(["admin"])), "never by a part");
    }

    #[test]
    fn a_value_of_another_type_never_matches() {
        assert!(!matches(json!(123), json!(["123"])));
        assert!(!matches(json!("123"), json!([123])));
        assert!(!matches(json!("true"), json!([true])));
        assert!(!matches(json!(null), json!([null])));
        assert!(!matches(json!({"admin": true}), json!(["admin"])));
        assert!(!matches(json!([["admin"]]), json!(["admin"])), "a set within a set is another type");
        assert!(matches(json!(true), json!([true])));
    }

    #[test]
    fn no_wanted_value_is_never_met() {
        assert!(!matches(json!("admin"), json!([])));
    }

    #[test]
    fn a_nested_claim_is_found_by_its_path_only() {
        let claims = json!({"a": {"b": "x"}, "a.b": "y"});
        let claims = claims.as_object().unwrap();
        assert_eq!(find(claims, &["a".into(), "b".into()]), Some(&json!("x")));
        assert_eq!(find(claims, &["a.b".into()]), Some(&json!("y")));
        assert_eq!(find(claims, &["a".into(), "c".into()]), None);
        assert_eq!(find(claims, &["a".into(), "b".into(), "c".into()]), None);
        assert_eq!(find(claims, &[]), None);
    }
}
