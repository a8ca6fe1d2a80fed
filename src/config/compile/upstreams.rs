//! Upstreams: settings, certificates and pools.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::runtime::Runtime;
use crate::clock::Clock;
use crate::config::checked::{self, Checked, UpstreamHost};
use crate::upstream::{
    Ejection, HostHeader, Upstream, UpstreamAddress, UpstreamCertificate, UpstreamProtocol, UpstreamSettings,
    UpstreamSettingsError, UpstreamTls,
};

/// Every upstream by its name; what could not be made is noted.
pub(super) fn upstreams(
    checked: &Checked,
    runtime: &Runtime,
    note: &mut dyn FnMut(&'static str, String),
) -> BTreeMap<String, Arc<Upstream>> {
    let mut made = BTreeMap::new();
    for configured in &checked.upstreams {
        let upstream = settings(configured).and_then(|settings| Ok(runtime.upstream(settings)?));
        match upstream {
            Ok(upstream) => {
                made.insert(configured.name.clone(), upstream);
            }
            Err(error) => note("upstream", format!("upstream `{}`: {error}", configured.name)),
        }
    }
    made
}

/// Notes every upstream that could not be made.
pub(super) fn examine(checked: &Checked, note: &mut dyn FnMut(&'static str, String)) {
    for configured in &checked.upstreams {
        let made = settings(configured).and_then(|settings| Ok(Upstream::new(settings, Clock::system())?));
        if let Err(error) = made {
            note("upstream", format!("upstream `{}`: {error}", configured.name));
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum UpstreamFault {
    #[error(transparent)]
    Settings(#[from] UpstreamSettingsError),
    #[error("`{path}` cannot be read: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("`{path}` holds no {what}")]
    Empty { path: String, what: &'static str },
    #[error("host `{0}` is no authority")]
    Host(String),
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
    let authorities = configured.authorities.as_deref().map(certificates).transpose()?;
    let certificate = match &configured.client {
        None => None,
        Some((chain, key)) => {
            let empty = || UpstreamFault::Empty { path: chain.display().to_string(), what: "usable private key" };
            let key = PrivateKeyDer::from_pem_slice(key.value.expose().as_bytes()).map_err(|_| empty())?;
            Some(UpstreamCertificate { chain: certificates(chain)?, key: Arc::new(key) })
        }
    };
    Ok(UpstreamTls { authorities, server_name: configured.server_name.clone(), certificate })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, UpstreamFault> {
    let name = || path.display().to_string();
    let text = fs::read(path).map_err(|source| UpstreamFault::Unreadable { path: name(), source })?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(UpstreamFault::Empty { path: name(), what: "certificate" }),
    }
}
