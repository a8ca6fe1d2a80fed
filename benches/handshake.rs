//! A TLS 1.3 handshake and one request on the new connection, full and resumed, beside the bare proxy.
//!
//! Doorward signs with the same key and offers the same key exchange; what it costs more is its own.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use criterion::Criterion;
use http::Version;
use hyper::body::Bytes;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use tokio::runtime::Runtime;

use support::bench::criterion;
use support::client::{self, Connection};
use support::served::Served;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let mut criterion = criterion();
    let served = runtime.block_on(Served::start(100));
    let authorization = served.world.authorization();
    for (name, address) in [("doorward", served.doorward), ("bare", served.bare)] {
        let resumed = client::tls(served.world.certificate(), Version::HTTP_11);
        let mut full = (*resumed).clone();
        full.resumption = Resumption::disabled();
        handshakes(
            &mut criterion,
            &runtime,
            &format!("handshake/full/{name}"),
            address,
            &Arc::new(full),
            &authorization,
        );
        handshakes(&mut criterion, &runtime, &format!("handshake/resumed/{name}"), address, &resumed, &authorization);
    }
    criterion.final_summary();
    runtime.block_on(served.running.drain());
}

fn handshakes(
    criterion: &mut Criterion,
    runtime: &Runtime,
    name: &str,
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
    authorization: &str,
) {
    let once = || async {
        let stream = client::handshake(address, tls).await;
        let kind = stream.get_ref().1.handshake_kind();
        // The ticket for the next connection comes with the answer.
        Connection::over(stream).await.request("/api/0", authorization, Bytes::new()).await;
        kind
    };
    runtime.block_on(once());
    let wanted = if name.contains("resumed") { HandshakeKind::Resumed } else { HandshakeKind::Full };
    criterion.bench_function(name, |b| {
        b.to_async(runtime).iter(|| async { assert_eq!(once().await, Some(wanted)) });
    });
}
