//! Credentials by an OAuth token endpoint.

use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::desk::Scope;
use super::{mtls, text};
use crate::config::checked::{CredentialKind, OauthClient, OauthCredential, OauthGrant, OauthSubject};
use crate::config::placed::{Named, Placed};
use crate::config::raw::{self, OauthClientAuthentication as Authentication};
use crate::config::units::DurationText;

/// Parameters that a grant writes itself.
const OWN: [&str; 12] = [
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "assertion",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
    "refresh_token",
];
const SHORTEST: Duration = Duration::from_secs(10);

/// What all three kinds have.
struct Common<'a> {
    kind: &'static str,
    endpoint: Option<&'a raw::TokenEndpoint>,
    parameters: &'a Named<Placed<String>>,
    header: Option<&'a Placed<String>>,
    lifetime: Option<&'a Placed<DurationText>>,
    token_audience: Option<&'a Placed<String>>,
}

pub(super) fn client_credentials(
    scope: &Scope<'_>,
    name: &Placed<String>,
    raw: &raw::ClientCredentials,
) -> Option<CredentialKind> {
    let common = Common {
        kind: "client_credentials",
        endpoint: raw.endpoint.as_ref(),
        parameters: &raw.parameters,
        header: raw.header.as_ref(),
        lifetime: raw.lifetime.as_ref(),
        token_audience: None,
    };
    if let Some(client) = raw.endpoint.as_ref().and_then(|endpoint| endpoint.client.as_ref())
        && client.authentication.as_ref().is_some_and(|method| method.value == Authentication::None)
    {
        let help = "give it a `secret`, or `authentication: private_key_jwt`";
        scope.refuse("client_unproven", client.place, "a token for the client itself takes proof of the client", help);
    }
    common.checked(scope, name, OauthGrant::ClientCredentials)
}

pub(super) fn token_exchange(
    scope: &Scope<'_>,
    name: &Placed<String>,
    raw: &raw::TokenExchange,
) -> Option<CredentialKind> {
    let common = Common {
        kind: "token_exchange",
        endpoint: raw.endpoint.as_ref(),
        parameters: &raw.parameters,
        header: raw.header.as_ref(),
        lifetime: raw.lifetime.as_ref(),
        token_audience: raw.token_audience.as_ref(),
    };
    let subject = scope.required(raw.subject.as_ref(), name, "token_exchange.subject");
    let text = |text: &Option<Placed<String>>| text.as_ref().map(|text| text.value.clone());
    let grant = OauthGrant::TokenExchange {
        subject: subject.map_or(OauthSubject::Doorward, |subject| checked_subject(subject.value)),
        subject_token_type: text(&raw.subject_token_type),
        actor: text(&raw.actor),
        requested_token_type: text(&raw.requested_token_type),
    };
    common.checked(scope, name, grant).filter(|_| subject.is_some())
}

pub(super) fn jwt_bearer(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::JwtBearer) -> Option<CredentialKind> {
    let common = Common {
        kind: "jwt_bearer",
        endpoint: raw.endpoint.as_ref(),
        parameters: &raw.parameters,
        header: raw.header.as_ref(),
        lifetime: raw.lifetime.as_ref(),
        token_audience: raw.token_audience.as_ref(),
    };
    let subject = scope.required(raw.subject.as_ref(), name, "jwt_bearer.subject")?;
    common.checked(scope, name, OauthGrant::JwtBearer { subject: checked_subject(subject.value) })
}

fn checked_subject(raw: raw::OauthSubject) -> OauthSubject {
    match raw {
        raw::OauthSubject::Caller => OauthSubject::Caller,
        raw::OauthSubject::Doorward => OauthSubject::Doorward,
    }
}

impl Common<'_> {
    fn checked(&self, scope: &Scope<'_>, name: &Placed<String>, grant: OauthGrant) -> Option<CredentialKind> {
        let endpoint = scope.required(self.endpoint, name, &format!("{}.endpoint", self.kind))?;
        let url = scope.required(endpoint.url.as_ref(), name, "endpoint.url");
        let url = url.and_then(|url| text::secure_url(scope, url, "the token endpoint").map(|_| url.value.clone()));
        let authorities = endpoint.authorities.as_ref().map(|path| scope.pem(path, "CERTIFICATE"));
        let client = match &endpoint.client {
            Some(raw) => Some(client(scope, name, raw)?),
            None => None,
        };
        if let (Some(OauthClient::TlsClientAuth { .. }), Some(url)) = (&client, &endpoint.url)
            && url.starts_with("http:")
        {
            let message = "`tls_client_auth` needs a token endpoint that is reached by TLS";
            scope.refuse("client_certificate_plain", url.place, message, "write an https URL");
            return None;
        }
        if client.is_none() && matches!(grant, OauthGrant::ClientCredentials) {
            scope.required(None::<&()>, name, "endpoint.client");
            return None;
        }
        for (parameter, _) in self.parameters.iter().filter(|(name, _)| OWN.contains(&name.as_str())) {
            let message = format!("`{}` is written by the grant itself", parameter.value);
            scope.refuse("parameter_own", parameter.place, message, "remove it");
        }
        let lifetime = self.lifetime.map(|text| {
            let lifetime = scope.duration(Some(text), SHORTEST);
            if lifetime < SHORTEST {
                let message = format!("`{}` is too short for a token to arrive", text.value.0);
                scope.refuse("too_short", text.place, message, "at least `10s` is needed here");
            }
            lifetime
        });
        let header = self.header.map_or(Some(AUTHORIZATION), |header| text::header(scope, header));
        let (url, header): (String, HeaderName) = (url?, header?);
        Some(CredentialKind::Oauth(Box::new(OauthCredential {
            token_audience: self.token_audience.map_or_else(|| url.clone(), |audience| audience.value.clone()),
            url,
            authorities,
            authorities_at: endpoint.authorities.as_ref().map(|path| scope.declared(path.place)),
            client,
            grant,
            parameters: self.parameters.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect(),
            header,
            lifetime,
        })))
    }
}

