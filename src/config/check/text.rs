//! What texts must look like: origins, URLs, hosts, claim paths, header names, networks.

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use ipnet::IpNet;
use url::{Host, Url};

use super::desk::Scope;
use crate::config::checked::ListenAddress;
use crate::config::placed::Placed;
use crate::credential::{Template, Variable};

/// Whether only this machine can reach the host.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// An https URL, or http on this machine, without user, query and fragment.
pub(super) fn secure_url(scope: &Scope<'_>, text: &Placed<String>, what: &str) -> Option<Url> {
    let Ok(url) = Url::parse(&text.value) else {
        // With a user before an `@`, it may hold a password.
        let written = if text.contains('@') { "it".to_owned() } else { format!("`{}`", text.value) };
        let message = format!("{written} is not a URL");
        scope.refuse("url", text.place, message, format!("{what} is written as `https://HOST/…`"));
        return None;
    };
    let plain = url.scheme() == "http";
    if url.scheme() != "https" && !(plain && is_loopback(&url)) {
        let message = format!("{what} must be an https URL");
        scope.refuse("url_not_https", text.place, message, "http is taken for loopback hosts only");
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        let help = "leave them out";
        scope.refuse("url", text.place, format!("{what} holds a user, a query or a fragment"), help);
        return None;
    }
    Some(url)
}

/// A text with values of the request in it.
pub(super) fn template(scope: &Scope<'_>, text: &Placed<String>) -> Option<Template> {
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(error) => {
            let help = format!("what may be named is {}", Variable::KNOWN);
            scope.refuse("template", text.place, format!("`{}`: {error}", text.value), help);
            None
        }
    }
}

/// An origin as a browser sends it: https, or http on this machine.
pub(super) fn origin(scope: &Scope<'_>, text: &Placed<String>, what: &str) -> Option<String> {
    if matches!(text.as_str(), "*" | "null") {
        let help = "name each origin, such as `https://app.example.com`";
        scope.refuse("origin", text.place, format!("`{}` is every origin", text.value), help);
        return None;
    }
    let url = secure_url(scope, text, what)?;
    let canonical = url.origin().ascii_serialization();
    if canonical != text.value {
        let message = format!("`{}` is not an origin", text.value);
        let fault = scope.fault("origin", text.place, message);
        scope.tell(fault.help(format!("an origin is scheme, host and port, without a path: `{canonical}`")));
        return None;
    }
    Some(canonical)
}

/// A host name or an address in brackets, without a port, lower case.
pub(super) fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address);
    }
    let label_is_good = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(label_is_good)
}

/// A claim path: segments parted by dots, `\.` for a dot and `\\` for a backslash.
pub(super) fn claim_path(scope: &Scope<'_>, text: &Placed<String>) -> String {
    let mut segment = 0_usize;
    let mut characters = text.chars();
    let mut good = !text.is_empty();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                good &= matches!(characters.next(), Some('.' | '\\'));
                segment += 1;
            }
            '.' => {
                good &= segment > 0;
                segment = 0;
            }
            control if control.is_control() => good = false,
            _ => segment += 1,
        }
    }
    if !good || segment == 0 {
        let message = format!("`{}` is not the path of a claim", text.value);
        let help = "part nested claims by a dot; write a dot inside a name as `\\.`";
        scope.refuse("claim_path", text.place, message, help);
    }
    text.value.clone()
}

/// Headers that say where a message ends, where it goes or how it came: no setting may give them another meaning.
const RESERVED_HEADERS: [&str; 25] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "expect",
    "cookie",
    "set-cookie",
    "forwarded",
    "via",
    "origin",
    "referer",
    "x-request-id",
    "x-real-ip",
    "traceparent",
    "tracestate",
    "date",
];

/// A header that Doorward may set towards an upstream.
pub(super) fn header(scope: &Scope<'_>, text: &Placed<String>) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        let message = format!("`{}` is not a header name", text.value);
        scope.refuse("header", text.place, message, "use letters, digits and `-`");
        return None;
    };
    let prefixes = ["x-forwarded-", "sec-", "access-control-", "content-", "if-"];
    if RESERVED_HEADERS.contains(&name.as_str()) || prefixes.iter().any(|prefix| name.as_str().starts_with(prefix)) {
        let message = format!("header `{}` has a meaning of its own", text.value);
        scope.refuse("header_reserved", text.place, message, "choose a name such as `X-Doorward-Subject`");
        return None;
    }
    Some(name)
}

/// `ADDRESS:PORT` or `unix:PATH`, and whether only this machine can reach it.
pub(super) fn listen_address(scope: &Scope<'_>, text: &Placed<String>) -> Option<(ListenAddress, bool)> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            scope.refuse("address", text.place, "the socket has no path", "write `unix:/run/doorward.sock`");
            return None;
        }
        let inner = Placed { value: path.to_owned(), place: text.place };
        return Some((ListenAddress::Unix(scope.path(&inner)), true));
    }
    match text.parse::<SocketAddr>() {
        Ok(address) => Some((ListenAddress::Tcp(address), address.ip().to_canonical().is_loopback())),
        Err(_) => {
            let message = format!("`{}` is not an address to listen on", text.value);
            scope.refuse("address", text.place, message, "write `127.0.0.1:8080`, `[::]:8443` or `unix:PATH`");
            None
        }
    }
}

/// Networks whose word is believed: at most `/8` of IPv4 and `/7` of IPv6, the largest that are private.
pub(super) fn networks(scope: &Scope<'_>, list: &[Placed<String>]) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in list {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let Ok(network) = parsed else {
            let message = format!("`{}` is not a network", text.value);
            scope.refuse("network", text.place, message, "write `10.0.0.0/8` or an address");
            continue;
        };
        let (narrowest, mapped) = match network {
            IpNet::V4(_) => (8, false),
            // `::ffff:0:0/96` and everything around it is all of IPv4.
            IpNet::V6(six) => {
                (7, six.prefix_len() < 104 && six.contains(&std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()))
            }
        };
        if network.prefix_len() < narrowest || mapped {
            let message = format!("`{}` takes strangers for load balancers", text.value);
            let help = "name the networks of your own load balancers: at most a /8 of IPv4 or a /7 of IPv6";
            scope.refuse("network_too_wide", text.place, message, help);
            continue;
        }
        networks.push(network.trunc());
    }
    if let Some(first) = list.first()
        && IpNet::aggregate(&networks).iter().any(|network| network.prefix_len() == 0)
    {
        let help = "name the networks of your own load balancers";
        scope.refuse("network_too_wide", first.place, "together the networks are the whole internet", help);
    }
    networks
}
