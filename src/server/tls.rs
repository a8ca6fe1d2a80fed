//! TLS of a listener: settings to a rustls configuration, the handshake, and its replacement while running.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::body::BoxError;
use crate::peer::{ClientCertificate, TlsFacts};
use crate::secret::Secret;

use super::certificates::{Certificates, certificates_in};
use super::vouched::Standing;

/// PEM text, and the name under which errors speak of it: its path, as the operator wrote it.
#[derive(Clone, Debug)]
pub struct Pem {
    /// Name for errors.
    pub name: String,
    /// The text.
    pub text: String,
}

/// One certificate of a listener.
#[derive(Clone, Debug)]
pub struct CertificateSettings {
    /// The chain, leaf first.
    pub certificate: Pem,
    /// Name of the key's file for errors.
    pub key_name: String,
    /// The private key, PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: Secret,
}

/// The oldest TLS version a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinimumVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// Whether a client has to present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificateMode {
    /// It may; what it presents must verify.
    Optional,
    /// It must.
    Required,
}

/// Client certificates of a listener.
#[derive(Clone, Debug)]
pub struct ClientCertificateSettings {
    /// Optional or required.
    pub mode: ClientCertificateMode,
    /// Authorities that vouch for clients; the system's are never asked.
    pub authorities: Pem,
    /// Revocation lists. With them, every certificate of a chain needs a current list of its issuer.
    pub revocations: Option<Pem>,
}

/// TLS of a listener.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Certificates, chosen by server name; the first serves every other name.
    pub certificates: Vec<CertificateSettings>,
    /// The oldest version spoken.
    pub minimum_version: MinimumVersion,
    /// Client certificates; without this none is asked for.
    pub client_certificates: Option<ClientCertificateSettings>,
}

/// Why TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The list of certificates is empty.
    #[error("no certificate is configured")]
    NoCertificates,
    /// A file without a certificate.
    #[error("no certificate in `{file}`")]
    NoCertificate {
        /// The file.
        file: String,
    },
    /// A file that is no PEM.
    #[error("`{file}` is not well-formed PEM")]
    Pem {
        /// The file.
        file: String,
        /// The fault.
        source: BoxError,
    },
    /// A certificate that cannot be read.
    #[error("`{file}` holds a certificate that cannot be read")]
    Certificate {
        /// The file.
        file: String,
        /// The fault.
        source: BoxError,
    },
    /// A certificate that no server name could ever choose.
    #[error("`{file}` has no DNS name, so no server name can choose it; only the first certificate may lack one")]
    NoName {
        /// The file.
        file: String,
    },
    /// A file without a private key.
    #[error("no private key in `{file}`")]
    NoKey {
        /// The file.
        file: String,
    },
    /// A key of a kind that cannot be used.
    #[error("the key in `{file}` cannot be used")]
    Key {
        /// The file.
        file: String,
        /// The fault.
        source: rustls::Error,
    },
    /// Certificate and key do not belong together.
    #[error("the key in `{file}` does not match `{certificate}`")]
    KeyMismatch {
        /// The key's file.
        file: String,
        /// The certificate's file.
        certificate: String,
    },
    /// A file without a revocation list.
    #[error("no revocation list in `{file}`")]
    NoRevocationList {
        /// The file.
        file: String,
    },
    /// A revocation list that cannot be read.
    #[error("`{file}` holds a revocation list that cannot be read")]
    RevocationList {
        /// The file.
        file: String,
        /// The fault.
        source: VerifierBuilderError,
    },
    /// The cryptography refused.
    #[error("TLS cannot be set up")]
    Setup {
        /// The fault.
        #[from]
        source: rustls::Error,
    },
}

