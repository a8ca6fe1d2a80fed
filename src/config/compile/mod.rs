//! A checked configuration becomes running parts: the only place that names the ways to do each step.
//!
//! What lives beside the snapshot (key sets, pools, sessions, caches) is taken from [`Runtime`], and made there when it
//! is new: a reload keeps whatever did not change.

mod access;

mod credentials;

mod examine;

mod issuers;

mod listeners;

mod runtime;

mod stated;

mod upstreams;

#[cfg(test)]
mod tests;

pub use examine::examine;
pub use listeners::{admin_listener, limits, listeners};
pub use runtime::{Runtime, StartError};
pub use stated::{Stated, by_certificate, by_claims, by_session, by_token};

use std::path::Path;
use std::sync::Arc;

use super::checked::Checked;
use super::faults::{Fault, Faults};
use super::placed::Place;
use super::{SourceFile, load};
use crate::policy::Policies;
use crate::proxy::{ServedRoute, Snapshot};
use crate::route::Router;

/// A configuration that was judged as a whole, its policies included; nothing of it runs yet.
#[derive(Debug)]
pub struct Judged {
    /// Settings.
    pub checked: Checked,
    /// Finds routes.
    pub router: Router,
    /// What callers may do.
    pub policies: Policies,
}

impl Judged {
    /// What is suspicious about the policies without being wrong.
    #[must_use]
    pub fn warnings(&self) -> Faults {
        access::warnings(&self.checked, &self.policies)
    }
}

/// Reads the configuration at `path` and judges all of it.
///
/// # Errors
/// Every fault of its files; those of policies once the settings are sound.
pub fn judge(path: &Path) -> Result<Judged, Faults> {
    judge_with(path, &Arc::default())
}

/// As [`judge`], with the uses of roles that the process remembers.
fn judge_with(path: &Path, uses: &Arc<crate::policy::RoleUses>) -> Result<Judged, Faults> {
    let checked = load(path)?;
    let referenced = checked.referenced.clone();
    judge_checked(checked, path, uses).map_err(|faults| faults.referring_to(referenced))
}

fn judge_checked(checked: Checked, path: &Path, uses: &Arc<crate::policy::RoleUses>) -> Result<Judged, Faults> {
    let routes = checked.routes.iter().map(|settings| settings.route.clone()).collect();
    let router = Router::new(routes).map_err(|faults| {
        let at = |(index, fault): (usize, crate::route::RouteError)| {
            let route = checked.routes.get(index).map_or("?", |settings| &settings.route.name);
            unplaced(path, "route", format!("route `{route}`: {fault}"))
        };
        faults.into_iter().map(at).collect::<Faults>()
    })?;
    let policies = access::policies(&checked, &router, uses)?;
    let tls: Faults = listeners::tls_faults(&checked).map(|fault| unplaced(path, "tls", fault)).collect();
    tls.or(())?;
    Ok(Judged { checked, router, policies })
}

/// Judges the configuration at `path` and makes the snapshot that serves by it.
///
/// # Errors
/// Every fault, and parts that could not be made; `runtime` keeps what it had.
pub fn compile(path: &Path, runtime: &Runtime) -> Result<(Snapshot, Checked), Faults> {
    let judged = judge_with(path, runtime.role_uses())?;
    let checked = judged.checked.clone();
    assemble(checked.clone(), judged, path, runtime).map_err(|faults| faults.referring_to(checked.referenced))
}

fn assemble(
    checked: Checked,
    Judged { router, policies, .. }: Judged,
    path: &Path,
    runtime: &Runtime,
) -> Result<(Snapshot, Checked), Faults> {
    let mut faults = Faults::default();
    let mut note = |code: &'static str, message: String| faults.push(unplaced(path, code, message));

    let upstreams = upstreams::upstreams(&checked, runtime, &mut note);
    let documents = credentials::documents(&checked, runtime, &mut note);
    let mut parts = Vec::with_capacity(checked.routes.len());
    for settings in &checked.routes {
        let route = &settings.route;
        let credential = credentials::provider(&checked, settings, runtime, &mut note);
        let plain_identity = credentials::plain_identity(route, runtime, &mut note);
        let upstream = upstreams.get(settings.upstream.as_str()).cloned();
        let (Some(credential), Some(upstream)) = (credential, upstream) else { continue };
        parts.push((upstream, credential, plain_identity, runtime.metrics().route(&route.name)));
    }
    let credentials: Vec<_> = parts.iter().map(|(_, credential, _, _)| credential.clone()).collect();
    let identities: Vec<_> = parts.iter().filter_map(|(_, _, plain_identity, _)| plain_identity.clone()).collect();
    let protected = credentials::protected(&credentials, &identities);
    let serve = |(upstream, credential, plain_identity, metrics)| ServedRoute {
        upstream,
        credential,
        protected: protected.clone(),
        plain_identity,
        metrics,
    };
    let served: Vec<ServedRoute> = parts.into_iter().map(serve).collect();
    let recognition = issuers::recognition(&checked, runtime, &mut note);
    // Half a configuration never serves.
    let Some(recognition) = recognition else { return Err(faults) };
    if served.len() != checked.routes.len() || !faults.is_empty() {
        return Err(faults);
    }
    runtime.forget_unused(&checked);
    let documents_listener = checked.assertions.as_ref().and_then(|assertions| assertions.listener.as_deref());
    let snapshot = Snapshot {
        hash: checked.hash.clone(),
        router,
        served,
        verifiers: recognition.verifiers,
        sessions: recognition.sessions,
        login: recognition.login,
        documents,
        documents_listener: documents_listener.map(Into::into),
        policies,
        trusted_proxies: crate::peer::TrustedProxies::new(checked.trusted_proxies.clone()),
    };
    Ok((snapshot, checked))
}

/// A fault of the configuration as a whole.
fn unplaced(path: &Path, code: &'static str, message: String) -> Fault {
    let file: Arc<SourceFile> = SourceFile::new(path, "");
    Fault::new(code, &file, Place::default(), message)
}
