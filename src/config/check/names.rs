//! Declared names: once over all files, and every reference finds its declaration.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::desk::{Desk, Scope};
use crate::config::form::Salvage;
use crate::config::placed::{Named, Place, Placed};
use crate::config::raw;
use crate::config::source_file::SourceFile;

/// Names of one kind, with the place of each declaration.
pub(super) struct Declared {
    kind: &'static str,
    /// Whether every file that may declare one was read.
    complete: bool,
    places: BTreeMap<String, (Arc<SourceFile>, Place)>,
}

/// The names of a configuration by kind. Issuers and certificate issuers share one kind: both name principals.
pub(super) struct Names {
    pub(super) listeners: Declared,
    pub(super) issuers: Declared,
    pub(super) credentials: Declared,
    pub(super) upstreams: Declared,
    pub(super) roles: Declared,
    pub(super) routes: Declared,
}

impl Names {
    /// The names of the files whose form is good.
    pub(super) fn of<'a>(
        main: &Scope<'_>,
        config: &raw::Config,
        policies: &'a [(Arc<SourceFile>, raw::Policies)],
        desk: &'a Desk<'_>,
    ) -> Self {
        let mut names = Self {
            listeners: Declared::new("listener"),
            issuers: Declared::new("issuer"),
            credentials: Declared::new("credential"),
            upstreams: Declared::new("upstream"),
            roles: Declared::new("role"),
            routes: Declared::new("route"),
        };
        names.listeners.declare(main, keys(&config.listeners));
        names.issuers.declare(main, keys(&config.issuers));
        names.issuers.declare(main, keys(&config.certificate_issuers));
        names.credentials.declare(main, keys(&config.credentials));
        names.upstreams.declare(main, keys(&config.upstreams));
        for (file, policies) in policies {
            let scope = desk.scope(file);
            names.upstreams.declare(&scope, keys(&policies.upstreams));
            names.roles.declare(&scope, keys(&policies.roles));
            names.routes.declare(&scope, keys(&policies.routes));
        }
        names
    }

    /// The names that are left of a file whose form is not good. A name that is not found may stand in what is not
    /// left: then nothing is said about it.
    pub(super) fn salvage(&mut self, scope: &Scope<'_>, salvage: &Salvage, is_main: bool) {
        let mut kinds = vec![(&mut self.upstreams, vec!["upstreams"])];
        if is_main {
            kinds.push((&mut self.listeners, vec!["listeners"]));
            kinds.push((&mut self.issuers, vec!["issuers", "certificate_issuers"]));
            kinds.push((&mut self.credentials, vec!["credentials"]));
        } else {
            kinds.push((&mut self.roles, vec!["roles"]));
            kinds.push((&mut self.routes, vec!["routes"]));
        }
        for (declared, sections) in kinds {
            for section in sections {
                match salvage.names(section) {
                    Some(names) => declared.declare(scope, names),
                    None => declared.complete = false,
                }
            }
        }
    }
}

fn keys<T>(named: &Named<T>) -> impl Iterator<Item = &Placed<String>> {
    named.iter().map(|(name, _)| name)
}

impl Declared {
    fn new(kind: &'static str) -> Self {
        Self { kind, complete: true, places: BTreeMap::new() }
    }

    fn declare<'a>(&mut self, scope: &Scope<'_>, names: impl Iterator<Item = &'a Placed<String>>) {
        for name in names {
            if !is_name(name) {
                let message = format!("`{}` cannot be the name of {}", name.value, with_article(self.kind));
                let help = "use at most 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit";
                scope.refuse("name", name.place, message, help);
            }
            if let Some((file, place)) = self.places.get(&name.value) {
                let message = format!("{} `{}` is declared twice", self.kind, name.value);
                let first = crate::config::faults::at(&file.path, *place);
                let fault = scope.fault("name_twice", name.place, message).label("again here");
                let fault = fault.also(file, *place, "first declared here");
                scope.tell(fault.help(format!("it is first declared at {first}; rename or remove one")));
                continue;
            }
            self.places.insert(name.value.clone(), (scope.file.clone(), name.place));
        }
    }

    /// Whether `reference` is declared; tells a fault with the nearest name when it is not.
    pub(super) fn refer(&self, scope: &Scope<'_>, reference: &Placed<String>) -> bool {
        let found = self.places.contains_key(&reference.value);
        if !found && self.complete {
            let code = match self.kind {
                "listener" => "unknown_listener",
                "issuer" => "unknown_issuer",
                "credential" => "unknown_credential",
                _ => "unknown_upstream",
            };
            let message = format!("{} `{}` is not declared", self.kind, reference.value);
            let known = self.places.keys().map(String::as_str);
            scope.tell(scope.fault(code, reference.place, message).nearest(&reference.value, known));
        }
        found
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['i', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// `|` parts issuer and subject in a principal's id, `,` parts roles in a header: neither may stand in a name.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= 64 && name.bytes().all(good) && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}
