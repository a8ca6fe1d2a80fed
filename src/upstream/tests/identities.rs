//! Connections by identity: who shows which certificate, and on which connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::outbound::fingerprint;
use crate::upstream::identities::Identities;

const MINUTE: Duration = Duration::from_secs(60);

/// What the server saw of one request: the connection, and the certificate that it began with.
#[derive(Clone, Debug)]
struct Seen {
    connection: usize,
    path: String,
    certificate: Option<[u8; 32]>,
}

#[derive(Default)]
struct Record {
    requests: Mutex<Vec<Seen>>,
    /// Of each connection, whether its handshake was a full one.
    full_handshakes: Mutex<Vec<bool>>,
}

impl Record {
    fn requests(&self) -> Vec<Seen> {
        self.requests.lock().unwrap().clone()
    }

    /// Which certificates each connection served requests for.
    fn certificates_by_connection(&self) -> BTreeMap<usize, BTreeSet<Option<[u8; 32]>>> {
        let mut all = BTreeMap::<_, BTreeSet<_>>::new();
        for seen in self.requests() {
            all.entry(seen.connection).or_default().insert(seen.certificate);
        }
        all
    }
}

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }

    fn pair(&self, name: &str, ends_at: Timestamp) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.not_after = OffsetDateTime::from_unix_timestamp(ends_at.unix_seconds()).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    fn identity_until(&self, name: &str, ends_at: Timestamp) -> Arc<ClientIdentity> {
        let (certificate, key) = self.pair(name, ends_at);
        Arc::new(ClientIdentity::new(vec![certificate], key).unwrap())
    }

    fn identity(&self, name: &str) -> Arc<ClientIdentity> {
        self.identity_until(name, Clock::system().now().plus(60 * MINUTE))
    }
}

/// A server and those it lets in.
struct World {
    clients: Authority,
    upstream: Arc<Upstream>,
    record: Arc<Record>,
    clock: Clock,
}

/// Whether the server lets in clients without a certificate too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strangers {
    In,
    Out,
}

impl World {
    async fn new(protocol: UpstreamProtocol, strangers: Strangers) -> Self {
        Self::by_versions(protocol, strangers, rustls::ALL_VERSIONS).await
    }

