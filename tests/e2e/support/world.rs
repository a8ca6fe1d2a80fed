//! The usual peers around the usual gate.

use std::sync::Arc;

use super::{Authority, Gate, RecordingUpstream, RunningGate, StaticIssuer};

/// The standard gate, ready, between an issuer and an upstream.
pub(crate) struct World {
    pub(crate) authority: Arc<Authority>,
    pub(crate) issuer: StaticIssuer,
    pub(crate) upstream: RecordingUpstream,
    pub(crate) gate: RunningGate,
}

impl World {
    pub(crate) async fn start(change: impl FnOnce(Gate) -> Gate) -> Self {
        let authority = Authority::new();
        let issuer = StaticIssuer::start(&authority).await;
        let upstream = RecordingUpstream::start().await;
        let gate = change(Gate::standard(&authority, &issuer, &upstream)).start().await;
        Self { authority, issuer, upstream, gate }
    }

    /// Starts a gate that must refuse; its exit code and what it said.
    pub(crate) async fn refused(change: impl FnOnce(Gate) -> Gate) -> (i32, String) {
        let authority = Authority::new();
        let issuer = StaticIssuer::away(&authority);
        let upstream = RecordingUpstream::start().await;
        change(Gate::standard(&authority, &issuer, &upstream)).refuses_to_start().await
    }

    /// A token of a machine that may read and write.
    pub(crate) fn token(&self) -> String {
        self.issuer.token().groups(&["readers", "writers"]).mint()
    }
}
