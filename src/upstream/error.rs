//! Why nothing came back from an upstream, and who can mend it.

use crate::body::BoxError;

/// Why an upstream could not be made from its settings.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamSettingsError {
    /// No address at all.
    #[error("an upstream needs at least one address")]
    NoAddress,
    /// `http` and `https` together.
    #[error("the addresses of an upstream must all have one scheme")]
    MixedSchemes,
    /// Not `http://host[:port]` or `https://host[:port]`.
    #[error("`{0}` is no address of the form `https://host:port`")]
    Address(String),
    /// ALPN needs TLS.
    #[error("protocol `auto` needs https addresses")]
    AutoWithoutTls,
    /// TLS settings that would have no effect.
    #[error("tls settings need https addresses")]
    TlsWithoutTls,
    /// No authority to trust.
    #[error("there is no certificate authority to trust")]
    NoAuthorities,
    /// An authority's certificate is malformed.
    #[error("a certificate authority is malformed")]
    Authority(#[source] rustls::Error),
    /// Doorward's own certificate and key do not serve.
    #[error("the client certificate or its key cannot be used")]
    Certificate(#[source] rustls::Error),
    /// The name that the upstream's certificate must bear is none.
    #[error("`{0}` is no server name")]
    ServerName(String),
    /// The TLS library refused the protocol versions.
    #[error("tls cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Which stage of connecting failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectStage {
    /// Looking up the name.
    Name,
    /// TCP.
    Tcp,
    /// TLS handshake, certificates included.
    Tls,
    /// Settling on an HTTP version.
    Http,
}

impl ConnectStage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "its name could not be looked up",
            Self::Tcp => "no connection could be opened",
            Self::Tls => "the tls handshake failed",
            Self::Http => "the http handshake failed",
        }
    }
}

/// Why a body ended early. Travels as the error of a [`crate::body::Body`].
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Neither direction moved for the route's idle time.
    #[error("the stream was silent for too long")]
    Idle,
    /// The route's total time is over.
    #[error("the request took longer than its route allows")]
    Total,
    /// The grant ended.
    #[error("the permission for this stream has ended")]
    GrantEnded,
    /// More or fewer bytes than `Content-Length` says.
    #[error("the body's length is not the one that was announced")]
    Length,
    /// The upstream's body broke off.
    #[error("the upstream's answer broke off")]
    Upstream(#[source] hyper::Error),
    /// The caller's body broke off; the cause is with [`UpstreamError::RequestBody`].
    #[error("the caller's body broke off")]
    Caller,
}

impl StreamError {
    /// Stable code for audit records.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Idle => "stream_idle_timeout",
            Self::Total => "total_timeout",
            Self::GrantEnded => "grant_ended",
            Self::Length => "body_length_mismatch",
            Self::Upstream(_) => "upstream_body_broken",
            Self::Caller => "request_body_broken",
        }
    }
}

/// Who can mend an [`UpstreamError`]: the answer's status follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// The upstream answered wrongly or not at all (502).
    Upstream,
    /// The upstream was too slow (504).
    UpstreamTimeout,
    /// Nothing can be forwarded now (503).
    Unavailable,
    /// The caller's request cannot be forwarded (400).
    Caller,
    /// The caller was too slow (408).
    CallerTimeout,
    /// The permission ended while the request was under way (401).
    GrantEnded,
}

/// Why there is no answer from an upstream.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("{}", stage.as_str())]
    Connect {
        /// Where it failed.
        stage: ConnectStage,
        /// What the operating system or the library said.
        #[source]
        source: BoxError,
    },
    /// No connection in time.
    #[error("the upstream could not be connected in time")]
    ConnectTimeout,
    /// Too many requests wait for a connection.
    #[error("too many requests wait for a connection")]
    Overloaded,
    /// This machine has nothing left to connect with: descriptors, ports or memory.
    #[error("this machine has no descriptor, port or memory left for a connection")]
    Exhausted(#[source] std::io::Error),
    /// No head in time.
    #[error("the upstream did not begin its answer in time")]
    FirstByteTimeout,
    /// The connection ended before the answer's head.
    #[error("the upstream closed the connection without an answer")]
    Closed(#[source] hyper::Error),
    /// The answer is no HTTP that may be passed on.
    #[error("the upstream's answer is malformed: {detail}")]
    Protocol {
        /// What is wrong with it.
        detail: &'static str,
        /// What the library said.
        #[source]
        source: Option<hyper::Error>,
    },
    /// The caller's body broke off, or its own wrapper refused it.
    #[error("the request's body broke off")]
    RequestBody(#[source] BoxError),
    /// The caller's body was silent for too long.
    #[error("the request's body was silent for too long")]
    RequestIdle,
    /// The request cannot be written as a request to an upstream.
    #[error("the request cannot be forwarded: {0}")]
    Request(&'static str),
    /// The client certificate that the request is to be sent by is of no use.
    #[error("the client certificate cannot be used: {0}")]
    ClientCertificate(&'static str),
    /// The route's total time is over.
    #[error("the request took longer than its route allows")]
    Total,
    /// The grant ended first.
    #[error("the permission for this request has ended")]
    GrantEnded,
}

impl UpstreamError {
    /// Stable code for answers and audit records.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Connect { stage: ConnectStage::Tls, .. } => "upstream_tls",
            Self::Connect { .. } => "upstream_connect_failed",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::Overloaded | Self::Exhausted(_) => "no_upstream",
            Self::FirstByteTimeout => "upstream_first_byte_timeout",
            Self::Closed(_) => "upstream_closed",
            Self::Protocol { .. } => "upstream_protocol",
            Self::RequestBody(_) => "request_body_broken",
            Self::RequestIdle => "request_body_idle",
            Self::Request(_) => "request_malformed",
            Self::ClientCertificate(_) => "client_certificate_unusable",
            Self::Total => "total_timeout",
            Self::GrantEnded => "grant_ended",
        }
    }

    /// Who can mend it.
    #[must_use]
    pub const fn class(&self) -> FailureClass {
        match self {
            Self::Connect { .. } | Self::Closed(_) | Self::Protocol { .. } => FailureClass::Upstream,
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::Total => FailureClass::UpstreamTimeout,
            Self::Overloaded | Self::Exhausted(_) | Self::ClientCertificate(_) => FailureClass::Unavailable,
            Self::RequestBody(_) | Self::Request(_) => FailureClass::Caller,
            Self::RequestIdle => FailureClass::CallerTimeout,
            Self::GrantEnded => FailureClass::GrantEnded,
        }
    }

    /// An answer that may not be passed on.
    pub(super) const fn protocol(detail: &'static str) -> Self {
        Self::Protocol { detail, source: None }
    }

    /// Whether the address itself failed: what counts toward setting it aside.
    pub(super) const fn blames_address(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout | Self::FirstByteTimeout | Self::Closed(_))
    }

    /// Whether it may be the client certificate that the upstream does not take. By TLS 1.3 it says so only after the
    /// handshake is over for this side.
    pub(super) const fn may_be_of_certificate(&self) -> bool {
        matches!(self, Self::Connect { stage: ConnectStage::Tls | ConnectStage::Http, .. } | Self::Closed(_))
    }
}
