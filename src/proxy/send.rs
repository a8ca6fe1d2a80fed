//! The second half of the line: a credential for the grant, and the request on its way with it.

use std::time::Instant;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use super::exchange::{Exchange, Tunnel};
use super::granted;
use super::respond::asks_for_websocket;
use super::{Arrival, Proxy, ProxyError, ServedRoute};
use crate::body::{self, Body};
use crate::credential::{Ask, Credential};
use crate::identity::PrincipalKind;
use crate::identity::bearer;
use crate::policy::Grant;
use crate::route::{Access, EvidenceKind, RouteMatch};
use crate::telemetry::Step;
use crate::upstream::{Forward, Forwarded};

/// Where a granted request goes, and what goes with it.
struct Way<'a> {
    arrival: &'a Arrival<'a>,
    matched: &'a RouteMatch,
    served: &'a ServedRoute,
    grant: &'a Grant,
    identity_headers: &'a [(HeaderName, HeaderValue)],
    upgrade: bool,
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
        let way = Way { arrival, matched, served, grant, identity_headers, upgrade: upgrade.is_some() };
        // A request that can be sent once more, should the upstream find its credential expired.
        let replayable = credential.is_replaceable() && body.is_end_stream() && upgrade.is_none();
        let again = replayable.then(|| Box::new(parts.headers.clone()));
        let headers = std::mem::take(&mut parts.headers);
        let mut forwarded = way.forward(headers, body, &credential, exchange).await;
        let expired = forwarded
            .as_ref()
            .is_ok_and(|answer| credential.proof.is_expired_by(answer.response.status(), answer.response.headers()));
        if let Some(headers) = again.filter(|_| expired) {
            served.credential.drop_expired(&credential);
            forwarded = Box::pin(way.once_more(*headers, credential, forwarded, exchange)).await;
        }
        exchange.note(Step::Upstream, began);
        let forwarded = forwarded?;
        let status = forwarded.response.status().as_u16();
        exchange.entry.credential_refused = matches!(status, 401 | 403);
        if let (Some(downstream), Some(upstream)) = (upgrade, forwarded.upgrade) {
            exchange.tunnel = Some(Tunnel { downstream, upstream });
        }
        Ok(forwarded.response)
    }
}

impl Way<'_> {
    async fn forward(
        &self,
        headers: HeaderMap,
        body: Body,
        credential: &Credential,
        exchange: &mut Exchange,
    ) -> Result<Forwarded, ProxyError> {
        let forward = Forward {
            target: &self.matched.target,
            headers,
            body,
            downstream: self.arrival.downstream,
            request_id: &self.arrival.request_id,
            trace: self.arrival.trace,
            identity_headers: self.identity_headers,
            protected: &self.served.protected,
            upgrade: self.upgrade,
        };
        let asked = &mut exchange.entry.upstream_address;
        Ok(self.served.upstream.forward(forward, self.grant, credential, asked).await?)
    }

    /// Sends a request without a body again, with another credential. Where there is no other, the first answer stands.
    async fn once_more(
        &self,
        headers: HeaderMap,
        expired: Credential,
        first: Result<Forwarded, ProxyError>,
        exchange: &mut Exchange,
    ) -> Result<Forwarded, ProxyError> {
        let issued = self.served.credential.issue(&ask(self.arrival, self.matched, self.grant, &headers)).await;
        match issued {
            Ok(credential) if credential.id != expired.id => {
                drop(first);
                note(&credential, exchange);
                self.forward(headers, body::empty(), &credential, exchange).await
            }
            Ok(_) | Err(_) => first,
        }
    }
}

fn ask<'a>(arrival: &'a Arrival<'_>, matched: &'a RouteMatch, grant: &'a Grant, headers: &'a HeaderMap) -> Ask<'a> {
    let by_token = grant.principal().evidence == EvidenceKind::Bearer;
    Ask {
        grant,
        now: arrival.now,
        parameters: &matched.parameters,
        token: if by_token { bearer::shown_token(headers) } else { None },
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
