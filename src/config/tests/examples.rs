use std::path::{Path, PathBuf};

use crate::config::{Checked, load};
use crate::identity::PrincipalKind;

/// Copies an example, makes the files that it refers to, and loads it.
pub(crate) fn loaded(name: &str) -> (tempfile::TempDir, Checked) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples").join(name);
    let world = tempfile::tempdir().unwrap();
    for directory in ["policies", "tls"] {
        std::fs::create_dir(world.path().join(directory)).unwrap();
    }
    for file in ["doorward.yaml", "policies/routes.yaml", "policies/access.cedar"] {
        std::fs::copy(example.join(file), world.path().join(file)).unwrap();
    }
    let text = std::fs::read_to_string(example.join("doorward.yaml")).unwrap();
    for word in text.split([' ', ',', '}', '\n']) {
        let path: PathBuf = world.path().join(word.strip_prefix("file:").unwrap_or(word));
        // The shape of PEM is all that is looked at; nothing in it is a key.
        let content = match path.extension().and_then(|extension| extension.to_str()) {
            Some("pem") => "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            Some("key") if word.contains("tls/") => "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
            Some("key" | "secret") => "secret\n",
            _ => continue,
        };
        std::fs::write(path, content).unwrap();
    }
    let checked =
        load(&world.path().join("doorward.yaml")).unwrap_or_else(|faults| panic!("{}", faults.render(false, 120)));
    (world, checked)
}

#[test]
fn the_okta_example_lets_people_in_by_an_id_that_never_changes() {
    let (_world, checked) = loaded("okta");
    let issuer = &checked.issuers[0];
    assert_eq!((issuer.kind, issuer.principal.as_slice()), (PrincipalKind::User, &["uid".to_owned()][..]));
    assert!(issuer.login.as_ref().is_some_and(|login| login.client_secret.is_some()));
    assert_eq!((checked.routes.len(), checked.roles.len(), checked.policies.len()), (2, 2, 1));
}

#[test]
fn the_vercel_example_binds_team_project_and_environment() {
    let (_world, checked) = loaded("vercel");
    let bound: Vec<&str> = checked.issuers[0].required_claims.iter().map(|(claim, _)| claim.as_str()).collect();
    assert_eq!(bound, ["owner_id", "project_id", "environment"]);
    assert!(checked.issuers[0].login.is_none());
}

#[test]
fn the_github_example_refuses_pull_requests() {
    let (_world, checked) = loaded("github-actions");
    let issuer = &checked.issuers[0];
    assert_eq!(
        issuer.forbidden_claims,
        [("event_name".to_owned(), vec!["pull_request".into(), "pull_request_target".into()])]
    );
    assert_eq!(checked.roles[0].trust[0].claims[0], ("repository_id".to_owned(), vec!["987654321".into()]));
}
