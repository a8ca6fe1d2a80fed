//! Issuers of tokens, browser login with them, and certificate issuers.

use std::collections::HashMap;
use std::time::Duration;

use super::desk::Scope;
use super::names::Names;
use super::{text, traps};
use crate::config::checked::{AttributeKind, AttributeRule, CertificateIssuer, ClaimRule, Issuer, Keys, Login};
use crate::config::placed::{Named, Place, Placed};
use crate::config::raw::{self, ClaimValues};
use crate::identity::PrincipalKind;

const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// What policies already read of every principal.
const OWN_ATTRIBUTES: [&str; 4] = ["issuer", "subject", "email", "groups"];

/// Parameters of the authorization request that the protocol needs, or that could lead its answer elsewhere.
const OWN_PARAMETERS: [&str; 18] = [
    "acr_values",
    "claims",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "id_token_hint",
    "max_age",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn issuers(scope: &Scope<'_>, config: &raw::Config) -> Vec<Issuer> {
    let mut taken: HashMap<&str, Place> = HashMap::new();
    let mut types: HashMap<&str, (raw::AttributeType, Place)> = HashMap::new();
    let mut issuers = Vec::new();
    for (name, raw) in config.issuers.iter() {
        if let Some(text) = &raw.issuer {
            if let Some(first) = taken.get(text.as_str()) {
                let message = format!("two entries stand for the issuer `{}`", text.value);
                let fault = scope.fault("issuer_twice", text.place, message).also(scope.file, *first, "first here");
                scope.tell(fault.help("a token is matched to one entry by its `iss`; make them one"));
            }
            taken.insert(text, text.place);
        }
        for (attribute, rule) in raw.attributes.iter() {
            let (kind, place) = *types.entry(attribute.as_str()).or_insert((rule.kind.value, rule.kind.place));
            if kind != rule.kind.value {
                let message = format!("attribute `{}` has another type at another issuer", attribute.value);
                let fault = scope.fault("attribute_type", rule.kind.place, message);
                scope.tell(fault.also(scope.file, place, "the other type").help("policies know one type a name"));
            }
        }
        issuers.extend(scope.sound(|| issuer(scope, name, raw)));
    }
    issuers
}

fn issuer(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Issuer) -> Option<Issuer> {
    let iss = scope.required(raw.issuer.as_ref(), name, "issuer");
    let url_is_good = iss.is_some_and(|iss| text::secure_url(scope, iss, "an issuer").is_some());
    let principals = scope.required(raw.principals.as_ref(), name, "principals");
    let audience = scope.required(raw.audience.as_ref(), name, "audience").map(|list| scope.texts(list, "audience"));
    let algorithms = scope.required(raw.algorithms.as_ref(), name, "algorithms");
    let algorithms = algorithms.map(|list| self::algorithms(scope, list));
    let keys = scope.required(raw.keys.as_ref(), name, "keys").and_then(|keys| self::keys(scope, keys));
    let principal = scope.required(raw.principal.as_ref(), name, "principal");
    if let Some(list) = principal {
        scope.not_empty(list, "principal");
        traps::mutable_principal(scope, iss.map(|iss| iss.as_str()), list);
    }
    let required_claims = claims(scope, &raw.required_claims, "required_claims", false);
    let forbidden_claims = claims(scope, &raw.forbidden_claims, "forbidden_claims", true);
    if let (Some(iss), Some(principal)) = (iss, principal) {
        traps::shared_issuer(scope, iss, principal, &raw.required_claims);
    }
    let path = |text: Option<&Placed<String>>, default: &str| {
        text.map_or_else(|| default.to_owned(), |text| text::claim_path(scope, text))
    };
    let attributes = raw.attributes.iter().map(|(name, raw)| attribute(scope, name, raw)).collect();
    let five_minutes = (Duration::from_secs(300), "5m");
    let login = raw.login.as_ref().map(|login| self::login(scope, name, login));
    if let (Some(login), Some(principals)) = (&raw.login, principals)
        && principals.value == raw::Principals::Workloads
    {
        let message = format!("issuer `{}` has workloads as callers, which use no browser", name.value);
        scope.refuse("login_of_workloads", login.place, message, "remove `login`, or write `principals: users`");
    }
    let access_tokens_only = raw.token_type == Some(raw::TokenType::AccessToken);
    let authorities = raw.keys.as_ref().and_then(|keys| {
        keys.authorities.as_ref().or(keys.discovery.as_ref().and_then(|discovery| discovery.authorities.as_ref()))
    });
    let settings = Issuer {
        name: name.value.clone(),
        issuer: iss?.value.clone(),
        kind: match principals?.value {
            raw::Principals::Users => PrincipalKind::User,
            raw::Principals::Workloads => PrincipalKind::Workload,
        },
        audience: audience?,
        algorithms: algorithms?,
        keys: keys?,
        access_tokens_only,
        principal: principal?.value.iter().map(|claim| text::claim_path(scope, claim)).collect(),
        required_claims,
        forbidden_claims,
        groups: path(raw.groups.as_ref(), "groups"),
        email: path(raw.email.as_ref(), "email"),
        attributes,
        environment_claim: raw.environment_claim.as_ref().and_then(|raw| {
            let claim = scope.required(raw.claim.as_ref(), name, "environment_claim.claim")?;
            let values = raw.values.iter().map(|(value, environment)| (value.value.clone(), environment.value.clone()));
            Some((text::claim_path(scope, claim), values.collect()))
        }),
        longest_token: scope.duration(raw.longest_token.as_ref(), 24 * HOUR),
        leeway: scope.duration_up_to(raw.leeway.as_ref(), Duration::from_secs(60), five_minutes),
        login: login.flatten(),
        declared: scope.declared(name.place),
        authorities_at: authorities.map(|path| scope.declared(path.place)),
    };
    url_is_good.then_some(settings)
}

fn algorithms(scope: &Scope<'_>, list: &Placed<Vec<Placed<String>>>) -> Vec<String> {
    scope.not_empty(list, "algorithms");
    for algorithm in list.value.iter().filter(|algorithm| !ALGORITHMS.contains(&algorithm.as_str())) {
        let message = format!("algorithm `{}` is not accepted", algorithm.value);
        let fault = scope.fault("algorithm", algorithm.place, message);
        let shared = algorithm.to_uppercase().starts_with("HS") || algorithm.eq_ignore_ascii_case("none");
        scope.tell(match shared {
            true => fault.help("only asymmetric signatures say who made them; most issuers sign with RS256 or ES256"),
            false => fault.nearest(algorithm, ALGORITHMS),
        });
    }
    list.value.iter().map(|algorithm| algorithm.value.clone()).collect()
}

fn keys(scope: &Scope<'_>, raw: &Placed<raw::Keys>) -> Option<Keys> {
    let kinds = [raw.discovery.is_some(), raw.jwks_uri.is_some(), raw.file.is_some()];
    if kinds.iter().filter(|given| **given).count() != 1 {
        let help = "name exactly one of `discovery: {}`, `jwks_uri: https://…` and `file: keys.json`";
        scope.refuse("keys_kind", raw.place, "keys come from exactly one place", help);
        return None;
    }
    if let Some(authorities) = raw.authorities.as_ref().filter(|_| raw.jwks_uri.is_none()) {
        let help = "it goes with `jwks_uri`; for discovery write `discovery: { authorities: … }`";
        scope.refuse("keys_authorities", authorities.place, "`authorities` has no server to vouch for", help);
    }
    let authorities = |path: &Option<Placed<String>>| path.as_ref().map(|path| scope.pem(path, "CERTIFICATE"));
    if let Some(discovery) = &raw.discovery {
        return Some(Keys::Discovery { authorities: authorities(&discovery.authorities) });
    }
    if let Some(uri) = &raw.jwks_uri {
        text::secure_url(scope, uri, "`jwks_uri`")?;
        return Some(Keys::JwksUri { uri: uri.value.clone(), authorities: authorities(&raw.authorities) });
    }
    raw.file.as_ref().map(|path| Keys::File(scope.readable(path)))
}

/// Claim rules; `may_be_empty` where no values mean that the claim must be absent.
pub(super) fn claims(
    scope: &Scope<'_>,
    named: &Named<Placed<ClaimValues>>,
    key: &str,
    may_be_empty: bool,
) -> Vec<ClaimRule> {
    let mut rules = Vec::new();
    for (path, values) in named.iter() {
        if values.value.0.is_empty() && !may_be_empty {
            let message = format!("`{}` of `{key}` takes no value at all", path.value);
            scope.refuse("empty_list", values.place, message, "name the values of which any will do");
        }
        rules.push((text::claim_path(scope, path), values.value.0.clone()));
    }
    rules
}

fn attribute(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Attribute) -> AttributeRule {
    if !is_identifier(name) {
        let message = format!("`{}` cannot be the name of an attribute", name.value);
        scope.refuse("attribute_name", name.place, message, "use letters, digits and `_`, beginning with a letter");
    }
    if OWN_ATTRIBUTES.contains(&name.as_str()) {
        let message = format!("every principal has an attribute `{}` already", name.value);
        scope.refuse("attribute_name", name.place, message, "give it another name");
    }
    let kind = match raw.kind.value {
        raw::AttributeType::String => AttributeKind::String,
        raw::AttributeType::Long => AttributeKind::Long,
        raw::AttributeType::Bool => AttributeKind::Bool,
        raw::AttributeType::Set => AttributeKind::Set,
    };
    AttributeRule { name: name.value.clone(), claim: text::claim_path(scope, &raw.claim), kind }
}

/// Whether policies can write the name.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn login(scope: &Scope<'_>, owner: &Placed<String>, raw: &Placed<raw::IssuerLogin>) -> Option<Login> {
    let client_id = scope.required(raw.client_id.as_ref(), owner, "login.client_id");
    if let Some(id) = client_id.filter(|id| id.trim().is_empty()) {
        scope.refuse("empty_value", id.place, "`client_id` is empty", "the issuer gives it to the registered client");
    }
    let client_secret = raw.client_secret.as_ref().map(|reference| scope.secret_line(reference));
    let scopes = match &raw.scopes {
        None => ["openid", "profile", "email"].map(str::to_owned).to_vec(),
        Some(list) => {
            let scopes = scope.texts(list, "scopes");
            if !scopes.is_empty() && !scopes.iter().any(|scope| scope == "openid") {
                let help = "without it the issuer sends no ID token";
                scope.refuse("scope_openid", list.place, "`scopes` lacks `openid`", help);
            }
            scopes
        }
    };
    for (name, value) in raw.parameters.iter() {
        if OWN_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) {
            let message = format!("`{}` is Doorward's own parameter of a login", name.value);
            let help = "remove it; `scopes` has a key of its own, and `acr_values` and `max_age` belong to routes";
            scope.refuse("login_parameter", name.place, message, help);
        }
        if name.trim().is_empty() || value.trim().is_empty() {
            scope.refuse("empty_value", value.place, "a parameter of `parameters` is empty", "remove it");
        }
    }
    let parameters = raw.parameters.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect();
    let idle = scope.duration(raw.idle.as_ref(), HOUR / 2);
    let longest = scope.duration(raw.longest.as_ref(), 12 * HOUR);
    if let Some(text) = raw.idle.as_ref().or(raw.longest.as_ref())
        && idle > longest
    {
        scope.refuse("idle", text.place, "`idle` is longer than `longest`", "a session ends by whichever comes first");
    }
    let (client_id, client_secret) = (client_id?.value.clone(), client_secret.flatten());
    Some(Login { client_id, client_secret, scopes, parameters, idle, longest })
}

