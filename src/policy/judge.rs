//! Asking Cedar about one request, and reading its answer so that whatever goes wrong refuses.

use std::sync::Arc;

use cedar_policy::{AuthorizationError, Authorizer, Decision, Entities, EvaluationError, PolicySet, Request};

use super::rules::{Rule, Rules};

/// What the policies of a slice say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    pub(super) verdict: Verdict,
    /// Ids of the policies that decided, sorted.
    pub(super) policy_ids: Arc<[Arc<str>]>,
    /// What went wrong.
    pub(super) detail: Option<String>,
}

/// How they decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One permits, none forbids.
    Permit,
    /// None permits, none forbids.
    Silence,
    /// One forbids.
    Forbid,
    /// A guardrail forbids.
    Guardrail,
    /// One could not be evaluated. Cedar skips it, and a skipped `forbid` would turn a refusal into a permission.
    Failure,
}

/// Asks `policies`, all of them among `rules`.
pub(super) fn judge(rules: &Rules, policies: &PolicySet, request: &Request, entities: &Entities) -> Ruling {
    let response = Authorizer::new().is_authorized(request, policies, entities);
    let diagnostics = response.diagnostics();
    let failures: Vec<&AuthorizationError> = diagnostics.errors().collect();
    if !failures.is_empty() {
        let mut details: Vec<String> = failures.iter().map(|failure| describe(failure)).collect();
        details.sort_unstable();
        let failed = failures.iter().filter_map(|failure| rules.find(policy_of(failure)));
        return Ruling { verdict: Verdict::Failure, policy_ids: ids(failed), detail: Some(details.join("; ")) };
    }
    let deciding = || diagnostics.reason().filter_map(|id| rules.find(id.as_ref()));
    let verdict = match response.decision() {
        Decision::Allow => Verdict::Permit,
        Decision::Deny if deciding().any(|rule| rule.guardrail) => Verdict::Guardrail,
        Decision::Deny if diagnostics.reason().next().is_some() => Verdict::Forbid,
        Decision::Deny => Verdict::Silence,
    };
    Ruling { verdict, policy_ids: ids(deciding()), detail: None }
}

fn ids<'a>(rules: impl Iterator<Item = &'a Rule>) -> Arc<[Arc<str>]> {
    let mut ids: Vec<Arc<str>> = rules.map(|rule| rule.id.clone()).collect();
    ids.sort_unstable();
    ids.into()
}

fn policy_of(error: &AuthorizationError) -> &str {
    match error {
        AuthorizationError::PolicyEvaluationError(error) => error.policy_id().as_ref(),
    }
}

/// What failed, without the values: they may be claims.
fn describe(error: &AuthorizationError) -> String {
    let AuthorizationError::PolicyEvaluationError(error) = error;
    let id: &str = error.policy_id().as_ref();
    let what = match error.inner() {
        EvaluationError::IntegerOverflow(_) => "a number is too large",
        EvaluationError::TypeError(_) => "a value has another type than its declaration",
        EvaluationError::EntityAttrDoesNotExist(_) | EvaluationError::RecordAttrDoesNotExist(_) => {
            "an attribute is missing"
        }
        EvaluationError::EntityDoesNotExist(_) => "an entity is unknown",
        EvaluationError::FailedExtensionFunctionExecution(_) => "a function refuses its argument",
        EvaluationError::RecursionLimit(_) => "its condition is nested too deeply",
        EvaluationError::FailedExtensionFunctionLookup(_)
        | EvaluationError::WrongNumArguments(_)
        | EvaluationError::UnlinkedSlot(_)
        | EvaluationError::NonValue(_) => "its condition has no value",
    };
    format!("policy `{id}` could not be evaluated: {what}")
}
