//! The second half of the line: a credential for the grant, and the request on its way with it.

use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use super::exchange::{Exchange, Tunnel};
use super::granted;
use super::respond::asks_for_websocket;
use super::{Arrival, Proxy, ProxyError, ServedRoute};
use crate::body::{self, Body};
use crate::clock::Clock;
use crate::credential::{self, Ask, Credential, Settled, SigningError, Verdict};
use crate::identity::PrincipalKind;
use crate::identity::bearer;
use crate::policy::Grant;
use crate::route::{Access, EvidenceKind, RouteMatch};
use crate::telemetry::Step;
use crate::upstream::{Forward, Forwarded, UpstreamError};

/// Where a granted request goes, and what goes with it.
struct Way<'a> {
    arrival: &'a Arrival<'a>,
    matched: &'a RouteMatch,
    served: &'a ServedRoute,
    grant: &'a Grant,
    identity_headers: &'a [(HeaderName, HeaderValue)],
    /// What a signature of the request is to say, where it is signed.
    settled: Option<Settled>,
    upgrade: bool,
    clock: &'a Clock,
}

impl Proxy {
    /// Credential and upstream: needs the grant.
    pub(super) async fn send(
        &self,
        arrival: &Arrival<'_>,
        matched: &RouteMatch,
        served: &ServedRoute,
        grant: &Grant,
        parts: &mut Parts,
        body: Body,
        exchange: &mut Exchange,
    ) -> Result<Response<Body>, ProxyError> {
        if asks_for_websocket(parts) && !grant.route().websocket {
            return Err(ProxyError::UpgradeRefused);
        }
        let began = Instant::now();
        let credential = if stands_for_nobody(grant) {
            Ok(Credential::nobodys())
        } else {
            served.credential.issue(&ask(arrival, matched, grant, &parts.headers)).await
        };
        let began = exchange.note(Step::Credential, began);
        let credential = credential?;
        note(&credential, exchange);
        let plain_identity = served.plain_identity.as_ref().filter(|_| !stands_for_nobody(grant));
        let identity_headers = plain_identity.map(|plain| plain.lines(grant)).transpose()?;

        if self.parts.strict_audit {
            granted::record(&self.parts.audit, &exchange.entry, arrival.now, &served.upstream.settings().name).await?;
        }

        let upgrade = if asks_for_websocket(parts) { parts.extensions.remove::<OnUpgrade>() } else { None };
        exchange.entry.upstream = Some(served.upstream.settings().name.clone());
        let body = exchange.counting(body, grant.route().limits.body_bytes);
        let identity_headers = identity_headers.as_deref().unwrap_or_default();
        let idle = grant.route().limits.idle;
        let (settled, body) = match credential.proof.signer() {
            None => (None, body),
            Some(signer) => {
                let (target, holder) = (&matched.target, grant.principal().id());
                let (settled, body) = signer.settle(&parts.headers, target, body, holder, idle).await?;
                (Some(settled), body)
            }
        };
        let way = Way {
            arrival,
            matched,
            served,
            grant,
            identity_headers,
            settled,
            upgrade: upgrade.is_some(),
            clock: &self.parts.clock,
        };
        let headers = std::mem::take(&mut parts.headers);
        let answer = way.exchange(headers, body, &credential, exchange).await;
        exchange.note(Step::Upstream, began);
        let forwarded = answer?;
        if let (Some(downstream), Some(upstream)) = (upgrade, forwarded.upgrade) {
            exchange.tunnel = Some(Tunnel { downstream, upstream });
        }
        Ok(forwarded.response)
    }
}

