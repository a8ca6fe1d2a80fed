//! Credentials of Google Cloud.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Uri};

use super::desk::Scope;
use super::external_account::{self, ExternalAccount};
use super::text;
use crate::config::checked::{
    CredentialKind, GcpCredential, GcpEndpoint, GcpFederation, GcpOrigin, GcpProof, GcpServiceAccount, GcpToken,
};
use crate::config::placed::{Place, Placed};
use crate::config::raw::{self, OauthSubject};
use crate::credential::{LONGEST_GOOGLE_SUBJECT, Template};
use crate::outbound::{PlainHttp, check_address};

const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
/// What impersonation takes, and no more.
const IAM: &str = "https://www.googleapis.com/auth/iam";
const STS: &str = "https://sts.googleapis.com/v1/token";
const IAM_CREDENTIALS: &str = "https://iamcredentials.googleapis.com";
const LIFETIME: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
const LONGEST_WITH_REASON: Duration = Duration::from_secs(12 * 3600);

pub(super) fn gcp(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Gcp) -> Option<CredentialKind> {
    let header = raw.header.as_ref().map_or(Some(AUTHORIZATION), |header| text::header(scope, header));
    let user_project = match &raw.user_project {
        None => Some(None),
        Some(text) => user_project(scope, text).map(Some),
    };
    let origin = match &raw.metadata_server {
        Some(server) => metadata(scope, raw, server),
        None => federation(scope, name, raw).map(GcpOrigin::Federation),
    };
    let (origin, user_project, header) = (origin?, user_project?, header?);
    Some(CredentialKind::Gcp(Box::new(GcpCredential { origin, user_project, header })))
}

fn unused(scope: &Scope<'_>, place: Option<Place>, key: &str, beside: &str) {
    if let Some(place) = place {
        scope.refuse("gcp_unused", place, format!("`{key}` does not go with {beside}"), "remove one of them");
    }
}

fn place<T>(value: Option<&Placed<T>>) -> Option<Place> {
    value.map(|value| value.place)
}

fn endpoint_place(endpoint: Option<&raw::GcpEndpoint>) -> Option<Place> {
    endpoint.and_then(|endpoint| place(endpoint.url.as_ref()))
}

fn metadata(scope: &Scope<'_>, raw: &raw::Gcp, server: &raw::GcpMetadataServer) -> Option<GcpOrigin> {
    for (place, key) in [
        (place(raw.audience.as_ref()), "audience"),
        (place(raw.external_account.as_ref()), "external_account"),
        (place(raw.subject.as_ref()), "subject"),
        (place(raw.token_audience.as_ref()), "token_audience"),
        (place(raw.token_subject.as_ref()), "token_subject"),
        (place(raw.service_account.as_ref()), "service_account"),
        (place(raw.scopes.first()), "scopes"),
        (endpoint_place(raw.sts.as_ref()), "sts"),
        (endpoint_place(raw.iam_credentials.as_ref()), "iam_credentials"),
    ] {
        unused(scope, place, key, "`metadata_server`");
    }
    let url = match &server.url {
        None => Some(None),
        Some(text) => metadata_url(scope, text).map(Some),
    };
    let account = match &server.service_account {
        None => Some("default".to_owned()),
        Some(email) => is_email(scope, email).then(|| email.value.clone()),
    };
    let token = match &server.id_token {
        Some(id_token) => {
            unused(scope, place(server.scopes.first()), "scopes", "`id_token`");
            identity(scope, id_token)
        }
        None => Some(GcpToken::Access { scopes: scopes(scope, &server.scopes), lifetime: LONGEST }),
    };
    Some(GcpOrigin::Metadata { url: url?, account: account?, token: token? })
}

fn federation(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Gcp) -> Option<GcpFederation> {
    let sts = configured(scope, name, raw.sts.as_ref(), "sts.url");
    let iam = configured(scope, name, raw.iam_credentials.as_ref(), "iam_credentials.url");
    let file = match &raw.external_account {
        None => Some(None),
        Some(path) => {
            let url = |endpoint: &Option<Option<GcpEndpoint>>| Some(endpoint.as_ref()?.as_ref()?.url.clone());
            external_account::read(scope, path, url(&sts).as_deref(), url(&iam).as_deref()).map(Some)
        }
    };
    let (sts, iam, file) = (sts?, iam?, file?);
    let audience = audience(scope, name, raw, file.as_ref());
    let account = service_account(scope, name, raw, file.as_ref(), iam);
    let proof = audience.as_deref().and_then(|audience| proof(scope, raw, audience));
    let federated_scopes = match (&raw.service_account, file.as_ref().and_then(|file| file.email.as_ref())) {
        (None, None) => or_cloud_platform(scopes(scope, &raw.scopes)),
        _ => {
            unused(scope, place(raw.scopes.first()), "scopes", "`service_account`, which has its own");
            vec![IAM.to_owned()]
        }
    };
    let url = file.map_or_else(|| STS.to_owned(), |file| file.token_url);
    Some(GcpFederation {
        audience: audience?,
        proof: proof?,
        sts: sts.unwrap_or(GcpEndpoint { url, authorities: None }),
        scopes: federated_scopes,
        service_account: account?,
    })
}

