//! Upstreams: the APIs behind Doorward.

use std::time::Duration;

use url::Url;

use super::desk::Scope;
use super::text;
use crate::config::checked::{OwnCertificate, Upstream, UpstreamHost, UpstreamProtocol, UpstreamTls};
use crate::config::placed::{Named, Placed};
use crate::config::raw;
use crate::peer::Scheme;

pub(super) fn upstreams(scope: &Scope<'_>, named: &Named<raw::Upstream>) -> Vec<Upstream> {
    named.iter().filter_map(|(name, raw)| scope.sound(|| upstream(scope, name, raw))).collect()
}

fn upstream(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Upstream) -> Option<Upstream> {
    let list = scope.required(raw.addresses.as_ref(), name, "addresses");
    if let Some(list) = list {
        scope.not_empty(list, "addresses");
    }
    let addresses: Vec<(Scheme, String)> =
        list.map(|list| list.value.iter().filter_map(|text| address(scope, text)).collect()).unwrap_or_default();
    let scheme = addresses.first().map(|(scheme, _)| *scheme);
    if let (Some(list), Some(scheme)) = (list, scheme)
        && addresses.iter().any(|(other, _)| *other != scheme)
    {
        let message = format!("upstream `{}` mixes http and https", name.value);
        scope.refuse("upstream_schemes", list.place, message, "give all addresses one scheme");
    }
    let is_plain = scheme == Some(Scheme::Http);
    if let Some(protocol) = &raw.protocol
        && protocol.value == raw::Protocol::Auto
        && is_plain
    {
        let help = "write `http1` or `http2`, or use https addresses";
        scope.refuse("upstream_protocol", protocol.place, "`auto` needs TLS to settle on a protocol", help);
    }
    if let Some(tls) = &raw.tls
        && is_plain
    {
        let message = format!("upstream `{}` has `tls` and http addresses", name.value);
        scope.refuse("upstream_tls", tls.place, message, "write https addresses, or remove `tls`");
    }
    let host = match &raw.host {
        None => UpstreamHost::Address,
        Some(text) if text.value == "downstream" => UpstreamHost::Downstream,
        Some(text) => {
            let (host, port) = text.rsplit_once(':').map_or((text.as_str(), None), |(host, port)| (host, Some(port)));
            if !text::is_host(host) || port.is_some_and(|port| port.parse::<u16>().is_err()) {
                let message = format!("`{}` is not a host", text.value);
                scope.refuse("host", text.place, message, "write `billing.internal`, or `downstream`");
            }
            UpstreamHost::Fixed(text.value.clone())
        }
    };
    let tls = raw.tls.as_ref().map(|tls| self::tls(scope, name, tls)).unwrap_or_default();
    let timeouts = raw.timeouts.as_ref().and_then(|timeouts| timeouts.connect.as_ref());
    let ejection = raw.ejection.as_ref();
    let idle = scope.count(raw.connections.as_ref(), 100, 100_000);
    Some(Upstream {
        name: name.value.clone(),
        protocol: match raw.protocol.as_ref().map(|protocol| protocol.value) {
            None | Some(raw::Protocol::Http1) => UpstreamProtocol::Http1,
            Some(raw::Protocol::Http2) => UpstreamProtocol::Http2,
            Some(raw::Protocol::Auto) => UpstreamProtocol::Auto,
        },
        tls,
        host,
        connect_timeout: scope.duration(timeouts, Duration::from_secs(5)),
        idle_connections: usize::try_from(idle).unwrap_or(usize::MAX),
        ejection_failures: scope.count(ejection.and_then(|raw| raw.consecutive_failures.as_ref()), 5, 1000),
        ejection_base: scope.duration(ejection.and_then(|raw| raw.base.as_ref()), Duration::from_secs(10)),
        scheme: scheme?,
        addresses: addresses.into_iter().map(|(_, origin)| origin).collect(),
        declared: scope.declared(name.place),
    })
}

/// Scheme and origin of an upstream's address.
pub(super) fn parsed(text: &str) -> Option<(Scheme, String)> {
    let url = Url::parse(text).ok()?;
    let scheme = match url.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    (bare && anonymous).then(|| (scheme, url.origin().ascii_serialization()))
}

fn address(scope: &Scope<'_>, text: &Placed<String>) -> Option<(Scheme, String)> {
    let address = parsed(&text.value);
    if address.is_none() {
        // Not shown: what stands there may hold a password.
        let message = "an upstream's address is scheme, host and port, without user, path and query";
        scope.refuse("upstream_address", text.place, message, "write `http://10.0.0.7:8080`");
    }
    address
}

fn tls(scope: &Scope<'_>, owner: &Placed<String>, raw: &Placed<raw::UpstreamTls>) -> UpstreamTls {
    if let Some(name) = raw.server_name.as_ref().filter(|name| !text::is_host(name)) {
        let message = format!("`{}` is not a host", name.value);
        scope.refuse("host", name.place, message, "write a DNS name in lower case");
    }
    let certificate = raw.certificate.as_ref().map(|path| (scope.pem(path, "CERTIFICATE"), path.place));
    let key = raw.key.as_ref().and_then(|reference| Some((scope.private_key(reference)?, reference.place)));
    if raw.certificate.is_some() != raw.key.is_some() {
        let message = format!("upstream `{}` has one of `certificate` and `key`", owner.value);
        scope.refuse("upstream_client", raw.place, message, "a client certificate needs both");
    }
    UpstreamTls {
        authorities: raw.authorities.as_ref().map(|path| (scope.pem(path, "CERTIFICATE"), scope.declared(path.place))),
        server_name: raw.server_name.as_ref().map(|name| name.value.clone()),
        client: certificate.zip(key).map(|((certificate, certificate_place), (key, key_place))| OwnCertificate {
            certificate,
            key,
            certificate_at: scope.declared(certificate_place),
            key_at: scope.declared(key_place),
        }),
    }
}
