//! The rules in force, and the one way to a [`Grant`].

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cedar_policy::{Entity, Request};
use quick_cache::sync::Cache;

use super::case::{Case, Gate};
use super::context;
use super::entities::{CedarError, Vocabulary, method_index};
use super::faults::PolicyFault;
use super::load::{Loaded, load};
use super::roles;
use super::rules::Rules;
use super::settings::{PolicySettings, RoleSettings};
use super::slice::{Slice, Slices};
use super::uses::RoleUses;
use super::{Denied, DenyReason, Grant, RequestFacts, RoleSession};
use crate::clock::Timestamp;
use crate::identity::{Principal, PrincipalKind};
use crate::route::{Access, Route};

/// Longest time that a decision is remembered.
const LONGEST_MEMORY: Duration = Duration::from_secs(300);
const REMEMBERED_CALLERS: usize = 16_384;
const REMEMBERED_CASES: usize = 4_096;
const REMEMBERED_DECISIONS: usize = 65_536;

/// The rules in force: roles, routes and policies of one snapshot.
pub struct Policies {
    pub(super) roles: Vec<RoleSettings>,
    pub(super) rules: Rules,
    pub(super) slices: Slices,
    pub(super) vocabulary: Vocabulary,
    pub(super) routes: Vec<RouteEntry>,
    schema_text: String,
    warnings: Vec<PolicyFault>,
    uses: Arc<RoleUses>,
    callers: Cache<CallerKey, Arc<[RoleSession]>>,
    cases: Cache<CaseKey, Arc<Case>>,
    decisions: Cache<CaseKey, Arc<Decision>>,
}

/// A route as policies see it.
pub(super) struct RouteEntry {
    pub(super) route: Arc<Route>,
    pub(super) entity: Entity,
    /// Position of its environment among all environments.
    environment: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct CallerKey {
    fingerprint: [u8; 32],
    kind: PrincipalKind,
    environment: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct CaseKey {
    fingerprint: [u8; 32],
    kind: PrincipalKind,
    gate: Gate,
    method: u8,
    route: usize,
    /// The caller's address, where a policy reads it.
    source: Option<IpAddr>,
}

/// A decision that holds for every request of its case.
struct Decision {
    outcome: Result<Permission, Denied>,
    valid_until: Timestamp,
    /// Of [`RoleUses::forgettings`], before it was made.
    forgettings: u64,
}

#[derive(Clone)]
struct Permission {
    roles: Arc<[RoleSession]>,
    policy_ids: Arc<[Arc<str>]>,
    expires_at: Option<Timestamp>,
    first_uses: Arc<[RoleSession]>,
}

/// A request that has its route and its slice.
pub(super) struct Question<'a> {
    pub(super) principal: &'a Principal,
    pub(super) facts: &'a RequestFacts<'a>,
    pub(super) entry: &'a RouteEntry,
    pub(super) action: &'a Entity,
    method: u8,
    pub(super) slice: &'a Arc<Slice>,
}

impl Policies {
    /// Reads and checks the rules. `uses` outlives reloads.
    ///
    /// # Errors
    /// Every fault there is, in the order of files and lines.
    pub fn load(settings: PolicySettings, uses: Arc<RoleUses>) -> Result<Self, Vec<PolicyFault>> {
        let Loaded { schema_text, vocabulary, rules, warnings } = load(&settings)?;
        let internal = |error: &dyn fmt::Display| vec![PolicyFault::general(error.to_string())];
        let slices = Slices::new(rules.all(), &settings.routes).map_err(|error| internal(&error))?;
        let mut environments: Vec<&Arc<str>> = settings.routes.iter().map(|route| &route.environment).collect();
        environments.sort_unstable();
        environments.dedup();
        let mut routes = Vec::with_capacity(settings.routes.len());
        for route in &settings.routes {
            routes.push(RouteEntry {
                route: route.clone(),
                entity: vocabulary.route_entity(route).map_err(|error| internal(&error))?,
                environment: environments
                    .binary_search(&&route.environment)
                    .ok()
                    .and_then(|position| u32::try_from(position).ok())
                    .unwrap_or(u32::MAX),
            });
        }
        Ok(Self {
            roles: settings.roles,
            rules,
            slices,
            vocabulary,
            routes,
            schema_text,
            warnings,
            uses,
            callers: Cache::new(REMEMBERED_CALLERS),
            cases: Cache::new(REMEMBERED_CASES),
            decisions: Cache::new(REMEMBERED_DECISIONS),
        })
    }

    /// What is suspicious about the rules without being wrong.
    #[must_use]
    pub fn warnings(&self) -> &[PolicyFault] {
        &self.warnings
    }

