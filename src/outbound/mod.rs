//! The one HTTP client of the product: for issuers, token services and collectors, never for upstreams.
//!
//! Every exchange has a deadline and a size limit, follows no redirect and reads no proxy settings from the
//! environment. A redirect is an error, for it could lead to an address that nobody configured.

mod client_identity;
mod connector;
#[cfg(test)]
pub(crate) mod testing;

pub use client_identity::{ClientIdentity, ClientIdentityError, fingerprint, validity};

use std::error::Error;
use std::fmt::Write as _;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};

use crate::body::BoxError;
use connector::Connector;

/// Where plain `http` addresses may point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// Loopback only, by name and by the address it resolves to.
    #[default]
    LoopbackOnly,
    /// Loopback, and addresses that are never routed, where clouds put their metadata servers: `169.254.0.0/16`,
    /// `fe80::/10`, `fd00:ec2::/32` and `metadata.google.internal`.
    LinkLocal,
    /// Anywhere: for a collector inside a mesh that encrypts by itself.
    Anywhere,
}

/// What a client is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundSettings {
    /// PEM certificates of the authorities that are trusted; `None`: the system's.
    pub authorities_pem: Option<Vec<u8>>,
    /// The certificate that servers which ask for one are shown.
    pub client_certificate: Option<ClientIdentity>,
    /// From the first byte of the request to the last of the answer.
    pub total_deadline: Duration,
    /// For name lookup, TCP and TLS together.
    pub connect_deadline: Duration,
    /// Largest answer body, bytes.
    pub response_limit_bytes: usize,
    /// Where plain `http` is allowed.
    pub plain_http: PlainHttp,
}

impl Default for OutboundSettings {
    fn default() -> Self {
        Self {
            authorities_pem: None,
            client_certificate: None,
            total_deadline: Duration::from_secs(5),
            connect_deadline: Duration::from_secs(3),
            response_limit_bytes: 512 * 1024,
            plain_http: PlainHttp::LoopbackOnly,
        }
    }
}

/// Why an exchange failed. Addresses are shown without their query.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The settings make no client.
    #[error("the authorities are no PEM certificates")]
    Authorities(#[source] BoxError),
    /// The address is none that this client calls.
    #[error("`{address}` cannot be called: {reason}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No connection, or it broke.
    #[error("`{address}` is out of reach")]
    Exchange {
        /// The address.
        address: String,
        /// What went wrong.
        #[source]
        source: BoxError,
    },
    /// The answer did not come in time.
    #[error("`{address}` did not answer within {} ms", deadline.as_millis())]
    Deadline {
        /// The address.
        address: String,
        /// The total deadline.
        deadline: Duration,
    },
    /// The answer is a redirect.
    #[error("`{address}` answered with a redirect ({status}), and none is followed")]
    Redirect {
        /// The address.
        address: String,
        /// The status, 300 to 399.
        status: StatusCode,
    },
    /// The answer is too large.
    #[error("`{address}` answered with more than {limit_bytes} bytes")]
    TooLarge {
        /// The address.
        address: String,
        /// The limit.
        limit_bytes: usize,
    },
}

/// The client. Clones share one connection pool.
#[derive(Clone, Debug)]
pub struct OutboundClient {
    client: Client<Connector, Full<Bytes>>,
    total_deadline: Duration,
    response_limit_bytes: usize,
    plain_http: PlainHttp,
}

impl OutboundClient {
    /// A client that trusts the authorities of `settings`, or else the system's.
    ///
    /// # Errors
    /// [`OutboundError::Authorities`].
    pub fn new(settings: &OutboundSettings) -> Result<Self, OutboundError> {
        let connector = Connector::new(settings).map_err(OutboundError::Authorities)?;
        let client = Client::builder(TokioExecutor::new())
            // A connection that the other side may be closing is no place for a code or a refresh token, which can be
            // sent once only. Exchanges are rare: each has a connection of its own.
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(64 * 1024)
            .build(connector);
        Ok(Self {
            client,
            total_deadline: settings.total_deadline,
            response_limit_bytes: settings.response_limit_bytes,
            plain_http: settings.plain_http,
        })
    }

