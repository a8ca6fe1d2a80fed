//! The code flow: begin at the issuer, come back, exchange the code, begin a session.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use openidconnect::core::{CoreAuthPrompt, CoreResponseType};
use openidconnect::{
    AuthenticationContextClass, AuthenticationFlow, CsrfToken, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    Scope,
};
use url::form_urlencoded;

use super::attempt::{Attempt, random};
use super::id_token::time_of;
use super::provider::{ProviderError, Providers, Tokens};
use super::query::Query;
use super::refresh::claims_until;
use super::return_to::ReturnTo;
use super::session::{is_recent, is_strong, project};
use super::store::{Entry, Facts, Record, SessionKey};
use super::{AMONG, LOGIN, Login, LoginIssuer, SessionEvent, SessionEventKind, pages, redirect};
use crate::body::Body;
use crate::identity::{IdentityError, Principal};

/// Authentication context classes that one login may ask for.
pub(super) const MOST_ACR_VALUES: usize = 8;
const LONGEST_ACR_VALUE: usize = 256;

/// Code of a login that is weaker or older than was asked for.
const TOO_WEAK: &str = "login_too_weak";

const DOES_NOT_HOLD: &str = "The sign-in service's answer does not hold.";

/// A session that a newer login of the same user replaces serves requests in flight this much longer.
const GRACE: Duration = Duration::from_secs(60);

/// A login that came back and is refused.
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    sentence: &'static str,
    said: Option<String>,
}

fn refuse(status: StatusCode, code: &'static str, sentence: &'static str) -> Refusal {
    Refusal { status, code, sentence, said: None }
}

