//! Facts of a request as Cedar's `context`: which of them a policy reads, and the record that holds just those.

use std::cell::RefCell;
use std::net::IpAddr;

use cedar_policy::{Context, RestrictedExpression};
use serde_json::Value;

use super::RequestFacts;
use crate::clock::Timestamp;
use crate::identity::Principal;

/// The error of a context that could not be made.
pub(super) type ContextError = cedar_policy::ContextCreationError;

/// Which attributes of `context` are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ContextReads(u16);

impl ContextReads {
    const SOURCE_IP: Self = Self(1);
    const TIME: Self = Self(1 << 1);
    const METHOD: Self = Self(1 << 2);
    const HOST: Self = Self(1 << 3);
    const PATH: Self = Self(1 << 4);
    const PARAMETERS: Self = Self(1 << 5);
    const SCOPES: Self = Self(1 << 6);
    const ACR: Self = Self(1 << 7);
    const AMR: Self = Self(1 << 8);
    const AUTHENTICATION_AGE: Self = Self(1 << 9);
    const TAGS: Self = Self(1 << 10);

    /// Attributes by the names that policies use.
    pub(super) const NAMES: [(&str, Self); 11] = [
        ("source_ip", Self::SOURCE_IP),
        ("time", Self::TIME),
        ("method", Self::METHOD),
        ("host", Self::HOST),
        ("path", Self::PATH),
        ("parameters", Self::PARAMETERS),
        ("scopes", Self::SCOPES),
        ("acr", Self::ACR),
        ("amr", Self::AMR),
        ("authentication_age", Self::AUTHENTICATION_AGE),
        ("tags", Self::TAGS),
    ];

    /// Every attribute.
    pub(super) const ALL: Self = Self((1 << 11) - 1);

    /// Those that two requests of one principal, route and method, from one address, can differ in.
    const PER_REQUEST: Self =
        Self(Self::TIME.0 | Self::HOST.0 | Self::PATH.0 | Self::PARAMETERS.0 | Self::AUTHENTICATION_AGE.0);

