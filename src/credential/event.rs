//! What the audit record is told of credentials: who had which issued, by which rules, and until when.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::Ask;
use super::source::{Issued, SourceError};
use crate::clock::Timestamp;
use crate::identity::Principal;
use crate::policy::RoleSession;
use crate::telemetry::CredentialMetrics;

/// What a credential was asked for, kept beyond the request that asked.
#[derive(Clone, Debug)]
pub struct IssueEvent {
    /// The request that caused it.
    pub request_id: Arc<str>,
    /// Its caller.
    pub principal: Arc<Principal>,
    /// The roles that the caller held.
    pub roles: Arc<[RoleSession]>,
    /// The policies that granted it.
    pub policy_ids: Arc<[Arc<str>]>,
    /// The route.
    pub route: Arc<str>,
    /// The route's environment.
    pub environment: Arc<str>,
    /// Configured name of the credential.
    pub credential: Arc<str>,
    /// Its kind.
    pub kind: &'static str,
}

impl IssueEvent {
    pub(super) fn of(ask: &Ask<'_>, credential: Arc<str>, kind: &'static str) -> Self {
        let route = ask.grant.route();
        Self {
            request_id: ask.request_id.clone(),
            principal: ask.grant.principal().clone(),
            roles: ask.grant.roles().clone(),
            policy_ids: ask.grant.policy_ids().clone(),
            route: route.name.clone(),
            environment: route.environment.clone(),
            credential,
            kind,
        }
    }
}

/// What came of a fetch.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// `credential.issued`
    Issued(&'a Issued),
    /// `credential.refused`
    Refused(&'a SourceError),
}

impl Outcome<'_> {
    /// Name of the event.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Issued(_) => "credential.issued",
            Self::Refused(_) => "credential.refused",
        }
    }

    /// Fields of the record that are the outcome's own.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, Value)> {
        match self {
            Self::Issued(issued) => {
                let mut fields =
                    vec![("id", Value::from(&*issued.id)), ("expires_at", Value::from(issued.expires_at.rfc3339()))];
                fields.extend(issued.facts.iter().cloned());
                fields
            }
            Self::Refused(error) => {
                vec![("code", Value::from(error.code)), ("detail", Value::from(error.detail.as_str()))]
            }
        }
    }
}

/// The record took no event: it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit record is full")]
pub struct EventUnwritten;

type Record = dyn Fn(&IssueEvent, &Outcome<'_>, Timestamp) -> Result<(), EventUnwritten> + Send + Sync;

/// Where events go, and what counts them.
#[derive(Clone)]
pub struct Events {
    record: Arc<Record>,
    metrics: CredentialMetrics,
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Events")
    }
}

impl Events {
    /// Events to `record`, counted in `metrics`.
    pub fn new(
        record: impl Fn(&IssueEvent, &Outcome<'_>, Timestamp) -> Result<(), EventUnwritten> + Send + Sync + 'static,
        metrics: CredentialMetrics,
    ) -> Self {
        Self { record: Arc::new(record), metrics }
    }

    pub(super) fn tell(&self, about: &IssueEvent, outcome: &Outcome<'_>, now: Timestamp) -> Result<(), EventUnwritten> {
        match outcome {
            Outcome::Issued(_) => self.metrics.issued.inc(),
            Outcome::Refused(_) => self.metrics.refused.inc(),
        };
        (self.record)(about, outcome, now)
    }

    pub(super) fn reused(&self) {
        self.metrics.reused.inc();
    }
}
