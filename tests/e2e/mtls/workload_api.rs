//! The certificate of the gate's own workload, as an agent beside it issues, replaces and withdraws it.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Mesh, World, get};
use crate::support::{eventually, peer_file, within};

/// An agent (`tests/peers/spiffe/`). Dropping it ends it.
struct Agent {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    async fn start(socket: &str) -> Self {
        let mut process = Command::new(peer_file("python/bin/python"))
            .arg(peer_file("spiffe/agent.py"))
            .arg(socket)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts (`make test` installs it)");
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut agent = Self { _process: process, input, output: BufReader::new(output).lines() };
        agent.says("ready").await;
        agent
    }

    async fn says(&mut self, word: &str) {
        let line = within("the agent", self.output.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some(word), "`make test` installs what the agent needs");
    }

    /// What every workload has from now on.
    async fn issues(&mut self, identities: &[Value]) {
        let line = format!("{}\n", Value::from(identities));
        self.input.write_all(line.as_bytes()).await.unwrap();
        self.says("taken").await;
    }
}

impl Mesh {
    fn identity(&self, serial: u64, path: &str) -> Value {
        let uri = format!("spiffe://mesh.test/{path}");
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(SerialNumber::from(serial));
        parameters.subject_alt_names = vec![SanType::URI(uri.clone().try_into().unwrap())];
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let bundle = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        json!({
            "spiffe_id": uri,
            "svid": STANDARD.encode(certificate.der()),
            "key": STANDARD.encode(key.serialize_der()),
            "bundle": STANDARD.encode(bundle),
        })
    }
}

/// A gate that asks the agent at a socket in a folder of its own.
async fn world(settings: Value) -> (TempDir, String, World) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock").to_str().unwrap().to_owned();
    let mut settings = settings;
    settings["socket"] = format!("unix://{socket}").into();
    let world = World::new().await;
    let gate = world
        .gate
        .config(json!({ "credentials": {
            "mesh": { "mtls": { "workload_api": settings } },
        } }))
        .route("things", json!({ "path": "/things/{*rest}", "credential": "mesh" }));
    (folder, socket, World { gate, ..world })
}

