use super::world::{World, spoiled_in};

/// Spoils `doorward.yaml` in one place and expects exactly one fault.
#[track_caller]
fn spoiled(from: &str, to: &str, place_and_code: &str, message: &str, help: &str) {
    spoiled_in("doorward.yaml", (from, to), place_and_code, message, help);
}

#[test]
fn a_plain_listener_that_others_can_reach_needs_a_reason() {
    spoiled(
        "127.0.0.1:8080",
        "0.0.0.0:8080",
        "17:14 listener_plain",
        "listener `sidecar` speaks plain HTTP on an address that others can reach",
        "add `tls`, listen on 127.0.0.1, or say why in `plain: { reason: … }`",
    );
    spoiled(
        "127.0.0.1:8080",
        "0.0.0.0:8080\n    plain: { reason: mesh }",
        "18:22 reason",
        "the reason says too little",
        "write at least 8 characters for whoever reads this file next",
    );
    let reason = "0.0.0.0:8080\n    plain: { reason: the mesh speaks TLS }";
    assert!(World::with("doorward.yaml", "127.0.0.1:8080", reason).load().is_ok());
}

#[test]
fn a_network_of_strangers_is_never_trusted() {
    spoiled(
        "trusted_proxies: [10.0.0.0/8]",
        "trusted_proxies: [0.0.0.0/0]",
        "2:19 network_too_wide",
        "`0.0.0.0/0` takes strangers for load balancers",
        "name the networks of your own load balancers: at most a /8 of IPv4 or a /7 of IPv6",
    );
    spoiled(
        "trusted_proxies: [10.0.0.0/8]",
        "trusted_proxies: [\"::/0\"]",
        "2:19 network_too_wide",
        "`::/0` takes strangers for load balancers",
        "name the networks of your own load balancers: at most a /8 of IPv4 or a /7 of IPv6",
    );
    spoiled(
        "trusted_proxies: [10.0.0.0/8]",
        "trusted_proxies: [10.0.0.0/8, \"::ffff:0:0/96\"]",
        "2:31 network_too_wide",
        "`::ffff:0:0/96` takes strangers for load balancers",
        "name the networks of your own load balancers: at most a /8 of IPv4 or a /7 of IPv6",
    );
    spoiled(
        "trusted_proxies: [10.0.0.0/8]",
        "trusted_proxies: [0.0.0.0/1]",
        "2:19 network_too_wide",
        "`0.0.0.0/1` takes strangers for load balancers",
        "name the networks of your own load balancers: at most a /8 of IPv4 or a /7 of IPv6",
    );
    spoiled(
        "trusted_proxies: [10.0.0.0/8]",
        "trusted_proxies: [ten]",
        "2:19 network",
        "`ten` is not a network",
        "write `10.0.0.0/8` or an address",
    );
    let halves: Vec<String> = (0..256).map(|first| format!("{first}.0.0.0/8")).collect();
    spoiled(
        "[10.0.0.0/8]",
        &format!("[{}]", halves.join(", ")),
        "2:19 network_too_wide",
        "together the networks are the whole internet",
        "name the networks of your own load balancers",
    );
    spoiled(
        "from: [10.0.0.5/32]",
        "from: [0.0.0.0/0]",
        "15:30 network_too_wide",
        "`0.0.0.0/0` takes strangers for load balancers",
        "name the networks of your own load balancers: at most a /8 of IPv4 or a /7 of IPv6",
    );
    spoiled(
        "from: [10.0.0.5/32]",
        "from: []",
        "15:29 empty_list",
        "`from` is empty",
        "name at least one; an empty list guards nothing",
    );
    assert!(World::with("doorward.yaml", "[10.0.0.0/8]", "[\"fc00::/7\", 192.0.2.1]").load().is_ok());
}

