//! The yardstick of the other benches: hyper and rustls, which check nothing and record nothing.

use crate::support::process::Process;

use super::contender::Started;
use super::site::{Placing, Site};

/// Starts it. It has one thread, whatever it is asked.
pub fn start(site: &Site, placing: Placing) -> Option<Started> {
    let directory = site.fresh("bare");
    let upstream = site.upstream().to_string();
    let process = Process::role_on(placing.cores, &directory, "bare", &[&upstream]);
    Some(Started::new(process, &directory, "benches/support/bare.rs\n".to_owned()))
}
