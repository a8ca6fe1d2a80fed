//! What would happen to a request, and why: the line's own steps, asked in the line's own order, with nothing sent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::{HeaderMap, Method, Uri};

use super::answer::{Answer, CallerAnswer, Forwarded, RouteAnswer};
use super::caller::{Caller, StatedEvidence};
use crate::clock::Timestamp;
use crate::config::Judged;
use crate::config::checked::{Checked, RouteSettings};
use crate::identity::{IdentityError, IdentityVerifier, Presented, Principal, identify};
use crate::login;
use crate::peer::{Downstream, Peer, Scheme, Transport};
use crate::policy::{Denied, DenyReason, Explanation, RequestFacts};
use crate::proxy::{ProxyError, is_reserved};
use crate::route::{EvidenceKind, RouteMatch};
use crate::target::RequestTarget;

/// Who asks for what.
#[derive(Clone, Debug)]
pub struct Question {
    /// The caller.
    pub caller: Caller,
    /// Request method.
    pub method: Method,
    /// The whole URL.
    pub url: Uri,
    /// The caller's address.
    pub source_ip: IpAddr,
    /// The request's time.
    pub at: Timestamp,
}

/// Why a question has no answer: it asks about something that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No issuer of that name.
    #[error("no issuer is named `{name}`: {help}")]
    UnknownIssuer {
        /// The name.
        name: String,
        /// The nearest known one.
        help: String,
    },
    /// The issuer offers no browser login.
    #[error("issuer `{issuer}` offers no login, so nobody has a session with it")]
    NoLogin {
        /// Its name.
        issuer: String,
    },
    /// None or several certificate issuers.
    #[error("{count} certificate issuers are configured: name the one that is meant")]
    WhichCertificateIssuer {
        /// How many.
        count: usize,
    },
    /// A URL without a host.
    #[error("the URL names no host: write it whole, as in `https://api.example.com/path`")]
    NoHost,
    /// The parts of a request do not fit together.
    #[error("the URL is none that a request could ask for")]
    NoRequest,
}

/// Answers `question` by `judged`. Reads no file, opens no connection, and remembers nothing.
///
/// # Errors
/// [`ExplainError`]; a refused request is an answer.
pub fn explain(judged: &Judged, question: &Question) -> Result<Answer, ExplainError> {
    let host = question.url.authority().ok_or(ExplainError::NoHost)?.to_string();
    let evidence = question.caller.evidence(&judged.checked, question.at)?;
    let request = http::Request::builder().method(question.method.clone()).uri(question.url.clone()).body(());
    let (parts, ()) = request.map_err(|_| ExplainError::NoRequest)?.into_parts();
    let mut answer = blank(question, evidence.as_ref(), host);
    if let Err(error) = walk(judged, question, &parts, evidence, &mut answer) {
        answer.decision = "deny";
        answer.code = error.code();
        answer.status = Some(error.status().as_u16());
        answer.sentence = error.sentence().to_owned();
        if answer.policy.is_none() {
            answer.detail = Some(error.detail());
        }
    }
    Ok(answer)
}

/// The line, until where it would forward.
fn walk(
    judged: &Judged,
    question: &Question,
    parts: &http::request::Parts,
    evidence: Option<StatedEvidence>,
    answer: &mut Answer,
) -> Result<(), ProxyError> {
    let Judged { checked, router, policies } = judged;
    let target = RequestTarget::of(parts)?;
    target.host().clone_into(&mut answer.host);
    target.normal_path().unwrap_or(target.raw_path()).clone_into(&mut answer.path);
    if is_reserved(target.raw_path()) || target.normal_path().is_some_and(is_reserved) {
        target.into_normal()?;
        "Doorward answers this path itself; no route and no policy is asked.".clone_into(&mut answer.sentence);
        (answer.decision, answer.code) = ("own", "ok");
        return Ok(());
    }

    let matched = router.find(target)?.ok_or(ProxyError::NoRoute)?;
    matched.target.path().clone_into(&mut answer.path);
    let caught = matched.parameters.iter();
    answer.parameters = caught.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let settings = checked.routes.get(matched.route.index).ok_or(ProxyError::Internal("a route without settings"))?;
    answer.route = Some(RouteAnswer::of(settings, checked));

    if answer.caller.evidence.is_some() && answer.route.as_ref().is_some_and(|route| route.public.is_some()) {
        answer.notes.push("the route is public: who calls is not looked at, and no role counts".to_owned());
    }
    let principal = match recognise(question, &matched, evidence) {
        Ok(principal) => principal,
        Err(error) => {
            offer_login(&error, settings, checked, answer);
            return Err(error.into());
        }
    };
    answer.caller.principal = Some(principal.id().to_string());
    answer.caller.kind = Some(principal.kind.as_str());
    let issuer = checked.issuers.iter().find(|issuer| issuer.login.is_some() && *issuer.name == *principal.issuer);
    let leeway = issuer.map(|issuer| issuer.leeway).unwrap_or_default();
    if !login::meets(&matched.route.login, &principal, leeway, question.at) {
        return Err(IdentityError::StepUp.into());
    }

    let explanation = policies.explain(
        &principal,
        &RequestFacts {
            route: &matched.route,
            target: &matched.target,
            parameters: &matched.parameters,
            source_ip: question.source_ip.to_canonical(),
            now: question.at,
        },
    );
    let refusal = refusal(&explanation);
    explanation.sentence.clone_into(&mut answer.sentence);
    answer.detail = explanation.detail.clone();
    answer.policy = Some(explanation);
    if let Some(denied) = refusal {
        return Err(denied.into());
    }
    (answer.decision, answer.code) = ("allow", "ok");
    answer.forwarded = Some(Forwarded::of(settings, checked));
    Ok(())
}

