//! Why a request did not pass: the one place that picks a status code.

use std::time::Duration;

use http::StatusCode;

use crate::audit::{Decision, Unwritten};
use crate::credential::{CredentialError, SigningError};
use crate::identity::IdentityError;
use crate::peer::Admission;
use crate::policy::{Denied, DenyReason};
use crate::target::TargetError;
use crate::telemetry::Outcome;
use crate::upstream::{FailureClass, UpstreamError};

use super::exchange::BodyTooLarge;

/// Why a request did not pass.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Its target is malformed or ambiguous.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// No route serves it.
    #[error("no route serves this host and path")]
    NoRoute,
    /// Its body is larger than the route allows.
    #[error("the body is larger than the route allows")]
    BodyTooLarge,
    /// Its body outgrew what the route allows while it was sent.
    #[error("the body grew larger than the route allows")]
    BodyOutgrew,
    /// It has more header fields than the server takes.
    #[error("it has more header fields than the limit")]
    TooManyFields,
    /// Its connection's client certificate no longer holds, and the listener requires one.
    #[error("the connection's client certificate is no longer vouched for")]
    CertificateBarred,
    /// It asks for an upgrade that its route does not offer.
    #[error("the route offers no such upgrade")]
    UpgradeRefused,
    /// The caller was not recognised.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Policy refuses.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// No credential for the upstream.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The upstream does not take the keys or the signature that it was shown, whoever calls.
    #[error("the upstream does not take the credential that it was shown")]
    CredentialRejected,
    /// The request cannot be signed for the upstream.
    #[error("the request cannot be signed: {0}")]
    Signing(SigningError),
    /// The upstream gave no answer.
    #[error(transparent)]
    Upstream(UpstreamError),
    /// The audit queue is full, and requests are refused rather than left unrecorded.
    #[error("the audit queue is full")]
    AuditFull,
    /// The record of the grant was to be written first, and was not.
    #[error("audit records cannot be written")]
    AuditUnwritten,
    /// More requests at once than the limit.
    #[error("too many requests at once")]
    Overloaded,
    /// More requests at once than one source may have.
    #[error("too many requests of this source at once")]
    SourceOverloaded,
    /// More requests in a time than the route's rate.
    #[error("the rate of the {by} is used up")]
    RateLimited {
        /// Whose rate.
        by: &'static str,
        /// When the next one may come.
        wait: Duration,
    },
    /// A fault of ours.
    #[error("the request could not be served: {0}")]
    Internal(&'static str),
}

impl From<Unwritten> for ProxyError {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::QueueFull(_) => Self::AuditFull,
            Unwritten::Stalled => Self::AuditUnwritten,
        }
    }
}

impl From<UpstreamError> for ProxyError {
    /// A body that grew past its limit while it was sent is the caller's fault, and said as such.
    fn from(error: UpstreamError) -> Self {
        if let UpstreamError::RequestBody(cause) = &error
            && cause.is::<BodyTooLarge>()
        {
            return Self::BodyOutgrew;
        }
        Self::Upstream(error)
    }
}

