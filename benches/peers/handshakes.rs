//! A TLS 1.3 handshake and one request on the new connection, full and resumed, by a client of our own.

use std::sync::Arc;
use std::time::Instant;

use http::Version;
use hyper::body::Bytes;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};

use crate::support::client::{self, Connection, handshake};
use crate::support::process::used;

use super::bench::Bench;
use super::contender::Target;
use super::rounds::{Slice, interleaved};
use super::table::{Row, Table};

/// Handshakes at once.
const CALLERS: usize = 8;

/// Every connection agrees on keys and checks the certificate.
pub fn full(bench: &Bench) -> Table {
    measure(bench, "full", "a full TLS 1.3 handshake and one request", HandshakeKind::Full)
}

/// Every connection continues an earlier one's session.
pub fn resumed(bench: &Bench) -> Table {
    measure(bench, "resumed", "a resumed TLS 1.3 handshake and one request", HandshakeKind::Resumed)
}

fn measure(bench: &Bench, name: &'static str, title: &str, kind: HandshakeKind) -> Table {
    let targets = bench.contenders();
    let authorization: Arc<str> = bench.site.world.authorization().into();
    let measured = interleaved(targets.len(), bench.effort.rounds, |position| {
        targets.get(position).map(|target| slice(bench, target, &authorization, kind)).unwrap_or_default()
    });
    let rows = targets.iter().zip(&measured).map(|(target, slices)| Row::of_slices(target, slices)).collect();
    Table {
        name,
        title: format!("HTTP/1.1, 256 bytes, {title} (ECDSA P-256, X25519, {CALLERS} at once)"),
        unit: "CPU µs a connection",
        rows,
        note: String::new(),
    }
}

/// So many handshakes, each followed by a request.
fn slice(bench: &Bench, target: &Target, authorization: &Arc<str>, kind: HandshakeKind) -> Slice {
    let path: Arc<str> = target.path(256).into();
    let each = bench.effort.handshakes.div_ceil(CALLERS);
    bench.client.block_on(async {
        let mut callers = Vec::with_capacity(CALLERS);
        for _ in 0..CALLERS {
            // Tickets are kept by server name, and all are called `localhost`.
            let mut tls = (*client::common_tls(bench.site.world.certificate(), Version::HTTP_11)).clone();
            if kind == HandshakeKind::Full {
                tls.resumption = Resumption::disabled();
            }
            let tls = Arc::new(tls);
            once(target, &tls, &path, authorization).await;
            callers.push(tls);
        }
        let (before, began) = (target.process().cpu(), Instant::now());
        let address = target.process().address;
        let tasks: Vec<_> = callers
            .into_iter()
            .map(|tls| {
                let (path, authorization) = (Arc::clone(&path), Arc::clone(authorization));
                tokio::spawn(async move {
                    let mut agreed = 0;
                    for _ in 0..each {
                        agreed += u64::from(connect(address, &tls, &path, &authorization).await == Some(kind));
                    }
                    agreed
                })
            })
            .collect();
        let mut agreed = 0;
        for task in tasks {
            agreed += task.await.expect("every handshake succeeds");
        }
        let wall = began.elapsed();
        let used = used(&before, &target.process().cpu());
        Slice { used, wall, answers: agreed, failures: (each * CALLERS) as u64 - agreed }
    })
}

async fn once(target: &Target, tls: &Arc<ClientConfig>, path: &str, authorization: &str) {
    connect(target.process().address, tls, path, authorization).await;
}

/// Answers the kind of the handshake. The ticket for the next one comes with the answer.
async fn connect(
    address: std::net::SocketAddr,
    tls: &Arc<ClientConfig>,
    path: &str,
    authorization: &str,
) -> Option<HandshakeKind> {
    let stream = handshake(address, tls).await;
    let kind = stream.get_ref().1.handshake_kind();
    assert_eq!(Connection::over(stream).await.request(path, authorization, Bytes::new()).await, 256);
    kind
}
