//! Who is calling: evidence on a request becomes a verified [`Principal`], or the request is refused.
//!
//! This file holds the noun, the trait and the error. Its siblings are the ways to do it.

pub mod bearer;
pub mod certificate;
pub mod claims;
mod json;
pub mod jwt;
pub mod keys;
pub mod projection;
#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
pub mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::peer::{Downstream, Peer};
use crate::route::{Access, EvidenceKind, Route};

/// What kind of caller a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program.
    Workload,
    /// Nobody in particular, on a route that is open to anybody.
    Anonymous,
}

impl PrincipalKind {
    /// Cedar entity type and name in audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Workload => "Workload",
            Self::Anonymous => "Anonymous",
        }
    }
}

/// A claim that an issuer's entry projects, with the type that it declares for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// Text.
    String(String),
    /// Whole number.
    Long(i64),
    /// Truth value.
    Bool(bool),
    /// Set of texts.
    Set(Vec<String>),
}

/// What a verifier found out about a caller.
#[derive(Clone, Debug)]
pub struct VerifiedIdentity {
    /// Kind of caller.
    pub kind: PrincipalKind,
    /// Configured name of the issuer; empty for the anonymous principal.
    pub issuer: Arc<str>,
    /// Subject within the issuer: the value of the claim (or claims) that name the principal.
    pub subject: Arc<str>,
    /// Kind of evidence it came by.
    pub evidence: EvidenceKind,
    /// E-mail address, for display and for headers; never an identity.
    pub email: Option<String>,
    /// Groups, as the issuer names them.
    pub groups: Vec<String>,
    /// OAuth scopes.
    pub scopes: Vec<String>,
    /// Authentication context class (`acr`).
    pub acr: Option<String>,
    /// Authentication methods (`amr`, RFC 8176).
    pub amr: Vec<String>,
    /// When the caller authenticated (`auth_time`), if the issuer says.
    pub authenticated_at: Option<Timestamp>,
    /// When its role sessions begin: `auth_time`, else the token's `iat`, else first sight.
    pub began_at: Timestamp,
    /// When the evidence ends.
    pub expires_at: Option<Timestamp>,
    /// The environment that it belongs to, where its issuer says.
    pub environment: Option<Arc<str>>,
    /// Projected claims, by the names that policies use.
    pub attributes: BTreeMap<String, Attribute>,
    /// All verified claims, for the trust clauses of roles.
    pub claims: Map<String, Value>,
    /// SHA-256 that changes whenever anything above does: of the token, of the certificate, of the session's
    /// identifier and generation. A key for what may be remembered about this caller; never an identity.
    pub fingerprint: [u8; 32],
}

/// Who is calling. Made by an [`IdentityVerifier`] only, from evidence that it verified.
#[derive(Clone, Debug)]
pub struct Principal {
    verified: VerifiedIdentity,
    id: Arc<str>,
    evidence_id: [u8; 32],
}

impl Principal {
    /// Vouches for `verified`. To be called by a verifier, after every check passed.
    #[must_use]
    pub fn verified(verified: VerifiedIdentity) -> Self {
        let id = format!("{}|{}", verified.issuer, verified.subject).into();
        Self { evidence_id: verified.fingerprint, verified, id }
    }

    /// The same caller, by evidence that stays the same while its claims are renewed: a session.
    #[must_use]
    pub fn with_evidence_id(self, evidence_id: [u8; 32]) -> Self {
        Self { evidence_id, ..self }
    }

    /// The caller of a public route.
    #[must_use]
    pub fn anonymous(now: Timestamp) -> Self {
        Self {
            verified: VerifiedIdentity {
                kind: PrincipalKind::Anonymous,
                issuer: "".into(),
                subject: "anonymous".into(),
                evidence: EvidenceKind::Bearer,
                email: None,
                groups: Vec::new(),
                scopes: Vec::new(),
                acr: None,
                amr: Vec::new(),
                authenticated_at: None,
                began_at: now,
                expires_at: None,
                environment: None,
                attributes: BTreeMap::new(),
                claims: Map::new(),
                fingerprint: [0; 32],
            },
            id: "anonymous".into(),
            evidence_id: [0; 32],
        }
    }

    /// What names the evidence for as long as it lives, whatever its claims become: the fingerprint of a token or a
    /// certificate, and for a session its key. Never an identity.
    #[must_use]
    pub fn evidence_id(&self) -> &[u8; 32] {
        &self.evidence_id
    }

    /// The configured issuer's name, `|`, the subject: the same text in Cedar, in audit records and in the
    /// assertion's `sub`.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }
}

impl Deref for Principal {
    type Target = VerifiedIdentity;

    fn deref(&self) -> &VerifiedIdentity {
        &self.verified
    }
}

/// What a verifier may look at.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's headers, as they came.
    pub headers: &'a HeaderMap,
    /// Who connected.
    pub peer: &'a Peer,
    /// The caller past the load balancers.
    pub downstream: Downstream,
    /// The request's route.
    pub route: &'a Route,
    /// The request's time.
    pub now: Timestamp,
}

