//! HAProxy, plain and with a token checked on every request and rules by path, method and group.
//!
//! It keeps no verdict on a token, reads only the first of a token's groups, and writes its log line by line.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;

use crate::support::process::{self, Process};
use crate::support::world::{AUDIENCE, ISSUER};

use super::contender::Started;
use super::site::{self, Placing, Site};

/// Starts it without checks, where it is installed.
pub fn plain(site: &Site, placing: Placing) -> Option<Started> {
    start(site, placing, |_| Checks::default())
}

/// Starts it with them.
pub fn jwt(site: &Site, placing: Placing) -> Option<Started> {
    start(site, placing, |directory| {
        let values =
            [("directory", directory.to_string_lossy()), ("issuer", ISSUER.into()), ("audience", AUDIENCE.into())];
        let values = values.each_ref().map(|(name, value)| (*name, value.as_ref()));
        Checks {
            token: site::filled(include_str!("haproxy-jwt.cfg"), &values),
            grants: grants(),
            fields: r#","subject":"%[var(txn.subject)]","group":"%[var(txn.group)]""#,
        }
    })
}

/// Lines of the configuration that plain forwarding does not have.
#[derive(Default)]
struct Checks {
    token: String,
    grants: String,
    fields: &'static str,
}

fn start(site: &Site, placing: Placing, checks: impl FnOnce(&Path) -> Checks) -> Option<Started> {
    let program = site::program("haproxy")?;
    let directory = site.fresh("haproxy");
    let read = |name: &str| fs::read_to_string(directory.join(name)).expect("a file");
    site::written(&directory, "server-and-key.pem", &(read("server.pem") + &read("server.key")));
    let checks = checks(&directory);
    let address = process::free_address();
    let configuration = site::filled(
        include_str!("haproxy.cfg"),
        &[
            ("workers", &placing.workers.to_string()),
            ("directory", &directory.to_string_lossy()),
            ("address", &address.to_string()),
            ("upstream", &site.upstream().to_string()),
            ("credential", &site::credential()),
            ("checks", &checks.token),
            ("grants", &checks.grants),
            ("fields", checks.fields),
        ],
    );
    let file = site::written(&directory, "haproxy.cfg", &configuration);
    let mut command = process::pinned(placing.cores, &program);
    command.args(["-q", "-db", "-f"]).arg(file);
    command.stdout(File::create(directory.join("access.log")).expect("a file"));
    Some(Started::new(Process::listening(command, address), &directory, configuration))
}

/// One rule a route, and nothing for anybody else.
fn grants() -> String {
    let mut text = String::new();
    for prefix in site::prefixes() {
        let rule = format!("{{ path_beg {prefix} }} {{ method GET POST }} {{ var(txn.group) -m str developers }}");
        writeln!(text, "    http-request allow if {rule}").expect("writing to a string succeeds");
    }
    text + "    http-request deny deny_status 403\n"
}
