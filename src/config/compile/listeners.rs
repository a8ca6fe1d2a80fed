//! Listeners: sockets, certificates and limits.

use std::fmt;
use std::path::Path;

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;

use crate::clock::Timestamp;
use crate::config::checked::{self, Checked};
use crate::config::faults::{Declared, Fault, Faults};
use crate::config::load;
use crate::server::{
    CertificateSettings, ClientCertificateMode, ClientCertificateSettings, ListenAddress, ListenerSettings,
    MinimumVersion, Pem, ServerLimits, TlsAcceptorHandle, TlsError, TlsSettings,
};

/// Settings of every listener, with the certificates that their files hold now.
///
/// # Errors
/// The file that cannot be read, at the place that names it.
pub fn listeners(checked: &Checked) -> Result<Vec<ListenerSettings>, Faults> {
    checked
        .listeners
        .iter()
        .map(|listener| {
            Ok(ListenerSettings {
                name: listener.name.clone(),
                address: address(&listener.address),
                tls: listener.tls.as_ref().map(tls).transpose()?,
                proxy_protocol_from: listener.proxy_protocol.clone(),
            })
        })
        .collect()
}

/// Settings of the admin listener.
///
/// # Errors
/// As [`listeners`].
pub fn admin_listener(admin: &checked::Admin) -> Result<ListenerSettings, Faults> {
    Ok(ListenerSettings {
        name: "admin".to_owned(),
        address: address(&admin.address),
        tls: admin.tls.as_ref().map(tls).transpose()?,
        proxy_protocol_from: Vec::new(),
    })
}

/// What keeps certificates, keys and authorities of each listener from being used together.
pub(super) fn tls_faults(checked: &Checked) -> Faults {
    let all = checked.listeners.iter().map(|listener| (listener.name.as_str(), listener.tls.as_ref()));
    let admin = checked.admin.iter().map(|admin| ("admin", admin.tls.as_ref()));
    all.chain(admin)
        .filter_map(|(name, configured)| {
            let configured = configured?;
            match tls(configured) {
                Ok(settings) => Some(unusable(name, configured, &TlsAcceptorHandle::new(&settings).err()?).into()),
                Err(faults) => Some(faults),
            }
        })
        .flatten()
        .collect()
}

/// The fault of a listener's TLS that could not be set up, at the place to mend; the admin listener is `admin`.
#[must_use]
pub fn tls_fault(name: &str, checked: &Checked, error: &TlsError) -> Fault {
    let named =
        checked.listeners.iter().find(|listener| listener.name == name).and_then(|listener| listener.tls.as_ref());
    let admin = checked.admin.as_ref().filter(|_| name == "admin").and_then(|admin| admin.tls.as_ref());
    match named.or(admin) {
        Some(configured) => unusable(name, configured, error),
        None => checked.main.fault("tls", chain(error)),
    }
}

fn unusable(listener: &str, configured: &checked::ListenerTls, error: &TlsError) -> Fault {
    let message = format!("TLS of listener `{listener}` cannot be set up: {}", chain(error));
    place(configured, error).unwrap_or(&configured.declared).fault("tls", message)
}

/// Where the file is named that an error speaks of.
fn place<'a>(configured: &'a checked::ListenerTls, error: &TlsError) -> Option<&'a Declared> {
    let named = |file: &str| {
        let pairs = configured.certificates.iter();
        let own = pairs.flat_map(|pair| {
            [(shown(&pair.certificate), &pair.certificate_at), (pair.key.source.to_string(), &pair.key_at)]
        });
        let clients = configured.client_certificates.iter().flat_map(|clients| {
            let lists = clients.revocations.iter().map(|(path, at)| (shown(path), at));
            std::iter::once((shown(&clients.authorities), &clients.authorities_at)).chain(lists)
        });
        own.chain(clients).find(|(name, _)| name == file).map(|(_, at)| at)
    };
    match error {
        TlsError::KeyMismatch { file, certificate } => {
            let mut pairs = configured.certificates.iter();
            let is_it = |pair: &&checked::OwnCertificate| {
                pair.key.source.to_string() == *file && shown(&pair.certificate) == *certificate
            };
            pairs.find(is_it).map(|pair| &pair.key_at)
        }
        TlsError::NoCertificate { file }
        | TlsError::Pem { file, .. }
        | TlsError::Certificate { file, .. }
        | TlsError::NoName { file }
        | TlsError::NoKey { file }
        | TlsError::Key { file, .. }
        | TlsError::NoRevocationList { file }
        | TlsError::RevocationList { file, .. } => named(file),
        TlsError::NoCertificates | TlsError::Setup { .. } => None,
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Until when a revocation list of a listener holds. Past that, every client certificate that needs it is refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RevocationEnd {
    /// Name of the listener; `admin` is the admin listener's too.
    pub listener: String,
    /// The file.
    pub file: String,
    /// Its `nextUpdate`.
    pub at: Timestamp,
}

impl fmt::Display for RevocationEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, at) = (&self.file, self.at.rfc3339());
        write!(formatter, "revocation list `{file}` was to be replaced by {at}: client certificates are refused by it")
    }
}

