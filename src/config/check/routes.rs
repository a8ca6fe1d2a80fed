//! Routes: which requests belong together, where they go, and who may come.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use http::HeaderName;

use super::desk::Scope;
use super::names::Names;
use super::{aws, credential_traits, mtls, route_parts, text, upstreams};
use crate::config::checked::RouteSettings;
use crate::config::faults::at;
use crate::config::placed::{Named, Place, Placed};
use crate::config::raw;
use crate::config::source_file::SourceFile;
use crate::credential::Template;
use crate::route::{Accepts, Access, EvidenceKind, HostPattern, IdentityHeaders, PathMode, Route, RouteError, Router};

/// What routes refer to.
pub(super) struct Known<'a> {
    pub(super) config: &'a raw::Config,
    pub(super) names: &'a Names,
    pub(super) policies: &'a [(Arc<SourceFile>, raw::Policies)],
    /// Whether `config` is the file's, rather than empty because its form is not good.
    pub(super) main_is_read: bool,
}

/// The routes of all files.
pub(super) struct Routes<'a> {
    known: &'a Known<'a>,
    origins: HashMap<&'a str, String>,
    settings: Vec<RouteSettings>,
    places: Vec<(Scope<'a>, Place)>,
}

impl<'a> Routes<'a> {
    pub(super) fn new(known: &'a Known<'a>) -> Self {
        let all =
            known.config.upstreams.iter().chain(known.policies.iter().flat_map(|(_, file)| file.upstreams.iter()));
        let origin = |raw: &raw::Upstream| upstreams::parsed(raw.addresses.as_ref()?.value.first()?);
        let origins = all.filter_map(|(name, raw)| Some((name.as_str(), origin(raw)?.1))).collect();
        Self { known, origins, settings: Vec::new(), places: Vec::new() }
    }

    pub(super) fn add(&mut self, scope: &Scope<'a>, named: &'a Named<raw::Route>) {
        for (name, raw) in named.iter() {
            if let Some(settings) = self.route(scope, name, raw) {
                self.settings.push(settings);
                self.places.push((*scope, raw.path.as_ref().map_or(name.place, |path| path.place)));
            }
        }
    }

    /// The routes, after asking the router whether two of them catch the same paths.
    pub(super) fn finish(mut self) -> Vec<RouteSettings> {
        for (index, settings) in self.settings.iter_mut().enumerate() {
            settings.route.index = index;
        }
        let routes: Vec<Route> = self.settings.iter().map(|settings| settings.route.clone()).collect();
        let Err(faults) = Router::new(routes) else { return self.settings };
        for (index, error) in faults {
            let (Some(settings), Some((scope, place))) = (self.settings.get(index), self.places.get(index)) else {
                continue;
            };
            match error {
                RouteError::Pattern(problem) => {
                    let message = format!("path `{}` is malformed: {problem}", settings.route.path);
                    let help = "write `/a/{id}/b`, or `/a/{*rest}` for everything below";
                    scope.refuse("route_path", *place, message, help);
                }
                RouteError::Conflict(pattern) => self.conflict(index, &pattern, settings, scope, *place),
            }
        }
        self.settings
    }

    fn conflict(&self, index: usize, pattern: &str, settings: &RouteSettings, scope: &Scope<'_>, place: Place) {
        let route = &settings.route;
        let same_host = |other: &Route| other.host == route.host && other.index != index;
        let mut others = self.settings.iter().map(|other| &other.route).filter(|other| same_host(other));
        let other = others.clone().find(|other| &*other.path == pattern).or_else(|| others.next());
        let named = other.map(|other| format!("route `{}`", other.name)).unwrap_or_else(|| format!("`{pattern}`"));
        let message = format!("route `{}` catches what {named} already catches on host `{}`", route.name, route.host);
        let mut fault = scope.fault("route_conflict", place, message).label("this path");
        if let Some((scope, place)) = other.and_then(|other| self.places.get(other.index)) {
            let first = at(&scope.file.path, *place);
            fault = fault.also(scope.file, *place, "the other path");
            fault = fault.help(format!("the other path stands at {first}; make one of them differ"));
        }
        scope.tell(fault);
    }