impl ProxyError {
    /// What the server found, if it stands against the request.
    pub(super) const fn of(admission: Admission) -> Option<Self> {
        match admission {
            Admission::Admitted => None,
            Admission::CertificateBarred => Some(Self::CertificateBarred),
            Admission::TooManyFields => Some(Self::TooManyFields),
        }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Credential(error) if error.code == CredentialError::INTERACTION => StatusCode::UNAUTHORIZED,
            Self::Credential(error) if error.refuses_caller() => StatusCode::FORBIDDEN,
            Self::Target(TargetError::MethodUnsupported) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Target(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyTooLarge | Self::BodyOutgrew => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UpgradeRefused | Self::CertificateBarred => StatusCode::FORBIDDEN,
            Self::Identity(error) => match error {
                IdentityError::TwoKinds => StatusCode::BAD_REQUEST,
                IdentityError::CrossOrigin
                | IdentityError::NotAccepted { .. }
                | IdentityError::EnvironmentMismatch { .. } => StatusCode::FORBIDDEN,
                IdentityError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
                IdentityError::Missing | IdentityError::Invalid { .. } | IdentityError::StepUp => {
                    StatusCode::UNAUTHORIZED
                }
            },
            Self::Denied(denied) => match denied.reason {
                DenyReason::RoleSessionExpired => StatusCode::UNAUTHORIZED,
                DenyReason::NotPermitted
                | DenyReason::Forbidden
                | DenyReason::Guardrail
                | DenyReason::EvaluationFailed => StatusCode::FORBIDDEN,
            },
            Self::CredentialRejected => StatusCode::BAD_GATEWAY,
            Self::Signing(SigningError::SignedChunks) => StatusCode::NOT_IMPLEMENTED,
            Self::Signing(SigningError::Length) => StatusCode::LENGTH_REQUIRED,
            Self::Signing(SigningError::Malformed(_)) => StatusCode::BAD_REQUEST,
            Self::Signing(_) => StatusCode::FORBIDDEN,
            Self::Upstream(error) => match error.class() {
                FailureClass::Upstream => StatusCode::BAD_GATEWAY,
                FailureClass::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
                FailureClass::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                FailureClass::Caller => StatusCode::BAD_REQUEST,
                FailureClass::CallerTimeout => StatusCode::REQUEST_TIMEOUT,
                FailureClass::GrantEnded => StatusCode::UNAUTHORIZED,
            },
            Self::Credential(_) | Self::AuditFull | Self::AuditUnwritten | Self::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::RateLimited { .. } | Self::SourceOverloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Stable code for the answer and the audit record.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Target(error) => error.code(),
            Self::NoRoute => "no_route",
            Self::BodyTooLarge | Self::BodyOutgrew => "body_too_large",
            Self::TooManyFields => "header_fields_too_many",
            Self::CertificateBarred => "certificate_barred",
            Self::UpgradeRefused => "upgrade_refused",
            Self::Identity(error) => error.code(),
            Self::Denied(denied) => denied.reason.code(),
            Self::Credential(error) if error.refuses_caller() => error.code,
            Self::Credential(_) => "credential_unavailable",
            Self::CredentialRejected => "credential_rejected",
            Self::Signing(SigningError::SignedChunks) => "signed_chunks",
            Self::Signing(SigningError::Length) => "length_required",
            Self::Signing(SigningError::Malformed(_)) => "path_malformed",
            Self::Signing(SigningError::Widening | SigningError::Disguised) => "signed_header_refused",
            Self::Signing(_) => "signing_scope_refused",
            Self::Upstream(error) => error.code(),
            Self::AuditFull => "audit_queue_full",
            Self::AuditUnwritten => "audit_unavailable",
            Self::Overloaded => "overloaded",
            Self::RateLimited { .. } => "rate_limited",
            Self::SourceOverloaded => "source_overloaded",
            Self::Internal(_) => "internal_error",
        }
    }