/// Until when each revocation list of each listener holds. A list that cannot be read is told elsewhere.
#[must_use]
pub fn revocation_ends(checked: &Checked) -> Vec<RevocationEnd> {
    let all = checked.listeners.iter().map(|listener| (listener.name.as_str(), listener.tls.as_ref()));
    let admin = checked.admin.iter().map(|admin| ("admin", admin.tls.as_ref()));
    let mut ends = Vec::new();
    for (listener, tls) in all.chain(admin) {
        let clients = tls.and_then(|tls| tls.client_certificates.as_ref());
        let Some((path, _)) = clients.and_then(|clients| clients.revocations.as_ref()) else { continue };
        let bytes = load::read_up_to(path, load::REVOCATIONS_LIMIT_BYTES).unwrap_or_default();
        for list in CertificateRevocationListDer::pem_slice_iter(&bytes).flatten() {
            let parsed = x509_parser::parse_x509_crl(&list).ok();
            let next_update = parsed.and_then(|(_, list)| list.next_update().map(|time| time.timestamp()));
            ends.extend(next_update.map(|seconds| RevocationEnd {
                listener: listener.to_owned(),
                file: shown(path),
                at: Timestamp::from_unix_seconds(seconds),
            }));
        }
    }
    ends
}

/// Limits of connections.
#[must_use]
pub fn limits(limits: &checked::Limits) -> ServerLimits {
    ServerLimits {
        header_read: limits.header_read,
        header_bytes: u32::try_from(limits.header_bytes).unwrap_or(u32::MAX),
        header_count: limits.header_count,
        connections: limits.connections,
        streams_per_connection: limits.streams_per_connection,
        connection_idle: limits.connection_idle,
        handshake: limits.handshake,
        drain: limits.drain,
    }
}

fn address(address: &checked::ListenAddress) -> ListenAddress {
    match address {
        checked::ListenAddress::Tcp(address) => ListenAddress::Tcp(*address),
        checked::ListenAddress::Unix(path) => ListenAddress::Unix(path.clone()),
    }
}

fn tls(tls: &checked::ListenerTls) -> Result<TlsSettings, Faults> {
    let certificates = tls.certificates.iter().map(|pair| {
        Ok(CertificateSettings {
            certificate: pem(&pair.certificate, load::FILE_LIMIT_BYTES, &pair.certificate_at)?,
            key_name: pair.key.source.to_string(),
            key: pair.key.value.clone(),
        })
    });
    let client_certificates = tls.client_certificates.as_ref().map(|clients| {
        let mode = if clients.required { ClientCertificateMode::Required } else { ClientCertificateMode::Optional };
        let authorities = pem(&clients.authorities, load::FILE_LIMIT_BYTES, &clients.authorities_at)?;
        let revocations =
            clients.revocations.as_ref().map(|(path, at)| pem(path, load::REVOCATIONS_LIMIT_BYTES, at)).transpose()?;
        Ok::<_, Faults>(ClientCertificateSettings { mode, authorities, revocations })
    });
    Ok(TlsSettings {
        certificates: certificates.collect::<Result<_, Faults>>()?,
        minimum_version: if tls.tls13_only { MinimumVersion::Tls13 } else { MinimumVersion::Tls12 },
        client_certificates: client_certificates.transpose()?,
    })
}

fn pem(path: &Path, limit_bytes: u64, at: &Declared) -> Result<Pem, Faults> {
    let unreadable = |error| at.fault("file_unreadable", format!("file `{}` cannot be read: {error}", path.display()));
    let bytes = load::read_up_to(path, limit_bytes).map_err(unreadable)?;
    // What is no text is no PEM either, and is refused as such.
    Ok(Pem { name: shown(path), text: String::from_utf8_lossy(&bytes).into_owned() })
}
