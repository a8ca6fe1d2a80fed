//! Certificates, versions and client certificates.

use std::io;

use tokio::io::AsyncReadExt;

use crate::server::testing::*;
use crate::server::{ClientCertificateMode, MinimumVersion, TlsSettings};

/// A handshake under TLS 1.3 ends before the server has judged the client: what counts is the answer.
async fn ask(world: &World, config: rustls::ClientConfig) -> io::Result<String> {
    let stream = world.connect_tls("a.example", config).await?;
    let (mut sender, _connection) = http1(stream).await;
    let response = sender.send_request(get("/")).await.map_err(io::Error::other)?;
    Ok(text(response).await)
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    let authority = Authority::new("one");
    let certificates = vec![authority.server(&["a.example"]), authority.server(&["*.b.example"])];
    let world = World::start(Some(tls(certificates)), patient());
    for (name, known) in [("a.example", true), ("x.b.example", true), ("c.example", false)] {
        let shaken = world.connect_tls(name, authority.trusted(None, &[])).await;
        assert_eq!(shaken.is_ok(), known, "{name}");
    }
}

#[tokio::test]
async fn the_peer_says_what_the_handshake_settled() {
    let authority = Authority::new("one");
    let world = World::start(Some(tls(vec![authority.server(&["a.example"])])), patient());
    let newest = ask(&world, authority.trusted(None, &["http/1.1"])).await.unwrap();
    let expected = r#"transport=Tls version=Some("TLSv1.3") name=Some("a.example") group=Some("X25519MLKEM768")"#;
    assert!(newest.contains(expected), "{newest}");
    let older = authority.trusted_by_version(None, &[], &[&rustls::version::TLS12]);
    let older = ask(&world, older).await.unwrap();
    assert!(older.contains(r#"version=Some("TLSv1.2")"#), "{older}");
}

#[tokio::test]
async fn an_older_version_than_the_minimum_is_refused() {
    let authority = Authority::new("one");
    let settings =
        TlsSettings { minimum_version: MinimumVersion::Tls13, ..tls(vec![authority.server(&["a.example"])]) };
    let world = World::start(Some(settings), patient());
    let older = authority.trusted_by_version(None, &[], &[&rustls::version::TLS12]);
    assert!(ask(&world, older).await.is_err());
    assert!(ask(&world, authority.trusted(None, &[])).await.is_ok());
    assert_eq!(world.stats.handshake_failures(), 1);
}

#[tokio::test]
async fn new_certificates_leave_open_connections_alive() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let world = World::start(Some(tls(vec![old.server(&["a.example"])])), patient());
    let stream = world.connect_tls("a.example", old.trusted(None, &[])).await.unwrap();
    let (mut sender, _connection) = http1(stream).await;
    text(sender.send_request(get("/")).await.unwrap()).await;

    let handle = &world.tls["public"];
    handle.replace(&tls(vec![new.server(&["a.example"])])).unwrap();
    assert!(ask(&world, old.trusted(None, &[])).await.is_err());
    assert!(ask(&world, new.trusted(None, &[])).await.is_ok());
    sender.ready().await.unwrap();
    text(sender.send_request(get("/")).await.unwrap()).await;

    // Settings that cannot be used change nothing.
    assert!(handle.replace(&tls(Vec::new())).is_err());
    assert!(ask(&world, new.trusted(None, &[])).await.is_ok());
}

#[tokio::test]
async fn an_optional_client_certificate_is_told_when_it_comes_and_refused_when_it_is_false() {
    let (authority, stranger) = (Authority::new("one"), Authority::new("stranger"));
    let optional = clients(ClientCertificateMode::Optional, &authority);
    let settings = tls(vec![authority.server(&["a.example"])]);
    let world = World::start(Some(TlsSettings { client_certificates: Some(optional), ..settings }), patient());

    assert!(ask(&world, authority.trusted(None, &[])).await.unwrap().ends_with("certificate=None"));
    let client = authority.client(7, tomorrow());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, client.certificate.der());
    let told = ask(&world, authority.trusted(Some(&client), &[])).await.unwrap();
    assert!(told.ends_with(&format!("certificate=Some({:?})", digest.as_ref())), "{told}");
    let stranger = stranger.client(7, tomorrow());
    assert!(ask(&world, authority.trusted(Some(&stranger), &[])).await.is_err());
}

#[tokio::test]
async fn a_required_client_certificate_cannot_be_left_out() {
    let authority = Authority::new("one");
    let required = clients(ClientCertificateMode::Required, &authority);
    let settings = tls(vec![authority.server(&["a.example"])]);
    let world = World::start(Some(TlsSettings { client_certificates: Some(required), ..settings }), patient());

    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        assert!(ask(&world, authority.trusted_by_version(None, &[], &[version])).await.is_err());
        let client = authority.client(7, tomorrow());
        assert!(ask(&world, authority.trusted_by_version(Some(&client), &[], &[version])).await.is_ok());
    }
    let expired = authority.client(8, now() - time::Duration::hours(1));
    assert!(ask(&world, authority.trusted(Some(&expired), &[])).await.is_err());
}

#[tokio::test]
async fn a_revoked_client_is_refused_and_so_is_every_client_once_the_list_is_old() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let (good, revoked) = (authority.client(1, tomorrow()), authority.client(2, tomorrow()));
    let settings = |revocations| {
        let required = clients(ClientCertificateMode::Required, &authority);
        let with_list = crate::server::ClientCertificateSettings { revocations: Some(revocations), ..required };
        TlsSettings { client_certificates: Some(with_list), ..tls(vec![authority.server(&["a.example"])]) }
    };
    let world = World::start(Some(settings(authority.revocations(&[&revoked], tomorrow()))), patient());
    assert!(ask(&world, authority.trusted(Some(&good), &[])).await.is_ok());
    assert!(ask(&world, authority.trusted(Some(&revoked), &[])).await.is_err());

    let old = authority.revocations(&[], now() - time::Duration::hours(1));
    world.tls["public"].replace(&settings(old)).unwrap();
    assert!(ask(&world, authority.trusted(Some(&good), &[])).await.is_err());

    // A list that says nothing about this authority leaves its clients unknown, and unknown is refused.
    world.tls["public"].replace(&settings(other.revocations(&[], tomorrow()))).unwrap();
    assert!(ask(&world, authority.trusted(Some(&good), &[])).await.is_err());
}

#[tokio::test]
async fn a_session_cannot_be_resumed_under_other_rules() {
    let authority = Authority::new("one");
    let settings = tls(vec![authority.server(&["a.example"])]);
    let world = World::start(Some(settings.clone()), patient());
    // One configuration: it remembers the ticket.
    let client = authority.trusted(None, &[]);
    let handshake_kind = async |config: rustls::ClientConfig| {
        let mut stream = world.connect_tls("a.example", config).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut writer, request).await?;
        reader.read_to_end(&mut Vec::new()).await?;
        io::Result::Ok(stream.get_ref().1.handshake_kind())
    };
    assert_eq!(handshake_kind(client.clone()).await.unwrap(), Some(rustls::HandshakeKind::Full));
    assert_eq!(handshake_kind(client.clone()).await.unwrap(), Some(rustls::HandshakeKind::Resumed));

    let required = clients(ClientCertificateMode::Required, &authority);
    let stricter = TlsSettings { client_certificates: Some(required), ..settings };
    world.tls["public"].replace(&stricter).unwrap();
    assert!(handshake_kind(client).await.is_err());
}
