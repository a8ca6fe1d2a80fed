//! What the policy step is built from: plain values, free of any file format.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use miette::SourceSpan;
use serde_json::Value;

use crate::identity::PrincipalKind;
use crate::route::Route;

/// Everything that the rules in force are made of.
#[derive(Clone, Debug, Default)]
pub struct PolicySettings {
    /// Configured names of all issuers, of tokens and of certificates, and the kind of their callers.
    pub issuers: BTreeMap<Arc<str>, PrincipalKind>,
    /// Principal attributes, as each issuer declares them.
    pub attributes: Vec<DeclaredAttribute>,
    /// Roles.
    pub roles: Vec<RoleSettings>,
    /// The router's own routes, in the order of their `index`: a request of any other is refused.
    pub routes: Vec<Arc<Route>>,
    /// Policy files.
    pub sources: Vec<PolicySource>,
}

/// A principal attribute that one issuer declares. Two issuers that declare one name must agree on its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredAttribute {
    /// Configured name of the issuer.
    pub issuer: Arc<str>,
    /// Name that policies use.
    pub name: Arc<str>,
    /// Its type.
    pub kind: AttributeType,
}

/// Types of principal attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeType {
    /// Text.
    String,
    /// Whole number.
    Long,
    /// Truth value.
    Bool,
    /// Set of texts.
    Set,
}

impl AttributeType {
    /// The Cedar type.
    #[must_use]
    pub const fn as_cedar(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::Long => "Long",
            Self::Bool => "Bool",
            Self::Set => "Set<String>",
        }
    }
}

/// A role: who may assume it, where it holds, and for how long.
#[derive(Clone, Debug)]
pub struct RoleSettings {
    /// Name, unique in the configuration.
    pub name: Arc<str>,
    /// Entries of which a principal must meet one.
    pub trust: Vec<RoleTrust>,
    /// The environment on whose routes it holds.
    pub environment: Arc<str>,
    /// Longest time since the principal authenticated; `None` is as long as the evidence.
    pub longest_session: Option<Duration>,
}

/// One entry of a role's trust. Everything in it must hold.
#[derive(Clone, Debug)]
pub struct RoleTrust {
    /// Configured name of the issuer.
    pub issuer: Arc<str>,
    /// Groups of which the principal must be in one; empty asks for none.
    pub groups: Vec<String>,
    /// Paths into the verified claims, each with the values of which it must hold one.
    pub claims: Vec<(Vec<String>, Vec<Value>)>,
}

/// One policy file.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// Name, as people know it.
    pub file: Arc<str>,
    /// Cedar text.
    pub text: Arc<str>,
    /// Whether it is a guardrails file, which holds `forbid` only.
    pub guardrail: bool,
}

impl PolicySource {
    /// The first line of what `span` covers.
    pub(super) fn head(&self, span: SourceSpan) -> SourceSpan {
        let end = span.offset().saturating_add(span.len());
        let line = self.text.get(span.offset()..end).and_then(|text| text.lines().next()).unwrap_or_default();
        SourceSpan::from((span.offset(), line.len()))
    }
}