static BOTH_VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
static NEWEST_VERSION: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// One configuration in force. Tickets are sealed by keys of its own, so no session of another configuration, with
/// other rules for client certificates, can be resumed under it.
#[derive(Debug)]
struct Configuration {
    /// No other configuration of this process has it.
    number: u64,
    server: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Configuration {
    fn build(settings: &TlsSettings) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let certificates = Certificates::load(&settings.certificates, &provider)?;
        let verifier = match &settings.client_certificates {
            Some(clients) => Some(client_verifier(clients, &provider)?),
            None => None,
        };
        let versions = match settings.minimum_version {
            MinimumVersion::Tls12 => BOTH_VERSIONS,
            MinimumVersion::Tls13 => NEWEST_VERSION,
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier.clone().unwrap_or_else(WebPkiClientVerifier::no_client_auth))
            .with_cert_resolver(Arc::new(certificates));
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        server.ticketer = Ticketer::new()?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        // One is what a client uses; the second costs 7 % of a handshake.
        server.send_tls13_tickets = 1;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { number, server: Arc::new(server), verifier })
    }

    /// A resumed session brings its certificates along unverified: they may have expired or been revoked since.
    fn verify_resumed(&self, connection: &ServerConnection) -> Result<(), rustls::Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        if connection.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        let Some((leaf, intermediates)) = connection.peer_certificates().and_then(<[_]>::split_first) else {
            let mandatory = verifier.client_auth_mandatory();
            return if mandatory { Err(rustls::Error::NoCertificatesPresented) } else { Ok(()) };
        };
        self.verify(verifier.as_ref(), leaf, intermediates)
    }

    fn verify(
        &self,
        verifier: &dyn ClientCertVerifier,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let now = self.server.time_provider.current_time().ok_or(rustls::Error::FailedToGetCurrentTime)?;
        verifier.verify_client_cert(leaf, intermediates, now).map(|_| ())
    }

    /// How a connection stands that showed `chain`, which other rules found good.
    fn standing(&self, chain: &[CertificateDer<'_>]) -> Standing {
        let Some(verifier) = &self.verifier else {
            return if chain.is_empty() { Standing::Good } else { Standing::Lost };
        };
        let is_mandatory = verifier.client_auth_mandatory();
        match chain.split_first() {
            Some((leaf, rest)) if self.verify(verifier.as_ref(), leaf, rest).is_ok() => Standing::Good,
            None if !is_mandatory => Standing::Good,
            Some(_) | None => {
                if is_mandatory {
                    Standing::Barred
                } else {
                    Standing::Lost
                }
            }
        }
    }
}

fn client_verifier(
    settings: &ClientCertificateSettings,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates_in(&settings.authorities)? {
        roots.add(authority).map_err(|source| TlsError::Certificate {
            file: settings.authorities.name.clone(),
            source: Box::new(source),
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .enforce_revocation_expiration();
    let lists_file = settings.revocations.as_ref().unwrap_or(&settings.authorities).name.clone();
    if let Some(revocations) = &settings.revocations {
        builder = builder.with_crls(revocation_lists_in(revocations)?);
    }
    if settings.mode == ClientCertificateMode::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|source| TlsError::RevocationList { file: lists_file, source })
}

fn revocation_lists_in(pem: &Pem) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found = CertificateRevocationListDer::pem_slice_iter(pem.text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|source| TlsError::Pem { file: pem.name.clone(), source: Box::new(source) })?;
    if found.is_empty() {
        return Err(TlsError::NoRevocationList { file: pem.name.clone() });
    }
    Ok(found)
}

/// The TLS of one listener. Clones share it.
#[derive(Clone, Debug)]
pub struct TlsAcceptorHandle {
    current: Arc<ArcSwap<Configuration>>,
}

/// What a handshake gave.
pub(super) struct Handshake<S> {
    pub(super) stream: TlsStream<S>,
    pub(super) facts: TlsFacts,
    pub(super) certificate: Option<ClientCertificate>,
    pub(super) http2: bool,
    /// What the client showed, leaf first, and the number of the configuration that found it good.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) configuration: u64,
}

impl TlsAcceptorHandle {
    /// TLS by `settings`.
    ///
    /// # Errors
    /// A certificate, key, authority or revocation list is missing or unusable; the error names the file.
    pub fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(Configuration::build(settings)?)) })
    }

    /// How a connection stands that showed `chain` and was found good by the configuration of this number; with the
    /// number of the one in force.
    pub(super) fn judge_again(&self, chain: &[CertificateDer<'_>], good_under: u64) -> (u64, Standing) {
        let current = self.current.load();
        let standing = if current.number == good_under { Standing::Good } else { current.standing(chain) };
        (current.number, standing)
    }

    /// Puts `settings` in force for new connections. Open ones keep what they shook hands on, save their client
    /// certificate, which is judged anew.
    ///
    /// # Errors
    /// As [`TlsAcceptorHandle::new`]; what was in force stays in force.
    pub fn replace(&self, settings: &TlsSettings) -> Result<(), TlsError> {
        self.current.store(Arc::new(Configuration::build(settings)?));
        Ok(())
    }

    /// As [`TlsAcceptorHandle::replace`], with what `made` was made of: it cannot fail.
    pub fn adopt(&self, made: &Self) {
        self.current.store(made.current.load_full());
    }

    /// Shakes hands; the caller keeps the deadline.
    pub(super) async fn accept<S>(&self, stream: S) -> std::io::Result<Handshake<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let configuration = self.current.load_full();
        let stream = TlsAcceptor::from(Arc::clone(&configuration.server)).accept(stream).await?;
        let connection = stream.get_ref().1;
        configuration.verify_resumed(connection).map_err(std::io::Error::other)?;
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let certificate = leaf.map(|leaf| {
            let mut sha256 = [0; 32];
            sha256.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
            ClientCertificate { der: leaf.to_vec(), sha256 }
        });
        let chain = connection.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let (facts, http2) = (facts(connection), connection.alpn_protocol() == Some(b"h2"));
        Ok(Handshake { stream, facts, certificate, http2, chain, configuration: configuration.number })
    }
}

