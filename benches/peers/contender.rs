//! Who is measured, what each checks, and the running ones.

use std::path::Path;
use std::rc::Rc;

use crate::support::process::Process;
use crate::support::world::World;

use super::site::{Placing, Site};
use super::{bare, doorward, envoy, haproxy, nginx, pingora};

/// Its row in a table.
pub const DOORWARD: &str = "doorward";
/// The route whose policies read the time.
pub const DOORWARD_CONTEXT: &str = "doorward, judged each time";
/// The process with 10,000 policies.
pub const DOORWARD_LARGE: &str = "doorward, 10,000 policies";
/// What the ratios of all are to.
pub const NGINX: &str = "nginx";
pub const HAPROXY_JWT: &str = "haproxy, JWT";
pub const ENVOY: &str = "envoy";
pub const ENVOY_CACHED: &str = "envoy, JWT cached";
pub const ENVOY_JWT: &str = "envoy, JWT";

/// One that can be started.
pub struct Contender {
    pub name: &'static str,
    /// What it checks of each request.
    pub checks: &'static str,
    pub start: fn(&Site, Placing) -> Option<Started>,
}

impl Contender {
    /// Whether it looks at tokens.
    pub fn is_checking(&self) -> bool {
        self.checks != NOTHING
    }
}

const NOTHING: &str = "nothing";
const RULES: &str = "token; path, method and group by 20 rules";

/// All, in the order of the tables.
pub const CONTENDERS: [Contender; 9] = [
    Contender { name: DOORWARD, checks: "token, roles, 100 policies on 20 routes", start: doorward::start },
    Contender {
        name: DOORWARD_LARGE,
        checks: "token, roles, 10,000 policies on 1,000 routes",
        start: doorward::start_large,
    },
    Contender { name: NGINX, checks: NOTHING, start: nginx::start },
    Contender { name: "haproxy", checks: NOTHING, start: haproxy::plain },
    Contender { name: HAPROXY_JWT, checks: RULES, start: haproxy::jwt },
    Contender { name: ENVOY, checks: NOTHING, start: envoy::plain },
    Contender { name: ENVOY_CACHED, checks: RULES, start: envoy::jwt_cached },
    Contender { name: ENVOY_JWT, checks: RULES, start: envoy::jwt },
    Contender { name: "pingora", checks: NOTHING, start: pingora::start },
];

/// The bare proxy, last.
pub const BARE: Contender = Contender { name: "bare hyper", checks: NOTHING, start: bare::start };

/// Everybody.
pub fn all() -> impl Iterator<Item = &'static Contender> {
    CONTENDERS.iter().chain([&BARE])
}

/// One that runs. Ended when dropped.
pub struct Started {
    pub process: Process,
    /// What it was given, without the places of its files.
    pub configuration: String,
    #[expect(dead_code, reason = "Doorward's directory goes with it, after the process")]
    world: Option<World>,
}

impl Started {
    /// A process whose files lie in `directory`.
    pub fn new(process: Process, directory: &Path, configuration: String) -> Self {
        let configuration = configuration.replace(&*directory.to_string_lossy(), "DIRECTORY");
        Self { process, configuration, world: None }
    }

    /// The same with a world of its own.
    pub fn keeping(self, world: World) -> Self {
        Self { world: Some(world), ..self }
    }
}

/// Where requests are sent: a process, and a route of it.
pub struct Target {
    pub name: &'static str,
    pub checks: &'static str,
    pub is_checking: bool,
    /// First segment of the path.
    pub place: &'static str,
    pub started: Rc<Started>,
}

impl Target {
    /// The path of an answer of so many bytes.
    pub fn path(&self, size: usize) -> String {
        format!("/{}/{size}", self.place)
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.started.process
    }
}

/// Starts everybody; names those who are not installed.
pub fn start_all(site: &Site) -> (Vec<Target>, Vec<&'static str>) {
    let mut targets = Vec::new();
    let mut absent = Vec::new();
    for contender in all() {
        let Some(started) = (contender.start)(site, Placing::ALONE) else {
            absent.push(contender.name);
            continue;
        };
        let started = Rc::new(started);
        let target = |name, place| Target {
            name,
            checks: contender.checks,
            is_checking: contender.is_checking(),
            place,
            started: Rc::clone(&started),
        };
        targets.push(target(contender.name, "api"));
        if contender.name == DOORWARD {
            targets.push(target(DOORWARD_CONTEXT, "context"));
        }
    }
    (targets, absent)
}
