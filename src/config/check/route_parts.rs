//! Parts of a route: path, login, origins, identity headers, limits.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderName;

use super::desk::Scope;
use super::{issuers, text};
use crate::config::placed::Placed;
use crate::config::raw;
use crate::route::{IdentityHeaders, LoginRequirement, PathMode, Rate, RouteLimits, RouteRates};

/// Whether requests can have the path, and it is not Doorward's own; tells a fault when not.
pub(super) fn path(scope: &Scope<'_>, path: &Placed<String>, mode: &PathMode) -> bool {
    let before = scope.told();
    let opaque = matches!(mode, PathMode::Opaque { .. });
    if !path.starts_with('/') {
        let message = format!("path `{}` does not begin with `/`", path.value);
        scope.refuse("route_path", path.place, message, format!("write `/{}`", path.value));
        return false;
    }
    if path.value == "/.doorward" || path.starts_with("/.doorward/") {
        scope.refuse("route_path", path.place, "`/.doorward/` is Doorward's own", "choose another path");
    }
    let mut rest = path.as_str();
    let mut literal = String::new();
    let mut names = BTreeSet::new();
    while let Some((before, after)) = rest.split_once('{') {
        literal.push_str(before);
        let Some((parameter, after)) = after.split_once('}') else { break };
        literal.push('x');
        rest = after;
        let name = parameter.strip_prefix('*').unwrap_or(parameter);
        if !names.insert(name) {
            let message = format!("path parameter `{name}` stands twice");
            scope.refuse("route_path", path.place, message, "policies read it by name: give each its own");
        }
        if !issuers::is_identifier(name) {
            let message = format!("`{{{parameter}}}` cannot be a path parameter");
            let help = "policies read it by name: use letters, digits and `_`";
            scope.refuse("route_path", path.place, message, help);
        }
    }
    literal.push_str(rest);
    let good = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b"-._~!$&'()*+,=:@/%".contains(&byte)
            || (opaque && byte == b';')
            || byte == b'}'
    };
    let dots = literal.split('/').any(|segment| matches!(segment, "." | ".."));
    let doubled = !opaque && literal.contains("//");
    if !literal.bytes().all(good) || dots || doubled || !escapes_are_normal(&literal) {
        let message = format!("no request can have the path `{}`", path.value);
        let help = "write it in normal form: no `//`, no dot segments, no query, other characters as `%C3%A9`";
        scope.refuse("route_path", path.place, message, help);
    }
    scope.told() == before
}

/// Whether every escape is upper case and stands for a character that needs one.
fn escapes_are_normal(literal: &str) -> bool {
    literal.split('%').skip(1).all(|after| {
        let Some(digits) = after.get(..2) else { return false };
        let Ok(byte) = u8::from_str_radix(digits, 16) else { return false };
        let needless =
            byte.is_ascii_alphanumeric() || b"-._~!$&'()*,=:@/\\;%".contains(&byte) || byte < b' ' || byte == 0x7f;
        !needless && digits.bytes().all(|digit| digit.is_ascii_digit() || digit.is_ascii_uppercase())
    })
}

pub(super) fn login(scope: &Scope<'_>, raw: &Placed<raw::RouteLogin>) -> LoginRequirement {
    if raw.issuer.is_none() && raw.acr_values.is_none() && raw.max_age.is_none() {
        scope.refuse("login_empty", raw.place, "`login` asks for nothing", "name `issuer`, `acr_values` or `max_age`");
    }
    LoginRequirement {
        issuer: raw.issuer.as_ref().map(|issuer| issuer.as_str().into()),
        acr_values: raw.acr_values.as_ref().map(|list| scope.texts(list, "acr_values")).unwrap_or_default(),
        max_age: raw.max_age.as_ref().map(|text| scope.duration(Some(text), Duration::from_secs(1))),
    }
}

pub(super) fn origins(scope: &Scope<'_>, raw: Option<&raw::Origins>) -> BTreeSet<String> {
    let Some(raw) = raw else { return BTreeSet::new() };
    scope.not_empty(&raw.origins, "origins");
    raw.origins.value.iter().filter_map(|origin| text::origin(scope, origin, "an origin")).collect()
}

pub(super) fn identity_headers(scope: &Scope<'_>, raw: &raw::IdentityHeaders) -> IdentityHeaders {
    let named = [&raw.subject, &raw.issuer, &raw.email, &raw.groups, &raw.roles];
    if named.iter().all(|name| name.is_none()) {
        let name = |name: &'static str| Some(HeaderName::from_static(name));
        return IdentityHeaders {
            subject: name("x-doorward-subject"),
            issuer: name("x-doorward-issuer"),
            email: name("x-doorward-email"),
            groups: name("x-doorward-groups"),
            roles: name("x-doorward-roles"),
        };
    }
    let mut taken = BTreeSet::new();
    let mut one = |name: &Option<Placed<String>>| {
        let text = name.as_ref()?;
        // `_` and `-` are one character to many servers; a name with `_` could be spoken by a caller as another.
        if text.contains('_') || text.eq_ignore_ascii_case("authorization") {
            let message = format!("header `{}` cannot carry an identity", text.value);
            scope.refuse("identity_header", text.place, message, "choose a name such as `X-Doorward-Subject`");
            return None;
        }
        let header = text::header(scope, text)?;
        if !taken.insert(header.as_str().to_owned()) {
            let message = format!("header `{}` is named twice", text.value);
            scope.refuse("identity_header", text.place, message, "give each fact its own header");
        }
        Some(header)
    };
    IdentityHeaders {
        subject: one(&raw.subject),
        issuer: one(&raw.issuer),
        email: one(&raw.email),
        groups: one(&raw.groups),
        roles: one(&raw.roles),
    }
}

/// `is_public` is: no caller has a name.
pub(super) fn limits(scope: &Scope<'_>, raw: Option<&raw::RouteLimits>, is_public: bool) -> RouteLimits {
    let defaults = RouteLimits::default();
    let Some(raw) = raw else { return defaults };
    RouteLimits {
        body_bytes: scope.size(raw.body.as_ref(), defaults.body_bytes),
        first_byte: scope.duration(raw.first_byte.as_ref(), defaults.first_byte),
        idle: scope.duration(raw.idle.as_ref(), defaults.idle),
        total: raw.total.as_ref().map(|text| scope.duration(Some(text), defaults.first_byte)),
        rates: raw.rate.as_ref().map(|raw| rates(scope, raw, is_public)).unwrap_or_default(),
    }
}

fn rates(scope: &Scope<'_>, raw: &raw::RouteRates, is_public: bool) -> RouteRates {
    const MOST: u32 = 1_000_000;
    let one = |raw: &Option<Placed<raw::Rate>>| {
        let raw = raw.as_ref()?;
        let per = scope.duration(Some(&raw.per), Duration::from_secs(1));
        Some(Rate { requests: scope.count(Some(&raw.requests), 1, MOST), per })
    };
    if let Some(principal) = raw.principal.as_ref().filter(|_| is_public) {
        let message = "a rate of each principal, on a route where nobody has to say who calls";
        scope.refuse("rate_of_nobody", principal.place, message, "write `source` instead of `principal`");
    }
    RouteRates { source: one(&raw.source), principal: one(&raw.principal), route: one(&raw.route) }
}
