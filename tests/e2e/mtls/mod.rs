//! Client certificates as credentials: what the upstream verifies and sees of each caller.

#[cfg(feature = "spiffe")]
mod workload_api;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::{AuditRecord, Authority, Gate, OpenBao, RunningGate, StaticIssuer, eventually};

/// The authority that upstreams of this test take client certificates of.
struct Mesh {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Mesh {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "mesh");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = parameters.self_signed(&key).unwrap().pem();
        Self { certificate, key: key.serialize_pem(), issuer: Issuer::new(parameters, key) }
    }

    /// A client's certificate and its key.
    fn client(&self, serial: u64) -> (String, String) {
        let mut parameters = CertificateParams::new(vec!["doorward.test".to_owned()]).unwrap();
        parameters.serial_number = Some(SerialNumber::from(serial));
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// What a server saw of one request.
#[derive(Clone, Debug)]
struct Seen {
    connection: usize,
    target: String,
    authorization: Option<String>,
    body: String,
    serial: String,
    uri: Option<String>,
}

/// A TLS server that takes nobody without a certificate of the mesh, and tells which one it saw.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    async fn start(authority: &Authority, mesh: &Mesh, answer: &'static str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(mesh.certificate.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let chain = vec![CertificateDer::from_pem_file(authority.folder().join("server.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(authority.folder().join("server.key")).unwrap();
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        let mut config = config.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let recording = seen.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(connection, acceptor.accept(stream), recording.clone(), answer));
            }
        });
        Self { address, seen, accepting }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    connection: usize,
    accepting: tokio_rustls::Accept<tokio::net::TcpStream>,
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: &'static str,
) {
    let Ok(stream) = accepting.await else { return };
    let (serial, uri) = named(&stream.get_ref().1.peer_certificates().unwrap()[0]);
    let service = service_fn(|request: Request<Incoming>| {
        let (seen, serial, uri) = (seen.clone(), serial.clone(), uri.clone());
        async move {
            let target = request.uri().path().to_owned();
            let authorization = request.headers().get("authorization").map(|it| it.to_str().unwrap().to_owned());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            seen.lock().unwrap().push(Seen { connection, target, authorization, body, serial, uri });
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(answer.as_bytes()))))
        }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ended = server.serve_connection(TokioIo::new(stream), service).await;
}

/// Serial number and URI of a certificate.
fn named(certificate: &CertificateDer<'_>) -> (String, Option<String>) {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    let names = parsed.subject_alternative_name().unwrap().map(|names| names.value.general_names.clone());
    let uri = names.iter().flatten().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        Some((*uri).to_owned())
    });
    (parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(), uri)
}

struct World {
    mesh: Mesh,
    issuer: StaticIssuer,
    upstream: Server,
    gate: Gate,
}

