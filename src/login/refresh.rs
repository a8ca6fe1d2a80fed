//! Refresh: one for a session, however many requests want it, because an issuer that rotates refresh tokens kills
//! the session that uses one twice.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openidconnect::OAuth2TokenResponse;
use openidconnect::core::CoreTokenResponse;

use super::id_token::time_of;
use super::provider::{PATIENCE, ProviderError, Tokens};
use super::session::project;
use super::state::LoginState;
use super::store::{DISK, Entry, Facts, Record, SessionKey};
use super::{Login, LoginIssuer, SessionEvent, SessionEventKind};
use crate::clock::Timestamp;

/// After a failure the session is refreshed again at the earliest.
const PAUSE: Duration = Duration::from_secs(10);

/// Claims hold at least this long after a refresh, whatever the issuer says, so that requests do not refresh in a row.
const SHORTEST: Duration = Duration::from_secs(60);

/// Longest wait for the token endpoint, discovery before it included.
const EXCHANGE: Duration = PATIENCE.saturating_mul(2);

/// A refresh ends within this, as long as the disk answers.
pub const LONGEST_REFRESH: Duration = EXCHANGE.saturating_add(PATIENCE).saturating_add(DISK.saturating_mul(3));

/// Without an ID token and a lifetime in the answer, claims hold this long.
const UNSAID: Duration = Duration::from_secs(300);

/// Claims of the first authentication, which a refreshed ID token may leave out (Core 12.2).
const LASTING: [&str; 3] = ["auth_time", "acr", "amr"];

/// How a refresh ended. The session's entry says the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefreshOutcome {
    Refreshed,
    Ended,
    Failed,
}

impl Login {
    /// Refreshes a session, or waits for the refresh that runs, up to `patience`: it goes on all the same. The caller
    /// looks at the session anew.
    pub(super) async fn refresh(
        &self,
        key: SessionKey,
        issuer: &Arc<LoginIssuer>,
        patience: Duration,
    ) -> Option<RefreshOutcome> {
        let state = &self.state;
        let needed = || state.store.entry(key).is_some_and(|entry| entry.needs_refresh(state.clock.now()));
        let work = || run(state.clone(), issuer.clone(), key);
        state.refreshes.join(key, patience, needed, work).await
    }
}

async fn run(state: Arc<LoginState>, issuer: Arc<LoginIssuer>, key: SessionKey) -> RefreshOutcome {
    let failed = |state: &LoginState| {
        state.store.defer(key, state.clock.now().plus(PAUSE));
        RefreshOutcome::Failed
    };
    let record = match state.store.load(key).await {
        Ok(record) if record.ended => return RefreshOutcome::Ended,
        Ok(record) => record,
        Err(error) => {
            tracing::error!(session = %key, %error, "a session could not be read for its refresh");
            return failed(&state);
        }
    };
    if !record.facts.as_ref().is_some_and(|facts| issuer.gave(&facts.claims)) {
        tracing::warn!(issuer = %issuer.name(), session = %key, "a session of another issuer or client is not refreshed");
        return failed(&state);
    }
    let Some(token) = record.refresh_token.clone() else { return failed(&state) };
    let answer = tokio::time::timeout(EXCHANGE, state.providers.exchange_refresh(&issuer, token)).await;
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(ProviderError::InvalidGrant)) => return end(&state, &issuer, key, &record, "invalid_grant").await,
        Ok(Err(error @ ProviderError::Denied(_))) => {
            tracing::warn!(issuer = %issuer.name(), session = %key, %error, "a session may not be refreshed any more");
            return end(&state, &issuer, key, &record, "refresh_refused").await;
        }
        Ok(Err(error)) => {
            tracing::warn!(issuer = %issuer.name(), session = %key, %error, "a session could not be refreshed");
            return failed(&state);
        }
        Err(_) => {
            tracing::warn!(issuer = %issuer.name(), session = %key, "a refresh took too long");
            return failed(&state);
        }
    };
    // The old refresh token may be spent: the new one is kept first, with the old claims.
    let record = match rotated(&state, key, record, &answer).await {
        Ok(Some(record)) => record,
        Ok(None) => return RefreshOutcome::Ended,
        Err(error) => return lost(&state, &issuer, key, &error).await,
    };
    let verified = tokio::time::timeout(PATIENCE, state.providers.tokens(&issuer, &answer, None)).await;
    let late = || Err(ProviderError::Unreachable("its keys did not come in time".to_owned()));
    match verified.unwrap_or_else(|_| late()) {
        Ok(tokens) => take(&state, &issuer, key, record, tokens).await,
        Err(error @ ProviderError::IdToken { .. }) => {
            tracing::warn!(issuer = %issuer.name(), session = %key, %error, "a refreshed ID token does not hold");
            end(&state, &issuer, key, &record, "id_token").await
        }
        // Nothing was found wrong with it: the claims stay, and a later refresh brings newer ones.
        Err(error) => {
            tracing::warn!(issuer = %issuer.name(), session = %key, %error, "a refreshed ID token is not verified yet");
            failed(&state)
        }
    }
}