    fn route(&self, scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Route) -> Option<RouteSettings> {
        let names = self.known.names;
        let host = scope.required(raw.host.as_ref(), name, "host").and_then(|host| host_pattern(scope, raw, host));
        let path_mode = match &raw.path_mode {
            None | Some(raw::PathMode::Normal) => PathMode::Normal,
            Some(raw::PathMode::Opaque(reasoned)) => PathMode::Opaque { reason: scope.reason(reasoned) },
        };
        let path = scope.required(raw.path.as_ref(), name, "path");
        let path = path.filter(|path| route_parts::path(scope, path, &path_mode));
        let environment = scope.required(raw.environment.as_ref(), name, "environment");
        if let Some(text) = environment.filter(|text| text.trim().is_empty()) {
            scope.refuse("empty_value", text.place, "`environment` is empty", "write `production`, or another");
        }
        let upstream = scope.required(raw.upstream.as_ref(), name, "upstream");
        let upstream_is_known = upstream.is_some_and(|upstream| names.upstreams.refer(scope, upstream));
        let credential = scope.required(raw.credential.as_ref(), name, "credential");
        if let Some(credential) = credential {
            names.credentials.refer(scope, credential);
        }
        let access = self.access(scope, name, raw);
        let login = self.login(scope, raw);
        let origins = |origins: Option<&raw::Origins>| route_parts::origins(scope, origins);
        let (cors, csrf_origins) = (origins(raw.cors.as_ref()), origins(raw.csrf.as_ref()));
        let pass_authorization = raw.pass_authorization.as_ref().map(|reasoned| scope.reason(reasoned));
        let identity_headers = raw.identity_headers.as_ref().map(|raw| route_parts::identity_headers(scope, raw));
        if let Some(credential) = credential {
            for header in self.credential(credential).map(credential_traits::headers).unwrap_or_default() {
                header_meets(scope, raw, (credential, header), identity_headers.as_ref());
            }
            self.caller_token(scope, raw, credential);
            self.caught(scope, raw, credential);
            self.certificate(scope, raw, credential);
        }
        let speaks_aws = credential.and_then(|name| self.credential(name)).is_some_and(|raw| raw.aws.is_some());
        let route = Route {
            name: name.as_str().into(),
            index: 0,
            host: host?,
            path: path?.as_str().into(),
            path_mode,
            environment: environment?.as_str().into(),
            tags: raw.tags.iter().map(|tag| tag.as_str().into()).collect(),
            access: access?,
            login,
            cors: crate::route::Cors { origins: cors },
            csrf_origins,
            pass_authorization,
            pass_cookies: raw.pass_cookies.as_ref().map(|reasoned| scope.reason(reasoned)),
            speaks_aws,
            websocket: raw.websocket.unwrap_or(false),
            identity_headers,
            limits: route_parts::limits(scope, raw.limits.as_ref(), raw.public.is_some()),
        };
        let upstream = upstream?;
        let default = || self.origins.get(upstream.as_str()).filter(|_| upstream_is_known).cloned();
        let audience = match &raw.audience {
            Some(text) => {
                if text.trim().is_empty() {
                    let help = "name the upstream, or remove it for the upstream's own origin";
                    scope.refuse("empty_value", text.place, "`audience` is empty", help);
                }
                text.value.clone()
            }
            None => default().unwrap_or_default(),
        };
        Some(RouteSettings {
            route,
            upstream: upstream.value.clone(),
            credential: credential?.value.clone(),
            audience,
            declared: scope.declared(name.place),
        })
    }

    fn access(&self, scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Route) -> Option<Access> {
        match (&raw.accept, &raw.public) {
            (None, None) => {
                let message = format!("route `{}` says neither `accept` nor `public`", name.value);
                let help = "add `accept: { issuers: […], evidence: [bearer, session] }`, or `public: { reason: … }`";
                scope.refuse("access_missing", name.place, message, help);
                None
            }
            (Some(_), Some(public)) => {
                let message = format!("route `{}` says both `accept` and `public`", name.value);
                scope.refuse("access_twice", public.place, message, "keep one of them");
                None
            }
            (None, Some(public)) => {
                if let Some(login) = &raw.login {
                    let help = "remove `login`, or write `accept` instead of `public`";
                    scope.refuse("public_login", login.place, "a public route never asks for a login", help);
                }
                Some(Access::Public { reason: scope.reason(public) })
            }
            (Some(accept), None) => self.accepts(scope, name, raw, accept).map(Access::Authenticated),
        }
    }

    fn accepts(
        &self,
        scope: &Scope<'_>,
        name: &Placed<String>,
        raw: &raw::Route,
        accept: &Placed<raw::Accept>,
    ) -> Option<Accepts> {
        let issuers = scope.required(accept.issuers.as_ref(), name, "accept.issuers");
        let evidence = scope.required(accept.evidence.as_ref(), name, "accept.evidence");
        let (issuers, evidence) = (issuers?, evidence?);
        scope.not_empty(issuers, "issuers");
        scope.not_empty(evidence, "evidence");
        let mut all_known = true;
        for issuer in &issuers.value {
            all_known &= self.known.names.issuers.refer(scope, issuer);
        }
        let kinds: BTreeSet<EvidenceKind> = evidence.value.iter().map(|kind| evidence_kind(kind.value)).collect();
        if all_known && self.known.main_is_read {
            self.reachable(scope, raw, issuers, evidence);
        }
        let issuers = issuers.value.iter().map(|issuer| Arc::from(issuer.as_str())).collect();
        Some(Accepts { issuers: Some(issuers), kinds })
    }

