//! The policies in force, each with what people want to know about it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{Effect, Policy};

use super::context::ContextReads;
use super::faults::Position;
use super::slice::Scope;

/// A policy with what is known about it from its text.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) id: Arc<str>,
    pub(super) policy: Policy,
    pub(super) file: Arc<str>,
    pub(super) position: Position,
    pub(super) guardrail: bool,
    pub(super) effect: Effect,
    /// Text of `@reason`.
    pub(super) reason: Option<Arc<str>>,
    pub(super) scope: Scope,
    pub(super) reads: ContextReads,
    /// Names of the roles that it mentions.
    pub(super) roles: BTreeSet<Arc<str>>,
}

/// All rules, by position and by id.
#[derive(Debug, Default)]
pub(super) struct Rules {
    list: Vec<Rule>,
    by_id: HashMap<Arc<str>, usize>,
}

impl Rules {
    pub(super) fn new(list: Vec<Rule>) -> Self {
        let by_id = list.iter().enumerate().map(|(position, rule)| (rule.id.clone(), position)).collect();
        Self { list, by_id }
    }

    pub(super) fn all(&self) -> &[Rule] {
        &self.list
    }

    pub(super) fn find(&self, id: &str) -> Option<&Rule> {
        self.list.get(*self.by_id.get(id)?)
    }
}