/// `Some(None)` where none is configured.
fn configured(
    scope: &Scope<'_>,
    name: &Placed<String>,
    raw: Option<&raw::GcpEndpoint>,
    key: &str,
) -> Option<Option<GcpEndpoint>> {
    let Some(raw) = raw else { return Some(None) };
    let url = scope.required(raw.url.as_ref(), name, &format!("gcp.{key}"));
    let url = url.and_then(|url| text::secure_url(scope, url, "the endpoint").map(|_| url.value.clone()));
    let authorities = raw.authorities.as_ref().map(|path| scope.pem(path, "CERTIFICATE"));
    Some(Some(GcpEndpoint { url: url?, authorities }))
}

fn audience(
    scope: &Scope<'_>,
    name: &Placed<String>,
    raw: &raw::Gcp,
    file: Option<&ExternalAccount>,
) -> Option<String> {
    match (&raw.audience, file) {
        (Some(audience), None) => {
            if !external_account::is_provider(audience) {
                let message = format!("`{}` is no provider of a workload identity pool", audience.value);
                scope.refuse("gcp_audience", audience.place, message, external_account::PROVIDER_HELP);
                return None;
            }
            Some(audience.value.clone())
        }
        (None, Some(file)) => Some(file.audience.clone()),
        (Some(audience), Some(_)) => {
            unused(scope, Some(audience.place), "audience", "`external_account`, which says it");
            None
        }
        (None, None) => {
            scope.required(None::<&()>, name, "gcp.audience");
            None
        }
    }
}

fn proof(scope: &Scope<'_>, raw: &raw::Gcp, audience: &str) -> Option<GcpProof> {
    if raw.subject.as_ref().is_some_and(|subject| subject.value == OauthSubject::Caller) {
        unused(scope, place(raw.token_audience.as_ref()), "token_audience", "`subject: caller`");
        unused(scope, place(raw.token_subject.as_ref()), "token_subject", "`subject: caller`");
        return Some(GcpProof::Caller);
    }
    let subject = match &raw.token_subject {
        None => Template::parse("doorward:{{environment}}:{{route}}").ok(),
        Some(text) => {
            let template = text::template(scope, text)?;
            let fixed = text.split("{{").filter_map(|part| part.rsplit("}}").next()).map(str::len).sum::<usize>();
            // Values have at least one byte each.
            if fixed + template.variables().count() > LONGEST_GOOGLE_SUBJECT {
                let message = format!("the subject has more than {LONGEST_GOOGLE_SUBJECT} bytes");
                scope.refuse("gcp_subject", text.place, message, "Google takes no longer one: write a shorter one");
                return None;
            }
            Some(template)
        }
    };
    let audience = raw.token_audience.as_ref().map_or_else(|| format!("https:{audience}"), |text| text.value.clone());
    Some(GcpProof::Doorward { audience, subject: subject? })
}

/// `Some(None)` where the federated token itself goes upstream.
fn service_account(
    scope: &Scope<'_>,
    name: &Placed<String>,
    raw: &raw::Gcp,
    file: Option<&ExternalAccount>,
    iam: Option<GcpEndpoint>,
) -> Option<Option<GcpServiceAccount>> {
    let default = raw::GcpServiceAccount::default();
    let named = file.and_then(|file| file.email.as_ref());
    let raw_account = match (&raw.service_account, named) {
        (Some(account), _) => &account.value,
        (None, Some(_)) => &default,
        (None, None) => {
            unused(scope, endpoint_place(raw.iam_credentials.as_ref()), "iam_credentials", "no `service_account`");
            return Some(None);
        }
    };
    let email = match (&raw_account.email, named) {
        (Some(email), Some(named)) if email.value != *named => {
            unused(scope, Some(email.place), "email", "`external_account`, which names another");
            None
        }
        (Some(email), _) => is_email(scope, email).then(|| email.value.clone()),
        (None, Some(named)) => Some(named.clone()),
        (None, None) => {
            scope.required(None::<&()>, name, "service_account.email");
            None
        }
    };
    let delegates = raw_account.delegates.iter().filter(|email| is_email(scope, email));
    let delegates = delegates.map(|email| email.value.clone()).collect();
    let token = match &raw_account.id_token {
        Some(id_token) => {
            for (place, key) in [
                (place(raw_account.lifetime.as_ref()), "lifetime"),
                (raw_account.long_lifetime.as_ref().map(|long| long.reason.place), "long_lifetime"),
                (place(raw_account.scopes.first()), "scopes"),
            ] {
                unused(scope, place, key, "`id_token`, which always lives an hour");
            }
            identity(scope, id_token)
        }
        None => Some(GcpToken::Access {
            scopes: or_cloud_platform(scopes(scope, &raw_account.scopes)),
            lifetime: lifetime(scope, raw_account),
        }),
    };
    let url = file.and_then(|file| file.iam_url.clone()).unwrap_or_else(|| IAM_CREDENTIALS.to_owned());
    let endpoint = iam.unwrap_or(GcpEndpoint { url, authorities: None });
    Some(Some(GcpServiceAccount { endpoint, email: email?, delegates, token: token? }))
}

