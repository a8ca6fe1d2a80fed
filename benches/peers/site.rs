//! What everything that is measured is started in: certificates and tokens, the upstream, directories of its own.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::process::{CLIENT_CORE, PROXY_CORE, Process};
use crate::support::world::World;

/// Policies of the world that most works are measured in, on [`ROUTES`] routes.
pub const POLICIES: usize = 100;
/// Routes of that world; the peers that check have one rule for each.
pub const ROUTES: usize = 20;

/// The header by which peers show the upstream their credential.
pub const CREDENTIAL_HEADER: &str = "x-upstream-credential";

/// Ended and removed when dropped.
pub struct Site {
    upstream: Process,
    /// Issuer and certificates of all; Doorward's processes have worlds of their own beside it.
    pub world: World,
    directory: TempDir,
    directories: Cell<usize>,
    /// Another build of Doorward to measure.
    pub doorward: Option<String>,
}

/// How a proxy runs.
#[derive(Clone, Copy)]
pub struct Placing {
    pub workers: usize,
    pub cores: &'static str,
}

impl Placing {
    /// One worker on a core of its own.
    pub const ALONE: Self = Self { workers: 1, cores: PROXY_CORE };
}

impl Site {
    /// Starts the upstream.
    pub fn new(doorward: Option<String>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let upstream = Process::role_on(CLIENT_CORE, directory.path(), "upstream", &[]);
        let world = World::with(upstream.address, ROUTES, POLICIES / ROUTES);
        Self { upstream, world, directory, directories: Cell::new(0), doorward }
    }

    /// Where the upstream listens.
    pub fn upstream(&self) -> SocketAddr {
        self.upstream.address
    }

    /// A file of the site's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new directory with certificate, key and the issuer's keys.
    pub fn fresh(&self, name: &str) -> PathBuf {
        let number = self.directories.replace(self.directories.get() + 1);
        let directory = self.path(&format!("{name}-{number}"));
        fs::create_dir(&directory).expect("a directory");
        for name in ["server.pem", "server.key", "keys.json", "issuer.pem"] {
            fs::copy(self.world.path(name), directory.join(name)).expect("a file");
        }
        directory
    }
}

/// What the peers show the upstream: as long as a signed assertion, and the same for every caller.
pub fn credential() -> String {
    "fixed-credential-".chars().cycle().take(300).collect()
}

/// Paths of the routes, of which `/api/` stands in the middle: a peer that tries its rules in turn tries half of them.
pub fn prefixes() -> impl Iterator<Item = String> {
    let others = |numbers: std::ops::Range<usize>| numbers.map(|number| format!("/service-{number}/"));
    let middle = ROUTES / 2;
    others(1..middle).chain(["/api/".to_owned()]).chain(others(middle..ROUTES))
}

/// `template` with each `{name}` replaced.
pub fn filled(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// Writes a configuration; answers its path.
pub fn written(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("a file");
    path
}

/// A program of the system's, which may stand where only root's search path looks.
pub fn program(name: &str) -> Option<String> {
    let places = ["", "/usr/sbin/", "/usr/local/sbin/"].map(|place| format!("{place}{name}"));
    places.into_iter().find(|place| Command::new(place).arg("-v").output().is_ok())
}

/// What `benches/peers/install` left for this name, if it did.
pub fn installed(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(name);
    path.exists().then_some(path)
}
