//! One immutable configuration in force. A request takes it once and keeps it to its end.

use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::credential::{CredentialProvider, Documents, PlainIdentity};
use crate::identity::{IdentityVerifier, Principal, PrincipalKind};
use crate::login::{Login, SessionVerifier};
use crate::peer::TrustedProxies;
use crate::policy::Policies;
use crate::route::{Route, Router};
use crate::telemetry::RouteMetrics;
use crate::upstream::{ProtectedHeaders, Upstream};

/// A route with the parts that serve it.
#[derive(Debug)]
pub struct ServedRoute {
    /// Where it goes.
    pub upstream: Arc<Upstream>,
    /// What the upstream is shown.
    pub credential: Arc<dyn CredentialProvider>,
    /// Headers that only Doorward may set on it.
    pub protected: Arc<ProtectedHeaders>,
    /// Plain identity headers beside the credential, where the route asks for them.
    pub plain_identity: Option<PlainIdentity>,
    /// Its counters.
    pub metrics: RouteMetrics,
}

/// Doorward's documents and where they stand on a listener of their own.
#[derive(Clone, Debug)]
pub struct ServedDocuments {
    /// The documents.
    pub documents: Documents,
    /// Path of the issuer URL, without a trailing slash.
    pub base_path: Arc<str>,
}

/// One immutable configuration in force.
pub struct Snapshot {
    /// Hash of the files it came from.
    pub hash: Arc<str>,
    /// Finds routes.
    pub router: Router,
    /// What serves each route, by the route's index.
    pub served: Vec<ServedRoute>,
    /// Ways of recognising callers, sessions among them.
    pub verifiers: Vec<Arc<dyn IdentityVerifier>>,
    /// Sessions of browsers, where an issuer offers login.
    pub sessions: Option<Arc<SessionVerifier>>,
    /// Login, where an issuer offers it.
    pub login: Option<Arc<Login>>,
    /// Doorward's own discovery document and key set, where a credential is signed.
    pub documents: Option<ServedDocuments>,
    /// Name of a listener that serves nothing but the documents.
    pub documents_listener: Option<Arc<str>>,
    /// What callers may do.
    pub policies: Policies,
    /// Whose `X-Forwarded-*` are believed.
    pub trusted_proxies: TrustedProxies,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Snapshot").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// A caller whom an earlier snapshot recognised, by the rules of this one; `None` where it would not be let in.
    pub(super) fn recognise_again(&self, principal: &Arc<Principal>, now: Timestamp) -> Option<Arc<Principal>> {
        if principal.kind == PrincipalKind::Anonymous {
            return Some(principal.clone());
        }
        let of_its_kind = self.verifiers.iter().filter(|verifier| verifier.kind() == principal.evidence);
        of_its_kind.filter_map(|verifier| verifier.recognise_again(principal, now)).next()
    }

    /// What serves `route`.
    #[must_use]
    pub fn served(&self, route: &Route) -> Option<&ServedRoute> {
        self.served.get(route.index)
    }
}