    async fn by_versions(
        protocol: UpstreamProtocol,
        strangers: Strangers,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots(), provider.clone());
        let verifier = match strangers {
            Strangers::In => verifier.allow_unauthenticated(),
            Strangers::Out => verifier,
        };
        let (certificate, key) = servers.pair("127.0.0.1", Clock::system().now().plus(60 * MINUTE));
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let config = config.with_client_cert_verifier(verifier.build().unwrap());
        let mut config = config.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A server of its own tickets takes any of them, and remembers by them who the client was.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let record = Arc::<Record>::default();
        let recording = record.clone();
        let address = raw(move |connection, stream| {
            let (acceptor, record) = (acceptor.clone(), recording.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let tls = stream.get_ref().1;
                let certificate = tls.peer_certificates().and_then(|chain| chain.first());
                let certificate = certificate.map(|certificate| fingerprint(certificate));
                let full = tls.handshake_kind() != Some(HandshakeKind::Resumed);
                record.full_handshakes.lock().unwrap().push(full);
                let service = service_fn(move |request: Request<Incoming>| {
                    let path = request.uri().path().to_owned();
                    record.requests.lock().unwrap().push(Seen { connection, path, certificate });
                    async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok")))) }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _closed = server.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        let address = UpstreamAddress::parse(&format!("https://{address}")).unwrap();
        let tls = UpstreamTls { authorities: Some(vec![servers.certificate.clone()]), ..UpstreamTls::default() };
        let settings = UpstreamSettings { protocol, tls, ..UpstreamSettings::new("billing", vec![address]) };
        let clock = Clock::system();
        let upstream = Upstream::new(settings, clock.clone()).unwrap();
        Self { clients, upstream, record, clock }
    }

    async fn ask(&self, path: &str, identity: Option<&Arc<ClientIdentity>>) {
        let answer = Ask::get(path).by(identity).send(&self.upstream).await.unwrap();
        assert_eq!(read_all(answer.response.into_body()).await.unwrap(), "ok");
    }

    /// What the server sees of a request that the upstream refuses or is refused.
    async fn fails(&self, identity: Option<&Arc<ClientIdentity>>) -> &'static str {
        Ask::get("/").by(identity).send(&self.upstream).await.unwrap_err().code()
    }
}

fn of(identity: &Arc<ClientIdentity>) -> Option<[u8; 32]> {
    Some(*identity.fingerprint())
}

#[tokio::test]
async fn no_connection_ever_serves_two_identities_or_one_and_nobody() {
    use UpstreamProtocol::{Auto, Http1, Http2};
    for protocol in [Http1, Http2, Auto] {
        let world = World::new(protocol, Strangers::In).await;
        let callers = [None, Some(world.clients.identity("ada")), Some(world.clients.identity("bob"))];
        for round in 0..4 {
            let asks = (0..30).map(|index| {
                let who = (index + round) % callers.len();
                let (world, caller) = (&world, callers[who].as_ref());
                async move { world.ask(&format!("/{who}"), caller).await }
            });
            futures_util::future::join_all(asks).await;
        }
        let requests = world.record.requests();
        assert_eq!(requests.len(), 120);
        for seen in &requests {
            let who: usize = seen.path[1..].parse().unwrap();
            assert_eq!(seen.certificate, callers[who].as_ref().and_then(of), "{protocol:?}");
        }
        let connections = world.record.certificates_by_connection();
        assert!(connections.values().all(|certificates| certificates.len() == 1), "{protocol:?}");
        assert!(connections.len() < requests.len(), "{protocol:?}: connections are used again");
        if protocol != Http1 {
            assert_eq!(connections.len(), 3, "{protocol:?}: one for each");
        }
        let stats = world.upstream.stats();
        assert_eq!(stats.open, connections.len(), "all are counted: {stats:?}");
        assert_eq!(stats.idle, if protocol == Http1 { connections.len() } else { 0 });
    }
}

#[tokio::test]
async fn an_identity_uses_its_connection_again_and_another_has_its_own() {
    let world = World::new(UpstreamProtocol::Http1, Strangers::In).await;
    let (ada, bob) = (world.clients.identity("ada"), world.clients.identity("bob"));
    for caller in [Some(&ada), Some(&bob), None, Some(&ada), Some(&bob), None, Some(&ada)] {
        world.ask("/", caller).await;
    }
    let connections: Vec<usize> = world.record.requests().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1, 2, 0, 1, 2, 0]);
}

#[tokio::test]
async fn a_tls_session_of_one_identity_is_resumed_by_nobody_else() {
    for version in rustls::ALL_VERSIONS {
        let world = World::by_versions(UpstreamProtocol::Http1, Strangers::In, &[version]).await;
        let (ada, bob) = (world.clients.identity("ada"), world.clients.identity("bob"));
        let mut expected = Vec::new();
        for (caller, full) in [
            (Some(&ada), true),
            (Some(&bob), true),
            (None, true),
            (Some(&bob), false),
            (Some(&ada), false),
            (None, false),
        ] {
            world.ask("/", caller).await;
            expected.push(full);
            // The next request has to open a connection of its own.
            for endpoints in world.upstream.all_endpoints() {
                endpoints.iter().for_each(|endpoint| endpoint.break_idle());
            }
            while world.upstream.stats().open > 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(*world.record.full_handshakes.lock().unwrap(), expected, "{version:?}");
        let certificates: Vec<_> = world.record.requests().iter().map(|seen| seen.certificate).collect();
        assert_eq!(certificates, [of(&ada), of(&bob), None, of(&bob), of(&ada), None], "{version:?}");
    }
}

#[tokio::test]
async fn beyond_the_most_identities_the_one_used_longest_ago_is_let_go_of_with_its_connections() {
    let mut world = World::new(UpstreamProtocol::Http1, Strangers::Out).await;
    Arc::get_mut(&mut world.upstream).unwrap().identities = Identities::new(2);
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(|name| world.clients.identity(name));
    for caller in [&ada, &bob, &ada, &eve] {
        world.ask("/", Some(caller)).await;
    }
    let stats = world.upstream.stats();
    assert_eq!((world.upstream.identities.len(), stats.open, stats.idle), (2, 2, 2), "bob's is closed");
    world.ask("/", Some(&ada)).await;
    world.ask("/", Some(&bob)).await;
    let connections: Vec<usize> = world.record.requests().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1, 0, 2, 0, 3]);
}

#[tokio::test]
async fn an_exchange_under_way_outlives_its_place_and_is_counted_to_its_end() {
    let mut world = World::new(UpstreamProtocol::Http1, Strangers::Out).await;
    Arc::get_mut(&mut world.upstream).unwrap().identities = Identities::new(1);
    let (ada, bob) = (world.clients.identity("ada"), world.clients.identity("bob"));
    let held = Ask::get("/").by(Some(&ada)).send(&world.upstream).await.unwrap();
    world.ask("/", Some(&bob)).await;
    assert_eq!((world.upstream.identities.len(), world.upstream.stats().open), (1, 2));
    assert_eq!(read_all(held.response.into_body()).await.unwrap(), "ok");
    assert_eq!(world.upstream.stats().open, 1, "nobody could use it again");
}

