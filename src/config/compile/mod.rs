//! A checked configuration becomes running parts: the only place that names the ways to do each step.
//!
//! What lives beside the snapshot (key sets, pools, sessions, caches) is taken from [`Runtime`], and made there when it
//! is new: a reload keeps whatever did not change.

mod access;

mod aws;
mod azure;

mod credentials;

mod examine;

mod gcp;

mod issuers;

mod listeners;

mod mtls;

mod oauth;

mod runtime;

mod stated;

mod upstreams;

mod vault;

#[cfg(test)]
mod tests;

pub use credentials::provider_for_questions;
pub use examine::examine;
pub use listeners::{RevocationEnd, admin_listener, limits, listeners, revocation_ends, tls_fault};
pub use runtime::{Runtime, StartError};
pub use stated::{Stated, by_certificate, by_claims, by_session, by_token};

use std::path::Path;
use std::sync::Arc;

use super::checked::Checked;
use super::faults::{Declared, Faults};
use super::load;
use super::secrets::Environment;
use crate::policy::{Policies, RoleUses};
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

/// What could not be made: where it is declared, a stable code, and a sentence.
type Note<'a> = &'a mut dyn FnMut(&Declared, &'static str, String);

/// Reads the configuration at `path` and judges all of it.
///
/// # Errors
/// Every fault of its files that can be seen: what policies mean is judged once the settings are sound, for they speak
/// of them; their form, certificates and authorities are looked at whatever else is wrong.
pub fn judge(path: &Path) -> Result<Judged, Faults> {
    judge_with(path, &Arc::default())
}

/// As [`judge`], with the uses of roles that the process remembers.
fn judge_with(path: &Path, uses: &Arc<RoleUses>) -> Result<Judged, Faults> {
    let (checked, mut faults) = load::survey(path, &Environment::process());
    let rules = if faults.is_empty() { rules(&checked, uses).map_err(|found| faults.extend(found)).ok() } else { None };
    faults.extend_with_new(listeners::tls_faults(&checked));
    if !faults.is_empty() {
        faults.extend_with_new(access::form_faults(&checked));
        faults.extend_with_new(examine(&checked));
    }
    let faults = faults.referring_to(checked.referenced.clone()).of(checked.hash.clone());
    match rules {
        Some((router, policies)) => faults.or(Judged { checked, router, policies }),
        None => Err(faults.sorted()),
    }
}

fn rules(checked: &Checked, uses: &Arc<RoleUses>) -> Result<(Router, Policies), Faults> {
    let routes = checked.routes.iter().map(|settings| settings.route.clone()).collect();
    let router = Router::new(routes).map_err(|faults| {
        let at = |(index, fault): (usize, crate::route::RouteError)| match checked.routes.get(index) {
            Some(settings) => settings.declared.fault("route", format!("route `{}`: {fault}", settings.route.name)),
            None => checked.main.fault("route", fault.to_string()),
        };
        faults.into_iter().map(at).collect::<Faults>()
    })?;
    let policies = access::policies(checked, &router, uses)?;
    Ok((router, policies))
}

/// Judges the configuration at `path` and makes the snapshot that serves by it.
///
/// # Errors
/// Every fault, and parts that could not be made. `runtime` keeps what it had until [`Runtime::take_into_use`].
pub fn compile(path: &Path, runtime: &Runtime) -> Result<(Snapshot, Checked), Faults> {
    let judged = judge_with(path, runtime.role_uses())?;
    let checked = judged.checked.clone();
    assemble(checked.clone(), judged, runtime)
        .map_err(|faults| faults.referring_to(checked.referenced).of(checked.hash))
}

fn assemble(
    checked: Checked,
    Judged { router, policies, .. }: Judged,
    runtime: &Runtime,
) -> Result<(Snapshot, Checked), Faults> {
    let mut faults = Faults::default();
    let mut note = |at: &Declared, code: &'static str, message: String| faults.push(at.fault(code, message));

    let upstreams = upstreams::upstreams(&checked, runtime, &mut note);
    let documents = credentials::documents(&checked, runtime, &mut note);
    let mut parts = Vec::with_capacity(checked.routes.len());
    for settings in &checked.routes {
        let route = &settings.route;
        let credential = credentials::provider(&checked, settings, runtime, &mut note);
        let plain_identity = credentials::plain_identity(settings, runtime, &mut note);
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
