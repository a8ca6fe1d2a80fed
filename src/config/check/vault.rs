//! Credentials by HashiCorp Vault or OpenBao.

use std::time::Duration;

use super::desk::Scope;
use super::{mtls, text};
use crate::config::checked::{CredentialKind, VaultCredential, VaultSubject};
use crate::config::placed::Placed;
use crate::config::raw::{self, VaultSubject as By};
use crate::credential::{DatabaseSecret, KvSecret, PkiSecret, Template, UserHeaders, VaultSecret, is_vault_path};

const SHORTEST_REFRESH: Duration = Duration::from_secs(10);
const USUAL_REFRESH: Duration = Duration::from_secs(300);
const LONGEST_REFRESH: Duration = Duration::from_secs(24 * 3600);
const PATH_FORM: &str = "segments of letters, digits, `-`, `_`, `.`, `@`, `:` and `|` between slashes, without `..` and without a slash at either end";

pub(super) fn vault(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Vault) -> Option<CredentialKind> {
    let address = scope.required(raw.address.as_ref(), name, "vault.address");
    let url = address.and_then(|address| text::secure_url(scope, address, "the vault's address"));
    let authorities = raw.authorities.as_ref().map(|path| scope.pem(path, "CERTIFICATE"));
    let namespace = raw.namespace.as_ref().map(|namespace| path(scope, namespace));
    let login = scope.required(raw.login.as_ref(), name, "vault.login");
    let role = login.and_then(|login| scope.required(login.role.as_ref(), name, "login.role"));
    let role = role.and_then(|role| one_name(scope, role));
    let mount = login.and_then(|login| or_usual(scope, &login.mount, "jwt"));
    if let Some(mount) = login.and_then(|login| login.mount.as_ref()).filter(|mount| mount.starts_with("auth/")) {
        let message = format!("`{}` begins with the `auth/` that every mount of a method has", mount.value);
        scope.refuse("vault_path", mount.place, message, "leave it out");
    }
    if let Some(address) = raw.address.as_ref().filter(|address| address.trim_end_matches('/').ends_with("/v1")) {
        let message = format!("`{}` ends with the `/v1` that every path of the API begins with", address.value);
        scope.refuse("url", address.place, message, "leave it out");
    }
    let url = url.map(|url| url.as_str().trim_end_matches('/').to_owned());
    let subject = subject(scope, raw, url.as_deref().unwrap_or_default());
    let secret = secret(scope, name, raw);
    Some(CredentialKind::Vault(Box::new(VaultCredential {
        address: url?,
        authorities,
        namespace: match namespace {
            Some(namespace) => Some(namespace?),
            None => None,
        },
        mount: mount?,
        role: role?,
        subject: subject?,
        secret: secret?,
    })))
}

fn subject(scope: &Scope<'_>, raw: &raw::Vault, address: &str) -> Option<VaultSubject> {
    if takes_callers_token(raw) {
        for (text, key) in [(&raw.token_audience, "token_audience"), (&raw.token_subject, "token_subject")] {
            if let Some(text) = text {
                let message = format!("`{key}` is of Doorward's own token, which `subject: caller` does not use");
                scope.refuse("vault_subject", text.place, message, "remove one of them");
            }
        }
        return Some(VaultSubject::Caller);
    }
    Some(VaultSubject::Doorward {
        audience: raw.token_audience.as_ref().map_or(address, |audience| audience.as_str()).to_owned(),
        subject: match &raw.token_subject {
            Some(subject) => text::template(scope, subject)?,
            None => Template::parse("{{principal.id}}").ok()?,
        },
    })
}

fn secret(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Vault) -> Option<VaultSecret> {
    let places = [
        raw.kv.as_ref().map(|kv| kv.place),
        raw.database.as_ref().map(|database| database.place),
        raw.pki.as_ref().map(|pki| pki.place),
    ];
    let mut given = places.into_iter().flatten();
    match (given.next(), given.next()) {
        (None, _) => {
            let message = format!("credential `{}` reads no secret", name.value);
            scope.refuse("vault_secret", name.place, message, "add `kv: …`, `database: …` or `pki: …`");
            return None;
        }
        (Some(_), Some(second)) => {
            let message = format!("credential `{}` reads two secrets", name.value);
            scope.refuse("vault_secret", second, message, "keep one of `kv`, `database` and `pki`");
            return None;
        }
        (Some(_), None) => {}
    }
    if let Some(raw) = &raw.kv {
        return kv(scope, name, raw).map(VaultSecret::Kv);
    }
    if let Some(raw) = &raw.database {
        return database(scope, name, raw).map(VaultSecret::Database);
    }
    raw.pki.as_ref().and_then(|raw| pki(scope, name, raw)).map(VaultSecret::Pki)
}

fn pki(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::VaultPki) -> Option<PkiSecret> {
    let mount = or_usual(scope, &raw.mount, "pki");
    let role = scope.required(raw.role.as_ref(), name, "pki.role").and_then(|role| path(scope, role));
    let uri = mtls::uri(scope, name, "pki", raw.trust_domain.as_ref(), raw.uri.as_ref());
    let common_name = match &raw.common_name {
        Some(text) => Some(text::template(scope, text)?),
        None => None,
    };
    let lifetime = mtls::lifetime(scope, raw.lifetime.as_ref());
    Some(PkiSecret { mount: mount?.into(), role: role?.into(), uri: uri?, common_name, lifetime })
}

