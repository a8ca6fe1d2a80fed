//! A client certificate on an open connection: it counts for as long as the listener's rules of the day vouch for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::clock::{Clock, Timestamp};
use crate::peer::Peer;

use super::tls::TlsAcceptorHandle;

/// A certificate that was found good is taken for good this long: its chain ends, and a revocation list falls due,
/// without any rule being changed.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// The number of no configuration: what it found good is judged whatever is in force.
const NO_CONFIGURATION: u64 = u64::MAX;

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
    clock: Clock,
    /// Number of the configuration that found them good.
    good_under: AtomicU64,
    /// When it did, milliseconds.
    good_at: AtomicI64,
}

impl Vouched {
    /// Of a connection that shook hands just now under the configuration of that number.
    pub(super) fn new(tls: TlsAcceptorHandle, chain: Vec<CertificateDer<'static>>, configuration: u64) -> Self {
        Self::by_clock(tls, chain, configuration, Clock::system())
    }

    fn by_clock(tls: TlsAcceptorHandle, chain: Vec<CertificateDer<'static>>, configuration: u64, clock: Clock) -> Self {
        let (good_under, good_at) = (AtomicU64::new(configuration), AtomicI64::new(clock.now().unix_millis()));
        Self { tls, chain, clock, good_under, good_at }
    }

    /// Judges the certificates anew when the rules have changed since they were judged, for an authority may be gone or
    /// a revocation list may name them; and once a minute, for the chain or the list may have ended. To the second, the
    /// leaf's end is for whoever reads it as evidence.
    pub(super) fn standing(&self) -> Standing {
        let now = self.clock.now();
        let good_at = Timestamp::from_unix_millis(self.good_at.load(Ordering::Relaxed));
        // A clock that was set back counts as passed.
        let is_fresh = good_at <= now && now.since(good_at) < GOOD_FOR;
        let good_under = if is_fresh { self.good_under.load(Ordering::Relaxed) } else { NO_CONFIGURATION };
        let (number, standing) = self.tls.judge_again(&self.chain, good_under);
        if standing == Standing::Good && number != good_under {
            self.good_under.store(number, Ordering::Relaxed);
            self.good_at.store(now.unix_millis(), Ordering::Relaxed);
        }
        standing
    }
}

/// `peer` without its certificate.
pub(super) fn stranger(peer: &Peer) -> Arc<Peer> {
    Arc::new(Peer { certificate: None, ..peer.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, ClientIdentity, clients, now, tls, tomorrow};
    use super::super::tls::{ClientCertificateMode, ClientCertificateSettings, Pem, TlsSettings};
    use super::*;

    /// A connection that `client` opened while everything was good, under rules with this revocation list.
    fn open(
        authority: &Authority,
        client: &ClientIdentity,
        mode: ClientCertificateMode,
        list: Pem,
    ) -> (Vouched, Clock) {
        let clients = ClientCertificateSettings { revocations: Some(list), ..clients(mode, authority) };
        let server = tls(vec![authority.server(&["a.example"])]);
        let handle = TlsAcceptorHandle::new(&TlsSettings { client_certificates: Some(clients), ..server }).unwrap();
        let (clock, (number, _)) = (Clock::system(), handle.judge_again(&[], NO_CONFIGURATION));
        let chain = vec![client.certificate.der().clone()];
        (Vouched::by_clock(handle, chain, number, clock.clone()), clock)
    }

    #[test]
    fn a_certificate_that_stays_good_is_good_after_every_minute() {
        let authority = Authority::new("one");
        let (client, list) = (authority.client(1, tomorrow()), authority.revocations(&[], tomorrow()));
        let (vouched, clock) = open(&authority, &client, ClientCertificateMode::Required, list);
        for _ in 0..3 {
            assert_eq!(vouched.standing(), Standing::Good);
            clock.advance(GOOD_FOR);
        }
        assert_eq!(vouched.standing(), Standing::Good);
    }

    #[test]
    fn a_certificate_or_a_revocation_list_that_ended_is_noticed_within_a_minute() {
        let (authority, past) = (Authority::new("one"), now() - time::Duration::hours(1));
        let ended = (authority.client(1, past), authority.revocations(&[], tomorrow()));
        let listed_no_more = (authority.client(2, tomorrow()), authority.revocations(&[], past));
        for (client, list) in [ended, listed_no_more] {
            for (mode, standing) in
                [(ClientCertificateMode::Required, Standing::Barred), (ClientCertificateMode::Optional, Standing::Lost)]
            {
                let (vouched, clock) = open(&authority, &client, mode, list.clone());
                assert_eq!(vouched.standing(), Standing::Good, "judged a moment ago");
                clock.advance(GOOD_FOR);
                assert_eq!(vouched.standing(), standing);
                assert_eq!(vouched.standing(), standing, "and so it stays");
            }
        }
    }
}
