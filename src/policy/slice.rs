//! Policies by route: the few that can match a request, found at load.
//!
//! Leaving a policy out is sound: its scope is false for every request of the slice, and a scope cannot fail to
//! evaluate, so the policy can neither match nor err.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

use super::context::ContextReads;
use super::entities::{CedarError, KINDS, kind_index, method_index};
use super::rules::Rule;
use super::settings::RoleSettings;
use crate::identity::PrincipalKind;
use crate::route::Route;
use crate::target::METHODS;

/// Which requests a policy's scope admits.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    kinds: [bool; KINDS.len()],
    methods: [bool; METHODS.len()],
    place: Place,
    /// The environment of the role that the scope names: a caller holds it there only.
    role_environment: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Anywhere,
    Environment(String),
    Route(String),
}

impl Scope {
    pub(super) fn of(policy: &Policy, roles: &[RoleSettings]) -> Self {
        let (kinds, role) = match policy.principal_constraint() {
            PrincipalConstraint::Any => ([true; KINDS.len()], None),
            PrincipalConstraint::Is(kind) => (only(kind.basename()), None),
            PrincipalConstraint::Eq(entity) => (only(entity.type_name().basename()), None),
            PrincipalConstraint::In(entity) => within(&entity),
            PrincipalConstraint::IsIn(kind, entity) => {
                let (kinds, role) = within(&entity);
                let named = only(kind.basename());
                (std::array::from_fn(|index| at(&kinds, index) && at(&named, index)), role)
            }
        };
        let role_environment =
            role.and_then(|name| Some(roles.iter().find(|role| *role.name == *name)?.environment.clone()));
        Self { kinds, methods: methods(&policy.action_constraint()), place: place(policy), role_environment }
    }

    /// Whether any request of `route` is in the scope.
    pub(super) fn admits_some(&self, route: &Route) -> bool {
        (0..METHODS.len()).any(|method| (0..KINDS.len()).any(|kind| self.admits(route, method, kind)))
    }

    fn admits(&self, route: &Route, method: usize, kind: usize) -> bool {
        at(&self.kinds, kind)
            && at(&self.methods, method)
            && self.role_environment.as_ref().is_none_or(|environment| *environment == route.environment)
            && match &self.place {
                Place::Anywhere => true,
                Place::Environment(environment) => **environment == *route.environment,
                Place::Route(name) => **name == *route.name,
            }
    }
}

/// Beyond the end is admitted: a slice may hold too much, never too little.
fn at(flags: &[bool], index: usize) -> bool {
    flags.get(index).copied().unwrap_or(true)
}

fn only(kind: &str) -> [bool; KINDS.len()] {
    KINDS.map(|known| known.as_str() == kind)
}

/// Kinds of principals that can be in `entity`, and the role's name when it is one.
fn within(entity: &EntityUid) -> ([bool; KINDS.len()], Option<String>) {
    match entity.type_name().basename() {
        "Role" => (KINDS.map(|kind| kind != PrincipalKind::Anonymous), Some(entity.id().unescaped().to_owned())),
        kind => (only(kind), None),
    }
}

fn methods(constraint: &ActionConstraint) -> [bool; METHODS.len()] {
    let named = |entity: &EntityUid| {
        let name = entity.id().unescaped().to_owned();
        METHODS.map(|method| match name.as_str() {
            "read" => matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS"),
            "write" => !matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS"),
            name => method.as_str() == name,
        })
    };
    match constraint {
        ActionConstraint::Any => [true; METHODS.len()],
        ActionConstraint::Eq(entity) => named(entity),
        ActionConstraint::In(entities) => entities.iter().map(named).fold([false; METHODS.len()], |all, these| {
            std::array::from_fn(|index| at(&all, index) || at(&these, index))
        }),
    }
}