    /// One sentence for the caller: what to do about it, never which rule decided.
    #[must_use]
    pub fn sentence(&self) -> &'static str {
        match self {
            Self::Credential(error) if error.code == CredentialError::PRINCIPAL_TOO_LARGE => {
                "What there is to say of you, such as all your groups, is more than the service behind can be told."
            }
            Self::Credential(error) if error.code == CredentialError::INTERACTION => {
                "The service behind asks for another sign-in first, such as with a second factor."
            }
            Self::Credential(error) if error.refuses_caller() => {
                "No credential for the service behind can be made of this request and its caller."
            }
            Self::CredentialRejected => "The service behind does not take this gateway's credential.",
            Self::Signing(SigningError::SignedChunks) => {
                "Each chunk of the body is signed, which cannot be passed on. Let the client send it unsigned."
            }
            Self::Signing(SigningError::Length) => "The request's body needs a length.",
            Self::Signing(SigningError::Malformed(_)) => {
                "The request's method, host or path is malformed or can be read in two ways."
            }
            Self::Signing(SigningError::Disguised) => {
                "A header of the request is spelt with `_` where those of AWS have `-`, which is not allowed here."
            }
            Self::Signing(SigningError::Widening) => {
                "A header of the request copies from another object or sets who may read this one, which is not allowed here."
            }
            Self::Signing(_) => "The request is signed for a service or a region that this address does not serve.",
            Self::Target(_) => "The request's method, host or path is malformed or can be read in two ways.",
            Self::NoRoute => "Nothing is served at this address.",
            Self::TooManyFields => "The request has more header fields than are taken.",
            Self::CertificateBarred => "The client certificate of this connection no longer holds. Connect again.",
            Self::BodyTooLarge | Self::BodyOutgrew => "The request's body is larger than this address takes.",
            Self::UpgradeRefused => "This address does not offer the upgrade that the request asks for.",
            Self::Identity(error) => match error {
                IdentityError::Missing => "Sign in, or send a token that this address accepts.",
                IdentityError::TwoKinds => "The request shows two kinds of evidence of who is calling. Send one.",
                IdentityError::Invalid { .. } => "The evidence of who is calling does not hold.",
                IdentityError::NotAccepted { .. } => "This address does not take callers of your issuer.",
                IdentityError::EnvironmentMismatch { .. } => "This address is of another environment than you are.",
                IdentityError::CrossOrigin => "A request with your session came from another site.",
                IdentityError::StepUp => "This address asks for a stronger or more recent sign-in.",
                IdentityError::Unavailable { .. } => "Who is calling cannot be verified at the moment. Try again.",
            },
            Self::Denied(denied) => denied.reason.sentence(),
            Self::Credential(_) => "The credential for the service behind cannot be had at the moment. Try again.",
            Self::Upstream(_) => "The service behind did not answer as it should.",
            Self::AuditFull | Self::AuditUnwritten | Self::Overloaded => "Too many requests at the moment. Try again.",
            Self::SourceOverloaded => "Too many of your requests are open at once. Try again when some have ended.",
            Self::RateLimited { .. } => "More requests came than this address takes in the time. Try again later.",
            Self::Internal(_) => "The request could not be served.",
        }
    }

    /// When to try again, where that can help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::RateLimited { wait, .. } = self {
            return Some(*wait);
        }
        let soon = matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        soon.then_some(Duration::from_secs(1))
    }

    /// What the audit record says was decided.
    #[must_use]
    pub fn decision(&self) -> Decision {
        match self {
            Self::Credential(error) if error.refuses_caller() => Decision::Deny,
            Self::Signing(_) => Decision::Deny,
            Self::Credential(_) | Self::CredentialRejected | Self::Upstream(_) | Self::BodyOutgrew => Decision::Allow,
            Self::TooManyFields
            | Self::CertificateBarred
            | Self::Target(_)
            | Self::NoRoute
            | Self::BodyTooLarge
            | Self::UpgradeRefused
            | Self::Identity(_)
            | Self::Denied(_)
            | Self::AuditFull
            | Self::AuditUnwritten
            | Self::Overloaded
            | Self::RateLimited { .. }
            | Self::SourceOverloaded
            | Self::Internal(_) => Decision::Deny,
        }
    }

    /// What the metrics count.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Credential(error) if error.refuses_caller() => Outcome::Denied,
            Self::Target(_)
            | Self::NoRoute
            | Self::BodyTooLarge
            | Self::BodyOutgrew
            | Self::TooManyFields
            | Self::UpgradeRefused
            | Self::Signing(_)
            | Self::SourceOverloaded
            | Self::RateLimited { .. } => Outcome::Rejected,
            Self::Identity(_) | Self::Denied(_) | Self::CertificateBarred => Outcome::Denied,
            Self::Credential(_)
            | Self::CredentialRejected
            | Self::Upstream(_)
            | Self::AuditFull
            | Self::AuditUnwritten
            | Self::Overloaded
            | Self::Internal(_) => Outcome::Failed,
        }
    }

    /// The whole story for the audit record: every cause, none of the evidence.
    #[must_use]
    pub fn detail(&self) -> String {
        let mut text = self.to_string();
        if let Self::Denied(Denied { detail: Some(detail), .. }) = self {
            text.push_str(": ");
            text.push_str(detail);
        }
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }
}
