//! Routes: which requests belong together, and what a caller must bring.
//!
//! A [`Route`] is plain data; the parts that serve it (upstream, credential) hang on it in the snapshot.

pub mod aws;
mod precedence;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::target::{RequestTarget, Target, TargetError};

use precedence::Precedence;

/// A way of showing who one is. Two kinds on one request are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceKind {
    /// `Authorization: Bearer` with a JWT.
    Bearer,
    /// Doorward's sealed session cookie.
    Session,
    /// A client certificate of the TLS connection.
    ClientCertificate,
}

impl EvidenceKind {
    /// Name in configuration and audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Session => "session",
            Self::ClientCertificate => "client_certificate",
        }
    }
}

/// Which evidence a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// Configured names of issuers; `None` is every configured issuer.
    pub issuers: Option<BTreeSet<Arc<str>>>,
    /// Kinds of evidence.
    pub kinds: BTreeSet<EvidenceKind>,
}

impl Accepts {
    /// Whether a principal of this issuer may come in by this route.
    #[must_use]
    pub fn issuer(&self, name: &str) -> bool {
        self.issuers.as_ref().is_none_or(|issuers| issuers.contains(name))
    }

    /// The issuer whose principals alone may come in, where it is one.
    #[must_use]
    pub fn only_issuer(&self) -> Option<&str> {
        let mut issuers = self.issuers.as_ref()?.iter();
        issuers.next().filter(|_| issuers.next().is_none()).map(AsRef::as_ref)
    }
}

impl Default for Accepts {
    /// Any issuer; a bearer token or a browser session.
    fn default() -> Self {
        Self { issuers: None, kinds: BTreeSet::from([EvidenceKind::Bearer, EvidenceKind::Session]) }
    }
}

/// Who may come to a route at all, before policy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Callers with this evidence.
    Authenticated(Accepts),
    /// Anybody; the reason stands in the configuration.
    Public {
        /// Why the route is open.
        reason: Arc<str>,
    },
}

/// What a route asks of a browser login (OpenID Connect Core 3.1.2.1, RFC 9470).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginRequirement {
    /// Configured name of the issuer that a browser is sent to; `None` offers a choice where there are several.
    pub issuer: Option<Arc<str>>,
    /// Authentication context classes of which the caller must have one; empty asks for none.
    pub acr_values: Vec<String>,
    /// Longest time since the caller authenticated.
    pub max_age: Option<Duration>,
}

/// Cross-origin callers of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins whose preflights pass without identity, each as a browser sends it (`https://app.example.com`).
    pub origins: BTreeSet<String>,
}

/// Limits of one request on a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// Largest request body, bytes.
    pub body_bytes: u64,
    /// From the head's arrival to the upstream's head.
    pub first_byte: Duration,
    /// Longest silence of either body.
    pub idle: Duration,
    /// From the head's arrival to the last byte of the answer; `None` is no limit, for streams.
    pub total: Option<Duration>,
    /// How many requests may come.
    pub rates: RouteRates,
}

/// How many requests of a route may come in a time; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteRates {
    /// From one address, whoever calls.
    pub source: Option<Rate>,
    /// Of one principal.
    pub principal: Option<Rate>,
    /// Of all callers together, counting what is granted.
    pub route: Option<Rate>,
}

/// A number of requests in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least one.
    pub requests: u32,
    /// The time.
    pub per: Duration,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self {
            body_bytes: 10 * 1024 * 1024,
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            total: None,
            rates: RouteRates::default(),
        }
    }
}

/// Names of the plain identity headers that a route's upstream is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// Subject within its issuer.
    pub subject: Option<HeaderName>,
    /// Configured name of the issuer.
    pub issuer: Option<HeaderName>,
    /// E-mail address.
    pub email: Option<HeaderName>,
    /// Groups, comma-separated.
    pub groups: Option<HeaderName>,
    /// Roles that the caller holds, comma-separated.
    pub roles: Option<HeaderName>,
}

/// How a route's path is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMode {
    /// By its normal form; what can be read in two ways is refused.
    Normal,
    /// By its raw bytes; the reason stands in the configuration. Dot segments stay refused.
    Opaque {
        /// Why the API needs raw paths.
        reason: Arc<str>,
    },
}

/// A configured route. Every request that passes belongs to exactly one.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name, unique in the configuration.
    pub name: Arc<str>,
    /// Position among the snapshot's routes.
    pub index: usize,
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths: `/a/{id}/b`, with `{*rest}` as the last segment for everything below.
    pub path: Arc<str>,
    /// How the path is read.
    pub path_mode: PathMode,
    /// Environment, such as `production`.
    pub environment: Arc<str>,
    /// Free labels that policies can read.
    pub tags: BTreeSet<Arc<str>>,
    /// Who may come at all.
    pub access: Access,
    /// What a browser login must bring.
    pub login: LoginRequirement,
    /// Cross-origin callers.
    pub cors: Cors,
    /// Origins that may send cookie-authenticated unsafe requests besides the route's own.
    pub csrf_origins: BTreeSet<String>,
    /// Why the caller's `Authorization` goes to the upstream; then it is no evidence here.
    pub pass_authorization: Option<Arc<str>>,
    /// Why the caller's own cookies go to the upstream. Doorward's never do.
    pub pass_cookies: Option<Arc<str>>,
    /// Whether callers speak to AWS through it: a signature of theirs is no evidence, and the session token that they
    /// sign with is their JWT.
    pub speaks_aws: bool,
    /// Whether WebSocket upgrades are let through.
    pub websocket: bool,
    /// Plain identity headers for the upstream.
    pub identity_headers: Option<IdentityHeaders>,
    /// Limits of one request.
    pub limits: RouteLimits,
}

