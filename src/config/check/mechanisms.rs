//! Mechanisms that stand once in a configuration: origin, state, assertions, audit, admin.

use std::time::Duration;

use super::desk::Scope;
use super::listeners::{Addresses, listener_tls};
use super::names::Names;
use super::{credential_traits, text};
use crate::config::checked::{Admin, Assertions, Audit, AuditDestination, Limits, ListenAddress};
use crate::config::placed::{Place, Placed};
use crate::config::raw;
use crate::credential::SHORTEST_ROTATION;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn first_login(config: &raw::Config) -> Option<(&Placed<String>, Place)> {
    config.issuers.iter().find_map(|(name, issuer)| Some((name, issuer.login.as_ref().map(|_| name.place)?)))
}

fn first_assertion(config: &raw::Config) -> Option<&Placed<String>> {
    config.credentials.iter().find(|(_, credential)| credential_traits::signs(credential)).map(|(name, _)| name)
}

pub(super) fn external_origin(scope: &Scope<'_>, config: &raw::Config) -> Option<String> {
    if let Some(text) = &config.external_origin {
        return text::origin(scope, text, "`external_origin`");
    }
    if let Some((name, place)) = first_login(config) {
        let message = format!("issuer `{}` has `login`, which needs `external_origin`", name.value);
        scope.refuse("external_origin", place, message, "add `external_origin: https://HOST`, as browsers see it");
    }
    None
}

pub(super) fn state_dir(scope: &Scope<'_>, config: &raw::Config) -> Option<std::path::PathBuf> {
    if let Some(state) = &config.state {
        return Some(scope.path(&state.dir));
    }
    let login = first_login(config).map(|(name, place)| (name, place, "login"));
    let assertion = first_assertion(config).map(|name| (name, name.place, "a signature of Doorward's"));
    if let Some((name, place, what)) = login.or(assertion) {
        let message = format!("`{}` has `{what}`, which needs `state.dir`", name.value);
        scope.refuse("state_dir", place, message, "add `state: { dir: /var/lib/doorward }` for keys and sessions");
    }
    None
}

pub(super) fn assertions(
    scope: &Scope<'_>,
    config: &raw::Config,
    names: &Names,
    external_origin: Option<&str>,
) -> Option<Assertions> {
    let none = raw::Assertions::default();
    let raw = config.assertions.as_ref().map_or(&none, |assertions| &assertions.value);
    let issuer = match &raw.issuer {
        Some(text) => {
            let url = text::secure_url(scope, text, "the issuer of assertions");
            if text.ends_with('/') {
                let help = format!("write `{}`", text.trim_end_matches('/'));
                scope.refuse("url", text.place, "the issuer of assertions ends with `/`", help);
            }
            url.map(|_| text.value.clone())
        }
        None => external_origin.map(|origin| format!("{origin}/.doorward")),
    };
    if let Some(name) = first_assertion(config)
        && raw.issuer.is_none()
        && config.external_origin.is_none()
    {
        let message = format!("credential `{}` signs assertions, but their issuer is not known", name.value);
        scope.refuse("assertion_issuer", name.place, message, "add `external_origin`, or `assertions: { issuer: … }`");
    }
    let hosted_elsewhere = raw.hosted_elsewhere.as_ref().map(|reasoned| scope.reason(reasoned));
    if let (Some(text), Some(issuer)) = (&raw.issuer, &issuer)
        && raw.listener.is_none()
        && hosted_elsewhere.is_none()
        && !is_our_own(issuer, external_origin)
    {
        let message = format!("nothing serves the documents of the issuer `{issuer}`");
        let help = "name a `listener` for them, or say who serves them in `hosted_elsewhere: { reason: … }`";
        scope.refuse("documents_unserved", text.place, message, help);
    }
    let listener = raw.listener.as_ref().filter(|listener| names.listeners.refer(scope, listener));
    let rotate_every = scope.duration(raw.rotate_every.as_ref(), 30 * DAY);
    if let Some(text) = &raw.rotate_every
        && rotate_every < SHORTEST_ROTATION
    {
        let message = format!("`{}` is too short for upstreams to follow", text.value.0);
        scope.refuse("too_short", text.place, message, "at least `1d` is needed here");
    }
    Some(Assertions { issuer: issuer?, listener: listener.map(|listener| listener.value.clone()), rotate_every })
}