pub(super) fn certificate_issuers(scope: &Scope<'_>, config: &raw::Config, names: &Names) -> Vec<CertificateIssuer> {
    let mut taken: HashMap<&str, Place> = HashMap::new();
    let mut issuers = Vec::new();
    for (name, raw) in config.certificate_issuers.iter() {
        scope.not_empty(&raw.listeners, "listeners");
        for listener in &raw.listeners.value {
            if !names.listeners.refer(scope, listener) {
                continue;
            }
            let declared = config.listeners.iter().find(|(name, _)| name.value == listener.value);
            let tls = declared.and_then(|(_, declared)| declared.tls.as_ref());
            if tls.is_none_or(|tls| tls.client_certificates.is_none()) {
                let message = format!("listener `{}` asks for no client certificate", listener.value);
                scope.refuse("no_client_certificates", listener.place, message, "add `tls.client_certificates` to it");
            }
            if let Some(first) = taken.get(listener.as_str()) {
                let message = format!("listener `{}` has two certificate issuers", listener.value);
                let fault = scope.fault("certificate_issuer_twice", listener.place, message);
                scope.tell(fault.also(scope.file, *first, "first here").help("one name stands for one listener"));
            }
            taken.insert(listener, listener.place);
        }
        let on = |flag: &Option<Placed<bool>>| flag.as_ref().is_none_or(|flag| flag.value);
        let (dns, uri) = (on(&raw.dns), on(&raw.uri));
        if !dns && !uri {
            let message = format!("certificate issuer `{}` takes no name of a certificate", name.value);
            scope.refuse("certificate_names", name.place, message, "leave one of `dns` and `uri` true");
        }
        let listeners = raw.listeners.value.iter().map(|listener| listener.value.clone()).collect();
        issuers.push(CertificateIssuer { name: name.value.clone(), listeners, dns, uri });
    }
    issuers
}
