//! The harness: real peers on loopback ports, and the real binary between them, seen from outside only.

mod audit;
mod authority;
mod browser;
mod client;
mod clouds;
pub(crate) mod frames;
mod gate;
mod issuer;
mod object_gateway;
mod openbao;
mod process;
mod provider;
mod raw;
mod running;
mod secrets;
mod server;
mod token;
mod upstream;
mod world;

pub(crate) use audit::AuditRecord;
pub(crate) use authority::Authority;
pub(crate) use browser::Browser;
pub(crate) use client::{Answer, Client};
pub(crate) use clouds::Clouds;
pub(crate) use gate::{Gate, HOST, ORIGIN};
pub(crate) use issuer::StaticIssuer;
pub(crate) use object_gateway::ObjectGateway;
pub(crate) use openbao::{OpenBao, Valkey};
pub(crate) use process::{Peer, python, python_peer, signal};
pub(crate) use provider::Provider;
pub(crate) use raw::RawConnection;
pub(crate) use running::RunningGate;
pub(crate) use server::{Body, Server};
pub(crate) use token::{SigningKey, TokenDraft, base64url, uuid};
pub(crate) use upstream::{Received, RecordingUpstream, Script};
pub(crate) use world::World;

use std::path::PathBuf;
use std::time::Duration;

/// The longest that any test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until there is an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub(crate) async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, asking).await
}

/// Waits for `future`.
///
/// # Panics
/// When it takes longer than [`PATIENCE`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s for {what}", PATIENCE.as_secs()),
    }
}

/// A loopback port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// A file under `tests/peers/`.
pub(crate) fn peer_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}