impl Login {
    /// `GET /.doorward/login`.
    pub(super) async fn begin(&self, head: &Parts, request_id: &Arc<str>) -> Response<Body> {
        let Some(query) = Query::parse(head) else { return malformed(request_id) };
        let return_to = query.one("return_to").and_then(|text| ReturnTo::parse(&self.origin, text));
        let return_to = return_to.unwrap_or_else(|| ReturnTo::root(&self.origin));
        if self.goes_in_circles(&head.headers) && query.one("again").is_none() {
            let sentence = "Signing in succeeded several times in a row, but did not lead anywhere.";
            let again = format!("{LOGIN}?{}&again=1", head.uri.query().unwrap_or_default());
            return pages::dead_end(StatusCode::TOO_MANY_REQUESTS, "login_loop", sentence, &again, request_id);
        }
        let issuer = match query.one("issuer") {
            Some(name) => match self.issuers.get(name) {
                Some(issuer) => issuer.clone(),
                None => {
                    let sentence = "There is no such place to sign in.";
                    return pages::error_response(StatusCode::NOT_FOUND, "unknown_issuer", sentence, request_id);
                }
            },
            None => match self.offered(&query).as_slice() {
                [only] => (*only).clone(),
                several => {
                    let kept: Vec<_> = query.0.iter().filter(|(name, _)| name != AMONG).cloned().collect();
                    return pages::choice(several.iter().map(|issuer| issuer.name()), &kept);
                }
            },
        };
        match self.start(head, &query, &issuer, &return_to).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(issuer = %issuer.name(), %error, "a login could not begin");
                let sentence = "The sign-in service cannot be reached at the moment.";
                let again = format!("{LOGIN}?{}", head.uri.query().unwrap_or_default());
                pages::dead_end(StatusCode::SERVICE_UNAVAILABLE, "issuer_unavailable", sentence, &again, request_id)
            }
        }
    }

    /// The issuers to choose from: those that the query names, or all of them.
    fn offered(&self, query: &Query) -> Vec<&Arc<LoginIssuer>> {
        let named: Vec<_> =
            self.issuers.values().filter(|issuer| query.all(AMONG).any(|name| *name == **issuer.name())).collect();
        if named.is_empty() { self.issuers.values().collect() } else { named }
    }

    async fn start(
        &self,
        head: &Parts,
        query: &Query,
        issuer: &Arc<LoginIssuer>,
        return_to: &ReturnTo,
    ) -> Result<Response<Body>, ProviderError> {
        let failed = |what: &str| ProviderError::Refused(what.to_owned());
        let metadata = self.state.providers.metadata(issuer).await?;
        let attempt = Attempt::begin(issuer.name().clone(), return_to.path_and_query(), self.state.clock.now());
        let mut attempt = attempt.ok_or_else(|| failed("no random bits"))?;
        let values = query.all("acr_values").filter(|value| !value.is_empty() && value.len() <= LONGEST_ACR_VALUE);
        attempt.acr_values = values.take(MOST_ACR_VALUES).map(str::to_owned).collect();
        attempt.max_age_seconds = query.one("max_age").and_then(|text| text.parse().ok());
        attempt.anew = query.one("prompt") == Some("login");
        let cookies = self.keep_attempt(&attempt, &head.headers).ok_or_else(|| failed("sealing failed"))?;

        let callback = RedirectUrl::new(self.callback_url()).map_err(|error| failed(&error.to_string()))?;
        let client = Providers::client(issuer, &metadata).set_redirect_uri(callback);
        let (state, nonce) = (CsrfToken::new(attempt.state()), Nonce::new(attempt.nonce()));
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let verifier = PkceCodeVerifier::new(attempt.verifier());
        let mut request = client
            .authorize_url(flow, || state, || nonce)
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        for scope in issuer.settings.scopes.iter().filter(|scope| *scope != "openid") {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        for value in &attempt.acr_values {
            request = request.add_auth_context_value(AuthenticationContextClass::new(value.clone()));
        }
        if let Some(seconds) = attempt.max_age_seconds {
            request = request.set_max_age(Duration::from_secs(seconds));
        }
        if attempt.anew {
            request = request.add_prompt(CoreAuthPrompt::Login);
        }
        for (name, value) in issuer.settings.parameters.iter().filter(|(name, _)| !(attempt.anew && name == "prompt")) {
            request = request.add_extra_param(name.clone(), value.clone());
        }
        let (url, _, _) = request.url();
        Ok(redirect(url.as_str(), cookies))
    }

    /// `GET /.doorward/callback`.
    pub(super) async fn complete(&self, head: &Parts, request_id: &Arc<str>) -> Response<Body> {
        let Some(query) = Query::parse(head) else { return malformed(request_id) };
        let found = query.one("state").and_then(|state| self.attempt_of(state, &head.headers));
        let Some((attempt, clear)) = found.filter(|(attempt, _)| self.use_attempt(attempt)) else {
            let sentence = "This sign-in was begun in another browser, is used up, or took too long.";
            self.refused(&"".into(), "login_state", request_id);
            return pages::dead_end(StatusCode::BAD_REQUEST, "login_state", sentence, "/", request_id);
        };
        match self.begin_session(head, &query, &attempt, request_id).await {
            Ok(mut cookies) => {
                cookies.extend(clear);
                cookies.extend(self.count_login(&head.headers));
                let return_to = ReturnTo::parse(&self.origin, &attempt.return_to);
                redirect(return_to.unwrap_or_else(|| ReturnTo::root(&self.origin)).url(), cookies)
            }
            Err(refusal) => {
                self.refused(&attempt.issuer, refusal.code, request_id);
                let page = pages::Refused { status: refusal.status, code: refusal.code, sentence: refusal.sentence };
                let again = again(&attempt, refusal.code == TOO_WEAK);
                let mut response = page.response(refusal.said.as_deref(), &again, request_id);
                for cookie in clear {
                    response.headers_mut().append(header::SET_COOKIE, cookie);
                }
                response
            }
        }
    }

    async fn begin_session(
        &self,
        head: &Parts,
        query: &Query,
        attempt: &Attempt,
        request_id: &Arc<str>,
    ) -> Result<Vec<HeaderValue>, Refusal> {
        let gone = || refuse(StatusCode::BAD_REQUEST, "unknown_issuer", "Signing in this way is not offered any more.");
        let issuer = self.issuers.get(&attempt.issuer).ok_or_else(gone)?;
        self.check_sender(query, issuer).await?;
        if query.has("error") {
            let sentence = "The sign-in service did not sign you in.";
            let said = [query.one("error"), query.one("error_description")].into_iter().flatten().collect::<Vec<_>>();
            let said = Some(said.join(": ").chars().take(400).collect());
            return Err(Refusal { said, ..refuse(StatusCode::FORBIDDEN, "login_denied", sentence) });
        }
        let code = query.one("code").filter(|code| !code.is_empty());
        let code = code.ok_or_else(|| {
            refuse(StatusCode::BAD_REQUEST, "login_code", "The sign-in service's answer is incomplete.")
        })?;
        let (code, nonce) = (code.to_owned(), attempt.nonce());
        let exchanged =
            self.state.providers.exchange_code(issuer, code, attempt.verifier(), &nonce, self.callback_url());
        let tokens = exchanged.await.map_err(|error| refusal_of(issuer, &error))?;
        self.check_strength(attempt, &tokens)?;
        self.store_session(head, issuer, tokens, request_id).await
    }

    /// RFC 9207: the answer must come from the issuer that was asked (mix-up).
    async fn check_sender(&self, query: &Query, issuer: &Arc<LoginIssuer>) -> Result<(), Refusal> {
        let metadata = self.state.providers.metadata(issuer).await.map_err(|error| refusal_of(issuer, &error))?;
        let promised = metadata.additional_metadata().authorization_response_iss_parameter_supported;
        let holds = if query.has("iss") { query.one("iss") == Some(issuer.url.as_str()) } else { !promised };
        let sentence = "The answer came from another sign-in service than the one that was asked.";
        if holds { Ok(()) } else { Err(refuse(StatusCode::BAD_REQUEST, "login_issuer", sentence)) }
    }

    /// What was asked for must have happened; else the route would ask again, in a circle.
    fn check_strength(&self, attempt: &Attempt, tokens: &Tokens) -> Result<(), Refusal> {
        let Some((claims, _)) = &tokens.identity else { return Ok(()) };
        let strong = is_strong(&attempt.acr_values, claims.get("acr").and_then(serde_json::Value::as_str));
        let (at, leeway) = (time_of(claims, "auth_time"), self.leeway(&attempt.issuer));
        let longest = attempt.max_age_seconds.map(Duration::from_secs);
        let recent = is_recent(longest, at, leeway, self.state.clock.now());
        let anew = !attempt.anew || at.is_none_or(|at| at.plus(leeway) >= attempt.begun_at);
        let sentence = "The sign-in service did not sign you in as strongly or as recently as this page asks.";
        if strong && recent && anew { Ok(()) } else { Err(refuse(StatusCode::FORBIDDEN, TOO_WEAK, sentence)) }
    }

    /// Begins a session under a new identifier, whatever the browser brought (fixation).
    async fn store_session(
        &self,
        head: &Parts,
        issuer: &Arc<LoginIssuer>,
        tokens: Tokens,
        request_id: &Arc<str>,
    ) -> Result<Vec<HeaderValue>, Refusal> {
        let broken =
            || refuse(StatusCode::INTERNAL_SERVER_ERROR, "state_unavailable", "The session could not be kept.");
        let now = self.state.clock.now();
        let until = claims_until(&tokens, now, tokens.refresh_token.is_some());
        let (claims, id_token) = tokens.identity.ok_or_else(broken)?;
        let id = random().ok_or_else(broken)?;
        let key = SessionKey::of(id.as_bytes());
        let mut record = Record {
            issuer: issuer.name().clone(),
            generation: 1,
            started_at: now,
            ends_at: now.plus(issuer.settings.longest),
            claims_from: now,
            claims_until: until,
            refresh_token: tokens.refresh_token,
            id_token: Some(id_token),
            facts: None,
            ended: false,
            replaced: false,
        };
        let began_at = (issuer.settings.project)(&claims).map_err(|error| not_taken(issuer, &error))?.began_at.min(now);
        let (facts, entry) = (Facts { claims, began_at }, Entry::of(&record));
        let principal = project(issuer, key, &entry, &facts).map_err(|error| not_taken(issuer, &error))?;
        record.facts = Some(facts.clone());
        let evicted = self.state.store.insert(key, record).await.map_err(|error| {
            tracing::error!(%error, "a session could not be written");
            broken()
        })?;
        for (key, entry) in evicted {
            self.tell(SessionEventKind::Ended, &entry.issuer, None, Some(key), "too_many_sessions", request_id);
        }
        let principal = Arc::new(principal);
        let started =
            self.event(SessionEventKind::Started, issuer.name(), Some(principal.clone()), Some(key), "ok", request_id);
        if self.state.record(started).is_err() {
            if let Err(error) = self.state.store.end(key).await {
                tracing::error!(session = %key, %error, "the end of a session without a record could not be written");
            }
            let sentence = "Signing in cannot be recorded at the moment. Try again.";
            return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "audit_queue_full", sentence));
        }
        self.replace_session(head, &principal, request_id).await;
        Ok(self.session_cookies(id, issuer, &entry, Some(Arc::new(facts)), &head.headers, now))
    }

    /// The session that the browser had before ends: soon for the same user, whose other tabs may still send it;
    /// at once for another.
    async fn replace_session(&self, head: &Parts, principal: &Principal, request_id: &Arc<str>) {
        let Some((old, issuer)) = self.session_named(&head.headers) else { return };
        let now = self.state.clock.now();
        if self.state.store.entry(old).is_none_or(|entry| !entry.is_live(now)) {
            return;
        }
        let before = self.principal_named(old).await;
        let same = before.as_ref().is_some_and(|before| before.id() == principal.id());
        let ended = if same {
            self.state.store.replace_by(old, now.plus(GRACE)).await
        } else {
            self.state.store.end(old).await
        };
        match ended {
            Ok(false) => {}
            Ok(true) => self.tell(SessionEventKind::Ended, &issuer, before, Some(old), "replaced", request_id),
            Err(error) => {
                // It has ended all the same; only a restart might not know.
                tracing::error!(session = %old, %error, "the end of a replaced session could not be written");
                self.tell(SessionEventKind::Ended, &issuer, before, Some(old), "replaced", request_id);
            }
        }
    }

    /// Whose session this is, from its record.
    pub(super) async fn principal_named(&self, key: SessionKey) -> Option<Arc<Principal>> {
        let record = self.state.store.load(key).await.ok()?;
        let issuer = self.issuers.get(&record.issuer)?;
        project(issuer, key, &Entry::of(&record), record.facts.as_ref()?).ok().map(Arc::new)
    }

    fn refused(&self, issuer: &Arc<str>, reason: &'static str, request_id: &Arc<str>) {
        self.tell(SessionEventKind::Refused, issuer, None, None, reason, request_id);
    }

    pub(super) fn tell(
        &self,
        kind: SessionEventKind,
        issuer: &Arc<str>,
        principal: Option<Arc<Principal>>,
        key: Option<SessionKey>,
        reason: &'static str,
        request_id: &Arc<str>,
    ) {
        self.state.tell(self.event(kind, issuer, principal, key, reason, request_id));
    }

    fn event(
        &self,
        kind: SessionEventKind,
        issuer: &Arc<str>,
        principal: Option<Arc<Principal>>,
        key: Option<SessionKey>,
        reason: &'static str,
        request_id: &Arc<str>,
    ) -> SessionEvent {
        let (at, session) = (self.state.clock.now(), key.map(|key| key.to_string()));
        let (issuer, request_id) = (issuer.clone(), Some(request_id.clone()));
        SessionEvent { at, kind, issuer, principal, session, reason, request_id }
    }
}