    /// One exchange. Any status but a redirect is an answer; what it means is the caller's to say.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, OutboundError> {
        let address = shown(request.uri());
        check_address(request.uri(), self.plain_http)
            .map_err(|reason| OutboundError::Address { address: address.clone(), reason })?;
        let agent = HeaderValue::from_static(concat!("doorward/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        tokio::time::timeout(self.total_deadline, self.exchange(request, &address))
            .await
            .unwrap_or(Err(OutboundError::Deadline { address, deadline: self.total_deadline }))
    }

    /// `GET` of a JSON document.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn get_json(&self, address: &str) -> Result<Response<Bytes>, OutboundError> {
        let request = Request::get(address)
            .header(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.1"))
            .body(Bytes::new())
            .map_err(|_| {
                let without_query = address.split('?').next().unwrap_or_default();
                OutboundError::Address { address: without_query.to_owned(), reason: "it is no URL" }
            })?;
        self.send(request).await
    }

    async fn exchange(&self, request: Request<Bytes>, address: &str) -> Result<Response<Bytes>, OutboundError> {
        let unreachable = |source: BoxError| OutboundError::Exchange { address: address.to_owned(), source };
        let answer = self.client.request(request.map(Full::new)).await.map_err(|error| unreachable(error.into()))?;
        if answer.status().is_redirection() {
            return Err(OutboundError::Redirect { address: address.to_owned(), status: answer.status() });
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, self.response_limit_bytes).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                OutboundError::TooLarge { address: address.to_owned(), limit_bytes: self.response_limit_bytes }
            } else {
                unreachable(error)
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

impl<'c> AsyncHttpClient<'c> for OutboundClient {
    type Error = OutboundError;

    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, OutboundError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move { Ok(self.send(request.map(Bytes::from)).await?.map(Vec::from)) })
    }
}

/// Whether `address` is one that a client made with `plain_http` would call: for settings, before anything is sent.
///
/// # Errors
/// What is wrong with it.
pub fn check_address(address: &Uri, plain_http: PlainHttp) -> Result<(), &'static str> {
    let authority = address.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("it carries user information");
    }
    match address.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if plain_http == PlainHttp::Anywhere || is_loopback_name(authority.host()) => Ok(()),
        Some("http") if plain_http == PlainHttp::LinkLocal && is_link_local_name(authority.host()) => Ok(()),
        Some("http") => Err("plain http is for loopback only"),
        _ => Err("its scheme is not https"),
    }
}

/// An error and all its causes, in one line.
#[must_use]
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        // Writing to a String cannot fail.
        let _ = write!(line, ": {next}");
        cause = next.source();
    }
    line
}

fn is_loopback_name(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl PlainHttp {
    /// Whether a plain connection to the address may be opened.
    fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::LoopbackOnly => address.is_loopback(),
            Self::LinkLocal => address.is_loopback() || is_link_local(address),
            Self::Anywhere => true,
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            address.is_unicast_link_local() || (first, second) == (0xfd00, 0x0ec2)
        }
    }
}

fn is_link_local_name(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "metadata.google.internal" || host.parse().is_ok_and(is_link_local)
}

/// Without query, for a query may hold a secret.
fn shown(address: &Uri) -> String {
    let host = address.host().unwrap_or_default();
    let port = address.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", address.scheme_str().unwrap_or_default(), address.path())
}