/// What [`identify`] says to the evidence: the same gate as a real request's.
pub(super) fn recognise(
    question: &Question,
    matched: &RouteMatch,
    evidence: Option<StatedEvidence>,
) -> Result<Arc<Principal>, IdentityError> {
    let verifiers: Vec<Arc<dyn IdentityVerifier>> =
        evidence.into_iter().map(|evidence| Arc::new(evidence) as Arc<dyn IdentityVerifier>).collect();
    let address = SocketAddr::new(question.source_ip, 0);
    let (listener, transport) = ("explain".into(), Transport::Plain);
    let peer = Peer { address, socket_address: address, listener, transport, tls: None, certificate: None };
    let headers = HeaderMap::new();
    let presented = Presented {
        method: matched.target.method(),
        headers: &headers,
        peer: &peer,
        downstream: Downstream { address: question.source_ip.to_canonical(), scheme: Scheme::Https },
        route: &matched.route,
        now: question.at,
    };
    let waiting = || IdentityError::Unavailable { issuer: "".into(), detail: "a stated caller had to wait".to_owned() };
    identify(&verifiers, presented).now_or_never().unwrap_or_else(|| Err(waiting()))
}

fn refusal(explanation: &Explanation) -> Option<Denied> {
    let reason: DenyReason = explanation.reason?;
    let policy_ids = explanation.deciding.iter().map(|policy| policy.id.as_str().into()).collect();
    Some(Denied { reason, roles: Arc::from([]), policy_ids, detail: explanation.detail.clone() })
}

fn offer_login(error: &IdentityError, settings: &RouteSettings, checked: &Checked, answer: &mut Answer) {
    let takes_sessions = answer.route.as_ref().is_some_and(|route| route.evidence.contains(&"session"));
    let offered = checked.issuers.iter().any(|issuer| issuer.login.is_some());
    if matches!(error, IdentityError::Missing) && takes_sessions && offered {
        let name = &settings.route.name;
        answer.notes.push(format!("a browser that navigates to the route `{name}` is sent to sign in instead"));
    }
}

/// An answer of which nothing is known but the question.
fn blank(question: &Question, evidence: Option<&StatedEvidence>, host: String) -> Answer {
    let caller = evidence.map(|evidence| CallerAnswer {
        evidence: Some(evidence.kind.as_str()),
        issuer: Some(evidence.issuer.clone()).filter(|issuer| !issuer.is_empty()),
        taken_as_good: evidence.taken_as_good.clone(),
        ..CallerAnswer::default()
    });
    let mut notes = evidence.map(|evidence| evidence.notes.clone()).unwrap_or_default();
    if evidence.is_some_and(|evidence| evidence.kind == EvidenceKind::Session) && !question.method.is_safe() {
        notes.push("a session's request that changes something must also come from Doorward's own origin".to_owned());
    }
    Answer {
        decision: "deny",
        code: "internal_error",
        status: None,
        sentence: String::new(),
        detail: None,
        method: question.method.to_string(),
        host,
        path: question.url.path().to_owned(),
        source_ip: question.source_ip.to_string(),
        at: question.at.rfc3339(),
        caller: caller.unwrap_or_default(),
        route: None,
        parameters: Vec::new(),
        policy: None,
        forwarded: None,
        notes,
    }
}