fn kv(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::VaultKv) -> Option<KvSecret> {
    let mount = or_usual(scope, &raw.mount, "secret");
    let path = scope.required(raw.path.as_ref(), name, "kv.path").and_then(|path| template(scope, path));
    let written = |prefix: &str| raw.path.as_ref().filter(|path| path.starts_with(prefix));
    let engine = raw.mount.as_ref().map_or("secret", |mount| mount.as_str());
    if let Some(path) = written("data/").or_else(|| written(&format!("{engine}/data/"))) {
        let message = format!("`{}` begins with what the API has before it", path.value);
        scope.refuse("vault_path", path.place, message, "write the secret's path as `bao kv get` takes it");
    }
    let field = scope.required(raw.field.as_ref(), name, "kv.field");
    if let Some(field) = field.filter(|field| field.trim().is_empty()) {
        scope.refuse("empty_value", field.place, "`field` is empty", "name the secret's field");
    }
    let header = scope.required(raw.header.as_ref(), name, "kv.header");
    let header = header.and_then(|header| text::header(scope, header));
    if let Some(prefix) = raw.prefix.as_ref().filter(|prefix| !prefix.bytes().all(|byte| (b' '..0x7f).contains(&byte)))
    {
        let help = "use printable ASCII, such as `\"Bearer \"`";
        scope.refuse("prefix", prefix.place, "the prefix cannot stand in a header", help);
    }
    let refresh = scope.duration_up_to(raw.refresh.as_ref(), USUAL_REFRESH, (LONGEST_REFRESH, "1d"));
    if let Some(text) = raw.refresh.as_ref().filter(|_| refresh < SHORTEST_REFRESH) {
        let message = format!("`{}` would read the secret all the time", text.value.0);
        scope.refuse("too_short", text.place, message, "at least `10s` is needed here");
    }
    Some(KvSecret {
        mount: mount?.into(),
        path: path?,
        field: field?.as_str().into(),
        header: header?,
        prefix: raw.prefix.as_ref().map_or("", |prefix| prefix.as_str()).into(),
        refresh,
    })
}

fn database(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::VaultDatabase) -> Option<DatabaseSecret> {
    let mount = or_usual(scope, &raw.mount, "database");
    let role = scope.required(raw.role.as_ref(), name, "database.role").and_then(|role| template(scope, role));
    let headers = match &raw.headers {
        None => Some(UserHeaders::Basic),
        Some(named) => user_headers(scope, name, named),
    };
    Some(DatabaseSecret { mount: mount?.into(), role: role?, headers: headers? })
}

fn user_headers(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::VaultUserHeaders) -> Option<UserHeaders> {
    let username = scope.required(raw.username.as_ref(), name, "headers.username");
    let password = scope.required(raw.password.as_ref(), name, "headers.password");
    let (username, password_at) = (username.and_then(|text| text::header(scope, text)), password);
    let (username, password) = (username?, password_at.and_then(|text| text::header(scope, text))?);
    if let Some(text) = password_at.filter(|_| username == password) {
        let message = format!("header `{}` is to carry both name and password", text.value);
        scope.refuse("header_twice", text.place, message, "give one of them another name, or leave `headers` out");
    }
    Some(UserHeaders::Named { username, password })
}

/// A path as it is written.
fn path(scope: &Scope<'_>, text: &Placed<String>) -> Option<String> {
    if !is_vault_path(text) {
        scope.refuse("vault_path", text.place, format!("`{}` is no path of a vault", text.value), PATH_FORM);
        return None;
    }
    Some(text.value.clone())
}

fn or_usual(scope: &Scope<'_>, text: &Option<Placed<String>>, usual: &str) -> Option<String> {
    text.as_ref().map_or_else(|| Some(usual.to_owned()), |text| path(scope, text))
}

/// The name of a role.
fn one_name(scope: &Scope<'_>, text: &Placed<String>) -> Option<String> {
    if text.trim().is_empty() {
        scope.refuse("empty_value", text.place, "`role` is empty", "name the role of the vault's JWT method");
        return None;
    }
    if !is_vault_path(text) || text.contains('/') {
        let message = format!("`{}` is no role of a vault's JWT method", text.value);
        scope.refuse("vault_role", text.place, message, "write its name, without a value of the request in it");
        return None;
    }
    Some(text.value.clone())
}

/// A path with values of the request in it, each of them in one segment.
fn template(scope: &Scope<'_>, text: &Placed<String>) -> Option<Template> {
    let template = text::template(scope, text)?;
    if !is_vault_path(&template.with(|_| "x".to_owned())) {
        scope.refuse("vault_path", text.place, format!("`{}` is no path of a vault", text.value), PATH_FORM);
        return None;
    }
    Some(template)
}

/// Every text with values of the request in it.
pub(super) fn templates(raw: &raw::Vault) -> Vec<&Placed<String>> {
    let path = raw.kv.as_ref().and_then(|kv| kv.path.as_ref());
    let role = raw.database.as_ref().and_then(|database| database.role.as_ref());
    let pki = raw.pki.iter().flat_map(|pki| [&pki.uri, &pki.common_name].into_iter().flatten());
    [raw.token_subject.as_ref(), path, role].into_iter().flatten().chain(pki).collect()
}

/// Whether Doorward has to sign for it.
pub(super) fn signs(raw: &raw::Vault) -> bool {
    !takes_callers_token(raw)
}

/// Whether it is made of the caller's own token.
pub(super) fn takes_callers_token(raw: &raw::Vault) -> bool {
    raw.subject.as_ref().is_some_and(|subject| subject.value == By::Caller)
}

/// The headers that carry it, as they are written or by default.
pub(super) fn headers(raw: &raw::Vault) -> Vec<&str> {
    match (&raw.kv, &raw.database) {
        (Some(kv), _) => kv.header.iter().map(|header| header.as_str()).collect(),
        (None, Some(database)) => match &database.headers {
            Some(headers) => {
                [&headers.username, &headers.password].into_iter().flatten().map(|header| header.as_str()).collect()
            }
            None => vec!["Authorization"],
        },
        (None, None) => Vec::new(),
    }
}
