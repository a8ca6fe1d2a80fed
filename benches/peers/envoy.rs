//! Envoy, plain, and with its JWT filter and RBAC rules by path, method and group: with its cache of tokens and without.

use crate::support::process::{self, Process};
use crate::support::world::{AUDIENCE, ISSUER};

use super::contender::Started;
use super::site::{self, Placing, Site};

/// Twice as many as Doorward remembers.
const CACHE: &str = "                          jwt_cache_config: { jwt_cache_size: 20000 }\n";
const FIELDS: &str = r#"                          subject: "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:sub)%"
                          groups: "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:groups)%"
"#;
const POLICY: &str = r#"                          {name}:
                            permissions:
                              - and_rules:
                                  rules:
                                    - url_path: { path: { prefix: {prefix} } }
                                    - header: { name: ":method", string_match: { safe_regex: { regex: "GET|POST" } } }
                            principals:
                              - metadata:
                                  filter: envoy.filters.http.jwt_authn
                                  path: [{ key: payload }, { key: groups }]
                                  value: { list_match: { one_of: { string_match: { exact: developers } } } }
"#;

/// Starts it without checks, where it is installed.
pub fn plain(site: &Site, placing: Placing) -> Option<Started> {
    start(site, placing, "", "")
}

/// Starts it with them; a token that it has verified it does not verify again.
pub fn jwt_cached(site: &Site, placing: Placing) -> Option<Started> {
    start(site, placing, &checks(CACHE), FIELDS)
}

/// Starts it with them; it verifies each token on each request.
pub fn jwt(site: &Site, placing: Placing) -> Option<Started> {
    start(site, placing, &checks(""), FIELDS)
}

fn start(site: &Site, placing: Placing, checks: &str, fields: &str) -> Option<Started> {
    let program = site::installed("envoy")?;
    let directory = site.fresh("envoy");
    let place = directory.to_string_lossy();
    let address = process::free_address();
    let upstream = site.upstream();
    let configuration = site::filled(
        include_str!("envoy.yaml"),
        &[
            ("checks", checks),
            ("fields", fields),
            ("directory", &place),
            ("port", &address.port().to_string()),
            ("upstream_host", &upstream.ip().to_string()),
            ("upstream_port", &upstream.port().to_string()),
            ("credential", &site::credential()),
        ],
    );
    let file = site::written(&directory, "envoy.yaml", &configuration);
    let mut command = process::pinned(placing.cores, &program.to_string_lossy());
    command.args(["--concurrency", &placing.workers.to_string(), "--disable-hot-restart", "-l", "error", "-c"]);
    command.arg(file);
    Some(Started::new(Process::listening(command, address), &directory, configuration))
}

fn checks(cache: &str) -> String {
    let policies: String = site::prefixes()
        .enumerate()
        .map(|(number, prefix)| site::filled(POLICY, &[("name", &format!("rule-{number:02}")), ("prefix", &prefix)]))
        .collect();
    site::filled(
        include_str!("envoy-jwt.yaml"),
        &[("cache", cache), ("policies", &policies), ("issuer", ISSUER), ("audience", AUDIENCE)],
    )
}
