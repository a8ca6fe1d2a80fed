//! Listeners: sockets, certificates and limits.

use std::fs;
use std::path::Path;

use crate::config::checked::{self, Checked};
use crate::config::secrets::SecretSource;
use crate::server::{
    CertificateSettings, ClientCertificateMode, ClientCertificateSettings, ListenAddress, ListenerSettings,
    MinimumVersion, Pem, ServerLimits, TlsAcceptorHandle, TlsSettings,
};

/// Settings of every listener, with the certificates that their files hold now.
///
/// # Errors
/// A sentence about the file that cannot be read.
pub fn listeners(checked: &Checked) -> Result<Vec<ListenerSettings>, String> {
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
/// A sentence about the file that cannot be read.
pub fn admin_listener(admin: &checked::Admin) -> Result<ListenerSettings, String> {
    Ok(ListenerSettings {
        name: "admin".to_owned(),
        address: address(&admin.address),
        tls: admin.tls.as_ref().map(tls).transpose()?,
        proxy_protocol_from: Vec::new(),
    })
}

/// A sentence about every listener whose certificates, keys or authorities cannot be used together.
pub(super) fn tls_faults(checked: &Checked) -> impl Iterator<Item = String> {
    let all = checked.listeners.iter().map(|listener| (listener.name.as_str(), listener.tls.as_ref()));
    let admin = checked.admin.iter().map(|admin| ("admin", admin.tls.as_ref()));
    all.chain(admin).filter_map(|(name, settings)| {
        let fault = match tls(settings?) {
            Ok(settings) => chain(&TlsAcceptorHandle::new(&settings).err()?),
            Err(fault) => fault,
        };
        Some(format!("TLS of listener `{name}` cannot be set up: {fault}"))
    })
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

fn tls(tls: &checked::ListenerTls) -> Result<TlsSettings, String> {
    let certificates = tls.certificates.iter().map(|certificate| {
        Ok(CertificateSettings {
            certificate: pem(&certificate.certificate)?,
            key_name: match &certificate.key.source {
                SecretSource::File(path) => path.display().to_string(),
                SecretSource::Environment(name) => format!("env:{name}"),
            },
            key: certificate.key.value.clone(),
        })
    });
    let client_certificates = tls.client_certificates.as_ref().map(|clients| {
        let mode = if clients.required { ClientCertificateMode::Required } else { ClientCertificateMode::Optional };
        let revocations = clients.revocations.as_deref().map(pem).transpose()?;
        Ok::<_, String>(ClientCertificateSettings { mode, authorities: pem(&clients.authorities)?, revocations })
    });
    Ok(TlsSettings {
        certificates: certificates.collect::<Result<_, String>>()?,
        minimum_version: if tls.tls13_only { MinimumVersion::Tls13 } else { MinimumVersion::Tls12 },
        client_certificates: client_certificates.transpose()?,
    })
}

fn pem(path: &Path) -> Result<Pem, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    Ok(Pem { name: path.display().to_string(), text })
}