fn lifetime(scope: &Scope<'_>, raw: &raw::GcpServiceAccount) -> Duration {
    let lifetime = scope.duration(raw.lifetime.as_ref(), LIFETIME);
    if let Some(long) = &raw.long_lifetime {
        scope.reason(long);
    }
    let Some(text) = &raw.lifetime else { return lifetime };
    if lifetime < SHORTEST {
        let message = format!("`{}` is too short for a token to arrive", text.value.0);
        scope.refuse("too_short", text.place, message, "at least `1m` is needed here");
    }
    let (longest, help) = match raw.long_lifetime {
        Some(_) => (LONGEST_WITH_REASON, "at most `12h` is allowed here"),
        None => (LONGEST, "at most `1h`, or up to `12h` with `long_lifetime: { reason: … }`"),
    };
    if lifetime > longest {
        let message = format!("`{}` is longer than Google lets a token live", text.value.0);
        scope.refuse("too_long", text.place, message, help);
    }
    lifetime
}

fn identity(scope: &Scope<'_>, raw: &Placed<raw::GcpIdToken>) -> Option<GcpToken> {
    if let Some(audience) = raw.audience.as_ref().filter(|audience| audience.trim().is_empty()) {
        let help = "leave it out for the route's audience, or write the URL of the service";
        scope.refuse("empty_value", audience.place, "`audience` is empty", help);
        return None;
    }
    let audience = raw.audience.as_ref().map(|audience| audience.value.clone());
    Some(GcpToken::Identity { audience, include_email: raw.include_email.unwrap_or(true) })
}

/// The form parts scopes by spaces, and the metadata server by commas.
fn scopes(scope: &Scope<'_>, list: &[Placed<String>]) -> Vec<String> {
    let sound = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    for text in list.iter().filter(|text| !sound(text)) {
        let help = format!("write one entry for each, such as `{CLOUD_PLATFORM}`");
        scope.refuse("gcp_scope", text.place, format!("`{}` is no scope", text.value), help);
    }
    list.iter().map(|text| text.value.clone()).collect()
}

fn or_cloud_platform(scopes: Vec<String>) -> Vec<String> {
    if scopes.is_empty() { vec![CLOUD_PLATFORM.to_owned()] } else { scopes }
}

fn is_email(scope: &Scope<'_>, email: &Placed<String>) -> bool {
    let sound = external_account::is_service_account(email);
    if !sound {
        let message = format!("`{}` is no service account's address", email.value);
        let help = "write `NAME@PROJECT.iam.gserviceaccount.com`";
        scope.refuse("gcp_service_account", email.place, message, help);
    }
    sound
}

fn user_project(scope: &Scope<'_>, text: &Placed<String>) -> Option<HeaderValue> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte);
    let sound = !text.is_empty() && text.len() <= 63 && text.bytes().all(plain);
    if !sound {
        let message = format!("`{}` is no project", text.value);
        scope.refuse("gcp_project", text.place, message, "write its id or its number");
    }
    HeaderValue::from_str(text).ok().filter(|_| sound)
}

fn metadata_url(scope: &Scope<'_>, text: &Placed<String>) -> Option<String> {
    let help = "write `http://HOST` of a loopback or link-local address, or leave it out";
    let refused = |reason: &str| {
        scope.refuse("metadata_url", text.place, format!("`{}` is no metadata server: {reason}", text.value), help);
        None
    };
    let Ok(uri) = text.value.parse::<Uri>() else { return refused("it is no URL") };
    if uri.scheme_str() != Some("http") {
        return refused("its scheme is not http");
    }
    if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
        return refused("it has a path or a query");
    }
    match check_address(&uri, PlainHttp::LinkLocal) {
        Ok(()) => Some(text.value.clone()),
        Err(reason) => refused(reason),
    }
}

/// Whether Doorward has to sign for it.
pub(super) fn signs(raw: &raw::Gcp) -> bool {
    raw.metadata_server.is_none() && !takes_callers_token(raw)
}

/// Whether it is made of the caller's own token.
pub(super) fn takes_callers_token(raw: &raw::Gcp) -> bool {
    raw.subject.as_ref().is_some_and(|subject| subject.value == OauthSubject::Caller)
}
