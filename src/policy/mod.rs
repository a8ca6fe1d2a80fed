//! What a caller may do: roles by trust, permissions by Cedar, and the [`Grant`] that proves a permission.
//!
//! A [`Grant`] has private fields and is made by [`Policies::authorize`] alone, so a step that asks for one cannot
//! be reached without authorization.

mod case;
mod context;
mod depth;
mod engine;
mod entities;
mod explain;
mod faults;
mod judge;
mod load;
mod names;
mod roles;
mod rules;
mod schema;
mod settings;
mod slice;
mod uses;

#[cfg(test)]
mod tests;

#[cfg(any(test, fuzzing))]
pub(crate) use context::whole as whole_context;
pub use engine::Policies;
pub use explain::{Explanation, PolicyExplanation, RoleExplanation, TrustExplanation};
pub use faults::PolicyFault;
pub use load::form_faults;
pub use schema::generate_schema;
pub use settings::{AttributeType, DeclaredAttribute, PolicySettings, PolicySource, RoleSettings, RoleTrust};
pub use uses::RoleUses;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::identity::Principal;
use crate::route::{PathParameters, Route};
use crate::target::Target;

/// Facts of one request that policies may read.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The request's route.
    pub route: &'a Arc<Route>,
    /// Method, host and path.
    pub target: &'a Target,
    /// What the route's path pattern caught.
    pub parameters: &'a PathParameters,
    /// The caller's address.
    pub source_ip: std::net::IpAddr,
    /// The request's time.
    pub now: Timestamp,
}

/// A role that a principal holds, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSession {
    /// The role's name.
    pub role: Arc<str>,
    /// When the session began.
    pub began_at: Timestamp,
    /// When it ends; `None` for a role without a longest session.
    pub ends_at: Option<Timestamp>,
}

/// Proof that policy permits a request. Made by [`Policies::authorize`] only.
#[derive(Clone, Debug)]
pub struct Grant {
    principal: Arc<Principal>,
    route: Arc<Route>,
    roles: Arc<[RoleSession]>,
    policy_ids: Arc<[Arc<str>]>,
    expires_at: Option<Timestamp>,
    first_uses: Arc<[RoleSession]>,
}

impl Grant {
    /// Who may.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// On which route.
    #[must_use]
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The roles that the principal holds, none of them past its session.
    #[must_use]
    pub fn roles(&self) -> &Arc<[RoleSession]> {
        &self.roles
    }

    /// Ids of the policies that decided.
    #[must_use]
    pub fn policy_ids(&self) -> &Arc<[Arc<str>]> {
        &self.policy_ids
    }

    /// When the permission ends: the earliest of the evidence's end and the role sessions' ends.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// The roles that this evidence (token, session, certificate) used for the first time: the moment for
    /// `role.assumed`.
    #[must_use]
    pub fn first_uses(&self) -> &Arc<[RoleSession]> {
        &self.first_uses
    }
}

/// Why policy refuses. The rule that decided is for the audit record, never for the caller.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.reason.sentence())]
pub struct Denied {
    /// Stable reason.
    pub reason: DenyReason,
    /// The roles that the principal holds.
    pub roles: Arc<[RoleSession]>,
    /// Ids of the policies that decided; empty when none permits.
    pub policy_ids: Arc<[Arc<str>]>,
    /// What went wrong in evaluation, for the audit record.
    pub detail: Option<String>,
}

/// Stable reasons of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyReason {
    /// No policy permits.
    NotPermitted,
    /// A policy forbids.
    Forbidden,
    /// A guardrail forbids.
    Guardrail,
    /// A role that would permit is past its longest session: authenticate again.
    RoleSessionExpired,
    /// A policy could not be evaluated.
    EvaluationFailed,
}

impl DenyReason {
    /// Stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotPermitted => "not_permitted",
            Self::Forbidden => "forbidden",
            Self::Guardrail => "guardrail",
            Self::RoleSessionExpired => "role_session_expired",
            Self::EvaluationFailed => "policy_evaluation_failed",
        }
    }

    /// One sentence for the caller.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NotPermitted => "None of your roles permits this request.",
            Self::Forbidden => "A policy forbids this request.",
            Self::Guardrail => "An organisation-wide guardrail forbids this request.",
            Self::RoleSessionExpired => "Your role session has ended. Sign in again to go on.",
            Self::EvaluationFailed => "This request could not be judged, so it is refused.",
        }
    }
}

#[cfg(test)]
impl Grant {
    /// A grant out of nothing, for the tests of the steps after policy. No product build has this.
    pub(crate) fn for_tests(
        principal: Arc<Principal>,
        route: Arc<Route>,
        roles: Arc<[RoleSession]>,
        expires_at: Option<Timestamp>,
    ) -> Self {
        Self { principal, route, roles, policy_ids: Arc::default(), expires_at, first_uses: Arc::default() }
    }
}