/// The record with the answer's refresh token, written down; `None` when the session has ended meanwhile.
async fn rotated(
    state: &LoginState,
    key: SessionKey,
    mut record: Record,
    answer: &CoreTokenResponse,
) -> io::Result<Option<Record>> {
    let newer = answer.refresh_token().map(|token| token.secret().clone());
    if newer.is_none() || newer == record.refresh_token {
        return Ok(Some(record));
    }
    record.refresh_token = newer;
    Ok(state.store.advance(key, record.clone()).await?.then_some(record))
}

async fn take(
    state: &Arc<LoginState>,
    issuer: &LoginIssuer,
    key: SessionKey,
    old: Record,
    tokens: Tokens,
) -> RefreshOutcome {
    let now = state.clock.now();
    let until = claims_until(&tokens, now, true).max(now.plus(SHORTEST));
    let Some(old_facts) = old.facts.clone() else { return end(state, issuer, key, &old, "record").await };
    let (facts, id_token) = match tokens.identity {
        None => (old_facts, old.id_token.clone()),
        Some((mut claims, raw)) => {
            if claims.get("sub") != old_facts.claims.get("sub") {
                return end(state, issuer, key, &old, "another_subject").await;
            }
            for name in LASTING {
                if let (None, Some(value)) = (claims.get(name), old_facts.claims.get(name)) {
                    claims.insert(name.to_owned(), value.clone());
                }
            }
            (Facts { claims, began_at: old_facts.began_at }, Some(raw))
        }
    };
    let record = Record {
        generation: old.generation.saturating_add(1),
        claims_from: now,
        claims_until: until,
        id_token,
        facts: Some(facts),
        ..old
    };
    // Claims that the configuration does not take any more end the session now, not at its next request.
    let entry = Entry::of(&record);
    let projected = record.facts.as_ref().map(|facts| project(issuer, key, &entry, facts));
    let Some(Ok(principal)) = projected else { return end(state, issuer, key, &record, "claims_refused").await };
    match state.store.advance(key, record).await {
        Ok(true) => {
            let principal = Some(Arc::new(principal));
            tell(state, SessionEventKind::Refreshed, issuer, key, principal, "ok");
            RefreshOutcome::Refreshed
        }
        Ok(false) => RefreshOutcome::Ended,
        Err(error) => lost(state, issuer, key, &error).await,
    }
}

/// The old refresh token is spent and what came for it cannot be kept: the session is over.
async fn lost(state: &LoginState, issuer: &LoginIssuer, key: SessionKey, error: &io::Error) -> RefreshOutcome {
    tracing::error!(session = %key, %error, "a refreshed session could not be kept");
    let old = state.store.load(key).await.ok();
    end(state, issuer, key, old.as_ref(), "state_unavailable").await
}

/// Ends a session, and says so once.
async fn end<'a>(
    state: &LoginState,
    issuer: &LoginIssuer,
    key: SessionKey,
    record: impl Into<Option<&'a Record>>,
    reason: &'static str,
) -> RefreshOutcome {
    let principal = record
        .into()
        .and_then(|record| project(issuer, key, &Entry::of(record), record.facts.as_ref()?).ok().map(Arc::new));
    match state.store.end(key).await {
        Ok(false) => {}
        Ok(true) => tell(state, SessionEventKind::Ended, issuer, key, principal, reason),
        Err(error) => {
            tracing::error!(session = %key, %error, "the end of a session could not be written");
            tell(state, SessionEventKind::Ended, issuer, key, principal, reason);
        }
    }
    RefreshOutcome::Ended
}

fn tell(
    state: &LoginState,
    kind: SessionEventKind,
    issuer: &LoginIssuer,
    key: SessionKey,
    principal: Option<Arc<crate::identity::Principal>>,
    reason: &'static str,
) {
    let (at, session) = (state.clock.now(), Some(key.to_string()));
    state.tell(SessionEvent { at, kind, issuer: issuer.name().clone(), principal, session, reason, request_id: None });
}

/// When claims end: with the ID token, and, where they can be refreshed, with the access token if that is sooner,
/// so that the issuer is asked as often as it wishes.
pub(super) fn claims_until(tokens: &Tokens, now: Timestamp, refreshable: bool) -> Timestamp {
    let said = tokens.identity.as_ref().and_then(|(claims, _)| time_of(claims, "exp"));
    if !refreshable {
        return said.unwrap_or(now);
    }
    let access = tokens.expires_in.map(|lifetime| now.plus(lifetime));
    match (said, access) {
        (Some(said), Some(access)) => said.min(access),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => now.plus(UNSAID),
    }
}
