//! `mtls: workload_api`: the X.509-SVID of Doorward's own workload, as the agent beside it issues and rotates it
//! (SPIFFE Workload API, <https://spiffe.io/docs/latest/spiffe-specs/spiffe_workload_api/>).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderName;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Source, X509Svid};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::super::exchange::with_causes;
use super::super::source::{CredentialRequest, CredentialSource, Issued, KeyDigest, SourceError};
use super::super::{Ask, ClientIdentity, CredentialError, Proof};
use super::KIND;
use crate::clock::Clock;
use crate::hex::hex;

/// Between attempts to follow an agent that does not speak the Workload API as it should.
const PAUSE: Duration = Duration::from_secs(10);
/// An agent that has just issued a certificate is followed within this time.
const FOLLOWED: Duration = Duration::from_secs(2);
/// A certificate of an agent that is not followed may be withdrawn unseen: it is asked for again after this time.
const UNFOLLOWED_LIFE: Duration = Duration::from_secs(60);

/// Which identity is asked of which agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadApiSettings {
    /// The agent's socket: `unix:///PATH`.
    pub socket: Arc<str>,
    /// The SPIFFE ID, where the agent has several for this workload; `None` is its first.
    pub spiffe_id: Option<Arc<str>>,
}

/// The agents that are followed, each once, whatever the number of routes and whenever the configuration is read again.
#[derive(Clone, Debug, Default)]
pub struct WorkloadApis(Arc<Mutex<HashMap<WorkloadApiSettings, Weak<Workload>>>>);

impl WorkloadApis {
    /// The certificates of one identity. Nobody is asked before the first is needed.
    #[must_use]
    pub fn source(&self, settings: &WorkloadApiSettings, clock: Clock) -> WorkloadApiSource {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, workload| workload.strong_count() > 0);
        if let Some(workload) = known.get(settings).and_then(Weak::upgrade) {
            return WorkloadApiSource { workload, clock };
        }
        let workload = Arc::new(Workload {
            settings: settings.clone(),
            id: Uuid::new_v4(),
            followed: Arc::default(),
            following: OnceLock::new(),
            latest: ArcSwapOption::empty(),
        });
        known.insert(settings.clone(), Arc::downgrade(&workload));
        WorkloadApiSource { workload, clock }
    }
}

/// Shows the same certificate for every caller, as the agent has it now.
#[derive(Clone, Debug)]
pub struct WorkloadApiSource {
    workload: Arc<Workload>,
    clock: Clock,
}

struct Workload {
    settings: WorkloadApiSettings,
    /// Its revisions are counted from the beginning by whoever follows the agent anew.
    id: Uuid,
    followed: Arc<Followed>,
    following: OnceLock<AbortOnDropHandle<()>>,
    latest: ArcSwapOption<Certificate>,
}

#[derive(Default)]
struct Followed {
    /// There once the agent has given a first certificate.
    source: OnceLock<X509Source>,
    is_there: Notify,
}

/// A certificate as it came, and as TLS takes it.
#[derive(Clone)]
struct Certificate {
    svid: Arc<X509Svid>,
    identity: Arc<ClientIdentity>,
}

impl fmt::Debug for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Workload").field(&self.settings).finish()
    }
}

impl Workload {
    /// Follows the agent from now on, which goes on by itself whatever becomes of the agent.
    fn follow(&self) {
        self.following.get_or_init(|| {
            let (settings, followed) = (self.settings.clone(), self.followed.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    let wanted = settings.spiffe_id.clone();
                    let builder = X509Source::builder().endpoint(&settings.socket).picker(Wanted(wanted));
                    match builder.build().await {
                        Ok(source) => {
                            let _first = followed.source.set(source);
                            return followed.is_there.notify_waiters();
                        }
                        Err(error) => {
                            tracing::warn!(socket = %settings.socket, %error, "the Workload API cannot be followed");
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
            }))
        });
    }

    /// Waits a moment for the agent to be followed.
    async fn is_followed(&self) {
        let mut notified = std::pin::pin!(self.followed.is_there.notified());
        notified.as_mut().enable();
        if self.followed.source.get().is_none() {
            let _in_time = tokio::time::timeout(FOLLOWED, notified).await;
        }
    }

    /// The certificate as the agent has it now; `None` before the first and after it was withdrawn.
    fn current(&self) -> Option<Result<Arc<Certificate>, SourceError>> {
        let svid = self.followed.source.get()?.svid().ok()?;
        if let Some(latest) = self.latest.load_full().filter(|latest| Arc::ptr_eq(&latest.svid, &svid)) {
            return Some(Ok(latest));
        }
        Some(Certificate::new(svid).map(|certificate| {
            let certificate = Arc::new(certificate);
            self.latest.store(Some(certificate.clone()));
            certificate
        }))
    }

