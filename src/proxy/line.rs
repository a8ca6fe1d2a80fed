//! Identify, authorize, credential, forward: the steps that every forwarded request takes, in this order.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Method, Response, header};
use http_body::Body as _;

use super::assumption;
use super::exchange::Exchange;
use super::rates::Counted;
use super::respond::{keep_from_caches, login_reason};
use super::{Arrival, Proxy, ProxyError};
use crate::audit::Decision;
use crate::body::Body;
use crate::identity::{IdentityError, Presented, Principal, identify};
use crate::login::{self, ShownSession};
use crate::policy::{Grant, RequestFacts};
use crate::route::{EvidenceKind, Route, RouteMatch};
use crate::target::RequestTarget;
use crate::telemetry::{Outcome, Step};

impl Proxy {
    /// The line.
    pub(super) async fn forward(
        &self,
        arrival: &Arrival<'_>,
        target: RequestTarget,
        parts: &mut Parts,
        body: Body,
        exchange: &mut Exchange,
    ) -> Result<Response<Body>, ProxyError> {
        let snapshot = arrival.snapshot;
        let matched = snapshot.router.find(target)?.ok_or(ProxyError::NoRoute)?;
        let route = matched.route.clone();
        let served = snapshot.served(&route).ok_or(ProxyError::Internal("a route without parts"))?;
        exchange.route_metrics = Some(served.metrics.clone());
        exchange.entry.route = Some(route.clone());
        matched.target.path().clone_into(&mut exchange.entry.path);
        check_limits(&body, &route)?;
        let (rates, source) = (route.limits.rates, arrival.downstream.address);
        self.rates.take(&route, rates.source, || Counted::source(source), exchange.started)?;

        match self.grant(arrival, &matched, parts, exchange).await {
            Ok((grant, shown)) => {
                self.rates.take(&route, rates.route, || Counted::Route, exchange.started)?;
                exchange.shown.clone_from(&shown);
                let mut response = self.send(arrival, &matched, served, &grant, parts, body, exchange).await?;
                // Asked now: since the request the session may have ended, or made way for a newer one.
                let sessions = snapshot.sessions.as_ref().zip(shown.as_ref());
                let now = self.parts.clock.now();
                let set_cookies =
                    sessions.map(|(sessions, shown)| sessions.set_cookies(shown, now)).unwrap_or_default();
                if !set_cookies.is_empty() {
                    keep_from_caches(response.headers_mut());
                }
                for cookie in set_cookies {
                    response.headers_mut().append(header::SET_COOKIE, cookie);
                }
                exchange.entry.code = "ok";
                exchange.outcome = Outcome::Allowed;
                Ok(response)
            }
            Err(error) => self.login_instead(arrival, &matched, parts, &error, exchange).ok_or(error),
        }
    }

    /// Who calls, and whether they may: evidence becomes a principal, the principal a grant.
    async fn grant(
        &self,
        arrival: &Arrival<'_>,
        matched: &RouteMatch,
        parts: &Parts,
        exchange: &mut Exchange,
    ) -> Result<(Grant, Option<ShownSession>), ProxyError> {
        let policies = &arrival.snapshot.policies;
        let route = &matched.route;
        let facts = RequestFacts {
            route,
            target: &matched.target,
            parameters: &matched.parameters,
            source_ip: arrival.downstream.address,
            now: arrival.now,
        };
        if is_named_preflight(parts, route) {
            let anonymous = Arc::new(Principal::anonymous(arrival.now));
            exchange.entry.principal = Some(anonymous.clone());
            let grant = policies.authorize_preflight(&anonymous, &facts)?;
            exchange.entry.decision = Decision::Allow;
            return Ok((grant, None));
        }

        let began = Instant::now();
        let presented = presented(arrival, parts, route);
        let recognised = identify(&arrival.snapshot.verifiers, presented).await;
        let began = exchange.note(Step::Identify, began);
        let principal = recognised?;
        let shown = match (&arrival.snapshot.sessions, principal.evidence) {
            (Some(sessions), EvidenceKind::Session) => Some(sessions.shown(&parts.headers)),
            _ => None,
        };
        exchange.entry.principal = Some(principal.clone());
        let leeway = arrival.snapshot.login.as_ref().map(|login| login.leeway(&principal.issuer)).unwrap_or_default();
        if !login::meets(&route.login, &principal, leeway, arrival.now) {
            return Err(IdentityError::StepUp.into());
        }

        let rates = route.limits.rates;
        self.rates.take(route, rates.principal, || Counted::Principal(principal.id().clone()), exchange.started)?;
        let judged = policies.authorize(&principal, &facts);
        exchange.note(Step::Authorize, began);
        let grant = judged?;
        exchange.entry.decision = Decision::Allow;
        exchange.entry.roles = grant.roles().clone();
        exchange.entry.policy_ids = grant.policy_ids().clone();
        assumption::record(&self.parts.audit, policies, &grant, arrival.now, &arrival.request_id)?;
        Ok((grant, shown))
    }

    /// A browser that navigates is sent to sign in where that can help.
    fn login_instead(
        &self,
        arrival: &Arrival<'_>,
        matched: &RouteMatch,
        parts: &Parts,
        error: &ProxyError,
        exchange: &mut Exchange,
    ) -> Option<Response<Body>> {
        let login = arrival.snapshot.login.as_ref()?;
        let reason = login_reason(error)?;
        let presented = presented(arrival, parts, &matched.route);
        let response = login.redirect_for(&presented, &matched.target, reason)?;
        exchange.refused(error);
        Some(response)
    }
}

/// What a request may not be, whoever sent it.
fn check_limits(body: &Body, route: &Route) -> Result<(), ProxyError> {
    if body.size_hint().lower() > route.limits.body_bytes {
        return Err(ProxyError::BodyTooLarge);
    }
    Ok(())
}

/// Whether this is a CORS preflight (Fetch standard, "CORS-preflight request") from an origin that the route names.
fn is_named_preflight(parts: &Parts, route: &Route) -> bool {
    if parts.method != Method::OPTIONS || !parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return false;
    }
    let mut origins = parts.headers.get_all(header::ORIGIN).iter();
    let origin = origins.next().and_then(|value| value.to_str().ok());
    origins.next().is_none() && origin.is_some_and(|origin| route.cors.origins.contains(origin))
}

fn presented<'a>(arrival: &'a Arrival<'a>, parts: &'a Parts, route: &'a Route) -> Presented<'a> {
    Presented {
        method: &parts.method,
        headers: &parts.headers,
        peer: arrival.peer,
        downstream: arrival.downstream,
        route,
        now: arrival.now,
    }
}