#[test]
fn addresses_are_addresses_and_stand_once() {
    spoiled(
        "address: 0.0.0.0:8443",
        "address: localhost:8443",
        "7:14 address",
        "`localhost:8443` is not an address to listen on",
        "write `127.0.0.1:8080`, `[::]:8443` or `unix:PATH`",
    );
    spoiled(
        "address: unix:documents.sock",
        "address: 127.0.0.1:8080",
        "19:14 address_twice",
        "address `127.0.0.1:8080` is listened on twice",
        "give one of them another port",
    );
    spoiled(
        "    address: 127.0.0.1:8080\n",
        "    plain: { reason: nothing listens here }\n",
        "16:3 missing_key",
        "`sidecar` lacks `address`",
        "add `address: …`",
    );
    spoiled(
        "minimum_version: \"1.2\"",
        "minimum_version: \"1.1\"",
        "11:24 tls_version",
        "TLS version `1.1` is not spoken",
        "write \"1.2\" or \"1.3\"",
    );
}

#[test]
fn durations_and_sizes_carry_units_and_sense() {
    spoiled(
        "header_read: 10s",
        "header_read: 10",
        "21:16 duration",
        "`10` has no unit",
        "write `10s`, or another of ms, s, m, h, d",
    );
    spoiled(
        "header_read: 10s",
        "header_read: 10sec",
        "21:16 duration",
        "`10sec` has an unknown unit",
        "write a whole number and one of ms, s, m, h, d, such as `30s`",
    );
    spoiled(
        "header_read: 10s",
        "header_read: 0s",
        "21:16 zero",
        "the duration is zero",
        "give it a length, such as `30s`",
    );
    spoiled(
        "header_bytes: 64KiB",
        "header_bytes: 64K",
        "22:17 size",
        "`64K` has an unknown unit",
        "write a whole number and one of B, kB, MB, GB, KiB, MiB, GiB, such as `10MiB`",
    );
    spoiled(
        "header_bytes: 64KiB",
        "header_bytes: 64GiB",
        "22:17 size",
        "`64GiB` is out of range for a request head",
        "give a size from `1KiB` to `1MiB`",
    );
    spoiled(
        "header_bytes: 64KiB",
        "connections: 0",
        "22:16 count",
        "`0` is out of range",
        "give a number from 1 to 10000000",
    );
}

#[test]
fn a_credential_is_of_exactly_one_kind() {
    spoiled(
        "{ signed_assertion: { algorithm: ES256, lifetime: 5m } }",
        "{}",
        "56:3 credential_kind",
        "credential `assertion` is not of exactly one kind",
        "name exactly one of `signed_assertion`, `client_credentials`, `token_exchange`, `jwt_bearer`, `aws`, `gcp`, `azure`, `vault`, `mtls`, `fixed` and `none`",
    );
    spoiled(
        "open: { none: ",
        "open: { signed_assertion: {}, none: ",
        "58:3 credential_kind",
        "credential `open` is not of exactly one kind",
        "name exactly one of `signed_assertion`, `client_credentials`, `token_exchange`, `jwt_bearer`, `aws`, `gcp`, `azure`, `vault`, `mtls`, `fixed` and `none`",
    );
    spoiled(
        "static site without callers",
        "static",
        "58:27 reason",
        "the reason says too little",
        "write at least 8 characters for whoever reads this file next",
    );
    spoiled(
        "algorithm: ES256",
        "algorithm: HS256",
        "56:47 algorithm",
        "assertions are not signed with `HS256`",
        "write `ES256` or `RS256`",
    );
}

#[test]
fn a_credential_travels_in_a_header_of_its_own() {
    spoiled(
        "header: X-Api-Key",
        "header: Host",
        "57:27 header_reserved",
        "header `Host` has a meaning of its own",
        "choose a name such as `X-Doorward-Subject`",
    );
    spoiled(
        "header: X-Api-Key",
        "header: x-forwarded-user",
        "57:27 header_reserved",
        "header `x-forwarded-user` has a meaning of its own",
        "choose a name such as `X-Doorward-Subject`",
    );
    spoiled(
        "header: X-Api-Key",
        "header: \"X Api\"",
        "57:27 header",
        "`X Api` is not a header name",
        "use letters, digits and `-`",
    );
}

