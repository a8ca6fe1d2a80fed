//! Whether a policy speaks only of what exists: roles, routes, environments, issuers, attributes after `has`.
//!
//! Cedar takes any name here and finds that it never matches. In a `forbid` that is an unnoticed hole.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cedar_policy::{EntityUid, Policy};
use miette::SourceSpan;
use serde_json::Value;

use super::context::ContextReads;
use super::entities::KINDS;
use super::faults::{PolicyFault, nearest};
use super::schema::{BUILT_IN, path_parameters};
use super::settings::{PolicySettings, PolicySource};
use crate::identity::PrincipalKind;

/// Attributes of a route.
const ROUTE_ATTRIBUTES: [&str; 3] = ["name", "environment", "tags"];

/// Names that policies may speak of.
pub(super) struct Names<'a> {
    roles: BTreeSet<&'a str>,
    routes: BTreeSet<&'a str>,
    environments: BTreeSet<&'a str>,
    issuers: BTreeMap<&'a str, PrincipalKind>,
    principal: BTreeSet<&'a str>,
    resource: BTreeSet<&'a str>,
    context: BTreeSet<&'a str>,
    parameters: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn of(settings: &'a PolicySettings) -> Self {
        let roles = settings.roles.iter().map(|role| &*role.environment);
        let routes = settings.routes.iter().map(|route| &*route.environment);
        let declared = settings.attributes.iter().map(|attribute| &*attribute.name);
        Self {
            roles: settings.roles.iter().map(|role| &*role.name).collect(),
            routes: settings.routes.iter().map(|route| &*route.name).collect(),
            environments: roles.chain(routes).collect(),
            issuers: settings.issuers.iter().map(|(name, kind)| (&**name, *kind)).collect(),
            principal: BUILT_IN.into_iter().chain(declared).collect(),
            resource: ROUTE_ATTRIBUTES.into(),
            context: ContextReads::NAMES.iter().map(|(name, _)| *name).collect(),
            parameters: settings.routes.iter().flat_map(|route| path_parameters(&route.path)).collect(),
        }
    }

    /// A fault for each name in `policy`, which stands at `span`, that does not exist. With it comes its JSON: a policy
    /// without this form is validated as a whole, and fails there.
    pub(super) fn check(
        &self,
        source: &PolicySource,
        (policy, form): (&Policy, Option<&Value>),
        span: SourceSpan,
    ) -> Vec<PolicyFault> {
        let form = form.unwrap_or(&Value::Null);
        let place = Place { source, span };
        let literals: HashSet<EntityUid> = policy.entity_literals().into_iter().collect();
        let mut faults: Vec<PolicyFault> =
            literals.iter().filter_map(|entity| self.entity_fault(place, entity)).collect();
        let mut unknown = BTreeSet::new();
        self.unknown_attributes(form, &mut unknown);
        for (record, name) in unknown {
            let known = self.attributes(record).iter().copied();
            let message = format!("{} has no attribute `{name}`", record.as_str());
            let fault = PolicyFault::at(source, place.of_attribute(&name), "no such attribute", message);
            faults.push(fault.with_help(nearest(&name, known)));
        }
        let mut values = BTreeSet::new();
        self.unknown_values(form, &mut values);
        faults.extend(values.iter().map(|(named, text)| self.value_fault(place, *named, text)));
        faults
    }

    fn entity_fault(&self, place: Place<'_>, entity: &EntityUid) -> Option<PolicyFault> {
        let name = entity.id().unescaped();
        let (known, what) = match entity.type_name().basename() {
            "Role" => (&self.roles, "role"),
            "Route" => (&self.routes, "route"),
            "Environment" => (&self.environments, "environment"),
            kind if KINDS.iter().any(|known| known.as_str() == kind) => return self.principal_fault(place, entity),
            _ => return None,
        };
        if known.contains(name) {
            return None;
        }
        let (label, message) = (format!("no such {what}"), format!("{what} `{name}` does not exist"));
        let fault = PolicyFault::at(place.source, place.of_entity(entity), &label, message);
        Some(fault.with_help(nearest(name, known.iter().copied())))
    }

    fn principal_fault(&self, place: Place<'_>, entity: &EntityUid) -> Option<PolicyFault> {
        let name = entity.id().unescaped();
        let fault = |label: &str, message, help| {
            Some(PolicyFault::at(place.source, place.of_entity(entity), label, message).with_help(help))
        };
        if entity.type_name().basename() == PrincipalKind::Anonymous.as_str() {
            let help = Some("the only one is `Anonymous::\"anonymous\"`".to_owned());
            return if name == "anonymous" {
                None
            } else {
                fault("no such principal", format!("nobody is `{name}`"), help)
            };
        }
        let Some((issuer, _subject)) = name.split_once('|') else {
            let help = Some("write the issuer's name, `|`, and the subject".to_owned());
            return fault("no issuer", format!("principal `{name}` names no issuer"), help);
        };
        let Some(kind) = self.issuers.get(issuer) else {
            let message = format!("principal `{name}` is of the issuer `{issuer}`, which does not exist");
            return fault("no such issuer", message, nearest(issuer, self.issuers.keys().copied()));
        };
        if kind.as_str() == entity.type_name().basename() {
            return None;
        }
        let callers = if *kind == PrincipalKind::User { "users" } else { "workloads" };
        let message = format!("the callers of issuer `{issuer}` are {callers}, so that nobody is `{entity}`");
        fault("no such principal", message, Some(format!("did you mean `{}::{:?}`?", kind.as_str(), name)))
    }

    /// Texts that a name is compared with and that are no such name.
    fn unknown_values(&self, json: &Value, unknown: &mut BTreeSet<(Named, String)>) {
        match json {
            Value::Object(object) => {
                for (key, value) in object {
                    if matches!(key.as_str(), "==" | "!=" | "contains") {
                        self.check_comparison(value, unknown);
                    }
                    self.unknown_values(value, unknown);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.unknown_values(item, unknown)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn check_comparison(&self, comparison: &Value, unknown: &mut BTreeSet<(Named, String)>) {
        let (Some(left), Some(right)) = (comparison.get("left"), comparison.get("right")) else { return };
        for (named, other) in [(left, right), (right, left)] {
            let Some(named) = Named::of(named) else { continue };
            let one = std::slice::from_ref(other);
            let texts = other.get("Set").and_then(Value::as_array).map_or(one, Vec::as_slice);
            for text in texts.iter().filter_map(|text| text.get("Value")?.as_str()) {
                if !self.has(named, text) {
                    unknown.insert((named, text.to_owned()));
                }
            }
        }
    }

    fn has(&self, named: Named, text: &str) -> bool {
        match named {
            Named::Route => self.routes.contains(text),
            Named::Environment => self.environments.contains(text),
            // The anonymous principal is of no issuer.
            Named::Issuer => text.is_empty() || self.issuers.contains_key(text),
        }
    }

    fn value_fault(&self, place: Place<'_>, named: Named, text: &str) -> PolicyFault {
        let (what, nearest) = match named {
            Named::Route => ("route", nearest(text, self.routes.iter().copied())),
            Named::Environment => ("environment", nearest(text, self.environments.iter().copied())),
            Named::Issuer => ("issuer", nearest(text, self.issuers.keys().copied())),
        };
        let (label, message) = (format!("no such {what}"), format!("{what} `{text}` does not exist"));
        PolicyFault::at(place.source, place.of_text(text), &label, message).with_help(nearest)
    }

    /// Attributes that `has` asks for and nothing ever has.
    fn unknown_attributes(&self, json: &Value, unknown: &mut BTreeSet<(Record, String)>) {
        match json {
            Value::Object(object) => {
                for (key, value) in object {
                    if key == "has" {
                        self.check_has(value, unknown);
                    }
                    self.unknown_attributes(value, unknown);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.unknown_attributes(item, unknown)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn check_has(&self, has: &Value, unknown: &mut BTreeSet<(Record, String)>) {
        let mut record = has.get("left").and_then(Record::of);
        let path = match has.get("attr") {
            Some(Value::Array(path)) => path.iter().collect(),
            Some(name) => vec![name],
            None => Vec::new(),
        };
        for name in path.into_iter().filter_map(Value::as_str) {
            let Some(of) = record else { return };
            if !self.attributes(of).contains(name) {
                unknown.insert((of, name.to_owned()));
                return;
            }
            record = of.inner(name);
        }
    }

    fn attributes(&self, record: Record) -> &BTreeSet<&'a str> {
        match record {
            Record::Principal => &self.principal,
            Record::Resource => &self.resource,
            Record::Context => &self.context,
            Record::Parameters => &self.parameters,
        }
    }
}

/// Something with attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Record {
    Principal,
    Resource,
    Context,
    Parameters,
}

impl Record {
    fn of(expression: &Value) -> Option<Self> {
        if let Some(access) = expression.get(".") {
            return Self::of(access.get("left")?)?.inner(access.get("attr")?.as_str()?);
        }
        match expression.get("Var")?.as_str()? {
            "principal" => Some(Self::Principal),
            "resource" => Some(Self::Resource),
            "context" => Some(Self::Context),
            _ => None,
        }
    }

    fn inner(self, name: &str) -> Option<Self> {
        (self == Self::Context && name == "parameters").then_some(Self::Parameters)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Resource => "resource",
            Self::Context => "context",
            Self::Parameters => "context.parameters",
        }
    }
}

/// An attribute whose texts are names of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Route,
    Environment,
    Issuer,
}

impl Named {
    fn of(expression: &Value) -> Option<Self> {
        let access = expression.get(".")?;
        match (access.get("left")?.get("Var")?.as_str()?, access.get("attr")?.as_str()?) {
            ("resource", "name") => Some(Self::Route),
            ("resource", "environment") => Some(Self::Environment),
            ("principal", "issuer") => Some(Self::Issuer),
            _ => None,
        }
    }
}

/// A policy's text. Cedar's public tree has no places, so names are looked for in it.
#[derive(Clone, Copy)]
struct Place<'a> {
    source: &'a PolicySource,
    span: SourceSpan,
}

impl<'a> Place<'a> {
    fn text(self) -> &'a str {
        let end = self.span.offset().saturating_add(self.span.len());
        self.source.text.get(self.span.offset()..end).unwrap_or_default()
    }

    fn at(self, start: Option<usize>, length: usize) -> SourceSpan {
        match start {
            Some(start) => SourceSpan::from((self.span.offset().saturating_add(start), length)),
            None => self.source.head(self.span),
        }
    }

    fn of_entity(self, entity: &EntityUid) -> SourceSpan {
        let literal = entity.to_string();
        self.at(self.text().find(&literal), literal.len())
    }

    fn of_text(self, text: &str) -> SourceSpan {
        let literal = format!("{text:?}");
        self.at(self.text().find(&literal), literal.len())
    }

    fn of_attribute(self, name: &str) -> SourceSpan {
        let after_has = |start: &usize| {
            let before = self.text().get(..*start).unwrap_or_default().trim_end_matches('"').trim_end();
            before.ends_with("has") || before.ends_with('.')
        };
        self.at(self.text().match_indices(name).map(|(start, _)| start).find(after_has), name.len())
    }
}