#[tokio::test]
async fn the_agents_certificate_is_shown_for_everybody_replaced_with_it_and_withdrawn_with_it() {
    let (_folder, socket, world) = world(json!({})).await;
    let mut agent = Agent::start(&socket).await;
    agent.issues(&[world.mesh.identity(0x11, "gate"), world.mesh.identity(0x99, "other")]).await;
    let (mesh, issuer, upstream, gate) = world.start().await;
    let tokens = ["machine-1", "machine-2"].map(|subject| issuer.token().subject(subject).mint());
    for token in &tokens {
        get(&gate, "/things/1", token).await;
    }
    for seen in upstream.seen() {
        assert_eq!((&*seen.serial, seen.uri.as_deref()), ("11", Some("spiffe://mesh.test/gate")));
        assert_eq!(seen.authorization, None, "the caller's token stays here");
    }
    let record = gate.audited("the certificate", |record| record.event() == "credential.issued").await;
    assert_eq!((record.text("kind"), record.text("id"), record.text("serial")), ("mtls", "11", "11"));
    assert_eq!(record.text("uri"), "spiffe://mesh.test/gate");
    let records = gate.settled_audit().await;
    let issued = records.iter().filter(|record| record.event() == "credential.issued").count();
    assert_eq!(issued, 1, "one certificate for both");

    agent.issues(&[mesh.identity(0x22, "gate")]).await;
    eventually("the next certificate", || async {
        get(&gate, "/things/2", &tokens[0]).await;
        (upstream.seen().pop().unwrap().serial == "22").then_some(())
    })
    .await;

    drop(agent);
    get(&gate, "/things/without-agent", &tokens[1]).await;
    assert_eq!(upstream.seen().pop().unwrap().serial, "22", "the agent's absence is bridged");
    std::fs::remove_file(&socket).unwrap();
    let mut agent = Agent::start(&socket).await;
    eventually("the withdrawal", || async {
        let answer = gate.get("/things/3").bearer(&tokens[0]).send().await;
        (answer.status == 503).then_some(())
    })
    .await;
    let refused = gate.audited("the refusal", |record| record.event() == "credential.refused").await;
    assert!(refused.text("detail").contains("issues no identity to this workload"), "{}", refused.text("detail"));

    agent.issues(&[mesh.identity(0x33, "gate")]).await;
    eventually("the certificate after the withdrawal", || async {
        let answer = gate.get("/things/4").bearer(&tokens[0]).send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(upstream.seen().pop().unwrap().serial, "33");
}

#[tokio::test]
async fn an_agent_that_is_away_fails_its_own_route_alone_and_is_found_when_it_comes() {
    let (_folder, socket, world) = world(json!({ "spiffe_id": "spiffe://mesh.test/second" })).await;
    let files = world.mesh.client(0x44);
    let gate = world
        .gate
        .file("client.pem", &files.0)
        .file("client.key", &files.1)
        .config(json!({ "credentials": {
            "files": { "mtls": { "files": { "certificate": "client.pem", "key": "file:client.key" } } },
        } }))
        .route("files", json!({ "path": "/files/{*rest}", "credential": "files" }));
    let (mesh, issuer, upstream, gate) = World { gate, ..world }.start().await;
    let token = issuer.token().mint();
    let status = |path: &'static str| {
        let (gate, token) = (&gate, &token);
        async move { gate.get(path).bearer(token).send().await.status.as_u16() }
    };
    assert_eq!((status("/things/1").await, status("/files/1").await), (503, 200));
    let refused = gate.audited("the refusal", |record| record.event() == "credential.refused").await;
    assert!(refused.text("detail").contains(&socket), "{}", refused.text("detail"));

    let mut agent = Agent::start(&socket).await;
    agent.issues(&[mesh.identity(0x11, "first")]).await;
    let other = "it has spiffe://mesh.test/first";
    eventually("the wrong identity", || async {
        (status("/things/2").await == 503).then_some(())?;
        let records = gate.settled_audit().await;
        let told = |record: &crate::support::AuditRecord| {
            record.event() == "credential.refused" && record.text("detail").contains(other)
        };
        records.iter().any(told).then_some(())
    })
    .await;
    agent.issues(&[mesh.identity(0x11, "first"), mesh.identity(0x22, "second")]).await;
    eventually("the right identity", || async { (status("/things/3").await == 200).then_some(()) }).await;
    assert_eq!(upstream.seen().pop().unwrap().serial, "22");
}

#[tokio::test]
async fn an_identity_that_comes_back_by_a_reload_is_followed_again() {
    let (_folder, socket, world) = world(json!({})).await;
    let mut agent = Agent::start(&socket).await;
    agent.issues(&[world.mesh.identity(0x11, "gate"), world.mesh.identity(0x33, "other")]).await;
    let (mesh, issuer, upstream, gate) = world.start().await;
    let token = issuer.token().mint();
    let shows = async |serial: &str| {
        eventually(&format!("the certificate {serial}"), || async {
            get(&gate, "/things/1", &token).await;
            (upstream.seen().pop().unwrap().serial == serial).then_some(())
        })
        .await;
    };
    shows("11").await;
    let before = gate.read("doorward.yaml");
    let mut other: Value = serde_json::from_str(&before).unwrap();
    other["credentials"]["mesh"]["mtls"]["workload_api"]["spiffe_id"] = "spiffe://mesh.test/other".into();
    gate.write("doorward.yaml", &format!("{other}\n"));
    shows("33").await;
    gate.write("doorward.yaml", &before);
    shows("11").await;
    agent.issues(&[mesh.identity(0x22, "gate")]).await;
    shows("22").await;
}