impl Route {
    /// Whether its paths are raw bytes.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        matches!(self.path_mode, PathMode::Opaque { .. })
    }
}

/// Which hosts a route serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this host, lower case.
    Exact(Arc<str>),
    /// Every name below this one: `*.example.com` holds `example.com`.
    Below(Arc<str>),
    /// Every host.
    Any,
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => formatter.write_str(host),
            Self::Below(parent) => write!(formatter, "*.{parent}"),
            Self::Any => formatter.write_str("*"),
        }
    }
}

/// Values that a path pattern caught, in the pattern's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathParameters(Vec<(Arc<str>, String)>);

impl PathParameters {
    /// Parameters for tests.
    #[cfg(test)]
    pub(crate) fn of(parameters: &[(&str, &str)]) -> Self {
        Self(parameters.iter().map(|(name, value)| (Arc::from(*name), (*value).to_owned())).collect())
    }

    /// Name and value, percent-encoded as in the path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }

    /// Whether the pattern caught nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
impl<'a> FromIterator<(&'a str, &'a str)> for PathParameters {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(caught: I) -> Self {
        Self(caught.into_iter().map(|(name, value)| (name.into(), value.to_owned())).collect())
    }
}

/// A request's route, its one target, and what the path pattern caught.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The route.
    pub route: Arc<Route>,
    /// Method, host and path in the form that the route asks for.
    pub target: Target,
    /// What the pattern caught.
    pub parameters: PathParameters,
}

/// Why a route could not be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The pattern is malformed.
    #[error("path pattern is malformed: {0}")]
    Pattern(String),
    /// Another route of the same host catches the same paths.
    #[error("path pattern catches what `{0}` already catches")]
    Conflict(String),
}

/// Finds the route of a request: the most specific host first, then the path within it.
///
/// The most specific host that has routes decides alone: its paths do not fall through to a wider host.
#[derive(Default)]
pub struct Router {
    exact: HashMap<Arc<str>, PathTable>,
    below: HashMap<Arc<str>, PathTable>,
    any: Option<PathTable>,
    routes: Vec<Arc<Route>>,
    /// How exact each route's pattern is, by its index.
    precedence: Vec<Precedence>,
    /// Names of the parameters of all patterns.
    names: HashSet<Arc<str>>,
}

#[derive(Default)]
struct PathTable {
    paths: matchit::Router<usize>,
}

impl fmt::Debug for Router {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.routes.iter().map(|route| &route.name)).finish()
    }
}

impl Router {
    /// A table of `routes`, each with its position as `index`.
    ///
    /// # Errors
    /// Every route that could not be added, by position.
    pub fn new(routes: Vec<Route>) -> Result<Self, Vec<(usize, RouteError)>> {
        let mut router = Self::default();
        let mut faults = Vec::new();
        let patterns: Vec<_> = routes.iter().map(|route| (route.host.clone(), route.path.clone())).collect();
        router.precedence = patterns.iter().map(|(_, path)| Precedence::of(path)).collect();
        router.names = patterns.iter().flat_map(|(_, path)| parameter_names(path)).map(Arc::from).collect();
        router.routes = routes.into_iter().map(Arc::new).collect();
        for (index, (host, path)) in patterns.iter().enumerate() {
            if let Err(fault) = router.table_of(host).insert(path, index) {
                faults.push((index, fault));
            }
        }
        // `/a/{*rest}` also means `/a/` itself, unless another route says so more exactly.
        for (index, (host, path)) in patterns.iter().enumerate() {
            if let Some((folder, _)) = path.split_once("{*") {
                let _already_taken = router.table_of(host).insert(folder, index);
            }
        }
        if faults.is_empty() { Ok(router) } else { Err(faults) }
    }

