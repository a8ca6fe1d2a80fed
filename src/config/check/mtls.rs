//! Client certificates: those that upstreams are shown, and those by which authorization servers know Doorward.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Scope;
use super::{text, upstreams};
use crate::clock::Clock;
use crate::config::checked::{CredentialKind, MtlsAuthority, MtlsCredential};
use crate::config::load::read_bounded;
use crate::config::placed::{Place, Placed};
use crate::config::raw;
use crate::config::secrets::{SecretSource, SecretValue};
use crate::config::units::DurationText;
use crate::credential::{
    AuthorityError, CertificateAuthority, CertificateFiles, ClientIdentity, ClientIdentityError, LONGEST_LEAF, Leaf,
    SHORTEST_LEAF, Template, UriTemplate, UriTemplateError,
};
use crate::peer::Scheme;

const LIFETIME: Duration = Duration::from_secs(900);
/// Names the socket where nothing else does (SPIFFE Workload Endpoint, section 4).
const SOCKET_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// The rest of the default URI.
const PATH: &str = "{{environment}}/{{principal.issuer}}/{{principal.subject}}";

pub(super) fn mtls(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Mtls) -> Option<CredentialKind> {
    let kind = match (&raw.files, &raw.authority, &raw.workload_api) {
        (Some(raw), None, None) => files(scope, name, raw)?,
        (None, Some(raw), None) => MtlsCredential::Authority(Box::new(authority(scope, name, raw)?)),
        (None, None, Some(raw)) => workload_api(scope, raw)?,
        _ => {
            let message = format!("`mtls` of credential `{}` is not of exactly one kind", name.value);
            let help = "name exactly one of `files`, `authority` and `workload_api`";
            scope.refuse("mtls_kind", name.place, message, help);
            return None;
        }
    };
    Some(CredentialKind::Mtls(kind))
}

fn files(scope: &Scope<'_>, name: &Placed<String>, raw: &Placed<raw::MtlsFiles>) -> Option<MtlsCredential> {
    let path = scope.required(raw.certificate.as_ref(), name, "mtls.files.certificate");
    let key = scope.required(raw.key.as_ref(), name, "mtls.files.key");
    let (path, reference) = (path?, key?);
    let (certificate, key) = pair(scope, path, reference)?;
    let SecretSource::File(key) = key.source else {
        let message = "the key of a certificate in files comes from a file, so that both can be replaced together";
        scope.refuse("secret_not_a_file", reference.place, message, "write `file:PATH`");
        return None;
    };
    if let Err(error) = CertificateFiles::check(&certificate, &key, Clock::system().now()) {
        let help = "name the PEM files of one pair: a certificate for clients that is valid now, and its key";
        scope.refuse("client_certificate", path.place, error.to_string(), help);
        return None;
    }
    Some(MtlsCredential::Files { certificate, key })
}

fn workload_api(scope: &Scope<'_>, raw: &Placed<raw::MtlsWorkloadApi>) -> Option<MtlsCredential> {
    if !cfg!(feature = "spiffe") {
        let message = "this build of Doorward knows no SPIFFE Workload API";
        let help = "build it with `--features spiffe`, or use `files` or `authority`";
        scope.refuse("workload_api_absent", raw.place, message, help);
        return None;
    }
    let variable = || scope.variable(SOCKET_VARIABLE).map(|socket| socket.expose().to_owned());
    let (socket, place) = match &raw.socket {
        Some(socket) => (Some(socket.value.clone()), socket.place),
        None => (variable(), raw.place),
    };
    let is_socket = |socket: &String| {
        let path = socket.strip_prefix("unix://").unwrap_or_default();
        path.starts_with('/')
            && path.len() > 1
            && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%".contains(&byte))
    };
    if socket.is_none() {
        let message = "the socket of the SPIFFE Workload API is not named";
        let help = format!("write `socket: unix:///PATH`, or set `{SOCKET_VARIABLE}` where Doorward is started");
        scope.refuse("workload_api_socket", place, message, help);
    }
    if let Some(socket) = socket.as_ref().filter(|socket| !is_socket(socket)) {
        let of = if raw.socket.is_some() { "" } else { ", which the environment names," };
        let message = format!("`{socket}`{of} is no socket of a SPIFFE Workload API");
        scope.refuse("workload_api_socket", place, message, "write it as `unix:///PATH`");
    }
    let sound = socket.filter(is_socket);
    let is_id = |id: &str| {
        let (domain, path) = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).unwrap_or_default();
        let segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        text::is_host(domain) && path.split('/').all(segment)
    };
    if let Some(id) = raw.spiffe_id.as_ref().filter(|id| !is_id(id)) {
        let message = format!("`{}` is no SPIFFE ID of a workload", id.value);
        scope.refuse("spiffe_id", id.place, message, "write `spiffe://DOMAIN/PATH`");
    }
    Some(MtlsCredential::WorkloadApi { socket: sound?, spiffe_id: raw.spiffe_id.as_ref().map(|id| id.value.clone()) })
}

