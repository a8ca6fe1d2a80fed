//! One request on its way: which address, which connection, whether once more, and what came back.

use std::error::Error as _;
use std::pin::{Pin, pin};
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::body::{self as shared_body, BoxError};
use crate::credential::RequestSignature;
use crate::peer::Scheme;
use crate::route::RouteLimits;

use super::body::{Ends, Exchange, RequestBody, ResponseBody, Watch};
use super::connect::Wanted;
use super::error::{StreamError, UpstreamError};
use super::headers;
use super::pool::{Endpoint, Lease, Unsent};
use super::tunnel::Upgrade;
use super::{Forwarded, Upstream};

/// One request on its way, over at most two connections.
pub(super) struct Attempt<'a> {
    pub(super) upstream: &'a Upstream,
    /// The upstream's addresses, with the connections that may serve this request.
    pub(super) endpoints: &'a [Arc<Endpoint>],
    /// Whether those are of one identity among many.
    pub(super) by_identity: bool,
    pub(super) began: Instant,
    pub(super) limits: RouteLimits,
    pub(super) ends: Ends,
    /// What stands in `Host`; `None` is what the settings say for the address.
    pub(super) authority: Option<Authority>,
    pub(super) exchange: Option<Arc<Exchange>>,
    pub(super) upgrade: bool,
    pub(super) signature: Option<&'a RequestSignature>,
}

/// Why one try failed, and whether there may be another.
struct Failed {
    error: UpstreamError,
    again: Again,
}

/// The request, where it provably was not processed.
enum Again {
    Never,
    /// No connection: another address may have one.
    Elsewhere(Request<RequestBody>),
    /// The connection was of no use any more: a new one is.
    Anew(Request<RequestBody>),
}