impl Way<'_> {
    /// Sends a request and reads what the answer says of the credential: once more, where another may do.
    async fn exchange(
        &self,
        headers: HeaderMap,
        body: Body,
        credential: &Credential,
        exchange: &mut Exchange,
    ) -> Result<Forwarded, ProxyError> {
        let again = self.kept(credential, &body).map(|body| Box::new((headers.clone(), body)));
        let answer = self.forward(headers, body, credential, exchange).await?;
        let (mut verdict, mut answer) = self.judged(credential, answer).await;
        if let Some(again) = again.filter(|_| verdict.asks_for_another()) {
            let second = Box::pin(self.once_more(*again, &verdict, credential, exchange)).await;
            if let Some((credential, second)) = second {
                (verdict, answer) = self.judged(&credential, second?).await;
            }
        }
        // What a service writes of a signature that it does not take may quote the session token and all that was signed.
        let quoted = verdict.is_of_the_credential() && credential.proof.signer().is_some();
        exchange.entry.credential_refusal = verdict.into_refusal();
        if quoted { Err(ProxyError::CredentialRejected) } else { Ok(answer) }
    }

    /// What an answer says of the credential, and the answer. One that has expired is not used again.
    async fn judged(&self, credential: &Credential, answer: Forwarded) -> (Verdict, Forwarded) {
        let Forwarded { response, upgrade } = answer;
        let skew = self.served.upstream.clock_skew();
        let (verdict, response) = credential::judge(&credential.proof, response, skew, self.clock.now()).await;
        if verdict == Verdict::Expired {
            self.served.credential.drop_expired(credential);
        }
        (verdict, Forwarded { response, upgrade })
    }

    /// The body of a request that can be sent once more, should the upstream find its credential expired.
    fn kept(&self, credential: &Credential, body: &Body) -> Option<Bytes> {
        if !credential.is_replaceable() || self.upgrade {
            return None;
        }
        let held = self.settled.as_ref().and_then(Settled::held).cloned();
        held.or_else(|| body.is_end_stream().then(Bytes::new))
    }

    async fn forward(
        &self,
        headers: HeaderMap,
        body: Body,
        credential: &Credential,
        exchange: &mut Exchange,
    ) -> Result<Forwarded, ProxyError> {
        let signer = credential.proof.signer();
        let signature = signer
            .zip(self.settled.as_ref())
            .map(|(signer, settled)| signer.signature(settled, self.served.upstream.clock_skew()));
        let forward = Forward {
            target: &self.matched.target,
            headers,
            body,
            downstream: self.arrival.downstream,
            request_id: &self.arrival.request_id,
            trace: self.arrival.trace,
            identity_headers: self.identity_headers,
            signature: signature.as_ref(),
            protected: &self.served.protected,
            upgrade: self.upgrade,
        };
        let asked = &mut exchange.entry.upstream_address;
        Ok(self.served.upstream.forward(forward, self.grant, credential, asked).await?)
    }

    /// Sends a request again: with another credential where the first has expired, and with the same, signed for another
    /// time, where the clocks disagree. `None` where there is nothing else to send: the first answer stands.
    async fn once_more(
        &self,
        (headers, body): (HeaderMap, Bytes),
        verdict: &Verdict,
        first: &Credential,
        exchange: &mut Exchange,
    ) -> Option<(Credential, Result<Forwarded, ProxyError>)> {
        let credential = if *verdict == Verdict::ClockSkew {
            first.clone()
        } else {
            let issued = self.served.credential.issue(&ask(self.arrival, self.matched, self.grant, &headers)).await;
            issued.ok().filter(|credential| credential.id != first.id)?
        };
        note(&credential, exchange);
        let body = if body.is_empty() { body::empty() } else { body::full(body) };
        let forwarded = self.forward(headers, body, &credential, exchange).await;
        Some((credential, forwarded))
    }
}

fn ask<'a>(arrival: &'a Arrival<'_>, matched: &'a RouteMatch, grant: &'a Grant, headers: &'a HeaderMap) -> Ask<'a> {
    let by_token = grant.principal().evidence == EvidenceKind::Bearer;
    Ask {
        grant,
        now: arrival.now,
        parameters: &matched.parameters,
        token: if by_token { bearer::shown_token(headers, &matched.route) } else { None },
        request_id: &arrival.request_id,
    }
}

fn note(credential: &Credential, exchange: &mut Exchange) {
    exchange.entry.credential_id = Some(credential.id.clone());
    exchange.entry.credential_expires_at = credential.expires_at;
}

/// Whether this is a preflight's grant: the route asks for identity, and the request has none. A browser sends it for
/// any page of a named origin, so it carries no credential.
fn stands_for_nobody(grant: &Grant) -> bool {
    grant.principal().kind == PrincipalKind::Anonymous && !matches!(grant.route().access, Access::Public { .. })
}

impl From<SigningError> for ProxyError {
    /// What broke off or stopped coming is the caller's body, as it would be on its way to the upstream.
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Body(cause) => UpstreamError::RequestBody(cause).into(),
            SigningError::Idle => Self::Upstream(UpstreamError::RequestIdle),
            SigningError::NoMemory => Self::Overloaded,
            SigningError::TooLarge(_) => Self::BodyTooLarge,
            SigningError::Scope
            | SigningError::Widening
            | SigningError::Disguised
            | SigningError::Malformed(_)
            | SigningError::SignedChunks
            | SigningError::Length => Self::Signing(error),
        }
    }
}
