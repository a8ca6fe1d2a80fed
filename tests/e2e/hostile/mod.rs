//! Attacks: one for every sentence that says never, only or refused, and for what brought others down.
//!
//! A test here passes when the upstream heard nothing that it must not hear.

mod confusion;
mod cookies;
mod csrf;
mod evidence;
mod floods;
mod framing;
mod headers;
mod headers_out;
mod http2;
mod proxy_protocol;
mod records;
mod redirects;
mod reload_races;
mod slow;
mod targets;
mod tokens;

use crate::support::{Authority, Gate, RecordingUpstream, RunningGate, StaticIssuer};

/// The standard gate, and a token that it takes.
struct World {
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
    token: String,
}

impl World {
    async fn start() -> Self {
        Self::changed(|gate| gate).await
    }

    async fn changed(change: impl FnOnce(Gate) -> Gate) -> Self {
        let authority = Authority::new();
        let issuer = StaticIssuer::start(&authority).await;
        let upstream = RecordingUpstream::start().await;
        let gate = change(Gate::standard(&authority, &issuer, &upstream)).start().await;
        gate.becomes_ready(200).await;
        let token = issuer.token().groups(&["readers", "writers"]).mint();
        Self { issuer, upstream, gate, token }
    }

    /// A request of these bytes, with `{token}` for the good token; its status, or `None` when the gate hung up.
    async fn status_of(&self, bytes: &str) -> Option<u16> {
        let mut connection = self.gate.raw().await;
        connection.send(bytes.replace("{token}", &self.token)).await;
        connection.answer().await.map(|answer| answer.status)
    }

    /// Fails unless a request of these bytes is answered with this status and this code by the gate itself.
    async fn refuses_as(&self, bytes: &str, status: u16, code: &str) {
        let mut connection = self.gate.raw().await;
        connection.send(bytes.replace("{token}", &self.token)).await;
        let answer = connection.answer().await.unwrap_or_else(|| panic!("no answer to {bytes:?}"));
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{bytes:?}");
        self.upstream.heard_nothing();
    }

    /// Fails unless a request of these bytes is refused by the gate itself.
    async fn refuses(&self, bytes: &str) {
        let status = self.status_of(bytes).await;
        assert!(status.is_none_or(|status| (400..=501).contains(&status)), "{status:?} for {bytes:?}");
        self.upstream.heard_nothing();
    }

    /// Fails unless a request of these bytes reaches the upstream: the attack's harmless twin, without which a
    /// refusal would prove nothing.
    async fn passes(&self, bytes: &str) {
        let before = self.upstream.received().len();
        assert_eq!(self.status_of(bytes).await, Some(200), "{bytes:?}");
        assert_eq!(self.upstream.received().len(), before + 1);
    }
}
