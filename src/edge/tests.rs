//! A fault injected into a step of the line, with everything else around it real.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderName, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::audit::{Audit, Destination, WhenFull, Writer, WriterSettings};
use crate::body;
use crate::clock::{Clock, Timestamp};
use crate::credential::{Ask, Credential, CredentialError, CredentialProvider};
use crate::identity::testing::{route, workload};
use crate::identity::{IdentityError, IdentityVerifier, Presented, Principal, PrincipalKind};
use crate::peer::{Transport, TrustedProxies};
use crate::policy::{Policies, PolicySettings, PolicySource, RoleSettings, RoleTrust};
use crate::proxy::{ProxyParts, ServedRoute, Snapshot};
use crate::route::{EvidenceKind, Router};
use crate::shutdown::Shutdown;
use crate::upstream::{ProtectedHeaders, Upstream, UpstreamAddress, UpstreamSettings};

/// A step that panics when it is told to, and lets everybody pass otherwise.
#[derive(Debug, Default)]
struct Step {
    faulty: AtomicBool,
}

impl Step {
    fn run(&self) {
        assert!(!self.faulty.swap(false, Ordering::SeqCst), "a fault of ours");
    }
}

impl IdentityVerifier for Step {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Bearer
    }

    fn presents(&self, _: &Presented<'_>) -> Result<bool, IdentityError> {
        Ok(true)
    }

    fn verify<'a>(&'a self, presented: Presented<'a>) -> BoxFuture<'a, Result<Arc<Principal>, IdentityError>> {
        async move {
            self.run();
            Ok(workload(presented.now))
        }
        .boxed()
    }

    fn recognise_again(&self, principal: &Arc<Principal>, _: Timestamp) -> Option<Arc<Principal>> {
        Some(principal.clone())
    }
}

impl CredentialProvider for Step {
    fn issue<'a>(&'a self, _: &'a Ask<'a>) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        async move {
            self.run();
            Ok(Credential::nobodys())
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        Vec::new()
    }
}

fn policies(router: &Router) -> Policies {
    let trust = vec![RoleTrust { issuer: "ci".into(), groups: Vec::new(), claims: Vec::new() }];
    let role = RoleSettings { name: "all".into(), trust, environment: "production".into(), longest_session: None };
    let text = r#"@id("all") permit(principal in Role::"all", action, resource);"#;
    let settings = PolicySettings {
        issuers: BTreeMap::from([("ci".into(), PrincipalKind::Workload)]),
        attributes: Vec::new(),
        roles: vec![role],
        routes: router.routes().to_vec(),
        sources: vec![PolicySource { file: "rules.cedar".into(), text: text.into(), guardrail: false }],
    };
    Policies::load(settings, Arc::default()).unwrap()
}

/// An upstream that answers every connection with `ok`.
async fn upstream() -> Arc<Upstream> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _read = stream.read(&mut head).await;
            let _hung_up =
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
        }
    });
    Upstream::new(UpstreamSettings::new("api", vec![UpstreamAddress::parse(&address).unwrap()]), Clock::system())
        .unwrap()
}

struct World {
    identify: Arc<Step>,
    credential: Arc<Step>,
    proxy: Arc<Proxy>,
    lines: Arc<Mutex<String>>,
    writer: Writer,
}

impl World {
    async fn new() -> Self {
        let (identify, credential) = (Arc::<Step>::default(), Arc::<Step>::default());
        let metrics = Arc::new(Metrics::new());
        let router = Router::new(vec![route()]).unwrap();
        let policies = policies(&router);
        let served = ServedRoute {
            upstream: upstream().await,
            credential: credential.clone(),
            protected: Arc::new(ProtectedHeaders::new([])),
            plain_identity: None,
            metrics: metrics.route("invoices"),
        };
        let snapshot = Snapshot {
            hash: "h".into(),
            router,
            served: vec![served],
            verifiers: vec![identify.clone()],
            sessions: None,
            login: None,
            documents: None,
            documents_listener: None,
            policies,
            trusted_proxies: TrustedProxies::default(),
        };
        let lines = Arc::<Mutex<String>>::default();
        let to = lines.clone();
        let callback = move |text: &str| {
            to.lock().unwrap().push_str(text);
            Ok(())
        };
        let destination = Destination::Callback(Box::new(callback));
        let settings = WriterSettings { destination, queue: 10, when_full: WhenFull::Refuse };
        let (writer, audit): (Writer, Audit) = Writer::start(settings).unwrap();
        let proxy = Arc::new(Proxy::new(ProxyParts {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            audit,
            metrics,
            clock: Clock::system(),
            shutdown: Shutdown::new(),
            concurrent_requests: 1,
            requests_per_source: None,
            strict_audit: false,
        }));
        Self { identify, credential, proxy, lines, writer }
    }

    async fn ask(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("host", "a.test").body(body::empty()).unwrap();
        let address = "192.0.2.7:1".parse().unwrap();
        let peer = Arc::new(Peer {
            address,
            socket_address: address,
            listener: "public".into(),
            transport: Transport::Plain,
            tls: None,
            certificate: None,
        });
        let answer = handler(self.proxy.clone())(request, peer, Admission::Admitted).await;
        let status = answer.status();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&text).into_owned())
    }
}

#[tokio::test]
async fn a_panic_of_a_step_is_a_500_on_record_is_counted_and_takes_nothing_else_with_it() {
    let world = World::new().await;
    for (step, path) in [(&world.identify, "/identify"), (&world.credential, "/credential")] {
        assert_eq!(world.ask("/before").await, (StatusCode::OK, "ok".to_owned()));
        step.faulty.store(true, Ordering::SeqCst);
        let (status, text) = world.ask(path).await;
        assert_eq!(status, 500, "{text}");
        assert!(text.contains("internal_error") && !text.contains("a fault of ours"), "{text}");
    }
    // One request at once: the places of those that panicked were given back.
    assert_eq!(world.ask("/after").await, (StatusCode::OK, "ok".to_owned()));
    assert_eq!(world.proxy.metrics().panics.get(), 2);
    assert_eq!(world.proxy.metrics().requests_in_flight.get(), 0);
    world.writer.finish(Duration::from_secs(30)).await.unwrap();
    let lines = world.lines.lock().unwrap();
    let of = |path: &str| {
        let all = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let mut all: Vec<_> = all.filter(|line| line["path"] == path && line["event"] == "request").collect();
        assert_eq!(all.len(), 1, "{path} in {lines}");
        all.remove(0)
    };
    for path in ["/identify", "/credential"] {
        let record = of(path);
        assert_eq!((&record["code"], &record["status"]), (&"internal_error".into(), &500.into()), "{record}");
    }
    assert_eq!(of("/after")["code"], "ok");
}