    /// The routes, in the order of their `index`.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    fn table_of(&mut self, host: &HostPattern) -> &mut PathTable {
        match host {
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostPattern::Below(parent) => self.below.entry(parent.clone()).or_default(),
            HostPattern::Any => self.any.get_or_insert_default(),
        }
    }

    /// The request's route, with the one path that the route asks for.
    ///
    /// A route with opaque paths is matched by raw bytes only, any other by the normal form only: a path that
    /// would reach an opaque route by its normal form alone is ambiguous. So is one that an upstream could read as a
    /// path of another route. A path that is a more exact route's but for its last slash is refused as well: many
    /// frameworks serve both alike. Letter case always tells paths apart.
    ///
    /// # Errors
    /// [`TargetError::PathAmbiguous`], [`TargetError::LastSlash`]. `Ok(None)` is: no such route.
    pub fn find(&self, request: RequestTarget) -> Result<Option<RouteMatch>, TargetError> {
        let Some(table) = self.table(request.host()) else { return Ok(None) };
        let readings = request.other_readings()?;
        if let Some(found) = self.look(table, request.raw_path())
            && found.route.is_opaque()
        {
            self.check_readings(table, found.route.index, request.raw_path(), &readings)?;
            let (route, parameters) = self.kept(&found);
            let target = request.into_opaque()?;
            return self.as_signed(table, RouteMatch { route, parameters, target }).map(Some);
        }
        let target = request.into_normal()?;
        let Some(found) = self.look(table, target.path()) else { return Ok(None) };
        if found.route.is_opaque() {
            return Err(TargetError::PathAmbiguous);
        }
        self.check_readings(table, found.route.index, target.path(), &readings)?;
        let (route, parameters) = self.kept(&found);
        self.as_signed(table, RouteMatch { route, target, parameters }).map(Some)
    }

    /// Where requests are signed, their path is written in the one canonical way: that one is what policies judge.
    fn as_signed(&self, table: &PathTable, found: RouteMatch) -> Result<RouteMatch, TargetError> {
        if !found.route.speaks_aws {
            return Ok(found);
        }
        let target = found.target.into_canonical().ok_or(TargetError::PathMalformed)?;
        let same = self.look(table, target.path()).filter(|again| again.route.index == found.route.index);
        let (route, parameters) = same.map(|again| self.kept(&again)).ok_or(TargetError::PathAmbiguous)?;
        Ok(RouteMatch { route, parameters, target })
    }

    /// Refuses `path`, which the route at `index` catches, where a lax upstream could take it for another route's.
    fn check_readings(
        &self,
        table: &PathTable,
        index: usize,
        path: &str,
        readings: &[String],
    ) -> Result<(), TargetError> {
        if readings.iter().any(|reading| table.index_of(reading).is_some_and(|found| found != index)) {
            return Err(TargetError::PathAmbiguous);
        }
        let mut paths = readings.iter().map(String::as_str).chain([path]);
        if paths.any(|path| self.is_anothers_without_last_slash(table, index, path)) {
            return Err(TargetError::LastSlash);
        }
        Ok(())
    }

    /// Whether `path` with one slash more or less at its end belongs to a route that is more exact about it.
    fn is_anothers_without_last_slash(&self, table: &PathTable, index: usize, path: &str) -> bool {
        let other = match path.strip_suffix('/') {
            Some(without) => table.index_of(without),
            None => SLASHED.with_borrow_mut(|slashed| {
                path.clone_into(slashed);
                slashed.push('/');
                table.index_of(slashed)
            }),
        };
        other.is_some_and(|other| other != index && self.precedence.get(other) > self.precedence.get(index))
    }

    fn table(&self, host: &str) -> Option<&PathTable> {
        if let Some(table) = self.exact.get(host) {
            return Some(table);
        }
        // The longest parent first: `a.b.example.com` asks below `b.example.com`, then below `example.com`.
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(table) = self.below.get(parent) {
                return Some(table);
            }
            rest = parent;
        }
        self.any.as_ref()
    }

    fn kept(&self, found: &Found<'_>) -> (Arc<Route>, PathParameters) {
        let name = |name: &str| self.names.get(name).cloned().unwrap_or_else(|| name.into());
        let parameters = found.parameters.iter().map(|(of, value)| (name(of), value.to_owned())).collect();
        (found.route.clone(), PathParameters(parameters))
    }

    fn look<'a>(&'a self, table: &'a PathTable, path: &'a str) -> Option<Found<'a>> {
        let found = table.paths.at(path).ok()?;
        let route = self.routes.get(*found.value)?;
        Some(Found { route, parameters: found.params })
    }
}

thread_local! {
    /// A path with a slash more, for the moment in which it is looked up.
    static SLASHED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A route and what its pattern caught, as long as the path is looked at.
struct Found<'a> {
    route: &'a Arc<Route>,
    parameters: matchit::Params<'a, 'a>,
}

/// Names between the braces of a pattern.
fn parameter_names(pattern: &str) -> impl Iterator<Item = &str> {
    let named = |part: &'_ str| part.split_once('}').map(|(name, _)| name.len());
    pattern.split('{').skip(1).filter_map(move |part| part.get(..named(part)?)).map(|name| name.trim_start_matches('*'))
}

impl PathTable {
    fn index_of(&self, path: &str) -> Option<usize> {
        self.paths.at(path).ok().map(|found| *found.value)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is a fault of the pattern")]
    fn insert(&mut self, pattern: &str, index: usize) -> Result<(), RouteError> {
        if !pattern.starts_with('/') {
            return Err(RouteError::Pattern("it must begin with `/`".to_owned()));
        }
        self.paths.insert(pattern, index).map_err(|error| match error {
            matchit::InsertError::Conflict { with } => RouteError::Conflict(with),
            other => RouteError::Pattern(other.to_string()),
        })
    }
}

#[cfg(test)]
mod tests;
