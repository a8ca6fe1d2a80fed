//! Roles and the callers that hold them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::desk::Scope;
use super::issuers::claims;
use super::names::Names;
use crate::config::checked::{Role, Trust};
use crate::config::placed::{Named, Placed};
use crate::config::raw;
use crate::config::source_file::SourceFile;

pub(super) fn roles(
    scope: &Scope<'_>,
    named: &Named<raw::Role>,
    names: &Names,
    files: &[(Arc<SourceFile>, raw::Policies)],
    complete: bool,
) -> Vec<Role> {
    let routes = files.iter().flat_map(|(_, policies)| policies.routes.iter());
    let environments: BTreeSet<&str> =
        routes.filter_map(|(_, route)| route.environment.as_ref()).map(|environment| environment.as_str()).collect();
    let mut roles = Vec::new();
    for (name, raw) in named.iter() {
        let environment = scope.required(raw.environment.as_ref(), name, "environment");
        if let Some(environment) = environment
            && complete
            && !environments.is_empty()
            && !environments.contains(environment.as_str())
        {
            let message = format!("no route is of environment `{}`", environment.value);
            let fault = scope.fault("unknown_environment", environment.place, message);
            scope.tell(fault.nearest(environment, environments.iter().copied()));
        }
        let trust = scope.required(raw.trust.as_ref(), name, "trust");
        if let Some(list) = trust {
            scope.not_empty(list, "trust");
        }
        let entries = trust.map(|list| list.value.iter().filter_map(|entry| self::trust(scope, name, entry, names)));
        let entries: Vec<Trust> = entries.into_iter().flatten().collect();
        let default = std::time::Duration::from_secs(1);
        let longest_session = raw.longest_session.as_ref().map(|text| scope.duration(Some(text), default));
        if let Some(environment) = environment {
            let (name, environment) = (name.value.clone(), environment.value.clone());
            roles.push(Role { name, trust: entries, environment, longest_session });
        }
    }
    roles
}

fn trust(scope: &Scope<'_>, role: &Placed<String>, raw: &Placed<raw::Trust>, names: &Names) -> Option<Trust> {
    let Some(issuer) = &raw.issuer else {
        let message = format!("an entry of `{}`'s trust names no issuer", role.value);
        scope.refuse("trust_issuer", raw.place, message, "add `issuer: …`: groups and claims mean nothing without one");
        return None;
    };
    names.issuers.refer(scope, issuer);
    let groups = raw.groups.as_ref().map(|groups| scope.texts(groups, "groups"));
    let claims = claims(scope, &raw.claims, "claims", false);
    match &raw.everyone {
        Some(everyone) => {
            scope.reason(everyone);
            if groups.is_some() || !claims.is_empty() {
                let help = "remove `everyone`, or the groups and claims";
                scope.refuse(
                    "trust_everyone",
                    everyone.reason.place,
                    "`everyone` stands beside groups or claims",
                    help,
                );
            }
        }
        None if groups.is_none() && claims.is_empty() => {
            let message = format!("every caller of issuer `{}` would hold `{}`", issuer.value, role.value);
            let help = "add `groups` or `claims`, or say why in `everyone: { reason: … }`";
            scope.refuse("trust_open", issuer.place, message, help);
        }
        None => {}
    }
    Some(Trust { issuer: issuer.value.clone(), groups: groups.unwrap_or_default(), claims })
}