/// Why a caller was not recognised.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// No evidence of any kind that the route takes.
    #[error("the request shows no evidence of who is calling")]
    Missing,
    /// Two kinds of evidence, or one kind twice.
    #[error("the request shows two kinds of evidence")]
    TwoKinds,
    /// Evidence that does not hold; `code` is stable, `detail` goes to the audit record only.
    #[error("the evidence does not hold: {detail}")]
    Invalid {
        /// Stable code, such as `token_expired`.
        code: &'static str,
        /// What was wrong, without any of the evidence's own bytes.
        detail: String,
    },
    /// Good evidence of a caller that this route does not take.
    #[error("the route does not take callers of issuer `{issuer}`")]
    NotAccepted {
        /// Configured name of the issuer.
        issuer: Arc<str>,
    },
    /// Good evidence of a caller of another environment than the route's.
    #[error("the caller is of environment `{stated}`, and the route is not")]
    EnvironmentMismatch {
        /// The caller's environment.
        stated: Arc<str>,
    },
    /// Good evidence of a browser session that may not be used for this request (CSRF rule).
    #[error("a cookie-authenticated request came from another origin")]
    CrossOrigin,
    /// The caller must authenticate again, more strongly or more recently (RFC 9470).
    #[error("the route asks for another authentication")]
    StepUp,
    /// Nothing can be said now: keys or session state are out of reach.
    #[error("the issuer `{issuer}` is out of reach: {detail}")]
    Unavailable {
        /// Configured name of the issuer.
        issuer: Arc<str>,
        /// What was out of reach.
        detail: String,
    },
}

impl IdentityError {
    /// An [`IdentityError::Invalid`].
    #[must_use]
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { code, detail: detail.into() }
    }

    /// Stable code for answers and audit records.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "unauthenticated",
            Self::TwoKinds => "two_kinds_of_evidence",
            Self::Invalid { code, .. } => code,
            Self::NotAccepted { .. } => "issuer_not_accepted",
            Self::EnvironmentMismatch { .. } => "env_mismatch",
            Self::CrossOrigin => "cross_origin",
            Self::StepUp => "insufficient_user_authentication",
            Self::Unavailable { .. } => "issuer_unavailable",
        }
    }
}

/// One way of recognising callers.
pub trait IdentityVerifier: Send + Sync + fmt::Debug {
    /// The kind of evidence that it reads.
    fn kind(&self) -> EvidenceKind;

    /// Whether the request shows evidence of this kind at all, good or bad.
    ///
    /// # Errors
    /// [`IdentityError::TwoKinds`] when it shows it twice.
    fn presents(&self, presented: &Presented<'_>) -> Result<bool, IdentityError>;

    /// Verifies evidence that [`IdentityVerifier::presents`] saw.
    fn verify<'a>(&'a self, presented: Presented<'a>) -> BoxFuture<'a, Result<Arc<Principal>, IdentityError>>;

    /// A caller whom an earlier verifier of this kind recognised, by the rules of this one; `None` where they would not
    /// let it in. For what stays open past a reload: its evidence is not at hand any more, its verified claims are.
    fn recognise_again(&self, principal: &Arc<Principal>, now: Timestamp) -> Option<Arc<Principal>>;
}

/// Whether `route` takes this principal, by the kind of its evidence and by its issuer.
#[must_use]
pub fn accepts(route: &Route, principal: &Principal) -> bool {
    match &route.access {
        Access::Public { .. } => true,
        Access::Authenticated(accepts) => {
            principal.kind != PrincipalKind::Anonymous
                && is_of_environment(route, principal)
                && accepts.kinds.contains(&principal.evidence)
                && accepts.issuer(&principal.issuer)
        }
    }
}

/// Whether a caller may be of the route's environment: it is, or nobody says of which it is.
fn is_of_environment(route: &Route, principal: &Principal) -> bool {
    principal.environment.as_ref().is_none_or(|stated| *stated == route.environment)
}

/// Recognises the caller of `presented.route`: exactly one kind of evidence, of a kind and an issuer that the
/// route takes. A public route's caller is anonymous whatever it shows.
///
/// # Errors
/// [`IdentityError`]; [`IdentityError::Missing`] when there is no evidence at all.
pub async fn identify(
    verifiers: &[Arc<dyn IdentityVerifier>],
    presented: Presented<'_>,
) -> Result<Arc<Principal>, IdentityError> {
    let accepts = match &presented.route.access {
        Access::Public { .. } => return Ok(Arc::new(Principal::anonymous(presented.now))),
        Access::Authenticated(accepts) => accepts,
    };
    let mut chosen: Option<&Arc<dyn IdentityVerifier>> = None;
    for verifier in verifiers {
        // A certificate is evidence only where the route asks for it; a token that the application owns is none.
        let asked = accepts.kinds.contains(&verifier.kind());
        let ignored = match verifier.kind() {
            EvidenceKind::ClientCertificate => !asked,
            EvidenceKind::Bearer => presented.route.pass_authorization.is_some(),
            EvidenceKind::Session => false,
        };
        if ignored || !verifier.presents(&presented)? {
            continue;
        }
        if chosen.replace(verifier).is_some() {
            return Err(IdentityError::TwoKinds);
        }
    }
    let verifier = chosen.ok_or(IdentityError::Missing)?;
    if !accepts.kinds.contains(&verifier.kind()) {
        return Err(IdentityError::invalid("evidence_not_accepted", "the route takes other kinds of evidence"));
    }
    let principal = verifier.verify(presented).await?;
    if !accepts.issuer(&principal.issuer) {
        return Err(IdentityError::NotAccepted { issuer: principal.issuer.clone() });
    }
    if !is_of_environment(presented.route, &principal) {
        let stated = principal.environment.clone().unwrap_or_default();
        return Err(IdentityError::EnvironmentMismatch { stated });
    }
    Ok(principal)
}
