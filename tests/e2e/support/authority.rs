//! A certificate authority of one test, and what it signs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

use super::gate::HOST;

/// A certificate and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Which clients a TLS server of the authority takes.
#[derive(Clone, Copy)]
pub(crate) enum Clients {
    Any,
    WithCertificate,
}

/// A certificate authority with a folder that holds its certificate (`ca.pem`) and one server pair (`server.pem`,
/// `server.key`) for every name that the tests use.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Arc<Self> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "Doorward tests");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: tempfile::tempdir().unwrap() };
        let server = authority.server_pair(&[HOST, "upstream.test", "localhost", "127.0.0.1"]);
        fs::write(authority.folder().join("ca.pem"), authority.certificate()).unwrap();
        fs::write(authority.folder().join("server.pem"), server.certificate).unwrap();
        fs::write(authority.folder().join("server.key"), server.key).unwrap();
        Arc::new(authority)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The authority's own certificate, as PEM.
    pub(crate) fn certificate(&self) -> String {
        self.issuer.as_ref().pem()
    }

    /// A server's certificate for these names.
    pub(crate) fn server_pair(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.pair(CertificateParams::new(names).unwrap(), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate that names one workload by a URI.
    pub(crate) fn client_pair(&self, uri: &str) -> Pair {
        self.client_pair_of(vec![SanType::URI(uri.try_into().unwrap())], 1)
    }

    /// A client's certificate with a DNS name and a serial number.
    pub(crate) fn client_pair_by_dns(&self, name: &str, serial: u64) -> Pair {
        self.client_pair_of(vec![SanType::DnsName(name.try_into().unwrap())], serial)
    }

    fn client_pair_of(&self, names: Vec<SanType>, serial: u64) -> Pair {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = names;
        parameters.serial_number = Some(SerialNumber::from(serial));
        self.pair(parameters, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A revocation list with these serial numbers, as PEM.
    pub(crate) fn revocations(&self, serials: &[u64]) -> String {
        self.revocations_until(serials, time::OffsetDateTime::now_utc() + time::Duration::days(1))
    }

    /// A revocation list that was to be replaced at `next_update`.
    pub(crate) fn revocations_until(&self, serials: &[u64], next_update: time::OffsetDateTime) -> String {
        let now = time::OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - time::Duration::hours(1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - time::Duration::days(1),
            next_update,
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    fn pair(&self, mut parameters: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Pair {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A TLS server with `server.pem`.
    pub(crate) fn server_config(&self, clients: Clients) -> ServerConfig {
        let chain = CertificateDer::pem_file_iter(self.folder().join("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.folder().join("server.key")).unwrap();
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let builder = match clients {
            Clients::Any => ServerConfig::builder().with_no_client_auth(),
            Clients::WithCertificate => {
                let mut roots = RootCertStore::empty();
                roots.add(self.issuer.as_ref().der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// A TLS client that trusts this authority, with a certificate of its own or without.
    pub(crate) fn client_config(&self, own: Option<&Pair>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.as_ref().der().clone()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }
}