fn client(scope: &Scope<'_>, name: &Placed<String>, raw: &Placed<raw::OauthClient>) -> Option<OauthClient> {
    let id = scope.required(raw.id.as_ref(), name, "endpoint.client.id")?.value.clone();
    let method = raw.authentication.as_ref().map(|method| method.value);
    let method = method.unwrap_or(usual(raw));
    let takes_secret = matches!(method, Authentication::ClientSecretBasic | Authentication::ClientSecretPost);
    if let Some(secret) = raw.secret.as_ref().filter(|_| !takes_secret) {
        let message = "this way of authentication takes no secret";
        scope.refuse("secret_unused", secret.place, message, "remove `secret`, or write `client_secret_basic`");
        return None;
    }
    if method == Authentication::TlsClientAuth {
        let certificate = mtls::client_certificate(scope, name, raw)?;
        return Some(OauthClient::TlsClientAuth { id, certificate });
    }
    if let Some(file) = raw.certificate.as_ref().or(raw.key.as_ref()) {
        let message = "this way of authentication takes no client certificate";
        let help = "remove `certificate` and `key`, or write `authentication: tls_client_auth`";
        scope.refuse("certificate_unused", file.place, message, help);
        return None;
    }
    let secret = match (takes_secret, &raw.secret) {
        (false, _) => None,
        (true, Some(reference)) => Some(scope.secret_line(reference)?),
        (true, None) => {
            scope.required(None::<&()>, name, "endpoint.client.secret");
            return None;
        }
    };
    Some(match (method, secret) {
        (Authentication::ClientSecretBasic, Some(secret)) => OauthClient::Basic { id, secret: secret.value },
        (Authentication::ClientSecretPost, Some(secret)) => OauthClient::Post { id, secret: secret.value },
        (Authentication::PrivateKeyJwt, _) => OauthClient::PrivateKeyJwt {
            id,
            audience: raw.assertion_audience.as_ref().map(|audience| audience.value.clone()),
        },
        (Authentication::None, _) => OauthClient::Public { id },
        (Authentication::ClientSecretBasic | Authentication::ClientSecretPost, None)
        | (Authentication::TlsClientAuth, _) => return None,
    })
}

/// How a client shows that it is the one where the configuration does not say.
fn usual(raw: &raw::OauthClient) -> Authentication {
    if raw.secret.is_some() { Authentication::ClientSecretBasic } else { Authentication::PrivateKeyJwt }
}

/// Whether Doorward has to sign for it.
pub(super) fn signs(raw: &raw::Credential) -> bool {
    let by_key = |endpoint: Option<&raw::TokenEndpoint>| {
        let client = endpoint.and_then(|endpoint| endpoint.client.as_ref());
        client.is_some_and(|client| {
            let method = client.authentication.as_ref().map(|method| method.value);
            method.unwrap_or(usual(client)) == Authentication::PrivateKeyJwt
        })
    };
    let own = |subject: &Option<Placed<raw::OauthSubject>>| {
        subject.as_ref().is_some_and(|subject| subject.value == raw::OauthSubject::Doorward)
    };
    raw.client_credentials.as_ref().is_some_and(|raw| by_key(raw.endpoint.as_ref()))
        || raw
            .token_exchange
            .as_ref()
            .is_some_and(|raw| by_key(raw.endpoint.as_ref()) || own(&raw.subject) || raw.actor.is_some())
        || raw.jwt_bearer.as_ref().is_some_and(|raw| by_key(raw.endpoint.as_ref()) || own(&raw.subject))
}

/// Whether it is made of the caller's own token.
pub(super) fn takes_callers_token(raw: &raw::Credential) -> bool {
    let subjects = [
        raw.token_exchange.as_ref().and_then(|raw| raw.subject.as_ref()),
        raw.jwt_bearer.as_ref().and_then(|raw| raw.subject.as_ref()),
    ];
    subjects.into_iter().flatten().any(|subject| subject.value == raw::OauthSubject::Caller)
}

/// The header that carries it, as it is written or by default, where it is of these kinds.
pub(super) fn header(raw: &raw::Credential) -> Option<&str> {
    let header = raw.client_credentials.as_ref().map(|raw| &raw.header);
    let header = header.or(raw.token_exchange.as_ref().map(|raw| &raw.header));
    let header = header.or(raw.jwt_bearer.as_ref().map(|raw| &raw.header))?;
    Some(header.as_ref().map_or("Authorization", |header| header.as_str()))
}
