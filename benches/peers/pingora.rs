//! Pingora, plain: the small crate in `pingora/`, which the install step builds. It checks nothing.

use crate::support::process::{self, Process};

use super::contender::Started;
use super::site::{self, Placing, Site};

/// Starts it, where it was built. It has one worker, whatever it is asked.
pub fn start(site: &Site, placing: Placing) -> Option<Started> {
    let program = site::installed("pingora/release/pingora-peer")?;
    let directory = site.fresh("pingora");
    let address = process::free_address();
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let arguments = [
        address.to_string(),
        site.upstream().to_string(),
        file("server.pem"),
        file("server.key"),
        site::credential(),
        file("access.log"),
    ];
    let mut command = process::pinned(placing.cores, &program.to_string_lossy());
    command.args(&arguments);
    let configuration = format!("pingora-peer {}\n", arguments.join(" "));
    Some(Started::new(Process::listening(command, address), &directory, configuration))
}
