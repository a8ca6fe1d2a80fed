//! TLS and HTTP/2 toward upstreams.

use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

pub(super) fn authority() -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).unwrap().der().clone();
    (certificate, Issuer::new(parameters, key))
}

fn leaf(name: &str, issuer: &Issuer<'_, KeyPair>) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
    (certificate.der().clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
}

fn trust(authority: &CertificateDer<'static>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    Arc::new(roots)
}

/// A TLS server named `name`; with `clients`, only for those who show one of their certificates.
async fn server(
    name: &str,
    issuer: &Issuer<'_, KeyPair>,
    protocols: &[&str],
    clients: Option<&CertificateDer<'static>>,
) -> (UpstreamAddress, mpsc::UnboundedReceiver<Received>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(clients) => config.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(trust(clients), provider).build().unwrap(),
        ),
    };
    let (certificate, key) = leaf(name, issuer);
    let mut config = config.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (sender, receiver) = mpsc::unbounded_channel();
    let address = raw(move |_, stream| {
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, sender).await;
            }
        }
    })
    .await;
    (UpstreamAddress::parse(&format!("https://{address}")).unwrap(), receiver)
}

fn settings(
    address: &UpstreamAddress,
    authority: &CertificateDer<'static>,
    protocol: UpstreamProtocol,
) -> UpstreamSettings {
    let tls = UpstreamTls { authorities: Some(vec![authority.clone()]), ..UpstreamTls::default() };
    UpstreamSettings { protocol, tls, ..UpstreamSettings::new("billing", vec![address.clone()]) }
}

#[tokio::test]
async fn the_version_of_http_is_the_configured_one_or_what_alpn_settles() {
    use UpstreamProtocol::{Auto, Http1, Http2};
    let (root, issuer) = authority();
    for (offered, protocol, expected) in [
        (&["h2", "http/1.1"][..], Http1, Some(Version::HTTP_11)),
        (&["h2", "http/1.1"], Http2, Some(Version::HTTP_2)),
        (&["h2", "http/1.1"], Auto, Some(Version::HTTP_2)),
        (&["http/1.1"], Auto, Some(Version::HTTP_11)),
        (&[], Auto, Some(Version::HTTP_11)),
        (&["http/1.1"], Http2, None),
        (&[], Http2, None),
    ] {
        let (address, mut seen) = server("127.0.0.1", &issuer, offered, None).await;
        let upstream = upstream(settings(&address, &root, protocol));
        let asks = (0..8).map(|_| Ask::post("/", shared_body::full("x")).send_asking(&upstream));
        for (answer, asked) in futures_util::future::join_all(asks).await {
            match (answer, expected) {
                (Ok(answer), Some(expected)) => {
                    assert_eq!(*asked.unwrap(), address.to_string());
                    read_all(answer.response.into_body()).await.unwrap();
                    assert_eq!(seen.recv().await.unwrap().head.version, expected, "{offered:?} {protocol:?}");
                }
                (Err(error), None) => assert_eq!(error.class(), FailureClass::Upstream),
                (answer, _) => panic!("{answer:?} {offered:?} {protocol:?}"),
            }
        }
        if expected == Some(Version::HTTP_2) {
            assert_eq!(upstream.stats().open, 1, "one connection carries all");
        }
    }
}

