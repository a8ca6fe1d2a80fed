//! TLS as clients see it: versions, key exchange, certificates by name, and their replacement.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Answer, Authority, Client, HOST, RunningGate, World, eventually, within};

const OTHER_HOST: &str = "other.test";

async fn shake_hands(gate: &RunningGate, name: &str, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(gate.address()).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within("a handshake", TlsConnector::from(Arc::new(config)).connect(name, socket)).await
}

fn speaking(authority: &Authority, version: &'static SupportedProtocolVersion) -> ClientConfig {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots).with_no_client_auth()
}

#[tokio::test]
async fn both_versions_are_spoken_and_a_client_that_offers_it_gets_a_post_quantum_group() {
    let world = World::start(|gate| gate).await;
    let older = shake_hands(&world.gate, HOST, speaking(&world.authority, &rustls::version::TLS12)).await.unwrap();
    assert_eq!(older.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    let newer = shake_hands(&world.gate, HOST, speaking(&world.authority, &rustls::version::TLS13)).await.unwrap();
    let newer = newer.get_ref().1;
    assert_eq!(newer.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = newer.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_failed_handshake_is_counted_and_is_no_request() {
    let world =
        World::start(|gate| gate.config(json!({ "listeners": { "public": { "tls": { "minimum_version": "1.3" } } } })))
            .await;
    let older = shake_hands(&world.gate, HOST, speaking(&world.authority, &rustls::version::TLS12)).await;
    older.expect_err("TLS 1.2 is below the minimum");
    let mut noise = crate::support::RawConnection::new(TcpStream::connect(world.gate.address()).await.unwrap());
    noise.send("GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n").await;
    noise.hangs_up().await;
    eventually("both failures to be counted", || async {
        (world.gate.metric("doorward_handshake_failures", &[]).await >= 2.0).then_some(())
    })
    .await;
    assert_eq!(world.gate.get("/things/1").bearer(&world.token()).send().await.status, 200);
    let records = world.gate.settled_audit().await;
    let requests: Vec<_> = records.iter().filter(|record| record.event() == "request").collect();
    assert_eq!(requests.len(), 2, "the request and the fence: {requests:#?}");
}

#[tokio::test]
async fn only_http2_and_http1_are_chosen() {
    let world = World::start(|gate| gate).await;
    for (offered, chosen) in [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)] {
        let mut config = world.authority.client_config(None);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = shake_hands(&world.gate, HOST, config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes));
    }
    let mut config = world.authority.client_config(None);
    config.alpn_protocols = vec![b"spdy/3".to_vec()];
    shake_hands(&world.gate, HOST, config).await.expect_err("a protocol that nobody speaks here");
}

/// Two certificates; `other.pem` is for `other.test`.
async fn two_names() -> World {
    World::start(|gate| {
        let pair = gate.authority().server_pair(&[OTHER_HOST]);
        gate.file("other.pem", &pair.certificate).file("other.key", &pair.key).config(json!({
            "listeners": { "public": { "tls": { "certificates": [
                { "certificate": "server.pem", "key": "file:server.key" },
                { "certificate": "other.pem", "key": "file:other.key" },
            ] } } },
        }))
    })
    .await
}

async fn served(world: &World, name: &str) -> Result<Vec<u8>, String> {
    let shaken = shake_hands(&world.gate, name, world.authority.client_config(None)).await;
    let stream = shaken.map_err(|error| error.to_string())?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let world = two_names().await;
    let (first, other) = (served(&world, HOST).await.unwrap(), served(&world, OTHER_HOST).await.unwrap());
    assert_ne!(first, other);
    let unknown = served(&world, "unknown.test").await.unwrap_err();
    assert!(unknown.contains("not valid for name"), "{unknown}");
}

#[tokio::test]
async fn one_of_several_certificates_is_replaced_and_an_old_connection_serves_on() {
    let world = two_names().await;
    let before = (served(&world, HOST).await.unwrap(), served(&world, OTHER_HOST).await.unwrap());
    let token = world.token();
    let mut old = world.gate.http2().await;
    let ask = || world.gate.get("/things/1").bearer(&token).into_http2();
    Answer::read(old.send_request(ask()).await.unwrap()).await;

    let pair = world.authority.server_pair(&[OTHER_HOST]);
    world.gate.write("other.key", &pair.key);
    world.gate.write("other.pem", &pair.certificate);
    eventually("the new certificate", || async {
        (served(&world, OTHER_HOST).await.unwrap() != before.1).then_some(())
    })
    .await;
    assert_eq!(served(&world, HOST).await.unwrap(), before.0, "the other one stays");
    assert_eq!(old.send_request(ask()).await.unwrap().status(), 200);
    world.gate.becomes_ready(200).await;
}

#[tokio::test]
async fn a_key_that_does_not_match_its_certificate_changes_nothing_and_refuses_a_start() {
    let world = two_names().await;
    let before = served(&world, OTHER_HOST).await.unwrap();
    let good = world.gate.read("other.key");
    world.gate.write("other.key", &world.authority.server_pair(&[OTHER_HOST]).key);
    let reasons = world.gate.becomes_degraded().await;
    assert!(reasons.contains("other.key") && reasons.contains("does not match"), "{reasons}");
    assert_eq!(served(&world, OTHER_HOST).await.unwrap(), before);
    world.gate.write("other.key", &good);
    world.gate.becomes_ready(200).await;

    let (code, told) = World::refused(|gate| {
        let other = gate.authority().server_pair(&[HOST]).key;
        gate.file("server.key", &other)
    })
    .await;
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("server.key") && told.contains("does not match"), "{told}");
}

#[tokio::test]
async fn the_admin_listener_is_served_by_its_new_certificate() {
    let world = World::start(|gate| {
        let pair = gate.authority().server_pair(&["localhost"]);
        gate.file("admin.pem", &pair.certificate).file("admin.key", &pair.key).file("admin.token", "first\n").config(
            json!({ "admin": {
                "token": "file:admin.token",
                "tls": { "certificates": [{ "certificate": "admin.pem", "key": "file:admin.key" }] },
            } }),
        )
    })
    .await;
    let other = Authority::new();
    let pair = other.server_pair(&["localhost"]);
    world.gate.write("admin.key", &pair.key);
    world.gate.write("admin.pem", &pair.certificate);
    let newcomer = Client::tls(world.gate.admin().address(), "localhost", other.client_config(None));
    eventually("the new certificate", || async { newcomer.is_served().await.then_some(()) }).await;
    assert_eq!(newcomer.get("/livez").bearer("first").send().await.status, 200);
}
