//! One run: who takes part, for how long, and the clients' runtime.

use std::sync::Arc;
use std::time::Duration;

use http::Version;
use rustls::ClientConfig;
use tokio::runtime::{Builder, Runtime};

use crate::support::client;

use super::arguments::Arguments;
use super::contender::{self, DOORWARD_CONTEXT, DOORWARD_LARGE, NGINX, Target};
use super::site::Site;

/// Processes end before their directories go.
pub struct Bench {
    pub targets: Vec<Target>,
    /// Who is not installed.
    pub absent: Vec<&'static str>,
    pub site: Site,
    pub client: Runtime,
    /// HTTP/1.1 with what every proxy has.
    pub tls: Arc<ClientConfig>,
    pub effort: Effort,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Each is measured twice a round: A B C, C B A.
    pub rounds: usize,
    pub slice: Duration,
    /// Requests of a slice in which each has a token of its own.
    pub tokens: usize,
    pub handshakes: usize,
    pub latency: Duration,
}

impl Effort {
    fn of(arguments: &Arguments) -> Self {
        let mut effort = if arguments.quick {
            Self {
                rounds: 2,
                slice: Duration::from_millis(300),
                tokens: 2_000,
                handshakes: 300,
                latency: Duration::from_secs(1),
            }
        } else {
            Self {
                rounds: 8,
                slice: Duration::from_millis(500),
                tokens: 5_000,
                handshakes: 800,
                latency: Duration::from_secs(2),
            }
        };
        effort.rounds = arguments.rounds.unwrap_or(effort.rounds);
        effort
    }
}

impl Bench {
    /// Starts everybody.
    pub fn start(arguments: &Arguments) -> Self {
        let site = Site::new(arguments.doorward.clone());
        let (targets, absent) = contender::start_all(&site);
        let client = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let tls = client::common_tls(site.world.certificate(), Version::HTTP_11);
        Self { targets, absent, site, client, tls, effort: Effort::of(arguments) }
    }

    /// Everybody once: without the rows that look at Doorward's policies.
    pub fn contenders(&self) -> Vec<&Target> {
        let once = |target: &&Target| ![DOORWARD_CONTEXT, DOORWARD_LARGE].contains(&target.name);
        self.targets.iter().filter(once).collect()
    }

    /// Those to whom tokens mean something, and what the ratios are to.
    pub fn checking(&self) -> Vec<&Target> {
        self.contenders().into_iter().filter(|target| target.is_checking || target.name == NGINX).collect()
    }
}
