//! Listeners, their TLS, and the limits of connections.

use std::collections::HashMap;

use ipnet::IpNet;

use super::desk::{REVOCATIONS, Scope};
use super::text;
use crate::config::checked::{ClientCertificates, Limits, ListenAddress, Listener, ListenerTls, OwnCertificate};
use crate::config::placed::{Place, Placed};
use crate::config::raw;
use crate::server::ServerLimits;

/// Most requests at once where the file does not say.
const CONCURRENT_REQUESTS: u32 = 10_000;

/// Addresses that are listened on, the admin listener's among them.
#[derive(Debug, Default)]
pub(super) struct Addresses(HashMap<ListenAddress, Place>);

impl Addresses {
    /// Takes an address, `written` so at `place`; nobody else may listen there.
    pub(super) fn take(&mut self, scope: &Scope<'_>, address: &ListenAddress, written: &str, place: Place) {
        // Port 0 is any free port, so two of them do not meet.
        let any_port = matches!(address, ListenAddress::Tcp(address) if address.port() == 0);
        if let Some(first) = self.0.get(address).filter(|_| !any_port) {
            let fault = scope.fault("address_twice", place, format!("address `{written}` is listened on twice"));
            scope.tell(fault.also(scope.file, *first, "first here").help("give one of them another port"));
        }
        self.0.insert(address.clone(), place);
    }
}

pub(super) fn listeners(scope: &Scope<'_>, config: &raw::Config, addresses: &mut Addresses) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (name, raw) in config.listeners.iter() {
        let Some(text) = scope.required(raw.address.as_ref(), name, "address") else { continue };
        let tls = raw.tls.as_ref().map(|tls| scope.sound(|| listener_tls(scope, name, tls)));
        let proxy_protocol = raw.proxy_protocol.as_ref().map_or_else(Vec::new, |proxy| {
            scope.not_empty(&proxy.from, "from");
            text::networks(scope, &proxy.from.value)
        });
        if let Some(plain) = &raw.plain {
            scope.reason(plain);
        }
        let Some((address, is_local)) = text::listen_address(scope, text) else { continue };
        if raw.tls.is_none() && raw.plain.is_none() && !is_local {
            let message = format!("listener `{}` speaks plain HTTP on an address that others can reach", name.value);
            let help = "add `tls`, listen on 127.0.0.1, or say why in `plain: { reason: … }`";
            scope.refuse("listener_plain", text.place, message, help);
        }
        if let (Some(_), Some(plain)) = (&raw.tls, &raw.plain) {
            let help = "remove one of `tls` and `plain`";
            scope.refuse("listener_plain", plain.reason.place, format!("listener `{}` has TLS", name.value), help);
        }
        if matches!(address, ListenAddress::Unix(_)) && raw.proxy_protocol.is_some() {
            let help = "a Unix socket has no peer address to compare; remove `proxy_protocol`";
            scope.refuse("proxy_protocol", text.place, "a Unix socket takes no PROXY protocol", help);
        }
        addresses.take(scope, &address, &text.value, text.place);
        listeners.push(Listener { name: name.value.clone(), address, tls: tls.flatten(), proxy_protocol });
    }
    listeners
}

/// TLS of a listener.
pub(super) fn listener_tls(scope: &Scope<'_>, owner: &Placed<String>, raw: &raw::ListenerTls) -> Option<ListenerTls> {
    let mut certificates = Vec::new();
    if let Some(list) = scope.required(raw.certificates.as_ref(), owner, "tls.certificates") {
        scope.not_empty(list, "certificates");
        for pair in &list.value {
            let certificate = scope.pem(&pair.certificate, "CERTIFICATE");
            certificates.extend(scope.private_key(&pair.key).map(|key| OwnCertificate {
                certificate,
                key,
                certificate_at: scope.declared(pair.certificate.place),
                key_at: scope.declared(pair.key.place),
            }));
        }
    }
    let tls13_only = match &raw.minimum_version {
        None => false,
        Some(version) => match version.as_str() {
            "1.2" => false,
            "1.3" => true,
            other => {
                let message = format!("TLS version `{other}` is not spoken");
                scope.refuse("tls_version", version.place, message, "write \"1.2\" or \"1.3\"");
                false
            }
        },
    };
    let client_certificates = raw.client_certificates.as_ref().map(|raw| ClientCertificates {
        required: raw.mode == raw::ClientCertificateMode::Required,
        authorities: scope.pem(&raw.authorities, "CERTIFICATE"),
        authorities_at: scope.declared(raw.authorities.place),
        revocations: raw.revocations.as_ref().map(|path| (scope.pem(path, REVOCATIONS), scope.declared(path.place))),
    });
    Some(ListenerTls { certificates, tls13_only, client_certificates, declared: scope.declared(owner.place) })
}

pub(super) fn trusted_proxies(scope: &Scope<'_>, config: &raw::Config) -> Vec<IpNet> {
    text::networks(scope, &config.trusted_proxies)
}

pub(super) fn limits(scope: &Scope<'_>, raw: Option<&raw::Limits>) -> Limits {
    let none = raw::Limits::default();
    let raw = raw.unwrap_or(&none);
    let default = ServerLimits::default();
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let header_bytes = scope.size(raw.header_bytes.as_ref(), default.header_bytes.into());
    if let Some(text) = &raw.header_bytes
        && !(1024..=1024 * 1024).contains(&header_bytes)
    {
        let message = format!("`{}` is out of range for a request head", text.value.0);
        scope.refuse("size", text.place, message, "give a size from `1KiB` to `1MiB`");
    }
    let wide = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    Limits {
        header_read: scope.duration(raw.header_read.as_ref(), default.header_read),
        header_bytes,
        header_count: wide(scope.count(raw.header_count.as_ref(), narrow(default.header_count), 10_000)),
        connections: wide(scope.count(raw.connections.as_ref(), narrow(default.connections), 10_000_000)),
        streams_per_connection: scope.count(
            raw.streams_per_connection.as_ref(),
            default.streams_per_connection,
            10_000,
        ),
        connection_idle: scope.duration(raw.connection_idle.as_ref(), default.connection_idle),
        handshake: scope.duration(raw.handshake.as_ref(), default.handshake),
        concurrent_requests: wide(scope.count(raw.concurrent_requests.as_ref(), CONCURRENT_REQUESTS, 10_000_000)),
        requests_per_source: raw
            .requests_per_source
            .as_ref()
            .map(|count| wide(scope.count(Some(count), CONCURRENT_REQUESTS, 10_000_000))),
        drain: scope.duration(raw.drain.as_ref(), default.drain),
    }
}
