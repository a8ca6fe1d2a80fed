//! A caller that somebody states. It passes the same gate as a real one, and no further than an explanation.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use serde_json::{Map, Value};

use super::explain::ExplainError;
use crate::clock::Timestamp;
use crate::config::checked::{CertificateIssuer, Checked, Issuer};
use crate::config::compile::{Stated, by_certificate, by_claims, by_session, by_token};
use crate::config::faults::nearest;
use crate::identity::jwt::UnverifiedToken;
use crate::identity::{IdentityError, IdentityVerifier, Presented, Principal};
use crate::route::EvidenceKind;

/// A caller that somebody states.
#[derive(Clone, Debug)]
pub enum Caller {
    /// No evidence at all.
    Nobody,
    /// A bearer token with these claims.
    Claims {
        /// Configured name of its issuer.
        issuer: String,
        /// Its claims.
        claims: Map<String, Value>,
    },
    /// A browser session that an ID token with these claims began.
    Session {
        /// Configured name of its issuer.
        issuer: String,
        /// The ID token's claims.
        claims: Map<String, Value>,
    },
    /// A token, whose signature nobody looks at.
    Token {
        /// Configured name of its issuer; `None` is the one that the token names.
        issuer: Option<String>,
        /// The token.
        token: String,
    },
    /// A client certificate with this one name.
    Certificate {
        /// Configured name of its issuer; `None` is the only one.
        issuer: Option<String>,
        /// DNS name or URI.
        name: String,
    },
}

/// Evidence that a stated caller would show.
#[derive(Debug)]
pub(super) struct StatedEvidence {
    pub(super) kind: EvidenceKind,
    pub(super) issuer: String,
    principal: Result<Arc<Principal>, IdentityError>,
    pub(super) taken_as_good: Vec<&'static str>,
    pub(super) notes: Vec<String>,
}

impl Caller {
    /// Whether it comes by a bearer token.
    pub(super) const fn shows_token(&self) -> bool {
        matches!(self, Self::Claims { .. } | Self::Token { .. })
    }

    /// The evidence that this caller would show; `None` for nobody.
    pub(super) fn evidence(&self, checked: &Checked, now: Timestamp) -> Result<Option<StatedEvidence>, ExplainError> {
        let evidence = match self {
            Self::Nobody => return Ok(None),
            Self::Claims { issuer, claims } => {
                let issuer = issuer_named(checked, issuer)?;
                StatedEvidence::new(EvidenceKind::Bearer, &issuer.name, by_claims(issuer, claims.clone(), now))
            }
            Self::Session { issuer, claims } => {
                let issuer = issuer_named(checked, issuer)?;
                if issuer.login.is_none() {
                    return Err(ExplainError::NoLogin { issuer: issuer.name.clone() });
                }
                StatedEvidence::new(EvidenceKind::Session, &issuer.name, by_session(issuer, claims, now))
            }
            Self::Token { issuer, token } => by_unverified_token(checked, issuer.as_deref(), token, now)?,
            Self::Certificate { issuer, name } => {
                let issuer = certificate_issuer(checked, issuer.as_deref())?;
                let stated = by_certificate(issuer, name, now);
                let mut evidence = StatedEvidence::new(EvidenceKind::ClientCertificate, &issuer.name, stated);
                let listeners = issuer.listeners.join("`, `");
                evidence.notes.push(format!("a client certificate counts on the listener `{listeners}` only"));
                evidence
            }
        };
        Ok(Some(evidence))
    }
}

impl StatedEvidence {
    fn new(kind: EvidenceKind, issuer: &str, stated: Stated) -> Self {
        Self {
            kind,
            issuer: issuer.to_owned(),
            principal: stated.principal.map(Arc::new),
            taken_as_good: stated.taken_as_good,
            notes: Vec::new(),
        }
    }
}

/// Lets the evidence through the gate that serves: kinds and issuers of the route.
impl IdentityVerifier for StatedEvidence {
    fn kind(&self) -> EvidenceKind {
        self.kind
    }

    fn presents(&self, _presented: &Presented<'_>) -> Result<bool, IdentityError> {
        Ok(true)
    }

    fn verify<'a>(&'a self, _presented: Presented<'a>) -> BoxFuture<'a, Result<Arc<Principal>, IdentityError>> {
        ready(self.principal.clone()).boxed()
    }

    fn recognise_again(&self, principal: &Arc<Principal>, _now: Timestamp) -> Option<Arc<Principal>> {
        Some(principal.clone())
    }
}

fn by_unverified_token(
    checked: &Checked,
    named: Option<&str>,
    token: &str,
    now: Timestamp,
) -> Result<StatedEvidence, ExplainError> {
    let named = named.map(|name| issuer_named(checked, name)).transpose()?;
    let refused = |error: IdentityError, issuer: &str| {
        let stated = Stated { principal: Err(error), taken_as_good: Vec::new() };
        StatedEvidence::new(EvidenceKind::Bearer, issuer, stated)
    };
    let name = named.map_or("", |issuer| &issuer.name);
    let mut evidence = match UnverifiedToken::parse(token) {
        Err(error) => refused(error, name),
        Ok(token) => {
            let stated = token.unverified_issuer();
            let of_token = || checked.issuers.iter().find(|issuer| Some(issuer.issuer.as_str()) == stated);
            match named.or_else(of_token) {
                Some(issuer) => StatedEvidence::new(EvidenceKind::Bearer, &issuer.name, by_token(issuer, &token, now)),
                None => {
                    let detail = "the token is by an issuer that is not configured";
                    refused(IdentityError::invalid("issuer_unknown", detail), name)
                }
            }
        }
    };
    evidence.taken_as_good.push("signature");
    evidence
        .notes
        .push("the token was only read: its signature was NOT verified, anybody could have written it".into());
    Ok(evidence)
}

fn issuer_named<'a>(checked: &'a Checked, name: &str) -> Result<&'a Issuer, ExplainError> {
    checked.issuers.iter().find(|issuer| issuer.name == name).ok_or_else(|| {
        let known: Vec<&str> = checked.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        unknown(name, &known)
    })
}

fn certificate_issuer<'a>(checked: &'a Checked, name: Option<&str>) -> Result<&'a CertificateIssuer, ExplainError> {
    let issuers = checked.certificate_issuers.as_slice();
    match (name, issuers) {
        (None, [only]) => Ok(only),
        (None, _) => Err(ExplainError::WhichCertificateIssuer { count: issuers.len() }),
        (Some(name), _) => issuers.iter().find(|issuer| issuer.name == name).ok_or_else(|| {
            let known: Vec<&str> = issuers.iter().map(|issuer| issuer.name.as_str()).collect();
            unknown(name, &known)
        }),
    }
}

fn unknown(name: &str, known: &[&str]) -> ExplainError {
    let help = match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "none is configured".to_owned(),
        None => format!("known are `{}`", known.join("`, `")),
    };
    ExplainError::UnknownIssuer { name: name.to_owned(), help }
}