/// Both files, if there is anything in them that looks like what it should be.
fn pair(scope: &Scope<'_>, certificate: &Placed<String>, key: &Placed<String>) -> Option<(PathBuf, SecretValue)> {
    scope.sound(|| {
        let (certificate, key) = (scope.pem(certificate, "CERTIFICATE"), scope.private_key(key));
        Some((certificate, key?))
    })
}

fn authority(scope: &Scope<'_>, name: &Placed<String>, raw: &Placed<raw::MtlsAuthority>) -> Option<MtlsAuthority> {
    let certificate = scope.required(raw.certificate.as_ref(), name, "mtls.authority.certificate");
    let key = scope.required(raw.key.as_ref(), name, "mtls.authority.key");
    let uri = uri(scope, name, "mtls.authority", raw.trust_domain.as_ref(), raw.uri.as_ref());
    let common_name = match &raw.common_name {
        Some(text) => Some(text::template(scope, text)?),
        None => None,
    };
    let lifetime = lifetime(scope, raw.lifetime.as_ref());
    let (certificate, reference, uri) = (certificate?, key?, uri?);
    let (path, key) = pair(scope, certificate, reference)?;
    // Looked at a moment ago; whatever is wrong with it since shows as no certificate.
    let certificates = read_bounded(&path).unwrap_or_default();
    let trial = Leaf { uri: uri.sample().into(), common_name: common_name.as_ref().map(|_| "x".into()), lifetime };
    let now = Clock::system().now();
    match CertificateAuthority::from_pem(&certificates, &key.value, &trial, now) {
        Ok(authority) => Some(MtlsAuthority { authority: Arc::new(authority), uri, common_name, lifetime }),
        Err(error) => {
            let (place, help) = mend(&error, certificate.place, reference.place);
            let message = format!("`{}` is no certificate authority that signs: {error}", path.display());
            scope.refuse("mtls_authority", place, message, help);
            None
        }
    }
}

/// How long certificates live.
pub(super) fn lifetime(scope: &Scope<'_>, raw: Option<&Placed<DurationText>>) -> Duration {
    let lifetime = scope.duration_up_to(raw, LIFETIME, (LONGEST_LEAF, "24h"));
    if let Some(text) = raw.filter(|_| lifetime < SHORTEST_LEAF) {
        let message = format!("`{}` is too short for a certificate to be of use", text.value.0);
        scope.refuse("too_short", text.place, message, "at least `1m` is needed here");
    }
    lifetime
}

/// Where to mend it, and how.
fn mend(error: &AuthorityError, certificate: Place, key: Place) -> (Place, &'static str) {
    match error {
        AuthorityError::Certificate => (certificate, "name a PEM file that begins with the authority's certificate"),
        AuthorityError::NoAuthority => (certificate, "name one with basic constraints `CA:TRUE`, not a leaf"),
        AuthorityError::Usage => (certificate, "name one whose key usage holds `keyCertSign`"),
        AuthorityError::Time { .. } => (certificate, "renew the certificate, or mend this machine's clock"),
        AuthorityError::Chain(_) => {
            (certificate, "write the authority first, then each one above it, and nothing else")
        }
        AuthorityError::Key => (key, "point it at the authority's key in PEM: ECDSA, Ed25519 or RSA"),
        AuthorityError::Mismatch => (key, "point it at the key of the certificate that stands first in the file"),
        AuthorityError::Name => (certificate, "use an authority whose subject holds each kind of name once, as text"),
        AuthorityError::Trial(_) => (certificate, "its name constraints may leave these certificates out"),
    }
}

