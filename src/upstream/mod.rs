//! Forwarding: one authorized request to one of an upstream's addresses, and its answer back.
//!
//! Nothing is forwarded without a [`Grant`] and a [`Credential`]. Bodies stream both ways; a connection serves its
//! next request only when the one before was seen to end; a request is sent a second time only when it provably was
//! not processed the first time.

mod attempt;
mod balance;
mod body;
mod connect;
mod cookies;
mod error;
mod headers;
mod identities;
mod pool;
mod reads_on;
mod retries;
mod settings;
mod spoofable;
mod trace;
mod tunnel;

#[cfg(test)]
mod tests;

pub use error::{ConnectStage, FailureClass, StreamError, UpstreamError, UpstreamSettingsError};
pub use headers::ProtectedHeaders;
pub use settings::{
    Ejection, HostHeader, UpstreamAddress, UpstreamCertificate, UpstreamProtocol, UpstreamSettings, UpstreamTls,
};
pub use trace::TraceContext;
pub use tunnel::{TunnelEnd, Tunnelled, Upgrade, tunnel};

use std::fmt;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::time::Instant;

use crate::body::Body;
use crate::clock::Clock;
use crate::credential::{ClientIdentity, ClockSkew, Credential, RequestSignature, drop_presigned};
use crate::peer::{Downstream, Scheme};
use crate::policy::Grant;
use crate::route::RouteLimits;
use crate::target::Target;

use attempt::Attempt;
use balance::Balancer;
use body::{Ends, Exchange, RequestBody, Watch};
use connect::Connector;
use headers::{Rules, Said};
use identities::Identities;
use pool::Endpoint;
use retries::RetryBudget;

/// One request to forward. `Debug` shows no header.
pub struct Forward<'a> {
    /// Method, host and path: what was authorized is what is sent.
    pub target: &'a Target,
    /// The caller's headers, all of them.
    pub headers: HeaderMap,
    /// The caller's body.
    pub body: Body,
    /// The caller past the load balancers.
    pub downstream: Downstream,
    /// Request id, for `X-Request-Id`.
    pub request_id: &'a str,
    /// The request's trace.
    pub trace: &'a TraceContext,
    /// Plain identity headers, names and encoded values.
    pub identity_headers: &'a [(HeaderName, HeaderValue)],
    /// What the request is signed with, right before it is sent.
    pub signature: Option<&'a RequestSignature>,
    /// Names that no caller may send.
    pub protected: &'a Arc<ProtectedHeaders>,
    /// Whether the caller asks for a WebSocket; counts only where the route allows it.
    pub upgrade: bool,
}

impl fmt::Debug for Forward<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Forward").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

/// An upstream's answer.
#[derive(Debug)]
pub struct Forwarded {
    /// Head, fit for the caller, and streamed body. An error of the body is a [`StreamError`].
    pub response: Response<Body>,
    /// Present when the answer is 101: to be handed to [`tunnel`].
    pub upgrade: Option<Upgrade>,
}

/// How an upstream stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamStats {
    /// Addresses.
    pub addresses: usize,
    /// Addresses set aside for failing.
    pub ejected: usize,
    /// Open connections.
    pub open: usize,
    /// Idle HTTP/1.1 connections among them.
    pub idle: usize,
}

/// One configured upstream with its connections. A reload with equal settings keeps it.
#[derive(Debug)]
pub struct Upstream {
    settings: UpstreamSettings,
    scheme: Scheme,
    balancer: Balancer,
    /// Connections that are opened as nobody else than the settings say.
    endpoints: Vec<Arc<Endpoint>>,
    /// Connections that are opened as the identity of a credential.
    identities: Identities,
    connector: Arc<Connector>,
    retries: RetryBudget,
    clock: Clock,
    /// What time it is there, where its requests are signed.
    clock_skew: Arc<ClockSkew>,
}