impl Attempt<'_> {
    /// The head of the answer, from the first try or the one that may follow it.
    pub(super) async fn run(
        &self,
        request: Request<RequestBody>,
        asked: &mut Option<Arc<str>>,
    ) -> Result<Forwarded, UpstreamError> {
        self.upstream.retries.earn();
        let first = self.upstream.balancer.next(None);
        let failed = match self.once(first, request, false, asked).await {
            Ok(forwarded) => return Ok(forwarded),
            Err(failed) => failed,
        };
        let (second, request) = match failed.again {
            Again::Elsewhere(request) if self.endpoints.len() > 1 && self.upstream.retries.spend() => {
                (self.upstream.balancer.next(Some(first)), request)
            }
            Again::Anew(request) => (first, request),
            Again::Elsewhere(_) | Again::Never => return Err(failed.error),
        };
        // Boxed, as is all that only few requests need: the future of every request is as large as its largest part.
        Box::pin(self.once(second, request, true, asked)).await.map_err(|failed| failed.error)
    }

    async fn once(
        &self,
        index: usize,
        mut request: Request<RequestBody>,
        fresh: bool,
        asked: &mut Option<Arc<str>>,
    ) -> Result<Forwarded, Failed> {
        let given_up = |error| Failed { error, again: Again::Never };
        let balancer = &self.upstream.balancer;
        let Some(endpoint) = self.endpoints.get(index) else {
            return Err(given_up(UpstreamError::Overloaded));
        };
        *asked = Some(endpoint.name.clone());
        let wanted = if self.upgrade { Wanted::Http1 } else { Wanted::from(self.upstream.settings.protocol) };
        let leased = match endpoint.lease_at_hand(wanted, fresh) {
            Some(lease) => Ok(Ok(lease)),
            None => self.in_time(Box::pin(endpoint.lease_new(wanted)).as_mut()).await,
        };
        let mut lease = match leased {
            Ok(Ok(lease)) => lease,
            Ok(Err(error)) if error.blames_address() => {
                self.blame(index, &error);
                return Err(Failed { error, again: Again::Elsewhere(request) });
            }
            Ok(Err(error)) | Err(error) => return Err(given_up(error)),
        };
        self.address(&mut request, endpoint, lease.is_http2()).map_err(given_up)?;
        if let Some(signature) = self.signature {
            let authority = self.authority.as_ref().unwrap_or(&endpoint.authority).as_str();
            let signed = signature.apply(&mut request, authority, self.upstream.clock.now());
            signed
                .map_err(|_| given_up(UpstreamError::Request("it cannot be written in the one way that is signed")))?;
        }
        // HTTP/2 tells when it refused a stream unread; hyper keeps the request then, so a bodiless one is copied.
        let copy = (lease.is_http2() && request.body().is_none()).then(|| Box::new(copy_of(&request)));
        let sent = pin!(lease.send(request));
        let answer = match self.in_time(sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(unsent)) => {
                let failed = self.failure(unsent, copy);
                if matches!(failed.again, Again::Never) {
                    self.blame(index, &failed.error);
                }
                return Err(failed);
            }
            Err(late) => {
                // A route's own end says nothing of the connection.
                if matches!(late, UpstreamError::FirstByteTimeout) {
                    lease.retire();
                }
                self.blame(index, &late);
                return Err(given_up(late));
            }
        };
        balancer.succeeded(index);
        self.answered(answer, lease).map_err(given_up)
    }

    /// Counts a failure of the address. What may be the fault of one identity's certificate is none: else whoever the
    /// upstream does not let in could set its addresses aside for everybody.
    fn blame(&self, index: usize, error: &UpstreamError) {
        if error.blames_address() && !(self.by_identity && error.may_be_of_certificate()) {
            self.upstream.balancer.failed(index);
        }
    }

    /// Waits within the time for the answer's head. It begins anew with every piece of the caller's body that is
    /// sent, so that a long upload is no fault of the upstream.
    async fn in_time<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Result<T, UpstreamError> {
        loop {
            let moved = self.exchange.as_ref().map_or(self.began, |exchange| exchange.moved_at());
            let head = moved + self.limits.first_byte;
            let due = self.ends.first().map_or(head, |end| end.min(head));
            if let Ok(done) = tokio::time::timeout_at(due, work.as_mut()).await {
                return Ok(done);
            }
            let now = Instant::now();
            if let Some(end) = self.ends.come(now) {
                return Err(ended(&end));
            }
            let moved_on = self.exchange.as_ref().is_some_and(|exchange| exchange.moved_at() > moved);
            if !moved_on {
                return Err(UpstreamError::FirstByteTimeout);
            }
        }
    }

    /// Gives the request the form that the connection's version of HTTP wants.
    fn address(
        &self,
        request: &mut Request<RequestBody>,
        endpoint: &Endpoint,
        http2: bool,
    ) -> Result<(), UpstreamError> {
        let malformed = |_| UpstreamError::Request("its path cannot be written");
        let authority = self.authority.as_ref().unwrap_or(&endpoint.authority);
        let path = |uri: &Uri| uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        if http2 {
            let path = path(request.uri());
            let scheme = match self.upstream.scheme {
                Scheme::Http => http::uri::Scheme::HTTP,
                Scheme::Https => http::uri::Scheme::HTTPS,
            };
            let uri = Uri::builder().scheme(scheme).authority(authority.clone()).path_and_query(path);
            *request.uri_mut() = uri.build().map_err(malformed)?;
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(header::HOST);
            request.headers_mut().remove(header::CONNECTION);
            request.headers_mut().remove(header::TRANSFER_ENCODING);
            return Ok(());
        }
        // Only a request that was meant for HTTP/2 before says more than its path.
        if request.uri().authority().is_some() {
            *request.uri_mut() = Uri::from(path(request.uri()));
        }
        *request.version_mut() = Version::HTTP_11;
        let host = match &self.authority {
            None => endpoint.host.clone(),
            Some(authority) => HeaderValue::from_str(authority.as_str())
                .map_err(|_| UpstreamError::Request("its host cannot be written"))?,
        };
        let has_body = !request.body().is_none();
        let headers = request.headers_mut();
        if has_body && !headers.contains_key(header::CONTENT_LENGTH) {
            // hyper gives a GET, a HEAD and some others no framing by itself, and drops their body.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        headers.insert(header::HOST, host);
        if self.upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        } else if headers.contains_key(header::TE) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        Ok(())
    }

    fn failure(&self, mut unsent: Unsent, copy: Option<Box<Request<RequestBody>>>) -> Failed {
        let message = unsent.take_message();
        let error = unsent.into_error();
        if let Some(cause) = self.exchange.as_ref().and_then(|exchange| exchange.take_failure()) {
            return Failed { error: broken_request(cause), again: Again::Never };
        }
        let again = message.or_else(|| copy.filter(|_| refused_unread(&error)).map(|copy| *copy));
        let again = again.map_or(Again::Never, Again::Anew);
        let malformed = error.is_parse() || error.is_parse_too_large();
        let error = if malformed {
            UpstreamError::Protocol { detail: "its head cannot be parsed", source: Some(error) }
        } else {
            UpstreamError::Closed(error)
        };
        Failed { error, again }
    }

    fn answered(&self, answer: Response<Incoming>, lease: Lease) -> Result<Forwarded, UpstreamError> {
        let (mut parts, body) = answer.into_parts();
        let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        check_head(&parts, switched, self.upgrade)?;
        headers::for_caller(&mut parts.headers, switched);
        let mut response = Response::new(());
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        if switched {
            let upstream = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
            let upstream = upstream.ok_or(UpstreamError::protocol("it switched protocols without leave"))?;
            let upgrade = Upgrade { upstream, lease, idle: self.limits.idle, ends: self.ends };
            return Ok(Forwarded { response: response.map(|()| shared_body::empty()), upgrade: Some(upgrade) });
        }
        let body = if body.is_end_stream() {
            lease.finish(self.exchange.as_deref());
            shared_body::empty()
        } else {
            let watch = Watch::new(self.limits.idle, self.ends, self.exchange.clone());
            ResponseBody::new(body, lease, watch).boxed_unsync()
        };
        Ok(Forwarded { response: response.map(|()| body), upgrade: None })
    }
}