/// The URI that names a certificate's holder: by the whole text, or by its domain alone.
pub(super) fn uri(
    scope: &Scope<'_>,
    name: &Placed<String>,
    key: &str,
    trust_domain: Option<&Placed<String>>,
    uri: Option<&Placed<String>>,
) -> Option<UriTemplate> {
    match (trust_domain, uri) {
        (Some(_), Some(uri)) => {
            let message = "`trust_domain` is part of the default `uri`, and this one is another";
            scope.refuse("mtls_uri", uri.place, message, "write one of them");
            None
        }
        (None, None) => {
            scope.required(None::<&()>, name, &format!("{key}.trust_domain"));
            None
        }
        (Some(domain), None) => {
            let uri = text::is_host(domain).then(|| format!("spiffe://{}/{PATH}", domain.value));
            let uri = uri.and_then(|uri| UriTemplate::new(Template::parse(&uri).ok()?).ok());
            if uri.is_none() {
                let message = format!("`{}` is not a trust domain", domain.value);
                scope.refuse("mtls_uri", domain.place, message, "write a DNS name in lower case");
            }
            uri
        }
        (None, Some(uri)) => match UriTemplate::new(text::template(scope, uri)?) {
            Ok(template) => Some(template),
            Err(fault) => {
                let help = match fault {
                    UriTemplateError::Form => format!("write `spiffe://acme.example/{PATH}`"),
                    UriTemplateError::Segment => "put a `/` between them".to_owned(),
                    UriTemplateError::Shared => {
                        "add `/{{principal.id}}`, or `/{{principal.issuer}}/{{principal.subject}}`".to_owned()
                    }
                };
                scope.refuse("mtls_uri", uri.place, format!("`{}`: {fault}", uri.value), help);
                None
            }
        },
    }
}

/// The client certificate by which an authorization server knows Doorward (RFC 8705 section 2.1).
pub(super) fn client_certificate(
    scope: &Scope<'_>,
    owner: &Placed<String>,
    raw: &raw::OauthClient,
) -> Option<ClientIdentity> {
    let certificate = scope.required(raw.certificate.as_ref(), owner, "endpoint.client.certificate");
    let key = scope.required(raw.key.as_ref(), owner, "endpoint.client.key");
    let (certificate, reference) = (certificate?, key?);
    let (path, key) = pair(scope, certificate, reference)?;
    let chain = read_bounded(&path).unwrap_or_default();
    let now = Clock::system().now();
    let refuse = |place, detail: String| {
        let help = "name the PEM files of one pair: a certificate for clients that is valid now, and its key";
        scope.refuse(
            "client_certificate",
            place,
            format!("no client certificate in `{}`: {detail}", path.display()),
            help,
        );
    };
    match ClientIdentity::from_pem(&chain, key.value.expose().as_bytes()) {
        Ok(identity) if identity.serves(now) => Some(identity),
        Ok(identity) => {
            refuse(certificate.place, format!("it is not valid now: it ends at {}", identity.expires_at().rfc3339()));
            None
        }
        Err(error) => {
            let of_key = matches!(error, ClientIdentityError::Key | ClientIdentityError::Mismatch);
            refuse(if of_key { reference.place } else { certificate.place }, error.to_string());
            None
        }
    }
}

/// Refuses an upstream that cannot be shown the credential's certificate, or is shown another.
pub(super) fn meets_upstream(
    scope: &Scope<'_>,
    credential: &Placed<String>,
    name: &Placed<String>,
    upstream: &raw::Upstream,
) {
    let addresses = upstream.addresses.iter().flat_map(|list| &list.value);
    let mut schemes = addresses.filter_map(|address| upstreams::parsed(address)).map(|(scheme, _)| scheme);
    if schemes.any(|scheme| scheme == Scheme::Http) {
        let message =
            format!("upstream `{}` is not reached by TLS, which credential `{}` needs", name.value, credential.value);
        let help = "give the upstream https addresses, or the route another credential";
        scope.refuse("mtls_plain_upstream", credential.place, message, help);
    }
    if upstream.tls.as_ref().is_some_and(|tls| tls.certificate.is_some()) {
        let message = format!(
            "upstream `{}` has a client certificate, and credential `{}` is another",
            name.value, credential.value
        );
        let help = "remove `tls.certificate` and `tls.key` from the upstream, or give the route another credential";
        scope.refuse("mtls_two_certificates", credential.place, message, help);
    }
}

/// Every text with values of the request in it.
pub(super) fn templates(raw: &raw::Mtls) -> Vec<&Placed<String>> {
    let authority = raw.authority.iter();
    authority.flat_map(|authority| [&authority.uri, &authority.common_name].into_iter().flatten()).collect()
}