#[test]
fn a_secret_is_a_reference_that_holds() {
    spoiled(
        "secret: file:api.secret",
        "secret: hunter2",
        "57:46 secret_inline",
        "a secret must not stand in the configuration",
        "put it in a file and write `file:PATH`, or write `env:NAME`",
    );
    spoiled(
        "secret: file:api.secret",
        "secret: env:OTHER",
        "57:46 secret_unset",
        "environment variable `OTHER` is not set",
        "set it where Doorward is started, or use `file:PATH`",
    );
    spoiled(
        "secret: file:api.secret",
        "secret: env:API_KEY",
        "57:46 secret_not_a_file",
        "a fixed secret comes from a file, so that it can be replaced while Doorward runs",
        "write `file:PATH`",
    );
    spoiled(
        "client_secret: file:okta.secret",
        "client_secret: file:absent",
        "37:22 secret_unreadable",
        "secret file `absent` cannot be read: No such file or directory (os error 2)",
        "relative paths begin at the directory of this file",
    );
    spoiled(
        "token: file:admin.token",
        "token: \"file:\"",
        "68:10 secret_nameless",
        "the secret's reference names nothing",
        "write `file:PATH` or `env:NAME`",
    );
    spoiled(
        "key: file:tls/api.key",
        "key: file:okta.secret",
        "10:44 key_not_pem",
        "it refers to no PEM private key",
        "point it at a PEM file",
    );
}

#[test]
fn every_file_that_is_named_is_there() {
    spoiled(
        "certificate: tls/api.pem",
        "certificate: tls/absent.pem",
        "10:26 file_unreadable",
        "file `tls/absent.pem` cannot be read: No such file or directory (os error 2)",
        "relative paths begin at the directory of this file",
    );
    spoiled(
        "authorities: tls/ca.pem",
        "authorities: okta.secret",
        "14:22 file_not_pem",
        "file `okta.secret` holds no PEM `CERTIFICATE`",
        "",
    );
    spoiled(
        "file: keys.json",
        "file: tls",
        "46:19 file_unreadable",
        "file `tls` cannot be read: it is not a file",
        "relative paths begin at the directory of this file",
    );
    spoiled(
        "file: keys.json",
        "file: file:keys.json",
        "46:19 not_a_secret",
        "a plain path is expected here",
        "write `keys.json`; `file:` is for secrets",
    );
}

#[test]
fn upstreams_have_origins_of_one_scheme() {
    spoiled(
        "http://10.0.0.8:8080",
        "https://10.0.0.8:8080",
        "61:16 upstream_schemes",
        "upstream `billing` mixes http and https",
        "give all addresses one scheme",
    );
    spoiled(
        "http://10.0.0.8:8080",
        "http://10.0.0.8:8080/path",
        "61:39 upstream_address",
        "an upstream's address is scheme, host and port, without user, path and query",
        "write `http://10.0.0.7:8080`",
    );
    spoiled(
        "http://10.0.0.8:8080",
        "http://user:hunter2@10.0.0.8",
        "61:39 upstream_address",
        "an upstream's address is scheme, host and port, without user, path and query",
        "write `http://10.0.0.7:8080`",
    );
    spoiled(
        "[http://10.0.0.7:8080, http://10.0.0.8:8080]",
        "[]",
        "61:16 empty_list",
        "`addresses` is empty",
        "name at least one; an empty list guards nothing",
    );
    spoiled(
        "protocol: http1",
        "protocol: auto",
        "62:15 upstream_protocol",
        "`auto` needs TLS to settle on a protocol",
        "write `http1` or `http2`, or use https addresses",
    );
    spoiled(
        "protocol: http1",
        "tls: { server_name: a }",
        "62:10 upstream_tls",
        "upstream `billing` has `tls` and http addresses",
        "write https addresses, or remove `tls`",
    );
    spoiled(
        "protocol: http1",
        "host: \"a b\"",
        "62:11 host",
        "`a b` is not a host",
        "write `billing.internal`, or `downstream`",
    );
}

#[test]
fn the_admin_listener_is_never_open_to_others() {
    let open = "address: 127.0.0.1:9901\n  token: file:admin.token";
    spoiled(
        open,
        "address: 0.0.0.0:9901",
        "67:12 admin_open",
        "the admin listener is open to others",
        "add `token: file:admin.token`, require client certificates, or listen on 127.0.0.1",
    );
}