    /// Refuses evidence that no accepted issuer can give: such a route looks open to somebody and is to nobody.
    fn reachable(
        &self,
        scope: &Scope<'_>,
        raw: &raw::Route,
        issuers: &Placed<Vec<Placed<String>>>,
        evidence: &Placed<Vec<Placed<raw::Evidence>>>,
    ) {
        let config = self.known.config;
        let accepted = |name: &Placed<String>| issuers.value.iter().any(|issuer| issuer.value == name.value);
        let by_certificate = config.certificate_issuers.iter().any(|(name, _)| accepted(name));
        let by_token = config.issuers.iter().any(|(name, _)| accepted(name));
        let by_login = config.issuers.iter().any(|(name, issuer)| accepted(name) && issuer.login.is_some());
        for kind in &evidence.value {
            match kind.value {
                raw::Evidence::ClientCertificate if !by_certificate => {
                    let help = "declare one under `certificate_issuers` and name it in `issuers`";
                    let message = "no accepted issuer stands for client certificates";
                    scope.refuse("evidence_unreachable", kind.place, message, help);
                }
                raw::Evidence::Session if !by_login => {
                    let help = "add `login` to an accepted issuer, or remove `session`";
                    scope.refuse("evidence_unreachable", kind.place, "no accepted issuer has `login`", help);
                }
                raw::Evidence::Bearer if !by_token => {
                    let help = "name one of `issuers`, or remove `bearer`";
                    scope.refuse("evidence_unreachable", kind.place, "no accepted issuer gives tokens", help);
                }
                raw::Evidence::Bearer => {
                    if let Some(pass) = &raw.pass_authorization
                        && evidence.value.iter().all(|kind| kind.value == raw::Evidence::Bearer)
                    {
                        let message = "`Authorization` belongs to the upstream here, so no bearer token can be shown";
                        let help = "accept `session` or `client_certificate`, or remove `pass_authorization`";
                        scope.refuse("evidence_unreachable", pass.place, message, help);
                    }
                }
                raw::Evidence::Session | raw::Evidence::ClientCertificate => {}
            }
        }
    }

    fn credential(&self, name: &Placed<String>) -> Option<&'a raw::Credential> {
        let declared = self.known.config.credentials.iter().find(|(known, _)| known.value == name.value);
        declared.map(|(_, raw)| raw)
    }

    /// Refuses a credential that is made of what the route's path does not catch.
    fn caught(&self, scope: &Scope<'_>, raw: &raw::Route, credential: &Placed<String>) {
        let Some(path) = &raw.path else { return };
        for text in self.credential(credential).map(credential_traits::templates).unwrap_or_default() {
            let Ok(template) = Template::parse(text) else { continue };
            let catches = |name: &str| path.contains(&format!("{{{name}}}")) || path.contains(&format!("{{*{name}}}"));
            if let Some(name) = template.path_parameters().find(|name| !catches(name)) {
                let message = format!("credential `{}` needs `{{{name}}}` of the path", credential.value);
                let help = format!("write the path with `{{{name}}}`, or give the route another credential");
                scope.refuse("template_parameter", path.place, message, help);
            }
        }
    }

    /// Refuses an upstream that cannot be shown the route's credential: a certificate, or keys that sign.
    fn certificate(&self, scope: &Scope<'_>, raw: &raw::Route, credential: &Placed<String>) {
        let Some(declared) = self.credential(credential) else { return };
        let (is_certificate, signs) = (credential_traits::is_certificate(declared), declared.aws.is_some());
        let Some(name) = raw.upstream.as_ref().filter(|_| is_certificate || signs) else { return };
        let of_policies = self.known.policies.iter().flat_map(|(_, file)| file.upstreams.iter());
        let mut all = self.known.config.upstreams.iter().chain(of_policies);
        if let Some((_, upstream)) = all.find(|(known, _)| known.value == name.value) {
            if is_certificate {
                mtls::meets_upstream(scope, credential, name, upstream);
            }
            if signs {
                aws::meets_upstream(scope, credential, name, upstream);
            }
        }
    }

    /// Refuses callers who come by something else than the token that the route's credential is made of.
    fn caller_token(&self, scope: &Scope<'_>, raw: &raw::Route, credential: &Placed<String>) {
        if !self.credential(credential).is_some_and(credential_traits::takes_callers_token) {
            return;
        }
        let message = format!("credential `{}` is made of the caller's own bearer token", credential.value);
        let help = "accept `bearer` alone, or write `subject: doorward` in the credential";
        if let Some(public) = &raw.public {
            scope.refuse("caller_token_missing", public.place, message, help);
            return;
        }
        let evidence = raw.accept.as_ref().and_then(|accept| accept.evidence.as_ref());
        let other = evidence.and_then(|list| list.value.iter().find(|kind| kind.value != raw::Evidence::Bearer));
        if let Some(other) = other {
            scope.refuse("caller_token_missing", other.place, message, help);
        }
    }

    fn login(&self, scope: &Scope<'_>, raw: &raw::Route) -> crate::route::LoginRequirement {
        let Some(login) = &raw.login else { return Default::default() };
        if let Some(issuer) = &login.issuer
            && self.known.names.issuers.refer(scope, issuer)
            && self.known.main_is_read
        {
            let declared = self.known.config.issuers.iter().find(|(name, _)| name.value == issuer.value);
            if declared.is_none_or(|(_, declared)| declared.login.is_none()) {
                let message = format!("issuer `{}` has no `login`", issuer.value);
                scope.refuse("issuer_without_login", issuer.place, message, "name one that has");
            }
            let accepted = raw.accept.as_ref().and_then(|accept| accept.issuers.as_ref());
            if accepted.is_some_and(|accepted| accepted.value.iter().all(|other| other.value != issuer.value)) {
                let message = format!("the route sends browsers to issuer `{}` and does not accept it", issuer.value);
                scope.refuse("login_not_accepted", issuer.place, message, "add it to `accept.issuers`");
            }
        }
        route_parts::login(scope, login)
    }
}

