//! Environments: what belongs to one is not used from another, unless both are named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::desk::Scope;
use crate::config::placed::{Place, Placed};
use crate::config::raw;
use crate::config::source_file::SourceFile;

/// One use of something that belongs to an environment.
struct Use<'a> {
    by: String,
    environment: &'a str,
    file: &'a Arc<SourceFile>,
    place: Place,
}

/// Something that belongs to environments, and its uses.
struct Belonging<'a> {
    what: &'static str,
    name: &'a Placed<String>,
    named: Option<&'a Placed<Vec<Placed<String>>>>,
    uses: Vec<Use<'a>>,
}

/// Refuses every edge from one environment to another. `files` are the policy files, each with its scope.
pub(super) fn crossings<'a>(main: &Scope<'_>, config: &'a raw::Config, files: &[(Scope<'a>, &'a raw::Policies)]) {
    let mut issuers: BTreeMap<&str, Vec<Use<'a>>> = BTreeMap::new();
    let mut credentials: BTreeMap<&str, Vec<Use<'a>>> = BTreeMap::new();
    let routes = files.iter().flat_map(|(_, policies)| policies.routes.iter());
    let known: BTreeSet<&str> =
        routes.filter_map(|(_, route)| route.environment.as_ref()).map(|environment| environment.as_str()).collect();
    for (scope, policies) in files {
        let used = |by: String, environment, place| Use { by, environment, file: scope.file, place };
        for (name, route) in policies.routes.iter() {
            let Some(environment) = &route.environment else { continue };
            let by = || format!("route `{}`", name.value);
            let accepted = route.accept.as_ref().and_then(|accept| accept.issuers.as_ref());
            for issuer in accepted.iter().flat_map(|list| &list.value) {
                issuers.entry(issuer).or_default().push(used(by(), environment, issuer.place));
            }
            if let Some(credential) = &route.credential {
                credentials.entry(credential).or_default().push(used(by(), environment, credential.place));
            }
        }
        for (name, role) in policies.roles.iter() {
            // A role of an environment without routes is a fault of its own.
            let Some(environment) = role.environment.as_ref().filter(|name| known.contains(name.as_str())) else {
                continue;
            };
            for trust in role.trust.iter().flat_map(|trust| &trust.value) {
                let Some(issuer) = &trust.issuer else { continue };
                let by = format!("role `{}`", name.value);
                issuers.entry(issuer).or_default().push(used(by, environment, issuer.place));
            }
        }
    }
    let declared_issuers = config.issuers.iter().map(|(name, raw)| (name, raw.environments.as_ref()));
    let by_certificate = config.certificate_issuers.iter().map(|(name, raw)| (name, raw.environments.as_ref()));
    for (name, named) in declared_issuers.chain(by_certificate) {
        let uses = issuers.remove(name.as_str()).unwrap_or_default();
        Belonging { what: "issuer", name, named, uses }.check(main);
    }
    // What shows an upstream nothing belongs nowhere.
    for (name, raw) in config.credentials.iter().filter(|(_, raw)| raw.none.is_none()) {
        let uses = credentials.remove(name.as_str()).unwrap_or_default();
        Belonging { what: "credential", name, named: raw.environments.as_ref(), uses }.check(main);
    }
}

impl Belonging<'_> {
    fn check(&self, main: &Scope<'_>) {
        let Self { what, name, named, uses } = self;
        if let Some(named) = named {
            main.texts(named, "environments");
            let inside = |environment: &str| named.value.iter().any(|one| one.value == environment);
            let all: Vec<_> = named.value.iter().map(|one| format!("`{}`", one.value)).collect();
            for one in uses.iter().filter(|one| !inside(one.environment)) {
                let message = format!(
                    "{} of `{}` uses {what} `{}` of {}",
                    one.by,
                    one.environment,
                    name.value,
                    all.join(" and ")
                );
                let help = format!("use another {what}, or add `{}` to its `environments`", one.environment);
                self.tell(main, one, message, help, named.place);
            }
            return;
        }
        let Some(first) = uses.first() else { return };
        let mut told = BTreeSet::new();
        for one in uses.iter().filter(|one| one.environment != first.environment && told.insert(one.environment)) {
            let message = format!(
                "{} of `{}` uses {what} `{}`, and so does {} of `{}`",
                one.by, one.environment, name.value, first.by, first.environment
            );
            let help = format!(
                "declare one {what} for each, or give this one `environments: [{}, {}]`",
                first.environment, one.environment
            );
            self.tell(main, one, message, help, name.place);
        }
    }

    fn tell(&self, main: &Scope<'_>, one: &Use<'_>, message: String, help: String, declared: Place) {
        let fault = main.fault_of(one.file, "environment_crossed", one.place, message);
        main.tell(fault.also(main.file, declared, "declared here").help(help));
    }
}
