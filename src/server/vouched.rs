//! A client certificate on an open connection: it counts for as long as the listener's rules of the day vouch for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls_pki_types::CertificateDer;

use crate::peer::Peer;

use super::tls::TlsAcceptorHandle;

/// Whether a connection may go on as it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its client certificate is vouched for, or it showed none and none is required.
    Good,
    /// Its client certificate is worth nothing any more, and may be left out.
    Lost,
    /// Without a good client certificate nothing may be served.
    Barred,
}

/// The certificates that a connection showed, and under which rules they were found good.
#[derive(Debug)]
pub(super) struct Vouched {
    tls: TlsAcceptorHandle,
    chain: Vec<CertificateDer<'static>>,
    /// Number of the configuration that found them good.
    good_under: AtomicU64,
}

impl Vouched {
    /// Of a connection that shook hands under the configuration of that number.
    pub(super) fn new(tls: TlsAcceptorHandle, chain: Vec<CertificateDer<'static>>, configuration: u64) -> Self {
        Self { tls, chain, good_under: AtomicU64::new(configuration) }
    }

    /// Judges the certificates anew when the rules have changed since they were judged: an authority may be gone, a
    /// revocation list may name them. Expiry is for whoever reads the certificate as evidence.
    pub(super) fn standing(&self) -> Standing {
        let (number, standing) = self.tls.judge_again(&self.chain, self.good_under.load(Ordering::Relaxed));
        if standing == Standing::Good {
            self.good_under.store(number, Ordering::Relaxed);
        }
        standing
    }
}

/// `peer` without its certificate.
pub(super) fn stranger(peer: &Peer) -> Arc<Peer> {
    Arc::new(Peer { certificate: None, ..peer.clone() })
}