/// Refuses a header of the route that its credential would write over.
fn header_meets(
    scope: &Scope<'_>,
    raw: &raw::Route,
    (credential, header): (&Placed<String>, &str),
    identity: Option<&IdentityHeaders>,
) {
    if let Some(pass) = &raw.pass_authorization
        && header.eq_ignore_ascii_case("authorization")
    {
        let message = format!("credential `{}` takes the place of the caller's `Authorization`", credential.value);
        let help = "give the credential another `header`, or remove `pass_authorization`";
        scope.refuse("header_twice", pass.place, message, help);
    }
    let (Some(named), Some(checked)) = (&raw.identity_headers, identity) else { return };
    // `-` and `_` are one character to many upstreams.
    let alike = |name: &HeaderName| name.as_str().eq_ignore_ascii_case(&header.replace('_', "-"));
    for (text, name) in [
        (&named.subject, &checked.subject),
        (&named.issuer, &checked.issuer),
        (&named.email, &checked.email),
        (&named.groups, &checked.groups),
        (&named.roles, &checked.roles),
    ] {
        let Some(name) = name.as_ref().filter(|name| alike(name)) else { continue };
        let (place, written) = text.as_ref().map_or((credential.place, name.as_str()), |text| (text.place, text));
        let message = format!("credential `{}` has the header `{written}` already", credential.value);
        scope.refuse("header_twice", place, message, "give one of them another name");
    }
}

fn evidence_kind(kind: raw::Evidence) -> EvidenceKind {
    match kind {
        raw::Evidence::Bearer => EvidenceKind::Bearer,
        raw::Evidence::Session => EvidenceKind::Session,
        raw::Evidence::ClientCertificate => EvidenceKind::ClientCertificate,
    }
}

fn host_pattern(scope: &Scope<'_>, raw: &raw::Route, text: &Placed<String>) -> Option<HostPattern> {
    if text.value == "*" {
        match &raw.reason {
            Some(reason) => drop(scope.reason_text(reason)),
            None => {
                let help = "name the host, or say why in `reason: …`";
                scope.refuse("host_any", text.place, "the route takes every host without a reason", help);
            }
        }
        return Some(HostPattern::Any);
    }
    if let Some(reason) = &raw.reason {
        let help = "remove it, or write `host: \"*\"`";
        scope.refuse("reason", reason.place, "`reason` is for a route that takes every host", help);
    }
    let (below, host) = text.strip_prefix("*.").map_or((false, text.as_str()), |parent| (true, parent));
    if !text::is_host(host) {
        let message = format!("`{}` is not a host", text.value);
        scope.refuse("host", text.place, message, "write `api.example.com` or `*.example.com`: lower case, no port");
        return None;
    }
    Some(if below { HostPattern::Below(host.into()) } else { HostPattern::Exact(host.into()) })
}
