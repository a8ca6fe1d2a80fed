use schemars::JsonSchema;
use serde::Deserialize;

use super::Reasoned;
use crate::config::placed::Placed;
use crate::config::units::{DurationText, SizeText};

/// Which requests belong together, where they go, and who may come.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["host", "path", "environment", "upstream", "credential"]), extend("oneOf" = [{ "required": ["accept"] }, { "required": ["public"] }]))]
pub struct Route {
    /// `api.example.com`, `*.example.com` for every name below it, or `"*"` for every host, which needs `reason`.
    pub host: Option<Placed<String>>,
    /// Why the route takes every host.
    pub reason: Option<Placed<String>>,
    /// `/invoices/{id}`; `{*rest}` as the last segment takes everything below.
    pub path: Option<Placed<String>>,
    /// Environment, such as `production`.
    pub environment: Option<Placed<String>>,
    /// Free labels that policies can read.
    pub tags: Vec<Placed<String>>,
    /// Name of the upstream.
    pub upstream: Option<Placed<String>>,
    /// Name of the credential that the upstream is shown.
    pub credential: Option<Placed<String>>,
    /// Audience of a signed assertion. Default: the origin of the upstream's first address.
    pub audience: Option<Placed<String>>,
    /// Which callers may come. Exactly one of `accept` and `public`.
    pub accept: Option<Placed<Accept>>,
    /// Why anybody may come.
    pub public: Option<Placed<Reasoned>>,
    /// What a browser login must bring.
    pub login: Option<Placed<RouteLogin>>,
    /// Origins whose preflights pass without identity.
    pub cors: Option<Origins>,
    /// Origins that may send unsafe requests with a session cookie, besides the route's own.
    pub csrf: Option<Origins>,
    /// How paths are read. Default `normal`.
    pub path_mode: Option<PathMode>,
    /// Why the caller's `Authorization` goes to the upstream; then it is no evidence here.
    pub pass_authorization: Option<Placed<Reasoned>>,
    /// Why the caller's own cookies go to the upstream. Doorward's never do.
    pub pass_cookies: Option<Reasoned>,
    /// Whether WebSocket upgrades are let through. Default false.
    pub websocket: Option<bool>,
    /// Plain identity headers for the upstream; `{}` takes the default names.
    pub identity_headers: Option<IdentityHeaders>,
    /// Limits of one request.
    pub limits: Option<RouteLimits>,
}

/// Which callers may come. Both lists are written out, so that a new issuer opens no route by itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["issuers", "evidence"]))]
pub struct Accept {
    /// Names of issuers and certificate issuers.
    pub issuers: Option<Placed<Vec<Placed<String>>>>,
    /// Kinds of evidence.
    pub evidence: Option<Placed<Vec<Placed<Evidence>>>>,
}

/// A way of showing who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// `Authorization: Bearer` with a JWT.
    Bearer,
    /// Doorward's session cookie.
    Session,
    /// The connection's client certificate.
    ClientCertificate,
}

/// What a browser login must bring.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteLogin {
    /// The issuer that a browser is sent to. Default: a choice where there are several.
    pub issuer: Option<Placed<String>>,
    /// Authentication context classes of which the caller must have one.
    pub acr_values: Option<Placed<Vec<Placed<String>>>>,
    /// Longest time since the caller authenticated.
    pub max_age: Option<Placed<DurationText>>,
}

/// Origins, each as a browser sends it: `https://app.example.com`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origins {
    /// The origins.
    pub origins: Placed<Vec<Placed<String>>>,
}

/// How a route's paths are read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PathMode {
    /// By their normal form; what can be read in two ways is refused.
    Normal,
    /// By their raw bytes, with the reason. Dot segments stay refused.
    Opaque(Reasoned),
}

/// Names of plain identity headers. Without any, the default names of all; otherwise those that are named.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityHeaders {
    /// Subject within its issuer. Default `X-Doorward-Subject`.
    pub subject: Option<Placed<String>>,
    /// Name of the issuer. Default `X-Doorward-Issuer`.
    pub issuer: Option<Placed<String>>,
    /// E-mail address. Default `X-Doorward-Email`.
    pub email: Option<Placed<String>>,
    /// Groups, comma-separated. Default `X-Doorward-Groups`.
    pub groups: Option<Placed<String>>,
    /// Roles, comma-separated. Default `X-Doorward-Roles`.
    pub roles: Option<Placed<String>>,
}

/// Limits of one request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    /// Largest request body. Default `10MiB`.
    pub body: Option<Placed<SizeText>>,
    /// From the request's head to the answer's head. Default `30s`.
    pub first_byte: Option<Placed<DurationText>>,
    /// Longest silence of either body. Default `60s`.
    pub idle: Option<Placed<DurationText>>,
    /// From the request's head to the answer's last byte. Default none, for streams.
    pub total: Option<Placed<DurationText>>,
    /// How many requests may come; each process counts for itself. Default any number.
    pub rate: Option<RouteRates>,
}

/// How many requests may come: a whole rate at once, and then one at each even step of it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteRates {
    /// From one address (of IPv6, one /64), whoever calls; refused requests count too.
    pub source: Option<Placed<Rate>>,
    /// Of one principal; denied requests count too.
    pub principal: Option<Placed<Rate>>,
    /// Of all callers together, counting what is granted.
    pub route: Option<Placed<Rate>>,
}

/// A number of requests in a time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many, from 1 to 1000000.
    pub requests: Placed<u64>,
    /// In which time, such as `1s` or `1m`.
    pub per: Placed<DurationText>,
}
