//! What the product is built of: from where, under which licence, and which crates never or but once.
//!
//! Reads the lock file, and asks cargo for what it has at hand: nothing here needs a network.
#![allow(missing_docs, reason = "a test's name is its sentence")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// One TLS stack, one HTTP stack, one crypto provider: what would be a second one, and what is abandoned.
const BANNED: [&str; 14] = [
    "ring",
    "reqwest",
    "openssl",
    "openssl-sys",
    "native-tls",
    "hyper-tls",
    "hyper-rustls",
    "boring",
    "mbedtls",
    "actix-http",
    "tiny_http",
    "serde_yaml",
    "rustls-pemfile",
    "instant",
];

/// What there must be exactly one version of: types of two would not be of one kind, and a repair of one would leave
/// the other.
const ONCE: [&str; 26] = [
    "aws-lc-rs",
    "aws-lc-sys",
    "rustls",
    "rustls-webpki",
    "rustls-pki-types",
    "rustls-native-certs",
    "tokio-rustls",
    "hyper",
    "hyper-util",
    "h2",
    "http",
    "http-body",
    "http-body-util",
    "httparse",
    "jsonwebtoken",
    "openidconnect",
    "oauth2",
    "x509-parser",
    "rcgen",
    "subtle",
    "zeroize",
    "secrecy",
    "cedar-policy",
    "tokio",
    "bytes",
    "url",
];

/// Crypto crates of which two versions are built, by other crates' needs: `openidconnect` takes the older ones, and all of
/// them verify nothing here, where every signature and every sealing is aws-lc-rs's.
const TWICE: [&str; 15] = [
    "block-buffer",
    "const-oid",
    "crypto-common",
    "der",
    "digest",
    "getrandom",
    "hmac",
    "pem",
    "pem-rfc7468",
    "pkcs8",
    "rand",
    "rand_core",
    "sha2",
    "signature",
    "spki",
];

/// Names of crates that are cryptography, or parse for it.
const CRYPTO: [&str; 40] = [
    "aead",
    "aes",
    "aes-gcm",
    "argon2",
    "asn1-rs",
    "block-buffer",
    "chacha20",
    "chacha20poly1305",
    "cipher",
    "const-oid",
    "crypto-bigint",
    "crypto-common",
    "curve25519-dalek",
    "der",
    "der-parser",
    "digest",
    "ecdsa",
    "ed25519",
    "ed25519-dalek",
    "elliptic-curve",
    "getrandom",
    "ghash",
    "hkdf",
    "hmac",
    "md-5",
    "p256",
    "p384",
    "pem",
    "pem-rfc7468",
    "pkcs1",
    "pkcs8",
    "polyval",
    "rand",
    "rand_core",
    "rsa",
    "sha1",
    "sha2",
    "sha3",
    "signature",
    "spki",
];

/// Licences that ask for no more than to be named.
const LICENCES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A crate as a lock file names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Locked {
    name: String,
    version: String,
    source: Option<String>,
    has_checksum: bool,
}

fn locked(path: &str) -> Vec<Locked> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let entries = text.split("[[package]]").skip(1).map(|entry| {
        let field = |name: &str| {
            let line = entry.lines().find_map(|line| line.strip_prefix(&format!("{name} = \"")))?;
            line.strip_suffix('"').map(str::to_owned)
        };
        Locked {
            name: field("name").unwrap(),
            version: field("version").unwrap(),
            source: field("source"),
            has_checksum: field("checksum").is_some(),
        }
    });
    entries.collect()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What is compiled here, tests and build scripts included: names and versions.
fn built() -> BTreeMap<String, BTreeSet<String>> {
    let tree =
        cargo(&["tree", "--locked", "--offline", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"]);
    let mut built = BTreeMap::<_, BTreeSet<_>>::new();
    for line in tree.lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            built.entry(name.to_owned()).or_default().insert(version.to_owned());
        }
    }
    assert!(built.len() > 100 && built.contains_key("doorward"), "{} crates are no product", built.len());
    built
}

/// Whether an SPDX expression can be met with licences of the list. `/` is how some still write `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest) == Some(true) && rest.is_empty()
}

