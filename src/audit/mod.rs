//! What happened: one [`AuditEvent`] for every request, and events for whatever else is worth a record.
//!
//! The request path only fills an [`AuditEntry`] and hands it to a bounded queue; one writer turns records into lines.

mod destination;
mod entry;
mod line;
mod writer;
mod writer_state;

pub use destination::{Callback, Destination, FileSettings};
pub(crate) use entry::shortened;
pub use entry::{Audit, AuditEntry, QueueFull, Unwritten, WhenFull};
pub(crate) use line::acts_on_a_terminal;
pub use writer::{Unfinished, Writer, WriterSettings};

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::identity::Principal;
use crate::peer::Peer;
use crate::policy::RoleSession;
use crate::route::Route;

/// Whether a request was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Forwarded, or meant to be: `code` says what went wrong after the decision.
    Allow,
    /// Refused.
    Deny,
    /// Answered by Doorward itself: login pages, its own documents.
    Own,
}

/// Durations of a request's steps; `None` for a step that was not reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepDurations {
    /// Recognising the caller.
    pub identify: Option<Duration>,
    /// Asking policy.
    pub authorize: Option<Duration>,
    /// Getting the credential.
    pub credential: Option<Duration>,
    /// From handing the request to the upstream to its answer's head.
    pub upstream: Option<Duration>,
    /// From the head's arrival to the end of the answer.
    pub total: Option<Duration>,
}

/// Everything about one request that goes on record. No token, cookie, secret or query value ever does.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// When its head had arrived.
    pub at: Timestamp,
    /// Request id, as the caller and the upstream see it.
    pub request_id: Arc<str>,
    /// Trace id of `traceparent`, 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// Address of the connection's peer.
    pub peer: IpAddr,
    /// Address of the caller past the load balancers.
    pub source: IpAddr,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Who called, once known.
    pub principal: Option<Arc<Principal>>,
    /// Roles that the caller holds.
    pub roles: Arc<[RoleSession]>,
    /// The route, once known.
    pub route: Option<Arc<Route>>,
    /// Request method.
    pub method: http::Method,
    /// Host, normalised once known.
    pub host: String,
    /// Path without query, normalised once known.
    pub path: String,
    /// Whether it was let through.
    pub decision: Decision,
    /// Stable code: `ok`, or why it was refused or failed.
    pub code: &'static str,
    /// What went wrong, for operators; never evidence, never a secret.
    pub detail: Option<String>,
    /// Ids of the policies that decided.
    pub policy_ids: Arc<[Arc<str>]>,
    /// Hash of the snapshot that judged it.
    pub snapshot: Arc<str>,
    /// Identifier of the injected credential.
    pub credential_id: Option<Arc<str>>,
    /// End of the injected credential.
    pub credential_expires_at: Option<Timestamp>,
    /// What the upstream calls its refusal, where it refused the credential.
    pub credential_refusal: Option<Arc<str>>,
    /// Name of the upstream.
    pub upstream: Option<Arc<str>>,
    /// Its address that was asked last.
    pub upstream_address: Option<Arc<str>>,
    /// Status of the answer; 0 when the caller was gone before one was sent.
    pub status: u16,
    /// Bytes of the request's body that were read.
    pub request_bytes: u64,
    /// Bytes of the answer's body that were sent.
    pub response_bytes: u64,
    /// Durations of the steps.
    pub durations: StepDurations,
}

/// Code of a record that nobody finished: the caller went away, or the request's own code failed.
pub const ABORTED: &str = "aborted";

impl RequestRecord {
    /// A record of a request whose head has arrived and of which no more is known: denied, `aborted`, until
    /// somebody says otherwise.
    #[must_use]
    pub fn new(at: Timestamp, request_id: Arc<str>, peer: &Peer, source: IpAddr, method: http::Method) -> Self {
        let (peer, listener) = (peer.address.ip(), peer.listener.clone());
        Self { at, request_id, peer, source, listener, method, ..Self::nothing() }
    }

    fn nothing() -> Self {
        Self {
            at: Timestamp::default(),
            request_id: Arc::default(),
            trace_id: None,
            peer: Ipv4Addr::UNSPECIFIED.into(),
            source: Ipv4Addr::UNSPECIFIED.into(),
            listener: Arc::default(),
            principal: None,
            roles: Arc::default(),
            route: None,
            method: http::Method::GET,
            host: String::new(),
            path: String::new(),
            decision: Decision::Deny,
            code: ABORTED,
            detail: None,
            policy_ids: Arc::default(),
            snapshot: Arc::default(),
            credential_id: None,
            credential_expires_at: None,
            credential_refusal: None,
            upstream: None,
            upstream_address: None,
            status: 0,
            request_bytes: 0,
            response_bytes: 0,
            durations: StepDurations::default(),
        }
    }
}

/// An event worth a record.
#[derive(Debug)]
pub enum AuditEvent {
    /// One request, whatever happened to it.
    Request(Box<RequestRecord>),
    /// Anything else.
    Other(Box<OtherEvent>),
    /// An event that somebody waits for: told once its line is written, dropped if it never is.
    Awaited(Box<(OtherEvent, oneshot::Sender<()>)>),
}

/// An event that is not a request: `request.granted`, `role.assumed`, `session.started`, `session.refreshed`, `session.ended`,
/// `session.refused`, `credential.issued`, `credential.refused`, `config.loaded`, `config.refused`, `anomaly.*`.
#[derive(Clone, Debug)]
pub struct OtherEvent {
    /// When it happened.
    pub at: Timestamp,
    /// Name with a dot, such as `role.assumed`.
    pub name: &'static str,
    /// The request during which it happened.
    pub request_id: Option<Arc<str>>,
    /// About whom.
    pub principal: Option<Arc<Principal>>,
    /// Further fields in the order to write them; names are snake_case, values are free of secrets.
    pub fields: Vec<(&'static str, serde_json::Value)>,
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::peer::Transport;

    pub(super) fn record(path: &str) -> RequestRecord {
        let address = "192.0.2.7:1".parse().unwrap();
        let (listener, transport) = ("public".into(), Transport::Plain);
        let peer = Peer { address, socket_address: address, listener, transport, tls: None, certificate: None };
        let at = Timestamp::from_unix_seconds(1_800_000_000);
        let mut record = RequestRecord::new(at, "r1".into(), &peer, address.ip(), http::Method::GET);
        record.path = path.to_owned();
        record
    }

    pub(super) fn event(name: &'static str) -> OtherEvent {
        OtherEvent { at: Timestamp::default(), name, request_id: None, principal: None, fields: Vec::new() }
    }

    /// Long enough on any machine; no test waits for its end.
    pub(super) fn within() -> Duration {
        Duration::from_secs(30)
    }
}
