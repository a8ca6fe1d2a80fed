//! Doorward, whole: tokens, roles, policies, a signed assertion for the upstream and an audit record of every request.

use std::fs;

use crate::support::process::Process;
use crate::support::world::World;

use super::contender::Started;
use super::site::{POLICIES, Placing, ROUTES, Site};

/// Lines of each file of policies that the report shows.
const SAMPLE: usize = 24;

/// Starts it with the policies of most works.
pub fn start(site: &Site, placing: Placing) -> Option<Started> {
    with(site, placing, POLICIES, ROUTES)
}

/// Starts it with a hundred times as many policies, on fifty times as many routes.
pub fn start_large(site: &Site, placing: Placing) -> Option<Started> {
    with(site, placing, 10_000, 1_000)
}

fn with(site: &Site, placing: Placing, policies: usize, routes: usize) -> Option<Started> {
    let world = site.world.beside(site.upstream(), routes, policies / routes);
    let process = Process::doorward_with(&world, site.doorward.as_deref(), placing.workers, placing.cores);
    let configuration = configuration(&world);
    let directory = world.directory().to_owned();
    Some(Started::new(process, &directory, configuration).keeping(world))
}

/// The configuration, and how each file of policies begins.
fn configuration(world: &World) -> String {
    let read = |name: &str| fs::read_to_string(world.path(name)).expect("a file");
    let mut text = read("doorward.yaml");
    for name in ["policies/roles.yaml", "policies/access-0.yaml", "policies/access-0.cedar"] {
        let whole = read(name);
        let sample: Vec<&str> = whole.lines().take(SAMPLE).collect();
        text += &format!("\n# {name}, the first of {} lines\n{}\n", whole.lines().count(), sample.join("\n"));
    }
    text
}
