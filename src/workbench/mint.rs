//! What would be asked of whom for a request's credential: nothing is asked, and nothing secret is shown.

use serde_json::Value;

use super::answer::Answer;
use super::explain::{ExplainError, Question, explain, recognise};
use crate::config::Judged;
use crate::config::compile::provider_for_questions;
use crate::credential::Ask;
use crate::policy::RequestFacts;
use crate::target::RequestTarget;

/// What would become of a request's credential.
#[derive(Clone, Debug)]
pub struct Minting {
    /// What would become of the request.
    pub answer: Answer,
    /// What would be asked of whom; `Null` where Doorward makes the credential by itself.
    pub request: Value,
    /// Why nothing would be asked although the request is permitted: code and detail.
    pub refused: Option<(String, String)>,
}

/// Answers `question` by `judged`, as [`explain`] does, and says what its credential would be made of.
///
/// # Errors
/// [`ExplainError`]
pub fn mint(judged: &Judged, question: &Question) -> Result<Minting, ExplainError> {
    let answer = explain(judged, question)?;
    let mut minting = Minting { answer, request: Value::Null, refused: None };
    if minting.answer.decision != "allow" {
        return Ok(minting);
    }
    match shown(judged, question)? {
        Ok(request) => minting.request = request,
        Err(refused) => minting.refused = Some(refused),
    }
    Ok(minting)
}

/// What the provider of the request's route would ask.
fn shown(judged: &Judged, question: &Question) -> Result<Result<Value, (String, String)>, ExplainError> {
    let Judged { checked, router, policies } = judged;
    let request = http::Request::builder().method(question.method.clone()).uri(question.url.clone()).body(());
    let (parts, ()) = request.map_err(|_| ExplainError::NoRequest)?.into_parts();
    let target = RequestTarget::of(&parts).map_err(|_| ExplainError::NoRequest)?;
    let matched = router.find(target).ok().flatten().ok_or(ExplainError::NoRequest)?;
    let settings = checked.routes.get(matched.route.index).ok_or(ExplainError::NoRequest)?;
    let evidence = question.caller.evidence(checked, question.at)?;
    let principal = recognise(question, &matched, evidence).map_err(|_| ExplainError::NoRequest)?;
    let facts = RequestFacts {
        route: &matched.route,
        target: &matched.target,
        parameters: &matched.parameters,
        source_ip: question.source_ip.to_canonical(),
        now: question.at,
    };
    let refused = |code: &str, detail: String| Err((code.to_owned(), detail));
    let grant = match policies.authorize(&principal, &facts) {
        Ok(grant) => grant,
        Err(denied) => return Ok(refused(denied.reason.code(), denied.to_string())),
    };
    let provider = match provider_for_questions(checked, settings) {
        Ok(Some(provider)) => provider,
        Ok(None) => return Ok(Ok(Value::Null)),
        Err(detail) => return Ok(refused("credential", detail)),
    };
    let ask = Ask {
        grant: &grant,
        now: question.at,
        parameters: &matched.parameters,
        // Nobody looks at it: what is shown says whose token it would be.
        token: question.caller.shows_token().then_some("the caller's token"),
        request_id: &"dry-run".into(),
    };
    Ok(provider.shown(&ask).map_err(|error| (error.code.to_owned(), error.detail)))
}