/// Whether the issuer's documents stand below `/.doorward/`, where every listener for callers serves them. Without an
/// external origin its host is taken for one of ours.
fn is_our_own(issuer: &str, external_origin: Option<&str>) -> bool {
    match external_origin {
        Some(origin) => issuer.strip_prefix(origin) == Some("/.doorward"),
        None => url::Url::parse(issuer).is_ok_and(|url| url.path() == "/.doorward"),
    }
}

const DEFAULT_QUEUE: u32 = 20_000;

pub(super) fn audit(scope: &Scope<'_>, config: &raw::Config, limits: &Limits) -> Audit {
    let none = raw::Audit::default();
    let raw = config.audit.as_ref().unwrap_or(&none);
    let wide = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let refuse_when_full = raw.when_full != Some(raw::WhenFull::Count);
    let strict = raw.mode.as_ref().filter(|mode| mode.value == raw::AuditMode::Strict);
    if let Some(mode) = strict.filter(|_| !refuse_when_full) {
        let help = "remove `when_full: count`, which lets requests pass without a record";
        scope.refuse("audit_mode", mode.place, "a strict audit cannot count what it loses", help);
    }
    let default = if strict.is_some() { DEFAULT_QUEUE * 2 } else { DEFAULT_QUEUE };
    let queue = wide(scope.count(raw.queue.as_ref(), default, 10_000_000));
    let most = limits.concurrent_requests;
    let least = if strict.is_some() { most.saturating_mul(4) } else { most.saturating_add(1) };
    // Whichever of the two was written is the one to mend.
    let concurrent = config.limits.as_ref().and_then(|limits| limits.concurrent_requests.as_ref());
    if let Some(place) = raw.queue.as_ref().or(concurrent).map(|number| number.place)
        && refuse_when_full
        && queue < least
    {
        let message = format!("an audit queue of {queue} is too small for {most} requests at once");
        let help = "a request under way holds a place in the queue, a finished one until it is written, and with \
                    `mode: strict` each a second one: give `audit.queue` four times `limits.concurrent_requests`";
        scope.refuse("audit_queue", place, message, help);
    }
    let destination = match &raw.destination {
        None | Some(raw::AuditDestination::Stdout) => AuditDestination::Stdout,
        Some(raw::AuditDestination::File(file)) => AuditDestination::File {
            path: scope.path(&file.path),
            rotate_bytes: scope.size(file.rotate_bytes.as_ref(), 100 * 1024 * 1024),
            keep: wide(scope.count(file.keep.as_ref(), 5, 10_000)),
        },
    };
    Audit { destination, queue, refuse_when_full, strict: strict.is_some() }
}

pub(super) fn admin(scope: &Scope<'_>, config: &raw::Config, addresses: &mut Addresses) -> Option<Admin> {
    let raw = config.admin.as_ref()?;
    let loopback = ListenAddress::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 9901)));
    let address = raw.address.as_ref().map_or(Some((loopback, true)), |text| text::listen_address(scope, text));
    let token = raw.token.as_ref().map(|reference| scope.secret_line(reference));
    let place = raw.address.as_ref().map(|address| address.place).unwrap_or_default();
    let owner = Placed { value: "admin".to_owned(), place };
    let tls = raw.tls.as_ref().map(|tls| scope.sound(|| listener_tls(scope, &owner, tls)));
    let certificate_required = raw.tls.as_ref().and_then(|tls| tls.client_certificates.as_ref());
    let certificate_required =
        certificate_required.is_some_and(|client| client.mode == raw::ClientCertificateMode::Required);
    let (address, is_local) = address?;
    if !is_local && token.is_none() && !certificate_required {
        let help = "add `token: file:admin.token`, require client certificates, or listen on 127.0.0.1";
        scope.refuse("admin_open", place, "the admin listener is open to others", help);
    }
    if !is_local && token.is_some() && raw.tls.is_none() && raw.plain.is_none() {
        let message = "the admin listener's token would cross the network in plain HTTP";
        let help = "add `tls`, listen on 127.0.0.1, or say why in `plain: { reason: … }`";
        scope.refuse("listener_plain", place, message, help);
    }
    if let Some(plain) = &raw.plain {
        scope.reason(plain);
        if raw.tls.is_some() {
            let help = "remove one of `tls` and `plain`";
            scope.refuse("listener_plain", plain.reason.place, "the admin listener has TLS", help);
        }
    }
    addresses.take(scope, &address, raw.address.as_ref().map_or("127.0.0.1:9901", |text| text.as_str()), place);
    Some(Admin { address, token: token.flatten(), tls: tls.flatten() })
}