fn facts(connection: &ServerConnection) -> TlsFacts {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    };
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let group = connection.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
    TlsFacts {
        version,
        cipher_suite: suite.unwrap_or_default().to_owned(),
        key_exchange_group: group.map(str::to_owned),
        server_name: connection.server_name().map(|name| name.to_ascii_lowercase().into()),
    }
}

#[cfg(test)]
mod tests {
    use rustls::time_provider::TimeProvider;
    use rustls_pki_types::{ServerName, UnixTime};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::super::testing::{Authority, clients, now, tls, tomorrow};
    use super::*;

    #[derive(Debug, Clone)]
    struct HandTurned(Arc<AtomicU64>);

    impl TimeProvider for HandTurned {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(self.0.load(Ordering::Relaxed))))
        }
    }

    /// One handshake; the server's byte shows the client whether it was let in.
    async fn shake_hands(
        server: &TlsAcceptorHandle,
        client: &Arc<rustls::ClientConfig>,
    ) -> std::io::Result<Option<HandshakeKind>> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serving = async {
            let mut shaken = server.accept(far).await?;
            shaken.stream.write_u8(1).await?;
            shaken.stream.shutdown().await?;
            Ok(shaken.stream.get_ref().1.handshake_kind())
        };
        let asking = async {
            let name = ServerName::try_from("a.example").unwrap();
            let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, near).await?;
            stream.read_to_end(&mut Vec::new()).await
        };
        let (served, _) = tokio::join!(serving, asking);
        served
    }

    #[tokio::test]
    async fn a_certificate_that_expired_since_does_not_come_back_in_a_resumed_session() {
        let authority = Authority::new("one");
        let required = clients(ClientCertificateMode::Required, &authority);
        let settings =
            TlsSettings { client_certificates: Some(required), ..tls(vec![authority.server(&["a.example"])]) };
        let seconds = Arc::new(AtomicU64::new(now().unix_timestamp().try_into().unwrap()));
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut configuration = Configuration::build(&settings).unwrap();
            Arc::get_mut(&mut configuration.server).unwrap().time_provider = Arc::new(HandTurned(Arc::clone(&seconds)));
            let server = TlsAcceptorHandle { current: Arc::new(ArcSwap::from_pointee(configuration)) };
            let short = authority.client(1, now() + time::Duration::hours(2));
            let long = authority.client(2, tomorrow());
            let client = |identity| Arc::new(authority.trusted_by_version(Some(identity), &[], &[version]));
            let (short, long) = (client(&short), client(&long));
            for client in [&short, &long] {
                assert_eq!(shake_hands(&server, client).await.unwrap(), Some(HandshakeKind::Full));
                assert_eq!(shake_hands(&server, client).await.unwrap(), Some(HandshakeKind::Resumed));
            }
            seconds.fetch_add(3 * 3600, Ordering::Relaxed);
            assert!(shake_hands(&server, &short).await.is_err());
            assert_eq!(shake_hands(&server, &long).await.unwrap(), Some(HandshakeKind::Resumed));
            seconds.fetch_sub(3 * 3600, Ordering::Relaxed);
        }
    }
}