impl World {
    /// At `/things/…`, readers may read what the upstream answers, which takes certificates of the mesh alone.
    async fn new() -> Self {
        let (authority, mesh) = (Authority::new(), Mesh::new());
        let issuer = StaticIssuer::start(&authority).await;
        let upstream = Server::start(&authority, &mesh, "{}").await;
        let gate = Gate::new(&authority)
            .issuer(&issuer)
            .role("reader", json!({ "issuer": "machines", "groups": ["readers"] }))
            .policy(r#"@id("readers-read") permit(principal in Role::"reader", action in Action::"read", resource);"#)
            .config(json!({ "upstreams": {
                "api": { "addresses": [upstream.url()], "tls": { "authorities": "ca.pem" } },
            } }))
            .file("mesh.pem", &mesh.certificate)
            .file("mesh.key", &mesh.key);
        Self { mesh, issuer, upstream, gate }
    }

    fn minting(self) -> Self {
        let gate = self
            .gate
            .config(json!({ "credentials": { "mesh": { "mtls": { "authority": {
                "certificate": "mesh.pem", "key": "file:mesh.key", "trust_domain": "mesh.test",
            } } } } }))
            .route("things", json!({ "path": "/things/{*rest}", "credential": "mesh" }));
        Self { gate, ..self }
    }

    async fn start(self) -> (Mesh, StaticIssuer, Server, RunningGate) {
        let gate = self.gate.start().await;
        gate.becomes_ready(200).await;
        (self.mesh, self.issuer, self.upstream, gate)
    }
}

async fn get(gate: &RunningGate, path: &str, token: &str) {
    let answer = gate.get(path).bearer(token).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn each_caller_has_a_certificate_of_its_own_that_the_upstream_verifies() {
    for protocol in ["http1", "http2"] {
        let mut world = World::new().await.minting();
        world.gate = world.gate.config(json!({ "upstreams": { "api": { "protocol": protocol } } }));
        let (_mesh, issuer, upstream, gate) = world.start().await;
        let tokens = ["machine-1", "build/7 x"].map(|subject| (subject, issuer.token().subject(subject).mint()));
        for round in 0..3 {
            let asks = tokens.iter().cycle().take(12).enumerate().map(|(index, (_, token))| {
                let (gate, path) = (&gate, format!("/things/{}", index % 2));
                async move { get(gate, &format!("{path}/{round}"), token).await }
            });
            futures_util::future::join_all(asks).await;
        }
        let uris = ["spiffe://mesh.test/test/machines/machine-1", "spiffe://mesh.test/test/machines/build%2F7%20x"];
        let seen = upstream.seen();
        assert_eq!(seen.len(), 36);
        let mut by_connection = BTreeMap::<usize, BTreeSet<String>>::new();
        for request in &seen {
            let who: usize = request.target.split('/').nth(2).unwrap().parse().unwrap();
            assert_eq!(request.uri.as_deref(), Some(uris[who]), "{protocol}");
            assert_eq!(request.authorization, None, "the caller's token stays here");
            by_connection.entry(request.connection).or_default().insert(request.serial.clone());
        }
        assert!(by_connection.values().all(|serials| serials.len() == 1), "{protocol}: {by_connection:?}");
        let serials: BTreeSet<_> = seen.iter().map(|request| request.serial.clone()).collect();
        assert_eq!(serials.len(), 2, "{protocol}: one certificate for each");

        for uri in uris {
            let serial = &seen.iter().find(|request| request.uri.as_deref() == Some(uri)).unwrap().serial;
            let is_it = |record: &AuditRecord| record.event() == "credential.issued" && record.text("uri") == uri;
            let record = gate.audited("the certificate's record", is_it).await;
            assert_eq!((record.text("kind"), record.text("serial"), record.text("id")), ("mtls", &**serial, &**serial));
            assert_eq!(record.text("fingerprint").len(), 64);
        }
        let records = gate.settled_audit().await;
        let issued = records.iter().filter(|record| record.event() == "credential.issued").count();
        assert_eq!(issued, 2, "{protocol}: none was minted that nobody needed");
        let of_request = records.iter().find(|record| record.is_request_to("/things/0/0")).unwrap();
        assert!(serials.contains(of_request.text("credential.id")));
    }
}

#[tokio::test]
async fn files_that_are_replaced_while_the_gate_runs_are_shown_from_then_on() {
    let world = World::new().await;
    let first = world.mesh.client(0x11);
    let gate = world
        .gate
        .file("client.pem", &first.0)
        .file("client.key", &first.1)
        .config(json!({ "credentials": { "mesh": { "mtls": { "files": {
            "certificate": "client.pem", "key": "file:client.key",
        } } } } }))
        .route("things", json!({ "path": "/things/{*rest}", "credential": "mesh" }));
    let (mesh, issuer, upstream, gate) = World { gate, ..world }.start().await;
    let tokens = ["machine-1", "machine-2"].map(|subject| issuer.token().subject(subject).mint());
    for token in &tokens {
        get(&gate, "/things/1", token).await;
    }
    let serials = |seen: &[Seen]| seen.iter().map(|request| request.serial.clone()).collect::<Vec<_>>();
    assert_eq!(serials(&upstream.seen()), ["11", "11"], "every caller has the same");

    let second = mesh.client(0x22);
    gate.write("client.pem", &second.0);
    // Half of a replacement: what was good stays.
    get(&gate, "/things/1", &tokens[0]).await;
    assert_eq!(upstream.seen().pop().unwrap().serial, "11");
    gate.write("client.key", &second.1);
    eventually("the new certificate", || async {
        get(&gate, "/things/1", &tokens[0]).await;
        (upstream.seen().pop().unwrap().serial == "22").then_some(())
    })
    .await;
    gate.becomes_ready(200).await;
    get(&gate, "/things/last", &tokens[1]).await;
    assert_eq!(upstream.seen().pop().unwrap().serial, "22");
    assert_eq!(gate.only_record_of("/things/last").await.text("credential.id"), "22");
}

#[tokio::test]
async fn an_authority_that_cannot_sign_is_refused_at_load_with_place_and_mend() {
    let world = World::new().await;
    let leaf = world.mesh.client(1);
    let gate = world.minting().gate.file("mesh.pem", &leaf.0).file("mesh.key", &leaf.1);
    let (code, log) = gate.refuses_to_start().await;
    assert_ne!(code, 0);
    assert!(log.contains("mtls_authority") && log.contains("doorward.yaml:"), "{log}");
    assert!(log.contains("is no certificate authority that signs"), "{log}");
    assert!(log.contains("CA:TRUE"), "the mend: {log}");

    let world = World::new().await;
    let gate = world.minting().gate.file("mesh.key", &Mesh::new().key);
    let (code, log) = gate.refuses_to_start().await;
    assert!(code != 0 && log.contains("the private key is not the certificate's"), "{log}");
}

#[tokio::test]
async fn an_authorization_server_knows_the_gate_by_its_client_certificate() {
    let world = World::new().await;
    let authority = world.gate.authority();
    let answer = r#"{"access_token":"token-of-the-mesh","token_type":"Bearer","expires_in":300}"#;
    let tokens = Server::start(authority, &world.mesh, answer).await;
    let pair = world.mesh.client(0x33);
    let gate = world
        .gate
        .file("client.pem", &pair.0)
        .file("client.key", &pair.1)
        .config(json!({
            "credentials": { "token": { "client_credentials": { "endpoint": {
                "url": format!("{}/token", tokens.url()),
                "authorities": "ca.pem",
                "client": {
                    "id": "gate", "authentication": "tls_client_auth",
                    "certificate": "client.pem", "key": "file:client.key",
                },
            } } } },
            "upstreams": { "api": { "tls": { "certificate": "client.pem", "key": "file:client.key" } } },
        }))
        .route("things", json!({ "path": "/things/{*rest}", "credential": "token" }));
    let (_mesh, issuer, upstream, gate) = World { gate, ..world }.start().await;
    get(&gate, "/things/1", &issuer.token().mint()).await;
    let [asked] = &tokens.seen()[..] else { panic!("one token is asked for") };
    assert_eq!((asked.target.as_str(), asked.serial.as_str(), asked.authorization.as_deref()), ("/token", "33", None));
    assert_eq!(asked.body, "grant_type=client_credentials&client_id=gate");
    let shown = upstream.seen().pop().unwrap();
    assert_eq!(shown.authorization.as_deref(), Some("Bearer token-of-the-mesh"));
    assert_eq!(shown.serial, "33", "a token that is bound to the certificate comes by the same one");
}

#[tokio::test]
async fn a_vault_certifies_each_caller_and_the_connection_shows_it() {
    let bao = OpenBao::start().await;
    let world = World::new().await;
    bao.write("sys/mounts/pki", json!({ "type": "pki" })).await;
    let bundle = format!("{}{}", world.mesh.certificate, world.mesh.key);
    bao.write("pki/config/ca", json!({ "pem_bundle": bundle })).await;
    let role = |uris: &str| {
        json!({
            "allowed_uri_sans": [uris], "require_cn": false, "client_flag": true, "server_flag": false,
            "key_type": "ec", "key_bits": 256, "max_ttl": "1h", "no_store": true,
        })
    };
    bao.write("pki/roles/upstreams", role("spiffe://mesh.test/test/*")).await;
    let documents = "https://tokens.test/doorward";
    let pki = json!({ "vault": {
        "address": bao.url(), "login": { "role": "app" }, "token_audience": "openbao",
        "pki": { "role": "upstreams", "trust_domain": "mesh.test", "lifetime": "10m" },
    } });
    let gate = world
        .gate
        .config(json!({
            "listeners": { "documents": { "address": "127.0.0.1:0" } },
            "assertions": { "issuer": documents, "listener": "documents" },
            "credentials": { "mesh": pki },
        }))
        .route("things", json!({ "path": "/things/{*rest}", "credential": "mesh" }));
    let (_mesh, issuer, upstream, gate) = World { gate, ..world }.start().await;
    let keys = format!("http://{}/doorward/jwks.json", gate.listener_address("documents"));
    let keys = json!({ "jwks_url": keys, "bound_issuer": documents });
    bao.trust(None, "jwt", keys, json!({ "bound_audiences": ["openbao"] })).await;

    for subject in ["machine-1", "machine-2"] {
        let token = issuer.token().subject(subject).mint();
        get(&gate, &format!("/things/{subject}"), &token).await;
        get(&gate, &format!("/things/{subject}/again"), &token).await;
        let uri = format!("spiffe://mesh.test/test/machines/{subject}");
        let seen = upstream.seen();
        let [.., first, second] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!((first.uri.as_deref(), second.uri.as_deref()), (Some(&*uri), Some(&*uri)));
        assert_eq!(first.serial, second.serial, "one certificate for both");
        let is_it = |record: &AuditRecord| record.event() == "credential.issued" && record.text("uri") == uri;
        let record = gate.audited("the certificate's record", is_it).await;
        assert_eq!((record.text("kind"), record.text("id")), ("vault", &*first.serial));
        assert_eq!(record.text("path"), "pki/issue/upstreams");
    }

    // A role that certifies other names alone refuses, and nothing is forwarded.
    bao.write("pki/roles/upstreams", role("spiffe://other.test/*")).await;
    let before = upstream.seen().len();
    let third = gate.get("/things/3").bearer(&issuer.token().subject("machine-3").mint()).send().await;
    assert_eq!(third.status, 503, "{}", third.text());
    let record = gate.audited("the refusal", |record| record.event() == "credential.refused").await;
    assert!(record.text("detail").contains("pki/issue/upstreams"), "{}", record.text("detail"));
    assert_eq!(upstream.seen().len(), before);
}