/// Takes `word` where it comes next.
fn takes(rest: &mut &[&str], word: &str) -> bool {
    let next = rest.split_first().filter(|(first, _)| **first == word);
    if let Some((_, after)) = next {
        *rest = after;
        return true;
    }
    false
}

/// Whether an alternative is allowed; nothing where there is no expression.
fn either(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = both(rest)?;
    while takes(rest, "OR") {
        allowed |= both(rest)?;
    }
    Some(allowed)
}

fn both(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(rest)?;
    while takes(rest, "AND") {
        allowed &= one(rest)?;
    }
    Some(allowed)
}

fn one(rest: &mut &[&str]) -> Option<bool> {
    if takes(rest, "(") {
        let allowed = either(rest)?;
        return takes(rest, ")").then_some(allowed);
    }
    let (licence, after) = rest.split_first()?;
    *rest = after;
    if !takes(rest, "WITH") {
        return Some(LICENCES.contains(licence));
    }
    let (exception, after) = rest.split_first()?;
    *rest = after;
    Some(LICENCES.contains(&&*format!("{licence} WITH {exception}")))
}

#[test]
fn an_expression_of_licences_is_met_by_one_of_several_or_by_all_of_them() {
    for allowed in [
        "MIT",
        "MIT OR GPL-3.0-only",
        "GPL-3.0-only/MIT",
        "MIT AND (GPL-2.0-only OR ISC)",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0-only",
        "ISC AND (Apache-2.0 OR ISC) AND Apache-2.0",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in [
        "",
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "MPL-2.0",
        "(MIT OR Apache-2.0) AND OpenSSL",
        "Apache-2.0 WITH Classpath-exception-2.0",
        "(MIT",
        "MIT)",
        "MIT Apache-2.0",
        "MIT OR",
    ] {
        assert!(!is_allowed(refused), "{refused}");
    }
}

#[test]
fn every_licence_asks_for_no_more_than_to_be_named() {
    // Without other platforms' crates, which nobody may have at hand.
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let arguments = ["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", host];
    let metadata: Value = serde_json::from_str(&cargo(&arguments)).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{} crates are no product", packages.len());
    let faults: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_crate_is_the_registrys_and_has_its_checksum() {
    for file in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let locked = locked(file);
        let ours: Vec<&str> = locked.iter().filter(|one| one.source.is_none()).map(|one| one.name.as_str()).collect();
        let expected: &[&str] = if file == "Cargo.lock" { &["doorward"] } else { &["doorward", "doorward-fuzz"] };
        assert_eq!(ours, expected, "{file}");
        let others = locked.iter().filter(|one| one.source.is_some());
        let faults: Vec<_> =
            others.filter(|one| one.source.as_deref() != Some(REGISTRY) || !one.has_checksum).collect();
        assert!(faults.is_empty(), "{file}: {faults:#?}");
    }
}

#[test]
fn there_is_one_tls_stack_one_http_stack_and_one_crypto_provider() {
    let built = built();
    let banned: Vec<_> = BANNED.iter().filter(|name| built.contains_key(**name)).collect();
    assert!(banned.is_empty(), "built, and must not be: {banned:?}");
    for name in ONCE {
        assert_eq!(built.get(name).map(BTreeSet::len), Some(1), "versions of {name}: {:?}", built.get(name));
    }
}

#[test]
fn no_crypto_crate_is_built_twice_but_those_that_others_need() {
    let built = built();
    let twice: BTreeSet<&str> =
        CRYPTO.into_iter().filter(|name| built.get(*name).is_some_and(|versions| versions.len() > 1)).collect();
    let known: BTreeSet<&str> = TWICE.into();
    assert_eq!(twice, known, "one that is new needs a reason, one that is gone leaves the list");
}

#[test]
fn the_fuzzer_is_built_of_the_products_own_versions() {
    let of = |path: &str| -> BTreeSet<(String, String)> {
        locked(path).into_iter().map(|one| (one.name, one.version)).collect()
    };
    let (product, fuzzer) = (of("Cargo.lock"), of("fuzz/Cargo.lock"));
    let others: Vec<&str> = fuzzer.difference(&product).map(|(name, _)| name.as_str()).collect();
    assert_eq!(others, ["arbitrary", "doorward-fuzz", "libfuzzer-sys"], "`cp Cargo.lock fuzz/` and build it again");
}