#[tokio::test]
async fn an_upstream_under_another_authority_or_name_is_refused() {
    let (root, issuer) = authority();
    let (stranger, _) = authority();
    let (address, _seen) = server("billing.internal", &issuer, &[], None).await;
    let good = settings(&address, &root, UpstreamProtocol::Http1);
    let named = |authority: &CertificateDer<'static>, name: Option<&str>| {
        let authorities = Some(vec![authority.clone()]);
        let tls = UpstreamTls { authorities, server_name: name.map(str::to_owned), certificate: None };
        upstream(UpstreamSettings { tls, ..good.clone() })
    };
    Ask::get("/").send(&named(&root, Some("billing.internal"))).await.unwrap();
    for upstream in [named(&root, None), named(&root, Some("other")), named(&stranger, Some("billing.internal"))] {
        let error = Ask::get("/").send(&upstream).await.unwrap_err();
        assert_eq!((error.code(), error.class()), ("upstream_tls", FailureClass::Upstream));
    }
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_is_shown_the_configured_one() {
    let (root, issuer) = authority();
    let (clients, client_issuer) = authority();
    let (address, mut seen) = server("127.0.0.1", &issuer, &[], Some(&clients)).await;
    let mut with = settings(&address, &root, UpstreamProtocol::Http1);
    let without = upstream(with.clone());
    let (certificate, key) = leaf("doorward", &client_issuer);
    with.tls.certificate = Some(UpstreamCertificate { chain: vec![certificate], key: Arc::new(key) });
    assert!(format!("{with:?}").contains("elided"), "the key does not print");
    Ask::get("/").send(&upstream(with)).await.unwrap();
    seen.recv().await.unwrap();
    assert_eq!(Ask::get("/").send(&without).await.unwrap_err().class(), FailureClass::Upstream);
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn many_requests_at_once_share_one_http2_connection() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let (sender, mut seen) = mpsc::unbounded_channel();
    let counting = accepted.clone();
    let address = raw(move |_, stream| {
        counting.fetch_add(1, Ordering::SeqCst);
        let sender = sender.clone();
        async move { serve(stream, sender).await }
    })
    .await;
    let upstream = upstream(UpstreamSettings { protocol: UpstreamProtocol::Http2, ..super::settings(&[address]) });
    let asks = (0..50).map(|index| Ask::get(&format!("/{index}")).send(&upstream));
    for answer in futures_util::future::join_all(asks).await {
        assert_eq!(read_all(answer.unwrap().response.into_body()).await.unwrap(), "ok");
        assert_eq!(seen.recv().await.unwrap().head.version, Version::HTTP_2);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn streams_that_one_http2_connection_has_no_room_for_get_another() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let counting = accepted.clone();
    let address = raw(move |_, stream| {
        counting.fetch_add(1, Ordering::SeqCst);
        async move {
            let service = service_fn(|_: Request<Incoming>| async {
                let (sender, body) = channel();
                // Held open for as long as the caller listens.
                tokio::spawn(async move { sender.closed().await });
                Ok::<_, Infallible>(Response::new(body))
            });
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _closed = server.max_concurrent_streams(2).serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    let upstream = upstream(UpstreamSettings { protocol: UpstreamProtocol::Http2, ..super::settings(&[address]) });
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(Ask::get("/").send(&upstream).await.unwrap());
    }
    assert_eq!((accepted.load(Ordering::SeqCst), upstream.stats().open), (3, 3));
    held.clear();
    held.push(Ask::get("/").send(&upstream).await.unwrap());
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
}

/// Speaks just enough HTTP/2 to answer each request's stream with `frame`, given the stream's four bytes.
async fn http2_frames(stream: &mut TcpStream, frame: impl Fn([u8; 4]) -> Vec<u8>) {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    stream.write_all(&SETTINGS).await.unwrap();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let [a, b, c, kind, _, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if kind == 1 {
            stream.write_all(&frame(id)).await.unwrap();
        }
    }
}

/// Resets every stream of its first connection for `reason`, and answers those of the next.
async fn resetting(reason: u8, requests: Arc<AtomicUsize>) -> Arc<Upstream> {
    let address = raw(move |connection, mut stream| {
        let requests = requests.clone();
        async move {
            let reset = [0, 0, 0, reason];
            let answer = |id: [u8; 4]| {
                requests.fetch_add(1, Ordering::SeqCst);
                let (head, payload) = match connection {
                    0 => ([0, 0, 4, 3, 0], &reset[..]),
                    _ => ([0, 0, 1, 1, 5], &[0x88][..]),
                };
                [&head[..], &id[..], payload].concat()
            };
            http2_frames(&mut stream, answer).await;
        }
    })
    .await;
    upstream(UpstreamSettings { protocol: UpstreamProtocol::Http2, ..super::settings(&[address]) })
}

#[tokio::test]
async fn a_stream_that_was_refused_unread_is_sent_once_more_and_only_without_a_body() {
    const REFUSED: u8 = 7;
    const INTERNAL: u8 = 2;
    let requests = Arc::new(AtomicUsize::new(0));
    let answer = Ask::get("/").send(&*resetting(REFUSED, requests.clone()).await).await.unwrap();
    assert_eq!((answer.response.status(), requests.load(Ordering::SeqCst)), (StatusCode::OK, 2));

    for (reason, ask) in [(REFUSED, Ask::post("/", shared_body::full("x"))), (INTERNAL, Ask::get("/"))] {
        let requests = Arc::new(AtomicUsize::new(0));
        let error = ask.send(&*resetting(reason, requests.clone()).await).await.unwrap_err();
        assert_eq!((error.code(), requests.load(Ordering::SeqCst)), ("upstream_closed", 1));
    }
}