    /// Asks once, for whoever cannot wait until the agent is followed, or would know why it cannot be.
    async fn asked(&self) -> Result<Arc<Certificate>, SourceError> {
        let settings = &self.settings;
        let ask = async { WorkloadApiClient::connect_to(&settings.socket).await?.fetch_all_x509_svids().await };
        let svids: Vec<_> = ask.await.map_err(|error| refused(settings, &error))?.into_iter().map(Arc::new).collect();
        let wanted = Wanted(settings.spiffe_id.clone()).place(&svids).and_then(|place| svids.get(place));
        let wanted = wanted.ok_or_else(|| {
            let ids: Vec<String> = svids.iter().take(10).map(|svid| svid.spiffe_id().to_string()).collect();
            let detail = format!("the agent has no such identity for this workload; it has {}", ids.join(", "));
            SourceError::passing(SourceError::REFUSED, detail)
        })?;
        Certificate::new(wanted.clone()).map(Arc::new)
    }
}

fn refused(settings: &WorkloadApiSettings, error: &WorkloadApiError) -> SourceError {
    if matches!(error, WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_)) {
        let detail = format!("the agent issues no identity to this workload ({error}): is it registered?");
        return SourceError::passing(SourceError::REFUSED, detail);
    }
    SourceError::passing(SourceError::UNAVAILABLE, format!("the agent at {}: {}", settings.socket, with_causes(error)))
}

impl Certificate {
    fn new(svid: Arc<X509Svid>) -> Result<Self, SourceError> {
        let chain = svid.cert_chain().iter().map(|certificate| CertificateDer::from(certificate.as_bytes().to_vec()));
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));
        let identity = ClientIdentity::new(chain.collect(), key).map_err(|error| {
            SourceError::lasting(SourceError::UNREADABLE, format!("what the agent issued cannot be shown: {error}"))
        })?;
        Ok(Self { svid, identity: Arc::new(identity) })
    }

    fn issued(&self) -> Issued {
        let identity = &self.identity;
        Issued {
            id: identity.serial().clone(),
            expires_at: identity.expires_at(),
            renew_at: None,
            facts: vec![
                ("serial", Value::from(&**identity.serial())),
                ("uri", Value::from(self.svid.spiffe_id().to_string())),
                ("fingerprint", Value::from(hex(identity.fingerprint()))),
            ],
            proof: Proof::Certificate(identity.clone()),
        }
    }
}

/// The identity that is wanted among several.
#[derive(Debug)]
struct Wanted(Option<Arc<str>>);

impl Wanted {
    fn place(&self, svids: &[Arc<X509Svid>]) -> Option<usize> {
        match &self.0 {
            None => (!svids.is_empty()).then_some(0),
            Some(wanted) => svids.iter().position(|svid| svid.spiffe_id().to_string() == **wanted),
        }
    }
}

impl spiffe::x509_source::SvidPicker for Wanted {
    fn pick_svid(&self, svids: &[Arc<X509Svid>]) -> Option<usize> {
        self.place(svids)
    }
}

/// The certificate of this moment.
#[derive(Debug)]
pub struct WorkloadApiRequest {
    settings: WorkloadApiSettings,
    id: Uuid,
    /// How often the agent has replaced or withdrawn it.
    revision: u64,
}

impl CredentialRequest for WorkloadApiRequest {
    fn digest(&self, key: &mut KeyDigest) {
        key.part("id", self.id.as_bytes()).part("revision", self.revision.to_be_bytes());
    }

    fn shown(&self) -> Value {
        json!({ "socket": &*self.settings.socket, "spiffe_id": self.settings.spiffe_id.as_deref() })
    }
}

impl CredentialSource for WorkloadApiSource {
    type Request = WorkloadApiRequest;

    fn kind(&self) -> &'static str {
        KIND
    }

    fn request(&self, _ask: &Ask<'_>) -> Result<WorkloadApiRequest, CredentialError> {
        let Workload { settings, id, followed, .. } = &*self.workload;
        let revision = followed.source.get().map_or(0, |source| source.state().revision());
        Ok(WorkloadApiRequest { settings: settings.clone(), id: *id, revision })
    }

    fn fetch(self: Arc<Self>, _request: Arc<WorkloadApiRequest>) -> BoxFuture<'static, Result<Issued, SourceError>> {
        async move {
            let workload = &self.workload;
            workload.follow();
            if let Some(certificate) = workload.current() {
                return Ok(certificate?.issued());
            }
            // It says at once what is wrong, which whoever follows it does not.
            let asked = workload.asked().await?.issued();
            workload.is_followed().await;
            if let Some(certificate) = workload.current() {
                return Ok(certificate?.issued());
            }
            let end = self.clock.now().plus(UNFOLLOWED_LIFE);
            Ok(Issued { expires_at: asked.expires_at.min(end), ..asked })
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        Vec::new()
    }

    fn digest(&self, key: &mut KeyDigest) {
        key.part("socket", self.workload.settings.socket.as_bytes());
        key.optional("spiffe_id", self.workload.settings.spiffe_id.as_deref());
    }
}
