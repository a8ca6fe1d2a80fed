//! nginx, plain: TLS, kept connections, one header more, a buffered log. It checks nothing.

use crate::support::process::{self, Process};

use super::contender::Started;
use super::site::{self, Placing, Site};

/// Starts it, where it is installed.
pub fn start(site: &Site, placing: Placing) -> Option<Started> {
    let program = site::program("nginx")?;
    let directory = site.fresh("nginx");
    let place = directory.to_string_lossy();
    let address = process::free_address();
    let configuration = site::filled(
        include_str!("nginx.conf"),
        &[
            ("workers", &placing.workers.to_string()),
            ("directory", &place),
            ("address", &address.to_string()),
            ("upstream", &site.upstream().to_string()),
            ("credential", &site::credential()),
        ],
    );
    let file = site::written(&directory, "nginx.conf", &configuration);
    let mut command = process::pinned(placing.cores, &program);
    command.arg("-e").arg(directory.join("error.log")).arg("-c").arg(file);
    Some(Started::new(Process::listening(command, address), &directory, configuration))
}
