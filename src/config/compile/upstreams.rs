//! Upstreams: settings, certificates and pools.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Note;
use super::runtime::Runtime;
use crate::clock::Clock;
use crate::config::checked::{self, Checked, OwnCertificate, UpstreamHost};
use crate::config::faults::Declared;
use crate::upstream::{
    Ejection, HostHeader, Upstream, UpstreamAddress, UpstreamCertificate, UpstreamProtocol, UpstreamSettings,
    UpstreamSettingsError, UpstreamTls,
};

/// Every upstream by its name; what could not be made is noted.
pub(super) fn upstreams(checked: &Checked, runtime: &Runtime, note: Note<'_>) -> BTreeMap<String, Arc<Upstream>> {
    let mut made = BTreeMap::new();
    for configured in &checked.upstreams {
        let upstream = settings(configured).and_then(|settings| Ok(runtime.upstream(settings)?));
        match upstream {
            Ok(upstream) => {
                made.insert(configured.name.clone(), upstream);
            }
            Err(error) => {
                let message = format!("upstream `{}`: {error}", configured.name);
                note(error.place(configured), "upstream", message);
            }
        }
    }
    made
}

/// Notes every upstream that could not be made.
pub(super) fn examine(checked: &Checked, note: Note<'_>) {
    for configured in &checked.upstreams {
        let made = settings(configured).and_then(|settings| Ok(Upstream::new(settings, Clock::system())?));
        if let Err(error) = made {
            let message = format!("upstream `{}`: {error}", configured.name);
            note(error.place(configured), "upstream", message);
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum UpstreamFault {
    #[error(transparent)]
    Settings(#[from] UpstreamSettingsError),
    #[error("`{path}` cannot be read: {source}")]
    Unreadable { path: String, source: io::Error, at: Declared },
    #[error("`{path}` holds no {what}")]
    Empty { path: String, what: &'static str, at: Declared },
    #[error("host `{0}` is no authority")]
    Host(String),
}

impl UpstreamFault {
    /// Where to mend it.
    fn place<'a>(&'a self, configured: &'a checked::Upstream) -> &'a Declared {
        match self {
            Self::Unreadable { at, .. } | Self::Empty { at, .. } => at,
            Self::Settings(UpstreamSettingsError::Certificate(_)) => {
                configured.tls.client.as_ref().map_or(&configured.declared, |client| &client.key_at)
            }
            Self::Settings(UpstreamSettingsError::Authority(_)) => {
                configured.tls.authorities.as_ref().map_or(&configured.declared, |(_, at)| at)
            }
            Self::Settings(_) | Self::Host(_) => &configured.declared,
        }
    }
}

fn settings(configured: &checked::Upstream) -> Result<UpstreamSettings, UpstreamFault> {
    let addresses: Result<Vec<_>, _> = configured.addresses.iter().map(|text| UpstreamAddress::parse(text)).collect();
    let mut settings = UpstreamSettings::new(configured.name.as_str(), addresses?);
    settings.protocol = match configured.protocol {
        checked::UpstreamProtocol::Http1 => UpstreamProtocol::Http1,
        checked::UpstreamProtocol::Http2 => UpstreamProtocol::Http2,
        checked::UpstreamProtocol::Auto => UpstreamProtocol::Auto,
    };
    settings.host = match &configured.host {
        UpstreamHost::Address => HostHeader::Address,
        UpstreamHost::Downstream => HostHeader::Downstream,
        UpstreamHost::Fixed(host) => HostHeader::Fixed(host.parse().map_err(|_| UpstreamFault::Host(host.clone()))?),
    };
    settings.tls = tls(&configured.tls)?;
    settings.connect_timeout = configured.connect_timeout;
    settings.idle_connections = configured.idle_connections;
    settings.ejection = Ejection { consecutive_failures: configured.ejection_failures, base: configured.ejection_base };
    Ok(settings)
}

fn tls(configured: &checked::UpstreamTls) -> Result<UpstreamTls, UpstreamFault> {
    let authorities = configured.authorities.as_ref().map(|(path, at)| certificates(path, at)).transpose()?;
    let certificate = match &configured.client {
        None => None,
        Some(OwnCertificate { certificate, key, certificate_at, key_at }) => {
            let (path, what, at) = (key.source.to_string(), "usable private key", key_at.clone());
            let empty = |_| UpstreamFault::Empty { path, what, at };
            let key = PrivateKeyDer::from_pem_slice(key.value.expose().as_bytes()).map_err(empty)?;
            Some(UpstreamCertificate { chain: certificates(certificate, certificate_at)?, key: Arc::new(key) })
        }
    };
    Ok(UpstreamTls { authorities, server_name: configured.server_name.clone(), certificate })
}

fn certificates(path: &Path, at: &Declared) -> Result<Vec<CertificateDer<'static>>, UpstreamFault> {
    let name = || path.display().to_string();
    let text = fs::read(path).map_err(|source| UpstreamFault::Unreadable { path: name(), source, at: at.clone() })?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(UpstreamFault::Empty { path: name(), what: "certificate", at: at.clone() }),
    }
}