fn place(policy: &Policy) -> Place {
    match policy.resource_constraint() {
        ResourceConstraint::Eq(entity) | ResourceConstraint::In(entity) | ResourceConstraint::IsIn(_, entity) => {
            let name = entity.id().unescaped().to_owned();
            match entity.type_name().basename() {
                "Route" => Place::Route(name),
                "Environment" => Place::Environment(name),
                _ => Place::Anywhere,
            }
        }
        ResourceConstraint::Any | ResourceConstraint::Is(_) => Place::Anywhere,
    }
}

/// The policies that can match one route, method and kind of principal.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) policies: PolicySet,
    /// Positions among the rules, ascending.
    pub(super) members: Vec<usize>,
    /// What of `context` any of them reads.
    pub(super) reads: ContextReads,
    /// Names of the roles that any of them mentions. No other role can make a difference.
    roles: BTreeSet<Arc<str>>,
}

impl Slice {
    /// A slice of these rules.
    ///
    /// # Errors
    /// When two rules share an id.
    fn of(rules: &[Rule], members: Vec<usize>) -> Result<Self, CedarError> {
        let chosen: Vec<&Rule> = members.iter().filter_map(|member| rules.get(*member)).collect();
        Ok(Self {
            policies: PolicySet::from_policies(chosen.iter().map(|rule| rule.policy.clone()))?,
            reads: chosen.iter().fold(ContextReads::default(), |reads, rule| reads.and(rule.reads)),
            roles: chosen.iter().flat_map(|rule| rule.roles.iter().cloned()).collect(),
            members,
        })
    }

    /// Whether holding `role` can change what this slice decides.
    pub(super) fn mentions(&self, role: &str) -> bool {
        self.roles.contains(role)
    }
}

/// The slice of every route, method and kind of principal.
#[derive(Debug)]
pub(super) struct Slices {
    /// By route, then [`slot`].
    routes: Vec<Vec<Arc<Slice>>>,
}

fn slot(method: usize, kind: usize) -> usize {
    method * KINDS.len() + kind
}

impl Slices {
    /// Indexes `rules` for `routes`.
    ///
    /// # Errors
    /// When two rules share an id.
    pub(super) fn new(rules: &[Rule], routes: &[Arc<Route>]) -> Result<Self, CedarError> {
        let mut anywhere = Vec::new();
        let mut environments: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut by_route: HashMap<&str, Vec<usize>> = HashMap::new();
        for (position, rule) in rules.iter().enumerate() {
            match &rule.scope.place {
                Place::Anywhere => anywhere.push(position),
                Place::Environment(name) => environments.entry(name).or_default().push(position),
                Place::Route(name) => by_route.entry(name).or_default().push(position),
            }
        }
        // Most methods and kinds of one route see the same policies: one slice for all of them.
        let mut known: HashMap<Vec<usize>, Arc<Slice>> = HashMap::new();
        let mut all = Vec::with_capacity(routes.len());
        for route in routes {
            let mut candidates = anywhere.clone();
            candidates.extend(environments.get(&*route.environment).into_iter().flatten());
            candidates.extend(by_route.get(&*route.name).into_iter().flatten());
            candidates.sort_unstable();
            let mut slices = Vec::with_capacity(METHODS.len() * KINDS.len());
            for method in 0..METHODS.len() {
                for kind in 0..KINDS.len() {
                    let admitted = |position: &usize| {
                        rules.get(*position).is_some_and(|rule| rule.scope.admits(route, method, kind))
                    };
                    let members: Vec<usize> = candidates.iter().copied().filter(admitted).collect();
                    let slice = match known.get(&members) {
                        Some(slice) => slice.clone(),
                        None => {
                            let slice = Arc::new(Slice::of(rules, members.clone())?);
                            known.insert(members, slice.clone());
                            slice
                        }
                    };
                    slices.push(slice);
                }
            }
            all.push(slices);
        }
        Ok(Self { routes: all })
    }

    /// The slice of one request; `None` for a route or a method that is not among the configured ones.
    pub(super) fn find(&self, route: &Route, method: &http::Method, kind: PrincipalKind) -> Option<&Arc<Slice>> {
        self.routes.get(route.index)?.get(slot(method_index(method)?, kind_index(kind)))
    }
}