#[test]
fn an_admin_token_crosses_a_network_in_tls_or_for_a_reason() {
    let admin = "address: 127.0.0.1:9901\n  token: file:admin.token";
    spoiled_in(
        "doorward.yaml",
        (admin, "address: 0.0.0.0:9901\n  token: file:admin.token"),
        "67:12 listener_plain",
        "the admin listener's token would cross the network in plain HTTP",
        "add `tls`, listen on 127.0.0.1, or say why in `plain: { reason: … }`",
    );
    let reasoned = "address: 0.0.0.0:9901\n  token: file:admin.token\n  plain: { reason: the mesh encrypts }";
    let world = World::with("doorward.yaml", admin, reasoned);
    world.load().map_err(|faults| faults.to_string()).unwrap();
}

#[test]
fn the_admin_listener_has_an_address_of_its_own() {
    spoiled_in(
        "doorward.yaml",
        ("address: 127.0.0.1:9901", "address: 127.0.0.1:8080"),
        "67:12 address_twice",
        "address `127.0.0.1:8080` is listened on twice",
        "give one of them another port",
    );
}

#[test]
fn the_documented_limits_are_the_ones_that_hold() {
    let documentation = include_str!("../../../docs/configuration.md");
    let (_, section) = documentation.split_once("\n## `limits`\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` |")?;
        let (_, default) = rest.rsplit_once("Default ")?;
        Some(format!("  {name}: {}\n", default.trim_end_matches(". |").trim_matches('`')))
    });
    let rows: Vec<String> = rows.collect();
    assert_eq!(rows.len(), 9, "{rows:?}");
    let limits = |text: &str| {
        let without = "limits:\n  header_read: 10s\n  header_bytes: 64KiB\n";
        World::with("doorward.yaml", without, text).load().map_err(|faults| faults.to_string()).unwrap().limits
    };
    assert_eq!(limits(&format!("limits:\n{}", rows.concat())), limits(""));
}

#[test]
fn a_fixed_secret_that_no_request_could_carry_is_told_by_check_as_by_run() {
    let world = World::new();
    let file = world.path().join("api.secret");
    for (content, problem) in [
        (" padded\n".to_owned(), "it is not one line of printable ASCII"),
        ("s\u{e9}cret\n".to_owned(), "it is not one line of printable ASCII"),
        ("x".repeat(8 * 1024 + 1), "it is larger than 8192 bytes"),
    ] {
        world.write("api.secret", &content);
        let told = world.told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("doorward.yaml:57:46 secret_unfit: no secret in") && told[0].contains(problem));
        assert!(!told[0].contains("cret\n") && crate::credential::FixedSecret::check(&file).is_err());
    }
    world.write("api.secret", &"x".repeat(8 * 1024));
    assert!(world.load().is_ok() && crate::credential::FixedSecret::check(&file).is_ok());
}

#[test]
fn keys_turn_no_faster_than_they_can_be_published() {
    spoiled(
        "rotate_every: 30d",
        "rotate_every: 23h",
        "54:17 too_short",
        "`23h` is too short for upstreams to follow",
        "at least `1d` is needed here",
    );
    let checked = World::with("doorward.yaml", "rotate_every: 30d", "rotate_every: 1d").load().unwrap();
    let state = tempfile::tempdir().unwrap();
    let rotate_every = checked.assertions.unwrap().rotate_every;
    assert!(crate::credential::SigningKeys::open(state.path(), rotate_every).is_ok(), "what check takes, run takes");
}

#[test]
fn documents_of_an_issuer_elsewhere_are_served_by_somebody() {
    let elsewhere = "issuer: https://tokens.example.com/doorward";
    spoiled(
        "listener: documents",
        elsewhere,
        "53:11 documents_unserved",
        "nothing serves the documents of the issuer `https://tokens.example.com/doorward`",
        "name a `listener` for them, or say who serves them in `hosted_elsewhere: { reason: … }`",
    );
    let reason = format!("{elsewhere}\n  hosted_elsewhere: {{ reason: a CDN publishes them }}");
    let listener = format!("{elsewhere}\n  listener: documents");
    let own = "issuer: https://api.example.com/.doorward";
    for good in [&reason, &listener, own] {
        assert!(World::with("doorward.yaml", "listener: documents", good).load().is_ok(), "{good}");
    }
}