impl Upstream {
    /// An upstream without connections yet.
    ///
    /// # Errors
    /// What is wrong with `settings`.
    pub fn new(settings: UpstreamSettings, clock: Clock) -> Result<Arc<Self>, UpstreamSettingsError> {
        let scheme = settings.scheme()?;
        let connector = Arc::new(Connector::new(&settings)?);
        let mut endpoints = Vec::with_capacity(settings.addresses.len());
        for address in &settings.addresses {
            let authority = match &settings.host {
                HostHeader::Fixed(authority) => authority,
                HostHeader::Address | HostHeader::Downstream => address.authority(),
            };
            let endpoint = Endpoint::new(address, authority, connector.clone(), settings.idle_connections);
            endpoints.push(Arc::new(endpoint.ok_or_else(|| UpstreamSettingsError::Address(address.to_string()))?));
        }
        let balancer = Balancer::new(endpoints.len(), settings.ejection);
        let (identities, retries) = (Identities::default(), RetryBudget::default());
        let clock_skew = Arc::default();
        Ok(Arc::new(Self { settings, scheme, balancer, endpoints, identities, connector, retries, clock, clock_skew }))
    }

    /// What it was made from.
    #[must_use]
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// What time it is there, as far as its answers have shown.
    #[must_use]
    pub fn clock_skew(&self) -> &Arc<ClockSkew> {
        &self.clock_skew
    }

    /// How it stands now. Lets go of connections that the other side closed, and of identities that nobody uses.
    #[must_use]
    pub fn stats(&self) -> UpstreamStats {
        self.identities.forget_unused(self.clock.now());
        let counts = self.endpoints.iter().map(|endpoint| endpoint.counts());
        let (open, idle) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let idle = idle + self.identities.idle();
        UpstreamStats { addresses: self.endpoints.len(), ejected: self.balancer.ejected(), open, idle }
    }

    /// Sends `forward` to one of the addresses and answers with the head of what came back. `asked` is the address, as
    /// soon as there is one: it stands there whatever comes of it.
    ///
    /// Sent a second time, at most, when a connection could not be opened, when it closed before anything was
    /// written, or when the upstream refused an HTTP/2 stream unread.
    ///
    /// # Errors
    /// [`UpstreamError`]; its class says who can mend it.
    pub async fn forward(
        &self,
        forward: Forward<'_>,
        grant: &Grant,
        credential: &Credential,
        asked: &mut Option<Arc<str>>,
    ) -> Result<Forwarded, UpstreamError> {
        let began = Instant::now();
        let limits = grant.route().limits;
        let ends = self.ends(began, grant, limits);
        if ends.come(began).is_some() {
            return Err(UpstreamError::GrantEnded);
        }
        let upgrade = forward.upgrade && grant.route().websocket && forward.target.method() == Method::GET;
        let authority = match &self.settings.host {
            HostHeader::Address | HostHeader::Fixed(_) => None,
            HostHeader::Downstream => Some(downstream_authority(forward.target)?),
        };
        let signature = forward.signature;
        let of_identity = match credential.proof.identity() {
            None => None,
            Some(identity) => Some(self.endpoints_of(identity)?),
        };
        let (request, exchange) = prepare(forward, grant, credential, upgrade, began, ends)?;
        let attempt = Attempt {
            upstream: self,
            endpoints: of_identity.as_deref().unwrap_or(&self.endpoints),
            by_identity: of_identity.is_some(),
            began,
            limits,
            ends,
            authority,
            exchange,
            upgrade,
            signature,
        };
        attempt.run(request, asked).await
    }

    /// The addresses with connections that show the certificate of `identity`, and no others.
    fn endpoints_of(&self, identity: &ClientIdentity) -> Result<Arc<[Arc<Endpoint>]>, UpstreamError> {
        self.identities.endpoints(identity, self.clock.now(), || {
            let connector = Arc::new(self.connector.with_identity(identity)?);
            Some(self.endpoints.iter().map(|endpoint| Arc::new(endpoint.by_identity(connector.clone()))).collect())
        })
    }