    /// The schema that policies are validated against, in Cedar's notation.
    #[must_use]
    pub fn schema_text(&self) -> &str {
        &self.schema_text
    }

    /// Number of policies in force.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        self.rules.all().len()
    }

    /// `file:line` of a policy.
    #[must_use]
    pub fn policy_location(&self, id: &str) -> Option<String> {
        self.rules.find(id).map(|rule| format!("{}:{}", rule.file, rule.position.line))
    }

    /// Judges one request. On a public route anybody may come whom no policy forbids.
    ///
    /// # Errors
    /// The refusal: no rule, a forbidding rule, a role session that is past, or anything unexpected.
    pub fn authorize(&self, principal: &Arc<Principal>, facts: &RequestFacts<'_>) -> Result<Grant, Denied> {
        self.enter(principal, facts, gate_of(principal, facts)?)
    }

    /// Judges a CORS preflight, which shows no identity: it may come where the route names origins and no policy
    /// forbids.
    ///
    /// # Errors
    /// The refusal, also for whatever is no preflight.
    pub fn authorize_preflight(&self, principal: &Arc<Principal>, facts: &RequestFacts<'_>) -> Result<Grant, Denied> {
        let is_preflight = *facts.target.method() == http::Method::OPTIONS
            && principal.kind == PrincipalKind::Anonymous
            && !facts.route.cors.origins.is_empty();
        if !is_preflight {
            return Err(refused(DenyReason::NotPermitted, None));
        }
        self.enter(principal, facts, Gate::Open)
    }

    /// Takes back that `roles` are no first uses any more, because the record of them could not be written.
    pub fn forget_uses(&self, principal: &Principal, roles: &[RoleSession]) {
        self.uses.forget(principal.evidence_id(), roles);
    }

    fn enter(&self, principal: &Arc<Principal>, facts: &RequestFacts<'_>, gate: Gate) -> Result<Grant, Denied> {
        let question = self.question(principal, facts)?;
        let permission = if question.slice.reads.is_settled() {
            self.settled(&question, gate)?
        } else {
            self.unsettled(&question, gate)?
        };
        Ok(Grant {
            principal: principal.clone(),
            route: facts.route.clone(),
            roles: permission.roles,
            policy_ids: permission.policy_ids,
            expires_at: permission.expires_at,
            first_uses: permission.first_uses,
        })
    }

    /// A decision that no fact of the single request but its source can change: remembered.
    fn settled(&self, question: &Question<'_>, gate: Gate) -> Result<Permission, Denied> {
        let source = question.slice.reads.reads_source().then(|| question.facts.source_ip.to_canonical());
        let (key, now) = (CaseKey { source, ..question.key(gate) }, question.facts.now);
        let forgettings = self.uses.forgettings();
        if let Some(decision) = self.decisions.get(&key)
            && now < decision.valid_until
            && decision.forgettings == forgettings
        {
            return decision.outcome.clone();
        }
        let held = self.held(question);
        let case = question.case(self, &held).map_err(unjudged)?;
        let request = question.request(self).map_err(unjudged)?;
        let outcome = match case.decide(&self.rules, gate, &request) {
            Err(denied) => Err(denied),
            Ok(policy_ids) => {
                let entities_of = |roles: &[&RoleSession]| question.entities(self, roles);
                let evidence_end = question.principal.expires_at;
                // Where the evidence ends first, it does not matter which role's end would.
                let end = match case.earliest_end().filter(|end| evidence_end.is_none_or(|evidence| *end < evidence)) {
                    None => None,
                    Some(_) => case.deciding_end(&self.rules, gate, &request, &held, &entities_of).map_err(unjudged)?,
                };
                Ok(self.permission(question, &case, policy_ids, end))
            }
        };
        let ends = [question.principal.expires_at, case.valid_until, Some(now.plus(LONGEST_MEMORY))];
        if let Some(valid_until) = ends.into_iter().flatten().min() {
            let outcome = outcome.clone().map(|permission| Permission { first_uses: Arc::default(), ..permission });
            self.decisions.insert(key, Arc::new(Decision { outcome, valid_until, forgettings }));
        }
        outcome
    }

    /// A decision that depends on the single request. Only the caller's entities are remembered.
    fn unsettled(&self, question: &Question<'_>, gate: Gate) -> Result<Permission, Denied> {
        let (key, now) = (question.key(gate), question.facts.now);
        let remembered = self.cases.get(&key).filter(|case| case.valid_until.is_none_or(|until| now < until));
        let case = match remembered {
            Some(case) => case,
            None => {
                let case = Arc::new(question.case(self, &self.held(question)).map_err(unjudged)?);
                self.cases.insert(key, case.clone());
                case
            }
        };
        let request = question.request(self).map_err(unjudged)?;
        let policy_ids = case.decide(&self.rules, gate, &request)?;
        Ok(self.permission(question, &case, policy_ids, case.earliest_end()))
    }

