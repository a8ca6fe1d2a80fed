use super::world::World;
use crate::config::load::{FILE_LIMIT_BYTES, REVOCATIONS_LIMIT_BYTES};

#[test]
fn all_faults_of_all_files_come_at_once() {
    let world = World::new();
    world.replace("doorward.yaml", "leeway: 60s", "leeway: 6m");
    world.replace("doorward.yaml", "audience: [api://acme]", "audience: []");
    world.replace("policies/rules.yaml", "upstream: billing", "upstream: biling");
    world.write("policies/broken.yaml", "routes:\n  a: { pth: /a }\n");
    let codes: Vec<String> =
        world.told().iter().map(|told| told.split(':').take(3).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(
        codes,
        [
            "doorward.yaml:27:15 empty_list",
            "doorward.yaml:34:13 too_long",
            "policies/broken.yaml:2:8 unknown_key",
            "policies/rules.yaml:20:15 unknown_upstream"
        ]
    );
}

#[test]
fn a_name_that_may_stand_in_an_unreadable_file_is_not_called_unknown() {
    let world = World::new();
    world.replace("doorward.yaml", "\nissuers:\n", "\nisuers:\n");
    world.replace("policies/rules.yaml", "path: /{*rest}", "path: rest");
    assert_eq!(
        world.told(),
        [
            "doorward.yaml:23:1 unknown_key: unknown key `isuers` (did you mean `issuers`?)",
            "policies/rules.yaml:31:11 route_path: path `rest` does not begin with `/` (write `/rest`)"
        ]
    );
    world.replace("doorward.yaml", "\nisuers:\n", "\nissuers:\n");
    world.replace("doorward.yaml", "leeway: 60s", "leway: 60s");
    world.replace("policies/rules.yaml", "login: { issuer: okta,", "login: { issuer: okra,");
    assert_eq!(
        world.told(),
        [
            "doorward.yaml:34:5 unknown_key: unknown key `leway` (did you mean `leeway`?)",
            "policies/rules.yaml:25:22 unknown_issuer: issuer `okra` is not declared (did you mean `okta`?)",
            "policies/rules.yaml:31:11 route_path: path `rest` does not begin with `/` (write `/rest`)"
        ]
    );
}

#[test]
fn what_is_missing_or_would_not_be_read_is_told() {
    let world = World::new();
    world.write("policies/extra.yml", "routes: {}\n");
    assert_eq!(
        world.told(),
        ["policies/extra.yml file_name: the file is not read: its name ends in `.yml` (rename it to end in `.yaml`)"]
    );
    let world = World::with("doorward.yaml", "state:\n", "policies: rules\nstate:\n");
    assert_eq!(
        world.told(),
        [
            "doorward.yaml:3:11 policies_unreadable: policies directory `rules` cannot be read: No such file or directory (os error 2)"
        ]
    );
    let world = World::new();
    std::fs::remove_file(world.path().join("doorward.yaml")).unwrap();
    assert_eq!(
        world.told(),
        ["doorward.yaml unreadable: the file cannot be read: No such file or directory (os error 2)"]
    );
    let world = World::new();
    world.write("policies/large.yaml", &"#".repeat(1024 * 1024 + 1));
    assert_eq!(world.told(), ["policies/large.yaml unreadable: the file cannot be read: it is larger than 1 MiB"]);
    let world = World::new();
    std::fs::write(world.path().join("policies/latin.yaml"), b"routes: {}\n# \xe9\n").unwrap();
    assert_eq!(world.told(), ["policies/latin.yaml:2:3 not_utf8: the file is not UTF-8"]);
    for (file, text) in [
        ("more.yaml", "# the front page\rroutes: {}\n"),
        ("more.cedar", "// nobody\rpermit(principal, action, resource);\n"),
    ] {
        let world = World::new();
        world.write(&format!("policies/{file}"), text);
        let column = text.find('\r').unwrap() + 1;
        let help = "remove it, or end the line with a line feed: some read it as a line's end, others do not";
        assert_eq!(
            world.told(),
            [format!("policies/{file}:1:{column} carriage_return: a carriage return stands alone ({help})")]
        );
        world.write(&format!("policies/{file}"), &text.replace('\r', "\r\n"));
        assert!(world.load().is_ok(), "{file} with the line ends of other systems");
    }
    let world = World::with("doorward.yaml", "state:\n", "policies: .\nstate:\n");
    assert_eq!(
        world.told()[0],
        "./doorward.yaml policies_mixed: it is no policy file (keep policies in a directory of their own)"
    );
}

#[test]
fn rules_in_a_subdirectory_are_a_fault_and_not_silence() {
    let world = World::new();
    for folder in ["sec/deep", "empty", ".hidden"] {
        std::fs::create_dir_all(world.path().join("policies").join(folder)).unwrap();
    }
    world.write("policies/.hidden/x.cedar", "nonsense");
    world.write("policies/empty/README.md", "nonsense");
    assert!(world.load().is_ok());
    world.write("policies/sec/deep/guardrails.cedar", "forbid(principal, action, resource);\n");
    assert_eq!(
        world.told(),
        [
            "policies/sec directory_unread: the directory is not read, and holds `guardrails.cedar` (move its files up: rules stand directly in the policies directory)"
        ]
    );
}

#[test]
fn only_files_directly_in_the_policies_directory_are_read() {
    let world = World::new();
    world.write("policies/.hidden.yaml", "nonsense\n");
    world.write("policies/README.md", "nonsense\n");
    let checked = world.load().unwrap();
    let cedar: Vec<_> =
        checked.policies.iter().map(|source| (source.file.path.file_name().unwrap(), source.guardrail)).collect();
    assert_eq!(cedar, [("access.cedar".as_ref(), false), ("guardrails-org.cedar".as_ref(), true)]);
}

#[test]
#[cfg(unix)]
fn a_kubernetes_config_map_is_read_through_its_links() {
    use std::os::unix::fs::symlink;
    let world = World::new();
    let hash = world.load().unwrap().hash;
    let policies = world.path().join("policies");
    std::fs::create_dir(policies.join("..2026_11_22")).unwrap();
    std::fs::rename(policies.join("rules.yaml"), policies.join("..2026_11_22/rules.yaml")).unwrap();
    symlink("..2026_11_22", policies.join("..data")).unwrap();
    symlink("..data/rules.yaml", policies.join("rules.yaml")).unwrap();
    assert_eq!(world.load().unwrap().hash, hash);
}

#[test]
fn the_hash_is_of_names_and_contents_wherever_they_lie() {
    let (one, other) = (World::new().load().unwrap().hash, World::new().load().unwrap().hash);
    assert_eq!(one, other);
    assert_eq!(one.len(), 16);
    let spoiled = World::with("policies/access.cedar", "permit", "forbid").load().unwrap().hash;
    assert_ne!(one, spoiled);
    let world = World::new();
    std::fs::rename(world.path().join("policies/access.cedar"), world.path().join("policies/b.cedar")).unwrap();
    assert_ne!(one, world.load().unwrap().hash);
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_writer() {
    let world = World::new();
    for name in ["policies/pipe.yaml", "policies/pipe.cedar", "pipe.pem"] {
        let made = std::process::Command::new("mkfifo").arg(world.path().join(name)).status().unwrap();
        assert!(made.success());
    }
    world.replace("doorward.yaml", "authorities: tls/ca.pem", "authorities: pipe.pem");
    let (done, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(world.told()));
    let told = told.recv_timeout(std::time::Duration::from_secs(30)).expect("nobody waits for a writer");
    let of_pipes = told.iter().filter(|fault| fault.contains("pipe.") && fault.contains("it is not a file")).count();
    assert_eq!(of_pipes, 3, "{told:#?}");
}

#[test]
fn a_revocation_list_may_be_larger_than_other_files() {
    let world = World::new();
    let size = |bytes: u64| usize::try_from(bytes).unwrap();
    let list = |bytes: u64| format!("-----BEGIN X509 CRL-----\n{}", "A".repeat(size(bytes)));
    world.write("tls/ca.crl", &list(FILE_LIMIT_BYTES + 1));
    world.replace(
        "doorward.yaml",
        "authorities: tls/ca.pem",
        "authorities: tls/ca.pem\n        revocations: tls/ca.crl",
    );
    world.load().map_err(|faults| faults.to_string()).unwrap();
    world.write("tls/ca.crl", &list(REVOCATIONS_LIMIT_BYTES));
    let told = world.told();
    assert!(told.len() == 1 && told[0].contains("it is larger than 16 MiB"), "{told:?}");
    world.replace("doorward.yaml", "        revocations: tls/ca.crl\n", "");
    world.write("tls/ca.pem", &list(FILE_LIMIT_BYTES));
    let told = world.told();
    assert!(told[0].contains("it is larger than 1 MiB"), "{told:?}");
}