    /// Those of nobody, then those of every identity.
    #[cfg(test)]
    fn all_endpoints(&self) -> Vec<Vec<Arc<Endpoint>>> {
        let of_identities = self.identities.all().into_iter().map(|endpoints| endpoints.to_vec());
        std::iter::once(self.endpoints.clone()).chain(of_identities).collect()
    }

    /// When streams of this request end. The grant's end is on the wall clock, the rest on the monotonic one.
    fn ends(&self, began: Instant, grant: &Grant, limits: RouteLimits) -> Ends {
        let after = |duration| began.checked_add(duration);
        let grant = grant.expires_at().and_then(|end| after(end.since(self.clock.now())));
        Ends { total: limits.total.and_then(after), grant }
    }
}

/// Writes the upstream's request, save what depends on the connection.
fn prepare(
    forward: Forward<'_>,
    grant: &Grant,
    credential: &Credential,
    upgrade: bool,
    began: Instant,
    ends: Ends,
) -> Result<(Request<RequestBody>, Option<Arc<Exchange>>), UpstreamError> {
    let route = grant.route().clone();
    let announced = headers::announced_length(&forward.headers).map_err(UpstreamError::Request)?;
    let bodiless = forward.body.is_end_stream();
    let length = match (announced, forward.body.size_hint().exact()) {
        (Some(announced), Some(actual)) if announced != actual => {
            return Err(UpstreamError::Request("its body is not as long as announced"));
        }
        (announced, actual) => announced.or(actual),
    };
    let authorizations = || forward.headers.get_all(header::AUTHORIZATION).iter().count();
    if route.pass_authorization.is_some() && authorizations() > 1 {
        return Err(UpstreamError::Request("it has two authorizations"));
    }
    if upgrade && !bodiless {
        return Err(UpstreamError::Request("a request for a websocket has a body"));
    }
    let (idle, speaks_aws) = (route.limits.idle, route.speaks_aws);
    let rules = Rules { protected: forward.protected.clone(), route, credential: credential.proof.headers() };
    let said = Said {
        identity: forward.identity_headers,
        credential,
        downstream: forward.downstream,
        target: forward.target,
        request_id: forward.request_id,
        trace: forward.trace,
        upgrade,
    };
    let headers = headers::for_upstream(forward.headers, &rules, &said);
    let mut headers = headers.ok_or(UpstreamError::Request("one of its headers cannot be written"))?;
    let method = forward.target.method().clone();
    let empty = bodiless && length.unwrap_or(0) == 0;
    let length_is_said = !empty || [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    if let Some(length) = length.filter(|_| length_is_said) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let (body, exchange) = if empty {
        (RequestBody::none(), None)
    } else {
        let exchange = Arc::new(Exchange::new(began));
        let watch = Watch::new(idle, ends, Some(exchange.clone()));
        (RequestBody::new(forward.body, length, watch, exchange.clone(), rules), Some(exchange))
    };
    let mut uri = uri_of(forward.target)?;
    if speaks_aws && forward.signature.is_none() {
        drop_presigned(&mut uri).map_err(|_| UpstreamError::Request("its path cannot be written"))?;
    }
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok((request, exchange))
}

/// What stands in the request line: path and query of the target, byte by byte.
///
/// # Errors
/// [`UpstreamError::Request`].
pub(crate) fn uri_of(target: &Target) -> Result<Uri, UpstreamError> {
    let path = PathAndQuery::from_maybe_shared(bytes::Bytes::from(target.path_and_query()));
    path.map(Uri::from).map_err(|_| UpstreamError::Request("its path cannot be written"))
}

fn downstream_authority(target: &Target) -> Result<Authority, UpstreamError> {
    let authority = match target.port() {
        Some(port) => format!("{}:{port}", target.host()),
        None => target.host().to_owned(),
    };
    Authority::from_maybe_shared(bytes::Bytes::from(authority))
        .map_err(|_| UpstreamError::Request("its host cannot be written"))
}
