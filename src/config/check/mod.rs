//! The meaning of a configuration: raw files become [`Checked`], or every fault of all of them.

mod aws;
mod azure;
mod credential_traits;
mod credentials;
mod desk;
mod environments;
mod external_account;
mod gcp;
mod issuers;
mod listeners;
mod mechanisms;
mod mtls;
mod names;
mod oauth;
mod roles;
mod route_parts;
mod routes;
mod session_policy;
mod text;
mod traps;
mod upstreams;
mod vault;

use std::sync::Arc;

use super::checked::{Checked, PolicySource};
use super::faults::{Declared, Faults};
use super::form::Salvage;
use super::raw;
use super::secrets::Environment;
use super::source_file::SourceFile;
use desk::Desk;
use names::Names;

/// Every file of a configuration.
#[derive(Debug)]
pub(super) struct Input<'a> {
    /// The main file.
    pub(super) main: Arc<SourceFile>,
    /// Its form, or what is left of it.
    pub(super) config: Result<raw::Config, Salvage>,
    /// Policy files.
    pub(super) policies: Vec<(Arc<SourceFile>, raw::Policies)>,
    /// Policy files whose form is not good, and what is left of them.
    pub(super) broken: Vec<(Arc<SourceFile>, Salvage)>,
    /// Cedar files.
    pub(super) cedar: Vec<PolicySource>,
    /// Hash over all files.
    pub(super) hash: Arc<str>,
    /// Variables for `env:` references.
    pub(super) environment: &'a Environment<'a>,
}

/// Checks all files together: what they say, as far as it is sound, with `faults` and every further one.
pub(super) fn check(input: &Input<'_>, faults: Faults) -> (Checked, Faults) {
    let desk = Desk::new(input.environment, faults);
    let empty = raw::Config::default();
    let config = input.config.as_ref().unwrap_or(&empty);
    let main = desk.scope(&input.main);
    let main_is_read = input.config.is_ok();
    let mut names = Names::of(&main, config, &input.policies, &desk);
    if let Err(salvage) = &input.config {
        names.salvage(&main, salvage, true);
    }
    for (file, salvage) in &input.broken {
        names.salvage(&desk.scope(file), salvage, false);
    }

    let mut addresses = listeners::Addresses::default();
    let listeners = listeners::listeners(&main, config, &mut addresses);
    if main_is_read && config.listeners.0.is_empty() {
        main.refuse(
            "listeners_missing",
            Default::default(),
            "no listener is declared",
            "declare one under `listeners`",
        );
    }
    let issuers = issuers::issuers(&main, config);
    let certificate_issuers = issuers::certificate_issuers(&main, config, &names);
    let external_origin = mechanisms::external_origin(&main, config);
    let assertions = mechanisms::assertions(&main, config, &names, external_origin.as_deref());
    let state_dir = mechanisms::state_dir(&main, config);
    let credentials = credentials::credentials(&main, config);
    let mut upstreams = upstreams::upstreams(&main, &config.upstreams);
    let mut roles = Vec::new();
    let known = routes::Known { config, names: &names, policies: &input.policies, main_is_read };
    let mut routes = routes::Routes::new(&known);
    for (file, policies) in &input.policies {
        let scope = desk.scope(file);
        upstreams.extend(upstreams::upstreams(&scope, &policies.upstreams));
        roles.extend(roles::roles(&scope, &policies.roles, &names, &input.policies, input.broken.is_empty()));
        routes.add(&scope, &policies.routes);
    }
    let routes = routes.finish();
    let files: Vec<_> = input.policies.iter().map(|(file, policies)| (desk.scope(file), policies)).collect();
    environments::crossings(&main, config, &files);
    let trusted_proxies = listeners::trusted_proxies(&main, config);
    let limits = listeners::limits(&main, config.limits.as_ref());
    let audit = mechanisms::audit(&main, config, &limits);
    let admin = mechanisms::admin(&main, config, &mut addresses);
    let (faults, referenced) = desk.close();
    let checked = Checked {
        main: Declared { file: input.main.clone(), place: Default::default() },
        hash: input.hash.clone(),
        external_origin,
        state_dir,
        trusted_proxies,
        listeners,
        limits,
        issuers,
        certificate_issuers,
        assertions,
        credentials,
        upstreams,
        roles,
        routes,
        policies: input.cedar.clone(),
        audit,
        admin,
        referenced,
    };
    let faults = faults.referring_to(checked.referenced.clone());
    (checked, faults)
}
