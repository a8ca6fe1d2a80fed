use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::world::{DOORWARD, RULES, World};
use crate::config::checked::{Keys, ListenAddress, UpstreamHost};
use crate::config::{Checked, Faults, SourceFile, form, raw};
use crate::route::{Access, EvidenceKind, HostPattern};

#[test]
fn a_whole_configuration_means_what_it_says() {
    let world = World::new();
    let checked = world.load().map_err(|faults| faults.render(false, 120)).unwrap();
    let names = |issuers: &[&str]| Some(issuers.iter().map(|name| Arc::from(*name)).collect::<BTreeSet<Arc<str>>>());
    let invoices = &checked.routes[0];
    let Access::Authenticated(accepts) = &invoices.route.access else { panic!("it is not public") };
    assert_eq!(accepts.issuers, names(&["okta", "ci", "mesh"]));
    assert_eq!(accepts.kinds.len(), 3);
    assert!(accepts.kinds.contains(&EvidenceKind::ClientCertificate));
    assert_eq!((&*invoices.route.name, invoices.audience.as_str()), ("invoices", "http://10.0.0.7:8080"));
    assert_eq!(invoices.route.login.max_age, Some(Duration::from_secs(3600)));
    assert_eq!(invoices.route.identity_headers.as_ref().unwrap().email.as_ref().unwrap(), "x-doorward-email");
    assert_eq!(checked.routes[1].route.host, HostPattern::Below("example.com".into()));
    assert_eq!((checked.routes[1].route.index, checked.routes[1].credential.as_str()), (1, "open"));
    let okta = &checked.issuers[0];
    assert_eq!((okta.leeway, okta.longest_token), (Duration::from_secs(60), Duration::from_secs(86_400)));
    assert_eq!(okta.forbidden_claims, [("act".to_owned(), vec![])]);
    assert_eq!(okta.login.as_ref().unwrap().client_secret.as_ref().unwrap().value.expose(), "s3cret");
    assert_eq!(checked.issuers[1].keys, Keys::File(world.path().join("keys.json")));
    assert_eq!(checked.roles[0].trust[1].claims, [("repository_id".to_owned(), vec!["123".into()])]);
    assert_eq!(checked.upstreams[0].host, UpstreamHost::Address);
    let (authorities, named_at) = checked.upstreams[1].tls.authorities.as_ref().unwrap();
    assert_eq!(authorities, &world.path().join("policies/../tls/ca.pem"));
    assert!(named_at.to_string().ends_with("policies/rules.yaml:13:25"), "{named_at}");
    assert_eq!(checked.assertions.as_ref().unwrap().issuer, "https://api.example.com/.doorward");
    assert_eq!(checked.listeners[2].address, ListenAddress::Unix(world.path().join("documents.sock")));
    assert!(checked.referenced.contains_key(&world.path().join("tls/api.key")));
}

#[test]
fn no_secret_is_ever_printed() {
    let checked = World::new().load().unwrap();
    let printed = format!("{checked:?}");
    for secret in ["s3cret", "t0ken", "k3y", "AA=="] {
        assert!(!printed.contains(secret), "{secret}");
    }
    let world = World::with("doorward.yaml", "secret: file:api.secret", "secret: hunter2");
    let faults = world.load().unwrap_err();
    assert!(!faults.to_string().contains("hunter2") && !faults.to_json().to_string().contains("hunter2"));
}

/// What guards a route or gives a role, as text to compare.
fn guards(checked: &Checked) -> (BTreeSet<String>, BTreeSet<String>) {
    let routes = checked.routes.iter().map(|settings| {
        let route = &settings.route;
        format!("{} {} {} {:?} {}", route.name, route.host, route.path, route.access, route.environment)
    });
    let roles = checked.roles.iter().map(|role| format!("{role:?}"));
    (routes.collect(), roles.collect())
}

/// Where the lines of `text` end: a cut anywhere else leaves a last line without its line break.
fn line_ends(text: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1))
}

#[test]
fn no_cut_within_a_line_has_a_meaning() {
    for text in [DOORWARD, RULES] {
        let ends: BTreeSet<usize> = line_ends(text).collect();
        for cut in (0..text.len()).filter(|cut| !ends.contains(cut)) {
            let file = SourceFile::new("cut.yaml", &text[..cut]);
            assert!(form::read::<raw::Config>(&file, &mut Faults::default()).is_err(), "cut at {cut}");
            assert!(form::read::<raw::Policies>(&file, &mut Faults::default()).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn no_cut_of_the_rules_opens_a_route_or_widens_a_role_that_a_route_can_meet() {
    let world = World::new();
    let (routes, roles) = guards(&world.load().unwrap());
    let mut loaded = 0;
    for cut in line_ends(RULES) {
        world.write("policies/rules.yaml", &RULES[..cut]);
        let Ok(checked) = world.load() else { continue };
        loaded += 1;
        let (cut_routes, cut_roles) = guards(&checked);
        assert!(cut_routes.is_subset(&routes), "cut at {cut}: {cut_routes:?}");
        assert!(cut_routes.is_empty() || cut_roles.is_subset(&roles), "cut at {cut}: {cut_roles:?}");
    }
    assert!(loaded > 2, "some cuts leave a smaller configuration");
}

#[test]
fn no_cut_of_the_mechanisms_changes_who_is_let_in() {
    let world = World::new();
    let whole = world.load().unwrap();
    let doors = |checked: &Checked| format!("{:?}{:?}{:?}", checked.issuers, checked.credentials, checked.listeners);
    for cut in line_ends(DOORWARD) {
        world.write("doorward.yaml", &DOORWARD[..cut]);
        let Ok(checked) = world.load() else { continue };
        assert_eq!((guards(&checked), doors(&checked)), (guards(&whole), doors(&whole)), "cut at {cut}");
    }
}