/// The same login once more. A provider that has just answered from a session of its own does so again, unless it is
/// told to ask the user: `anew`.
fn again(attempt: &Attempt, anew: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("issuer", &attempt.issuer).append_pair("return_to", &attempt.return_to);
    query.extend_pairs(attempt.acr_values.iter().map(|value| ("acr_values", value)));
    if let Some(seconds) = attempt.max_age_seconds {
        query.append_pair("max_age", &seconds.to_string());
    }
    if anew || attempt.anew {
        query.append_pair("prompt", "login");
    }
    format!("{LOGIN}?{}", query.finish())
}

fn refusal_of(issuer: &LoginIssuer, error: &ProviderError) -> Refusal {
    tracing::warn!(issuer = %issuer.name(), %error, "a login came back and is refused");
    match error {
        ProviderError::Unreachable(_) => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "issuer_unavailable",
            "The sign-in service cannot be reached at the moment.",
        ),
        ProviderError::InvalidGrant => {
            refuse(StatusCode::BAD_REQUEST, "login_code", "The sign-in service does not take its own answer any more.")
        }
        ProviderError::Refused(_) | ProviderError::Denied(_) => {
            refuse(StatusCode::BAD_GATEWAY, "login_exchange", "The sign-in service refused to complete the sign-in.")
        }
        ProviderError::UnknownKey => refuse(StatusCode::BAD_GATEWAY, "id_token_key", DOES_NOT_HOLD),
        ProviderError::IdToken { code, .. } => refuse(StatusCode::BAD_GATEWAY, code, DOES_NOT_HOLD),
    }
}

fn not_taken(issuer: &LoginIssuer, error: &IdentityError) -> Refusal {
    tracing::warn!(issuer = %issuer.name(), %error, "a login's claims are not taken");
    refuse(StatusCode::FORBIDDEN, "claims_refused", "Your account may not sign in here.")
}

fn malformed(request_id: &Arc<str>) -> Response<Body> {
    pages::error_response(StatusCode::BAD_REQUEST, "query_malformed", "The address is malformed.", request_id)
}