#[tokio::test]
async fn a_certificate_that_has_ended_opens_nothing_and_its_connections_go() {
    let world = World::new(UpstreamProtocol::Http1, Strangers::Out).await;
    let start = world.clock.now();
    let (short, long) = (world.clients.identity_until("ada", start.plus(10 * MINUTE)), world.clients.identity("bob"));
    world.ask("/", Some(&short)).await;
    world.ask("/", Some(&long)).await;
    world.clock.advance(9 * MINUTE);
    world.ask("/", Some(&short)).await;
    assert_eq!(world.upstream.stats().open, 2);
    world.clock.advance(MINUTE);
    assert_eq!(world.fails(Some(&short)).await, "client_certificate_unusable");
    assert_eq!(world.upstream.stats().open, 1, "the open connection is not used on");
    // Nobody asks by it any more, and it is let go of all the same.
    world.clock.advance(60 * MINUTE);
    assert_eq!((world.upstream.stats().open, world.upstream.identities.len()), (0, 0));
    assert_eq!(world.record.requests().len(), 3);
}

#[tokio::test]
async fn an_identity_without_use_is_let_go_of_after_a_while() {
    let world = World::new(UpstreamProtocol::Http2, Strangers::Out).await;
    let ada = world.clients.identity("ada");
    world.ask("/", Some(&ada)).await;
    assert_eq!((world.upstream.stats().open, world.upstream.identities.len()), (1, 1));
    tokio::time::pause();
    tokio::time::advance(5 * MINUTE).await;
    assert_eq!((world.upstream.stats().open, world.upstream.identities.len()), (0, 0));
}

#[tokio::test]
async fn a_certificate_that_the_upstream_refuses_sets_no_address_aside() {
    for version in rustls::ALL_VERSIONS {
        for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
            let world = World::by_versions(protocol, Strangers::Out, &[version]).await;
            let (ada, stranger) = (world.clients.identity("ada"), Authority::new("others").identity("eve"));
            for _ in 0..10 {
                let code = world.fails(Some(&stranger)).await;
                assert!(["upstream_tls", "upstream_closed", "upstream_connect_failed"].contains(&code), "{code}");
            }
            assert_eq!(world.upstream.stats().ejected, 0, "{version:?} {protocol:?}");
            world.ask("/", Some(&ada)).await;
        }
    }
}

#[tokio::test]
async fn an_upstream_without_tls_is_not_reached_by_a_certificate() {
    let (address, mut seen) = recorder().await;
    let upstream = upstream_at(address);
    let ada = Authority::new("clients").identity("ada");
    let error = Ask::get("/").by(Some(&ada)).send(&upstream).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("client_certificate_unusable", FailureClass::Unavailable));
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn an_identity_is_shown_instead_of_the_upstreams_own_certificate() {
    let world = World::new(UpstreamProtocol::Http1, Strangers::Out).await;
    let mut settings = world.upstream.settings().clone();
    let (certificate, key) = world.clients.pair("doorward", world.clock.now().plus(MINUTE));
    settings.tls.certificate = Some(UpstreamCertificate { chain: vec![certificate.clone()], key: Arc::new(key) });
    let upstream = upstream(settings);
    let ada = world.clients.identity("ada");
    for caller in [Some(&ada), None, Some(&ada)] {
        Ask::get("/").by(caller).send(&upstream).await.unwrap();
    }
    let certificates: Vec<_> = world.record.requests().iter().map(|seen| seen.certificate).collect();
    assert_eq!(certificates, [of(&ada), Some(fingerprint(&certificate)), of(&ada)]);
}

#[tokio::test]
async fn one_identity_keeps_what_the_settings_say_and_all_together_no_more_than_a_bound() {
    let world = World::new(UpstreamProtocol::Http1, Strangers::Out).await;
    let mut settings = world.upstream.settings().clone();
    settings.idle_connections = 2;
    let upstream = upstream(settings);
    let ada = world.clients.identity("ada");
    let asks = (0..5).map(|_| Ask::get("/").by(Some(&ada)).send(&upstream));
    let answers = futures_util::future::join_all(asks).await;
    for answer in answers {
        read_all(answer.unwrap().response.into_body()).await.unwrap();
    }
    assert_eq!((upstream.stats().idle, upstream.stats().open), (2, 2), "of one identity, what the settings say");

    // As if others had nearly all of what there is.
    let others = upstream.endpoints[0].idle_of_others(1);
    let once = async |who: &Arc<ClientIdentity>| {
        let answer = Ask::get("/").by(Some(who)).send(&upstream).await.unwrap();
        read_all(answer.response.into_body()).await.unwrap();
    };
    let bob = world.clients.identity("bob");
    once(&bob).await;
    assert_eq!(upstream.stats().idle, 3, "the last one");
    let held = Ask::get("/").by(Some(&bob)).send(&upstream).await.unwrap();
    once(&world.clients.identity("eve")).await;
    assert_eq!(upstream.stats().idle, 3, "a connection in use left room for one");
    read_all(held.response.into_body()).await.unwrap();
    assert_eq!((upstream.stats().idle, upstream.stats().open), (3, 3), "and then there was none");
    drop(others);
    once(&bob).await;
    assert_eq!(upstream.stats().idle, 4);
}
