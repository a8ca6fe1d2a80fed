//! Credentials of Microsoft Entra ID.

use http::Uri;
use http::header::AUTHORIZATION;

use super::desk::Scope;
use super::text;
use crate::config::checked::{AzureCredential, AzureHost, AzureOrigin, CredentialKind};
use crate::config::placed::{Place, Placed};
use crate::config::raw::{self, AzureManagedIdentityHost as Host};
use crate::outbound::{PlainHttp, check_address};

const AUTHORITY: &str = "https://login.microsoftonline.com";
const EXCHANGE: &str = "api://AzureADTokenExchange";
/// Longest subject of a federated credential, characters.
const LONGEST_SUBJECT: usize = 600;
/// Not one tenant, but whichever an account is of.
const MANY_TENANTS: [&str; 3] = ["common", "organizations", "consumers"];

pub(super) fn azure(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Azure) -> Option<CredentialKind> {
    let header = raw.header.as_ref().map_or(Some(AUTHORIZATION), |header| text::header(scope, header));
    let wanted = scope.required(raw.scope.as_ref(), name, "azure.scope").filter(|text| is_scope(scope, raw, text));
    let origin = match &raw.managed_identity {
        Some(identity) => managed_identity(scope, name, raw, identity),
        None => application(scope, name, raw),
    };
    let (origin, wanted, header) = (origin?, wanted?.value.clone(), header?);
    Some(CredentialKind::Azure(Box::new(AzureCredential { origin, scope: wanted, header })))
}

fn place<T>(value: Option<&Placed<T>>) -> Option<Place> {
    value.map(|value| value.place)
}

fn managed_identity(
    scope: &Scope<'_>,
    name: &Placed<String>,
    raw: &raw::Azure,
    identity: &Placed<raw::AzureManagedIdentity>,
) -> Option<AzureOrigin> {
    for (place, key) in [
        (place(raw.tenant.as_ref()), "tenant"),
        (place(raw.client_id.as_ref()), "client_id"),
        (place(raw.federated.as_ref()), "federated"),
        (place(raw.on_behalf_of.as_ref()), "on_behalf_of"),
        (place(raw.authority_host.as_ref()), "authority_host"),
        (place(raw.authorities.as_ref()), "authorities"),
    ] {
        if let Some(place) = place {
            let message = format!("`{key}` does not go with `managed_identity`");
            scope.refuse("azure_unused", place, message, "remove one of them");
        }
    }
    let client_id = match &identity.client_id {
        None => Some(None),
        Some(id) => is_id(scope, id).then(|| Some(id.value.clone())),
    };
    let host = scope.required(identity.host.as_ref(), name, "managed_identity.host")?;
    if let Some(url) = identity.url.as_ref().filter(|_| host.value == Host::AppService) {
        let help = "remove it: the address is `IDENTITY_ENDPOINT` of the environment";
        scope.refuse("azure_unused", url.place, "`url` does not go with `host: app_service`", help);
    }
    let host = match host.value {
        Host::Imds => match &identity.url {
            None => Some(AzureHost::Imds { url: None }),
            Some(text) => address(scope, text.place, "`url`", text)
                .filter(|uri| {
                    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
                    if !bare {
                        scope.refuse("metadata_url", text.place, "`url` has a path or a query", "leave them out");
                    }
                    bare
                })
                .map(|_| AzureHost::Imds { url: Some(text.value.clone()) }),
        },
        Host::AppService => app_service(scope, host.place),
    };
    Some(AzureOrigin::ManagedIdentity { host: host?, client_id: client_id? })
}

fn app_service(scope: &Scope<'_>, place: Place) -> Option<AzureHost> {
    let needed = |name: &str| {
        let value = scope.variable(name);
        if value.is_none() {
            let message = format!("the environment has no `{name}`");
            scope.refuse("ambient_missing", place, message, "App Service sets it once the app has an identity");
        }
        value
    };
    let (url, header) = (needed("IDENTITY_ENDPOINT"), needed("IDENTITY_HEADER"));
    let (url, header) = (url?.expose().to_owned(), header?);
    address(scope, place, "`IDENTITY_ENDPOINT`", &url)?;
    Some(AzureHost::AppService { url, header })
}

fn address(scope: &Scope<'_>, place: Place, what: &str, text: &str) -> Option<Uri> {
    let uri = text.parse::<Uri>().map_err(|_| "it is no URL");
    let checked = uri.and_then(|uri| match uri.scheme_str() {
        // With https any host would do.
        Some("http") => check_address(&uri, PlainHttp::LinkLocal).map(|()| uri),
        _ => Err("its scheme is not http"),
    });
    let refused = |reason| {
        let help = "it is `http://` and a loopback or link-local address";
        scope.refuse("metadata_url", place, format!("{what} cannot be asked: {reason}"), help);
    };
    checked.map_err(refused).ok()
}