/// The provider that every TLS configuration of the product names explicitly.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::testing::{TestServer, answer};
    use super::*;

    fn client() -> OutboundClient {
        OutboundClient::new(&OutboundSettings::default()).unwrap()
    }

    fn get(address: &str) -> Request<Bytes> {
        Request::get(address).body(Bytes::new()).unwrap()
    }

    #[tokio::test]
    async fn an_answer_comes_back_whole_whatever_its_status() {
        let server = TestServer::start(|_| answer(404, "gone")).await;
        let got = client().send(get(&server.at("/x?token=1"))).await.unwrap();
        assert_eq!((got.status().as_u16(), got.body().as_ref()), (404, b"gone".as_slice()));
    }

    #[tokio::test]
    async fn a_redirect_is_an_error_and_is_not_followed() {
        let server = TestServer::start(|request| {
            let mut response = answer(302, "");
            if request.uri().path() == "/from" {
                response.headers_mut().insert("location", "/to".parse().unwrap());
            }
            response
        })
        .await;
        let error = client().send(get(&server.at("/from?secret=s"))).await.unwrap_err();
        assert!(matches!(error, OutboundError::Redirect { status: StatusCode::FOUND, .. }), "{error:?}");
        assert!(error.to_string().contains("/from`") && !error.to_string().contains("secret"), "{error}");
        assert_eq!(server.hits("/to"), 0);
    }

    #[tokio::test]
    async fn an_answer_over_the_size_limit_is_refused() {
        let server = TestServer::start(|_| answer(200, "x".repeat(2000))).await;
        let settings = OutboundSettings { response_limit_bytes: 1999, ..OutboundSettings::default() };
        let error = OutboundClient::new(&settings).unwrap().send(get(&server.at("/"))).await.unwrap_err();
        assert!(matches!(error, OutboundError::TooLarge { limit_bytes: 1999, .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_meets_the_deadline() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let settings = OutboundSettings { total_deadline: Duration::from_millis(50), ..OutboundSettings::default() };
        let error = OutboundClient::new(&settings).unwrap().send(get(&address)).await.unwrap_err();
        assert!(matches!(error, OutboundError::Deadline { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn plain_http_is_for_loopback_only() {
        for address in ["http://192.0.2.1/", "http://example.com/", "http://localhost.example.com/"] {
            let error = client().send(get(address)).await.unwrap_err();
            assert!(matches!(error, OutboundError::Address { .. }), "{error:?}");
        }
        assert!(check_address(&Uri::from_static("http://[::1]:80/"), PlainHttp::LoopbackOnly).is_ok());
        assert!(check_address(&Uri::from_static("http://192.0.2.1/"), PlainHttp::Anywhere).is_ok());
        assert!(check_address(&Uri::from_static("https://user@example.com/"), PlainHttp::Anywhere).is_err());
        assert!(check_address(&Uri::from_static("ftp://example.com/"), PlainHttp::Anywhere).is_err());
        assert!(check_address(&Uri::from_static("/path"), PlainHttp::Anywhere).is_err());
    }

    #[tokio::test]
    async fn a_private_authority_is_trusted_where_it_is_named_and_only_there() {
        let (server, authority_pem) = TestServer::start_tls(|_| answer(200, "tls")).await;
        let error = client().send(get(&server.at("/"))).await.unwrap_err();
        assert!(matches!(error, OutboundError::Exchange { .. }), "{error:?}");
        assert_eq!(server.hits("/"), 0);

        let settings =
            OutboundSettings { authorities_pem: Some(authority_pem.into_bytes()), ..OutboundSettings::default() };
        let trusting = OutboundClient::new(&settings).unwrap();
        assert_eq!(trusting.send(get(&server.at("/"))).await.unwrap().body().as_ref(), b"tls");
    }

    #[test]
    fn authorities_that_are_no_certificates_make_no_client() {
        for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let settings =
                OutboundSettings { authorities_pem: Some(pem.as_bytes().to_vec()), ..OutboundSettings::default() };
            assert!(matches!(OutboundClient::new(&settings), Err(OutboundError::Authorities(_))), "{pem}");
        }
    }

    #[tokio::test]
    async fn openidconnect_can_call_through_it() {
        let server = TestServer::start(|request| answer(200, request.method().to_string())).await;
        let request = Request::post(server.at("/token")).body(b"grant_type=x".to_vec()).unwrap();
        let got = AsyncHttpClient::call(&client(), request).await.unwrap();
        assert_eq!(got.body(), b"POST");
    }

    #[tokio::test]
    async fn an_error_tells_its_causes_in_one_line() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let error = client().send(get(&address)).await.unwrap_err();
        let line = in_one_line(&error);
        assert!(line.contains("out of reach: ") && line.to_lowercase().contains("refused"), "{line}");
    }
}