    /// What a policy of this JSON reads.
    pub(super) fn of(json: &Value) -> Self {
        match json {
            Value::Object(object) => {
                if object.get("Var").and_then(Value::as_str) == Some("context") {
                    // `context` as a whole, compared or passed on: anything in it may matter.
                    return Self::ALL;
                }
                let mut reads = Self::default();
                for (key, value) in object {
                    let access = (key == "." || key == "has").then(|| Self::of_access(value)).flatten();
                    reads = reads.and(access.unwrap_or_else(|| Self::of(value)));
                }
                reads
            }
            Value::Array(items) => items.iter().fold(Self::default(), |reads, item| reads.and(Self::of(item))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Self::default(),
        }
    }

    /// What `context.x` or `context has x` reads; `None` when it is an access to something else.
    fn of_access(access: &Value) -> Option<Self> {
        let of_context = access.get("left")?.get("Var")?.as_str()? == "context";
        let attribute = access.get("attr")?;
        // `context has a.b` names a path of attributes.
        let name = attribute.as_str().or_else(|| attribute.get(0)?.as_str())?;
        of_context.then(|| Self::named(name))
    }

    fn named(name: &str) -> Self {
        Self::NAMES.iter().find(|(known, _)| *known == name).map_or(Self::ALL, |(_, reads)| *reads)
    }

    /// What either reads.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn includes(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the path or a part of it is read.
    pub(super) const fn reads_path(self) -> bool {
        self.includes(Self::PATH) || self.includes(Self::PARAMETERS)
    }

    /// Whether two requests of one principal, route and method, from one address, always look the same.
    pub(super) const fn is_settled(self) -> bool {
        !self.includes(Self::PER_REQUEST)
    }

    /// Whether the caller's address is read.
    pub(super) const fn reads_source(self) -> bool {
        self.includes(Self::SOURCE_IP)
    }
}

/// A fact, and what Cedar made of it last: it parses the name of its function anew for each, which costs as much as a
/// decision, and the requests of one moment have much in common.
struct Last<T>(Option<(T, RestrictedExpression)>);

impl<T: Copy + PartialEq> Last<T> {
    fn value(&mut self, fact: T, make: impl Fn(T) -> RestrictedExpression) -> RestrictedExpression {
        if let Some((_, value)) = self.0.as_ref().filter(|(last, _)| *last == fact) {
            return value.clone();
        }
        let value = make(fact);
        self.0 = Some((fact, value.clone()));
        value
    }
}

thread_local! {
    static LAST_SOURCE: RefCell<Last<IpAddr>> = const { RefCell::new(Last(None)) };
    static LAST_TIME: RefCell<Last<Timestamp>> = const { RefCell::new(Last(None)) };
}

/// The attributes of `reads`, of this request.
///
/// # Errors
/// When a fact has no Cedar value: a year past 9999, one path parameter twice.
pub(super) fn build(
    reads: ContextReads,
    principal: &Principal,
    facts: &RequestFacts<'_>,
) -> Result<Context, ContextError> {
    if reads == ContextReads::default() {
        return Ok(Context::empty());
    }
    let mut pairs: Vec<(String, RestrictedExpression)> = Vec::with_capacity(11);
    let mut add = |attribute: ContextReads, name: &str, value: &dyn Fn() -> Option<RestrictedExpression>| {
        if reads.includes(attribute)
            && let Some(value) = value()
        {
            pairs.push((name.to_owned(), value));
        }
    };
    // An IPv4 caller on an IPv6 socket is still an IPv4 caller to a policy about 10.0.0.0/8.
    add(ContextReads::SOURCE_IP, "source_ip", &|| {
        Some(LAST_SOURCE.with_borrow_mut(|last| {
            last.value(facts.source_ip.to_canonical(), |source| RestrictedExpression::new_ip(source.to_string()))
        }))
    });
    add(ContextReads::TIME, "time", &|| {
        Some(
            LAST_TIME
                .with_borrow_mut(|last| last.value(facts.now, |now| RestrictedExpression::new_datetime(now.rfc3339()))),
        )
    });
    add(ContextReads::METHOD, "method", &|| Some(text(facts.target.method().as_str())));
    add(ContextReads::HOST, "host", &|| Some(text(facts.target.host())));
    add(ContextReads::PATH, "path", &|| Some(text(facts.target.path())));
    add(ContextReads::SCOPES, "scopes", &|| Some(texts(principal.scopes.iter().map(String::as_str))));
    add(ContextReads::ACR, "acr", &|| principal.acr.as_deref().map(text));
    add(ContextReads::AMR, "amr", &|| Some(texts(principal.amr.iter().map(String::as_str))));
    add(ContextReads::AUTHENTICATION_AGE, "authentication_age", &|| {
        let age = facts.now.since(principal.authenticated_at?);
        Some(RestrictedExpression::new_long(i64::try_from(age.as_secs()).unwrap_or(i64::MAX)))
    });
    add(ContextReads::TAGS, "tags", &|| Some(texts(facts.route.tags.iter().map(|tag| &**tag))));
    if reads.includes(ContextReads::PARAMETERS) {
        let parameters = facts.parameters.iter().map(|(name, value)| (name.to_owned(), text(value)));
        pairs.push(("parameters".to_owned(), RestrictedExpression::new_record(parameters)?));
    }
    Context::from_pairs(pairs)
}

/// Every attribute of this request, as policies would see them.
///
/// # Errors
/// As [`build`].
#[cfg(any(test, fuzzing))]
pub(crate) fn whole(principal: &Principal, facts: &RequestFacts<'_>) -> Result<Context, ContextError> {
    build(ContextReads::ALL, principal, facts)
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.map(text))
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;

    use super::*;

    fn reads(condition: &str) -> ContextReads {
        let policy = format!("permit(principal, action, resource) when {{ {condition} }};");
        ContextReads::of(&Policy::parse(None, policy).unwrap().to_json().unwrap())
    }

    #[test]
    fn attributes_are_found_however_deep_they_are_read() {
        assert_eq!(reads("principal.issuer == \"okta\""), ContextReads::default());
        assert_eq!(reads("context.source_ip.isInRange(ip(\"10.0.0.0/8\"))"), ContextReads::SOURCE_IP);
        assert_eq!(
            reads("context has acr && (if context.acr == \"a\" then context.time < context.time else true)"),
            ContextReads::ACR.and(ContextReads::TIME)
        );
        assert_eq!(reads("context.parameters has id && context.parameters.id == \"7\""), ContextReads::PARAMETERS);
        assert_eq!(reads("context has parameters.id"), ContextReads::PARAMETERS);
        assert_eq!(reads("context[\"scopes\"].contains(\"a\")"), ContextReads::SCOPES);
        assert_eq!(reads("[context.method, \"context\"].contains(\"context\")"), ContextReads::METHOD);
    }

    #[test]
    fn context_as_a_whole_reads_everything() {
        assert_eq!(reads("(if principal == resource then context else context).method == \"GET\""), ContextReads::ALL);
        assert_eq!(reads("{ a: context }.a.method == \"GET\""), ContextReads::ALL);
        assert_eq!(reads("context == context"), ContextReads::ALL);
    }

    #[test]
    fn what_a_request_can_change_is_not_settled() {
        for settled in ["method", "scopes", "acr", "amr", "tags", "source_ip"] {
            assert!(ContextReads::named(settled).is_settled(), "{settled}");
        }
        for changing in ["time", "host", "path", "parameters", "authentication_age", "anything_new"] {
            assert!(!ContextReads::named(changing).is_settled(), "{changing}");
        }
    }
}