/// Refuses heads that two readers could read differently.
fn check_head(parts: &http::response::Parts, switched: bool, upgrade: bool) -> Result<(), UpstreamError> {
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if parts.headers.contains_key(header::CONTENT_LENGTH) {
            return Err(UpstreamError::protocol("it has a content length and a transfer encoding"));
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(UpstreamError::protocol("its transfer encoding is not chunked"));
        }
    }
    if parts.headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(UpstreamError::protocol("it has two content lengths"));
    }
    if switched && !(upgrade && headers::has_token(&parts.headers, &header::UPGRADE, "websocket")) {
        return Err(UpstreamError::protocol("it switched protocols without leave"));
    }
    if parts.status.is_informational() && !switched {
        return Err(UpstreamError::protocol("its status is no final one"));
    }
    Ok(())
}

fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::none());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Whether the upstream says that it never looked at the stream: `REFUSED_STREAM`, or a polite GOAWAY, which ends those
/// streams alone that came after the last one it will serve (RFC 9113 sections 6.8 and 8.7).
fn refused_unread(error: &hyper::Error) -> bool {
    let Some(cause) = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()) else { return false };
    let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    let leaving = cause.is_go_away() && cause.reason() == Some(h2::Reason::NO_ERROR);
    cause.is_remote() && (refused || leaving)
}

fn broken_request(cause: BoxError) -> UpstreamError {
    match cause.downcast_ref::<StreamError>() {
        Some(StreamError::Idle) => UpstreamError::RequestIdle,
        Some(end @ (StreamError::Total | StreamError::GrantEnded)) => ended(end),
        _ => UpstreamError::RequestBody(cause),
    }
}

fn ended(end: &StreamError) -> UpstreamError {
    if matches!(end, StreamError::Total) { UpstreamError::Total } else { UpstreamError::GrantEnded }
}
