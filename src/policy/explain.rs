//! Why a request was or would be judged as it is: roles with their trust, deciding policies with their place.

use cedar_policy::Effect;
use serde::Serialize;

use super::case::{Case, Gate};
use super::engine::{Policies, gate_of, unjudged};
use super::judge::{Verdict, judge};
use super::roles::{self, is_trusted, session_of, unmet};
use super::rules::Rule;
use super::settings::RoleSettings;
use super::{Denied, DenyReason, RequestFacts};
use crate::identity::Principal;

/// A decision with everything that led to it. For operators, never for callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// `ok`, or the stable code of the refusal.
    pub code: &'static str,
    /// The refusal.
    #[serde(skip)]
    pub reason: Option<DenyReason>,
    /// One sentence.
    pub sentence: &'static str,
    /// What went wrong, where that is known.
    pub detail: Option<String>,
    /// The caller, as policies name it.
    pub principal: String,
    /// The route.
    pub route: String,
    /// Its environment.
    pub environment: String,
    /// Every role, held or not.
    pub roles: Vec<RoleExplanation>,
    /// Policies that decided.
    pub deciding: Vec<PolicyExplanation>,
    /// Every policy whose scope admits the caller's kind, the method and the route.
    pub considered: Vec<PolicyExplanation>,
}

/// Whether the caller holds a role on this route, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoleExplanation {
    /// Name.
    pub role: String,
    /// Whether it counts for this request.
    pub held: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// When its session began, RFC 3339; `None` where trust is not met.
    pub began_at: Option<String>,
    /// When its session ends or ended.
    pub ends_at: Option<String>,
    /// Its trust clauses.
    pub trust: Vec<TrustExplanation>,
}

/// Whether the caller meets one trust clause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustExplanation {
    /// Configured name of its issuer.
    pub issuer: String,
    /// Whether everything in it holds.
    pub met: bool,
    /// The first part that does not.
    pub failed: Option<String>,
}

/// One policy and what it says about this request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyExplanation {
    /// Its `@id`.
    pub id: String,
    /// `permit` or `forbid`.
    pub effect: &'static str,
    /// Whether it stands in a guardrails file.
    pub guardrail: bool,
    /// `file:line`.
    pub location: String,
    /// Text of its `@reason`.
    pub reason: Option<String>,
    /// `applies`, `does not apply` or `fails`, for the roles that are not past their session.
    pub outcome: &'static str,
}

impl Policies {
    /// Judges the request as [`Policies::authorize`] does, and tells how. Remembers nothing.
    #[must_use]
    pub fn explain(&self, principal: &Principal, facts: &RequestFacts<'_>) -> Explanation {
        let mut explanation = Explanation {
            decision: "deny",
            code: DenyReason::EvaluationFailed.code(),
            reason: Some(DenyReason::EvaluationFailed),
            sentence: DenyReason::EvaluationFailed.sentence(),
            detail: None,
            principal: principal.id().to_string(),
            route: facts.route.name.to_string(),
            environment: facts.route.environment.to_string(),
            roles: self.roles.iter().map(|role| explain_role(role, principal, facts)).collect(),
            deciding: Vec::new(),
            considered: Vec::new(),
        };
        let gate = gate_of(principal, facts);
        match gate.and_then(|gate| self.explain_policies(principal, facts, gate, &mut explanation)) {
            Ok(()) => {
                explanation.decision = "allow";
                explanation.code = "ok";
                explanation.reason = None;
                explanation.sentence = match explanation.deciding.is_empty() {
                    true => "The route is public and no policy forbids this request.",
                    false => "A policy permits this request.",
                };
            }
            Err(denied) => {
                explanation.code = denied.reason.code();
                explanation.reason = Some(denied.reason);
                explanation.sentence = denied.reason.sentence();
                explanation.detail = denied.detail;
            }
        }
        explanation
    }

    fn explain_policies(
        &self,
        principal: &Principal,
        facts: &RequestFacts<'_>,
        gate: Gate,
        explanation: &mut Explanation,
    ) -> Result<(), Denied> {
        let question = self.question(principal, facts)?;
        // Resolved anew: a made-up caller must not be remembered under a real caller's fingerprint.
        let held = roles::held(&self.roles, principal, &facts.route.environment);
        let case = question.case(self, &held).map_err(unjudged)?;
        let request = question.request(self).map_err(unjudged)?;
        let considered = || question.slice.members.iter().filter_map(|member| self.rules.all().get(*member));
        let explained = |rule: &Rule| PolicyExplanation {
            id: rule.id.to_string(),
            effect: match rule.effect {
                Effect::Permit => "permit",
                Effect::Forbid => "forbid",
            },
            guardrail: rule.guardrail,
            location: format!("{}:{}", rule.file, rule.position.line),
            reason: rule.reason.as_deref().map(str::to_owned),
            outcome: self.outcome(rule, &case, &request),
        };
        explanation.considered = considered().map(explained).collect();
        let outcome = case.decide(&self.rules, gate, &request);
        let ids = match &outcome {
            Ok(ids) => ids,
            Err(denied) => &denied.policy_ids,
        };
        explanation.deciding = considered().filter(|rule| ids.contains(&rule.id)).map(explained).collect();
        outcome.map(|_ids| ())
    }

    /// What one policy alone says.
    fn outcome(&self, rule: &Rule, case: &Case, request: &cedar_policy::Request) -> &'static str {
        let Ok(alone) = cedar_policy::PolicySet::from_policies([rule.policy.clone()]) else { return "fails" };
        match judge(&self.rules, &alone, request, case.entities()).verdict {
            Verdict::Permit | Verdict::Forbid | Verdict::Guardrail => "applies",
            Verdict::Silence => "does not apply",
            Verdict::Failure => "fails",
        }
    }
}

fn explain_role(role: &RoleSettings, principal: &Principal, facts: &RequestFacts<'_>) -> RoleExplanation {
    let trust: Vec<TrustExplanation> = role
        .trust
        .iter()
        .map(|trust| {
            let failed = unmet(trust, principal).map(|unmet| unmet.to_string());
            TrustExplanation { issuer: trust.issuer.to_string(), met: failed.is_none(), failed }
        })
        .collect();
    let session = is_trusted(role, principal).then(|| session_of(role, principal));
    let reason = match &session {
        None => Some("the caller meets none of its trust clauses".to_owned()),
        Some(_) if role.environment != facts.route.environment => Some(format!(
            "it holds in the environment `{}`, and the route is in `{}`",
            role.environment, facts.route.environment
        )),
        Some(session) => {
            session.ends_at.filter(|end| *end <= facts.now).map(|end| format!("its session ended at {}", end.rfc3339()))
        }
    };
    RoleExplanation {
        role: role.name.to_string(),
        held: reason.is_none(),
        reason,
        began_at: session.as_ref().map(|session| session.began_at.rfc3339()),
        ends_at: session.as_ref().and_then(|session| session.ends_at).map(|end| end.rfc3339()),
        trust,
    }
}
