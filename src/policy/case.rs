//! One caller on one route with one method: what stays the same from request to request, and the decision on it.

use std::sync::Arc;

use cedar_policy::{Entities, Request};

use super::entities::CedarError;
use super::judge::{Ruling, Verdict, judge};
use super::rules::Rules;
use super::slice::Slice;
use super::{Denied, DenyReason, RoleSession};
use crate::clock::Timestamp;

/// What silence of the policies means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Gate {
    /// No rule, no permission.
    Closed,
    /// Anybody may, unless a policy forbids: public routes and preflights.
    Open,
}

impl Gate {
    const fn passes(self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Permit => true,
            Verdict::Silence => matches!(self, Self::Open),
            Verdict::Forbid | Verdict::Guardrail | Verdict::Failure => false,
        }
    }
}

/// Makes the entities of a caller in some of its roles.
pub(super) type EntitiesOf<'a> = dyn Fn(&[&RoleSession]) -> Result<Entities, CedarError> + 'a;

/// Roles, entities and policies of one caller on one route with one method, until the next role session ends.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) slice: Arc<Slice>,
    /// Roles whose session is not past.
    pub(super) live: Arc<[RoleSession]>,
    /// When the next of them ends.
    pub(super) valid_until: Option<Timestamp>,
    /// The caller in its live roles.
    entities: Entities,
    /// The caller in all its roles, when a role that the policies mention is past its session.
    entities_of_all: Option<Entities>,
    /// Names of those roles.
    expired: Vec<Arc<str>>,
}

impl Case {
    /// The case of a caller that holds `held`, at `now`.
    ///
    /// # Errors
    /// Cedar's, never seen.
    pub(super) fn new(
        slice: Arc<Slice>,
        held: &[RoleSession],
        now: Timestamp,
        entities_of: &EntitiesOf<'_>,
    ) -> Result<Self, CedarError> {
        let (live, past): (Vec<&RoleSession>, Vec<&RoleSession>) =
            held.iter().partition(|session| session.is_live(now));
        let expired: Vec<Arc<str>> =
            past.iter().map(|session| &session.role).filter(|role| slice.mentions(role)).cloned().collect();
        let everything: Vec<&RoleSession> = held.iter().collect();
        Ok(Self {
            valid_until: live.iter().filter_map(|session| session.ends_at).min(),
            entities: entities_of(&live)?,
            entities_of_all: if expired.is_empty() { None } else { Some(entities_of(&everything)?) },
            live: live.iter().map(|session| (*session).clone()).collect(),
            expired,
            slice,
        })
    }

    /// Ids of the policies that let `request` pass.
    ///
    /// A role past its session neither permits nor lifts what it is bound by: both the live roles and all roles
    /// must pass.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn decide(&self, rules: &Rules, gate: Gate, request: &Request) -> Result<Arc<[Arc<str>]>, Denied> {
        let policies = &self.slice.policies;
        let live = judge(rules, policies, request, &self.entities);
        let Some(entities_of_all) = &self.entities_of_all else {
            return if gate.passes(live.verdict) { Ok(live.policy_ids) } else { Err(self.refusal(live)) };
        };
        let all = judge(rules, policies, request, entities_of_all);
        if live.verdict == Verdict::Failure {
            return Err(self.refusal(live));
        }
        match (gate.passes(live.verdict), gate.passes(all.verdict)) {
            (true, true) => Ok(live.policy_ids),
            (_, false) => Err(self.refusal(all)),
            (false, true) => Err(Denied {
                reason: DenyReason::RoleSessionExpired,
                roles: self.live.clone(),
                policy_ids: all.policy_ids,
                detail: Some(format!("past its session: `{}`", self.expired.join("`, `"))),
            }),
        }
    }

    fn refusal(&self, ruling: Ruling) -> Denied {
        let reason = match ruling.verdict {
            Verdict::Guardrail => DenyReason::Guardrail,
            Verdict::Forbid => DenyReason::Forbidden,
            Verdict::Silence => DenyReason::NotPermitted,
            Verdict::Failure | Verdict::Permit => DenyReason::EvaluationFailed,
        };
        Denied { reason, roles: self.live.clone(), policy_ids: ruling.policy_ids, detail: ruling.detail }
    }

    /// Sessions whose passing may change the decision, by their end.
    fn ends_that_matter(&self) -> Vec<Timestamp> {
        let mentioned = self.live.iter().filter(|session| self.slice.mentions(&session.role));
        let mut ends: Vec<Timestamp> = mentioned.filter_map(|session| session.ends_at).collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// The earliest end of a session that may take the permission away. Never too late; perhaps too early.
    pub(super) fn earliest_end(&self) -> Option<Timestamp> {
        self.ends_that_matter().first().copied()
    }

    /// The end of the session whose passing takes the permission away, given that it is there now.
    ///
    /// # Errors
    /// Cedar's, never seen.
    pub(super) fn deciding_end(
        &self,
        rules: &Rules,
        gate: Gate,
        request: &Request,
        held: &[RoleSession],
        entities_of: &EntitiesOf<'_>,
    ) -> Result<Option<Timestamp>, CedarError> {
        for end in self.ends_that_matter() {
            let rest: Vec<&RoleSession> = held.iter().filter(|session| session.is_live(end)).collect();
            let ruling = judge(rules, &self.slice.policies, request, &entities_of(&rest)?);
            if !gate.passes(ruling.verdict) {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// The entities of the caller in its live roles.
    pub(super) fn entities(&self) -> &Entities {
        &self.entities
    }
}