    fn permission(
        &self,
        question: &Question<'_>,
        case: &Case,
        policy_ids: Arc<[Arc<str>]>,
        roles_end: Option<Timestamp>,
    ) -> Permission {
        Permission {
            roles: case.live.clone(),
            policy_ids,
            expires_at: question.principal.expires_at.into_iter().chain(roles_end).min(),
            first_uses: self.uses.first_of(question.principal.evidence_id(), &case.live),
        }
    }

    /// The roles whose trust the caller meets on this route, resolved once.
    fn held(&self, question: &Question<'_>) -> Arc<[RoleSession]> {
        let principal = question.principal;
        let key = CallerKey {
            fingerprint: principal.fingerprint,
            kind: principal.kind,
            environment: question.entry.environment,
        };
        if let Some(held) = self.callers.get(&key) {
            return held;
        }
        let held = roles::held(&self.roles, principal, &question.entry.route.environment);
        self.callers.insert(key, held.clone());
        held
    }

    /// Finds what the request is about.
    ///
    /// # Errors
    /// For a route of another snapshot and a method that policies cannot speak of.
    pub(super) fn question<'a>(
        &'a self,
        principal: &'a Principal,
        facts: &'a RequestFacts<'a>,
    ) -> Result<Question<'a>, Denied> {
        let unknown = |what: &str| refused(DenyReason::EvaluationFailed, Some(what.to_owned()));
        let entry = self
            .routes
            .get(facts.route.index)
            // The very route: one of an older snapshot may have been less open.
            .filter(|entry| Arc::ptr_eq(&entry.route, facts.route))
            .ok_or_else(|| unknown("the route is not among the routes in force"))?;
        let method = facts.target.method();
        method_index(method)
            .and_then(|index| {
                let slice = self.slices.find(&entry.route, method, principal.kind)?;
                let action = self.vocabulary.action(index)?;
                Some(Question { principal, facts, entry, action, method: u8::try_from(index).ok()?, slice })
            })
            .ok_or_else(|| unknown("policies cannot speak of the method"))
    }
}

impl Question<'_> {
    fn key(&self, gate: Gate) -> CaseKey {
        CaseKey {
            fingerprint: self.principal.fingerprint,
            kind: self.principal.kind,
            gate,
            method: self.method,
            route: self.entry.route.index,
            source: None,
        }
    }

    pub(super) fn case(&self, policies: &Policies, held: &[RoleSession]) -> Result<Case, CedarError> {
        Case::new(self.slice.clone(), held, self.facts.now, &|roles| self.entities(policies, roles))
    }

    fn entities(&self, policies: &Policies, roles: &[&RoleSession]) -> Result<cedar_policy::Entities, CedarError> {
        let names = roles.iter().map(|session| &session.role);
        policies.vocabulary.entities(self.principal, names, self.action, &self.entry.entity)
    }

    /// What goes before Cedar.
    ///
    /// # Errors
    /// For a fact without a Cedar value.
    pub(super) fn request(&self, policies: &Policies) -> Result<Request, CedarError> {
        let context = context::build(self.slice.reads, self.principal, self.facts)?;
        let principal = policies.vocabulary.principal_uid(self.principal);
        // Checking against the schema costs as much as the decision: a test holds the context to the schema instead.
        Ok(Request::new(principal, self.action.uid(), self.entry.entity.uid(), context, None)?)
    }
}

/// What silence means on the route.
///
/// # Errors
/// When nobody in particular asks for a route that takes callers.
pub(super) fn gate_of(principal: &Principal, facts: &RequestFacts<'_>) -> Result<Gate, Denied> {
    match (&facts.route.access, principal.kind) {
        (Access::Public { .. }, _) => Ok(Gate::Open),
        (Access::Authenticated(_), PrincipalKind::User | PrincipalKind::Workload) => Ok(Gate::Closed),
        (Access::Authenticated(_), PrincipalKind::Anonymous) => {
            Err(refused(DenyReason::NotPermitted, Some("the route takes callers with an identity".to_owned())))
        }
    }
}

fn refused(reason: DenyReason, detail: Option<String>) -> Denied {
    Denied { reason, roles: Arc::from([]), policy_ids: Arc::from([]), detail }
}

/// The error itself may quote claims, so it stays here.
pub(super) fn unjudged(_error: CedarError) -> Denied {
    refused(DenyReason::EvaluationFailed, Some("the request cannot be put before the policies".to_owned()))
}

impl fmt::Debug for Policies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Policies")
            .field("policies", &self.rules.all().len())
            .field("roles", &self.roles.len())
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}