fn application(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Azure) -> Option<AzureOrigin> {
    let tenant = scope.required(raw.tenant.as_ref(), name, "azure.tenant").filter(|text| is_tenant(scope, text));
    let client_id = scope.required(raw.client_id.as_ref(), name, "azure.client_id").filter(|id| is_id(scope, id));
    let federated = scope.required(raw.federated.as_ref(), name, "azure.federated");
    let subject = federated.and_then(|federated| {
        let subject = scope.required(federated.subject.as_ref(), name, "federated.subject");
        subject.filter(|subject| is_subject(scope, subject))
    });
    let audience = federated.and_then(|federated| federated.audience.as_ref());
    let authority = match &raw.authority_host {
        None => Some(AUTHORITY.to_owned()),
        Some(text) => authority(scope, text),
    };
    let authorities = raw.authorities.as_ref().map(|path| scope.pem(path, "CERTIFICATE"));
    let (tenant, authority) = (tenant?.value.clone(), authority?);
    Some(AzureOrigin::Application {
        url: format!("{authority}/{tenant}/oauth2/v2.0/token"),
        authorities,
        tenant,
        client_id: client_id?.value.clone(),
        subject: subject?.value.clone(),
        audience: audience.map_or(EXCHANGE, |audience| audience.as_str()).to_owned(),
        on_behalf_of_caller: raw.on_behalf_of.is_some(),
    })
}

fn authority(scope: &Scope<'_>, text: &Placed<String>) -> Option<String> {
    let url = text::secure_url(scope, text, "the authority host")?;
    if url.path() != "/" {
        let help = "leave it out: `tenant` is written for itself";
        scope.refuse("azure_authority", text.place, "the authority host has a path", help);
        return None;
    }
    Some(url.origin().ascii_serialization())
}

fn is_guid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let hex = |group: &&str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(hex)
}

fn is_id(scope: &Scope<'_>, text: &Placed<String>) -> bool {
    let sound = is_guid(text);
    if !sound {
        let message = format!("`{}` is no client id", text.value);
        scope.refuse("azure_client_id", text.place, message, "write `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`");
    }
    sound
}

fn is_tenant(scope: &Scope<'_>, text: &Placed<String>) -> bool {
    if MANY_TENANTS.contains(&text.as_str()) {
        let message = format!("`{}` is every tenant", text.value);
        scope.refuse("azure_tenant", text.place, message, "name the one that the application is of");
        return false;
    }
    let sound = is_guid(text) || (text.contains('.') && text::is_host(text));
    if !sound {
        let message = format!("`{}` is no tenant", text.value);
        scope.refuse(
            "azure_tenant",
            text.place,
            message,
            "write its id, or a domain such as `contoso.onmicrosoft.com`",
        );
    }
    sound
}

fn is_subject(scope: &Scope<'_>, text: &Placed<String>) -> bool {
    if text.contains("{{") {
        let help = "Entra compares the whole: write it out, and a credential for each";
        scope.refuse("azure_subject", text.place, "the subject of a federated credential is no template", help);
        return false;
    }
    let length = text.chars().count();
    let sound = !text.trim().is_empty() && length <= LONGEST_SUBJECT && !text.chars().any(char::is_control);
    if !sound {
        let help = format!("one line of at most {LONGEST_SUBJECT} characters");
        scope.refuse("azure_subject", text.place, "this is no subject of a federated credential", help);
    }
    sound
}

fn is_scope(scope: &Scope<'_>, raw: &raw::Azure, text: &Placed<String>) -> bool {
    let graphic = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    // Only who acts for a user has scopes to choose from; everyone else has what was granted for the resource.
    let sound = if raw.on_behalf_of.is_some() {
        text.split(' ').all(graphic)
    } else {
        text.strip_suffix("/.default").is_some_and(graphic)
    };
    if !sound {
        let message = format!("`{}` is no scope", text.value);
        scope.refuse(
            "azure_scope",
            text.place,
            message,
            "write `RESOURCE/.default`: `https://storage.azure.com/.default`",
        );
    }
    sound
}

/// Whether Doorward has to sign for it.
pub(super) fn signs(raw: &raw::Azure) -> bool {
    raw.managed_identity.is_none()
}

/// Whether it is made of the caller's own token.
pub(super) fn takes_callers_token(raw: &raw::Azure) -> bool {
    raw.on_behalf_of.is_some()
}
