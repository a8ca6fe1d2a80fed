//! The composition root: load, bind, spawn, drain. Tests start the product through here as the command does.

mod anomalies;
mod certificates;

mod descriptors;

mod panics;

mod readiness;

mod reload;

mod state_lock;

mod status;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::{Admin, AdminSettings};
use crate::audit::{Audit, Destination, FileSettings, WhenFull, Writer, WriterSettings};
use crate::clock::Clock;
use crate::config::checked::{self, AuditDestination, Checked};
use crate::config::compile::{admin_listener, limits, listeners, revocation_ends};
use crate::config::watch::{ConfigWatcher, ReloadTrigger, WatchSettings};
use crate::config::{self, Faults, Runtime, StartError};
use crate::edge;
use crate::login;
use crate::proxy::{Proxy, ProxyParts, Snapshot};
use crate::server::{
    AnomalyHandler, BoundServer, DrainReport, Handler, ListenAddress, ListenerSettings, Server, ServerError,
    ServerLimits,
};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use crate::worker::Workers;

use reload::Reloader;
use state_lock::StateLock;
use status::Status;

pub use state_lock::StateLockError;

/// How long the last audit records may take to reach their destination.
const LAST_RECORDS: Duration = Duration::from_secs(10);
/// How long it may take to give back what others issued.
const LAST_LEASES: Duration = Duration::from_secs(5);
/// Most connections of the admin listener.
const ADMIN_CONNECTIONS: usize = 32;
/// How often signing keys, remembered callers and idle upstream connections are looked at.
const CREDENTIAL_UPKEEP: Duration = Duration::from_secs(60);

/// What the product is started with.
#[derive(Debug, Default)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Time.
    pub clock: Clock,
    /// Where audit records go instead of where the configuration says.
    pub audit: Option<Destination>,
    /// Who serves; without any, the runtime that starts the product.
    pub workers: Arc<Workers>,
}

/// Why the product did not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration.
    #[error("the configuration has faults:\n{0}")]
    Configuration(Faults),
    /// Its state.
    #[error(transparent)]
    State(#[from] StartError),
    /// Its state belongs to another process.
    #[error(transparent)]
    StateLock(#[from] StateLockError),
    /// The sockets.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The audit destination.
    #[error("audit records cannot be written")]
    Audit(#[source] io::Error),
    /// A task of the start itself.
    #[error("the start was cut short")]
    Cut(#[from] tokio::task::JoinError),
}

/// A running product.
#[derive(Debug)]
pub struct Running {
    addresses: BTreeMap<String, ListenAddress>,
    admin: Option<ListenAddress>,
    shutdown: Shutdown,
    admin_shutdown: Shutdown,
    serving: JoinHandle<DrainReport>,
    /// Tunnels outlive the server that accepted them.
    workers: Arc<Workers>,
    admin_serving: Option<JoinHandle<DrainReport>>,
    background: JoinSet<()>,
    trigger: ReloadTrigger,
    proxy: Arc<Proxy>,
    runtime: Arc<Runtime>,
    writer: Writer,
    state_lock: Option<StateLock>,
}

/// Starts the product and returns once every listener accepts.
///
/// # Errors
/// [`AppError`]; nothing is left behind.
pub async fn start(options: Options) -> Result<Running, AppError> {
    let Options { config: path, clock, audit: destination, workers } = options;
    let descriptors = descriptors::raise_limit();
    let watcher = ConfigWatcher::start(path.clone(), WatchSettings::default());
    let load_path = path.clone();
    // With a fault in the settings, all that can be seen of the rest is looked at too: one start tells everything.
    let load = move || config::load(&load_path).or_else(|_| config::judge(&load_path).map(|judged| judged.checked));
    let checked = tokio::task::spawn_blocking(load).await?;
    let checked = checked.map_err(AppError::Configuration)?;
    // Before anything reads them for good: what changes from here on is seen.
    watcher.loaded(&checked.hash, checked.referenced.clone());

    let state_lock = match &checked.state_dir {
        Some(directory) => Some(StateLock::take(directory, checked.limits.drain).await?),
        None => None,
    };
    let metrics = Arc::new(Metrics::new());
    let (writer, audit) = start_audit(&checked, destination).map_err(AppError::Audit)?;
    let runtime = open_state(&checked, &clock, &metrics, &audit).await?;
    let finish = |snapshot, checked: Checked| {
        let revocations = revocation_ends(&checked);
        let admin = checked.admin.as_ref().map(admin_listener).transpose()?;
        Ok((snapshot, listeners(&checked)?, admin, revocations, checked))
    };
    let made = compile(&path, &runtime, finish).await?.map_err(AppError::Configuration)?;
    let (snapshot, settings, admin_settings, revocations, checked) = made;
    runtime.take_into_use(&checked);
    let promised = descriptors::fit(descriptors, &checked);
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));

    let (shutdown, admin_shutdown) = (Shutdown::new(), Shutdown::new());
    let proxy = Arc::new(Proxy::new(ProxyParts {
        snapshot: snapshot.clone(),
        audit: audit.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        shutdown: shutdown.clone(),
        concurrent_requests: promised.concurrent_requests,
        requests_per_source: checked.limits.requests_per_source,
        strict_audit: checked.audit.strict,
    }));
    let digests = certificates::digests(&settings, admin_settings.as_ref());
    let anomalies = anomalies::on_record(audit.clone(), clock.clone());
    let limits_of_all = ServerLimits { connections: promised.connections, ..limits(&checked.limits) };
    let handler = edge::handler(proxy.clone());
    let server = Server::bind(settings, limits_of_all, handler, anomalies.clone(), shutdown.clone())?;
    let status = Arc::new(Status::default());
    status.set_revocations(revocations);
    let audit_refuses = (audit.clone(), checked.audit.refuse_when_full);
    let readiness = readiness::readiness(runtime.clone(), audit_refuses, status.clone(), shutdown.clone());
    let refresh = readiness::refresh(runtime.clone(), audit.clone(), server.stats());
    let answering = |configured| Arc::new(Admin::new(guard(configured), metrics.clone(), readiness, refresh));
    let admin = checked.admin.as_ref().map(answering);
    let admin_server = admin.clone().zip(admin_settings);
    let admin_server = admin_server
        .map(|(admin, settings)| {
            bind_admin(admin, settings, &checked, (Arc::clone(&metrics), anomalies.clone()), &admin_shutdown)
        })
        .transpose()?;

    let trigger = watcher.trigger();
    watcher.loaded(&checked.hash, checked.referenced.clone());
    let mut background = JoinSet::new();
    let reloader = Reloader {
        path,
        runtime: runtime.clone(),
        snapshot,
        certificates: Arc::new(certificates::Certificates::new(
            server.tls(),
            admin_server.as_ref().and_then(|server| server.tls().remove("admin")),
            digests,
        )),
        admin,
        audit: audit.clone(),
        status: status.clone(),
        started_with: reload::Fixed::of(&checked),
    };
    reloader.announce(&checked);
    metrics.config_watched.set(1);
    background.spawn(supervised(reloader.run(watcher), status.clone(), metrics));
    background.spawn(watch_streams(proxy.clone()));
    background.spawn(status::watch_revocations(status, clock));
    background.spawn(look_after_credentials(runtime.clone(), audit.clone()));
    background.spawn(runtime.leases().clone().look_after());
    if let Some(state) = runtime.login_state() {
        background.spawn(state.clone().run());
    }

    let addresses = server.addresses();
    let admin = admin_server.as_ref().and_then(|server| server.addresses().remove("admin"));
    Ok(Running {
        addresses,
        admin,
        shutdown,
        admin_shutdown,
        serving: tokio::spawn(server.run(Arc::clone(&workers))),
        workers,
        admin_serving: admin_server.map(|server| tokio::spawn(server.run(Arc::default()))),
        background,
        trigger,
        proxy,
        runtime,
        writer,
        state_lock,
    })
}

async fn open_state(
    checked: &Checked,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    audit: &Audit,
) -> Result<Arc<Runtime>, AppError> {
    let (checked, clock, metrics, audit) = (checked.clone(), clock.clone(), metrics.clone(), audit.clone());
    let opened = tokio::task::spawn_blocking(move || Runtime::open(&checked, clock, metrics, &audit)).await?;
    Ok(Arc::new(opened?))
}

/// Runs what ends with the process only. If it ends before, or panics, that is told: nobody would miss it.
async fn supervised(reloads: impl Future<Output = ()>, status: Arc<Status>, metrics: Arc<Metrics>) {
    let panicked = AssertUnwindSafe(reloads).catch_unwind().await.is_err();
    status.end_reloads();
    metrics.config_watched.set(0);
    tracing::error!(panicked, "changes of the configuration are not looked for any more: start again");
}

/// Watches open streams for as long as the process runs: what panics is begun again.
async fn watch_streams(proxy: Arc<Proxy>) {
    while AssertUnwindSafe(proxy.watch_streams()).catch_unwind().await.is_err() {
        proxy.metrics().panics.inc();
    }
}

/// Compiles off the async threads, and finishes there what else blocks: reading files and making RSA keys do.
async fn compile<T: Send + 'static>(
    path: &Path,
    runtime: &Arc<Runtime>,
    finish: impl FnOnce(Snapshot, Checked) -> Result<T, Faults> + Send + 'static,
) -> Result<Result<T, Faults>, AppError> {
    let (path, runtime) = (path.to_owned(), runtime.clone());
    let context = tokio::runtime::Handle::current();
    let compiled = tokio::task::spawn_blocking(move || {
        // Key sets and pools spawn their upkeep while they are made.
        let _inside = context.enter();
        config::compile(&path, &runtime).and_then(|(snapshot, checked)| finish(snapshot, checked))
    });
    Ok(compiled.await?)
}

fn start_audit(checked: &Checked, destination: Option<Destination>) -> io::Result<(Writer, Audit)> {
    let configured = || match &checked.audit.destination {
        AuditDestination::Stdout => Destination::Stdout,
        AuditDestination::File { path, rotate_bytes, keep } => Destination::File(FileSettings {
            path: path.clone(),
            rotate_bytes: *rotate_bytes,
            keep: u32::try_from(*keep).unwrap_or(u32::MAX),
        }),
    };
    let when_full = if checked.audit.refuse_when_full { WhenFull::Refuse } else { WhenFull::Count };
    let destination = destination.unwrap_or_else(configured);
    Writer::start(WriterSettings { destination, queue: checked.audit.queue, when_full })
}

fn bind_admin(
    admin: Arc<Admin>,
    settings: ListenerSettings,
    checked: &Checked,
    (metrics, anomalies): (Arc<Metrics>, AnomalyHandler),
    shutdown: &Shutdown,
) -> Result<BoundServer, ServerError> {
    let handler: Handler = Arc::new(move |request, peer, admission| {
        let admin = Arc::clone(&admin);
        edge::caught(Arc::clone(&metrics), async move { admin.handle(&request, &peer, admission) }).boxed()
    });
    // Few, so that whoever looks in still can when callers hold all the rest.
    let limits = ServerLimits { connections: ADMIN_CONNECTIONS, ..limits(&checked.limits) };
    Server::bind(vec![settings], limits, handler, anomalies, shutdown.clone())
}

/// What the admin listener asks for.
fn guard(configured: &checked::Admin) -> AdminSettings {
    let certificates = configured.tls.as_ref().is_some_and(|tls| tls.client_certificates.is_some());
    let token = configured.token.as_ref().map(|token| token.value.clone());
    AdminSettings { certificate_suffices: certificates && token.is_none(), token }
}

/// Lets go of callers and upstream connections that are gone, and replaces signing keys when they are due.
async fn look_after_credentials(runtime: Arc<Runtime>, audit: Audit) {
    let mut round = tokio::time::interval(CREDENTIAL_UPKEEP);
    loop {
        round.tick().await;
        let now = runtime.clock().now();
        runtime.forget_ended_callers(now);
        for upstream in runtime.upstreams() {
            // Whoever counts them lets go of those that the other side closed.
            let _counted = upstream.stats();
        }
        let Some(keys) = runtime.signing_keys().cloned() else { continue };
        match tokio::task::spawn_blocking(move || keys.rotate_if_due(now)).await {
            Ok(Ok(rotations)) => {
                for rotation in rotations {
                    tracing::info!(?rotation, "a signing key changed");
                    let fields = vec![
                        ("kid", rotation.kid.as_ref().into()),
                        ("change", format!("{:?}", rotation.change).to_lowercase().into()),
                    ];
                    let name = "credential.key_rotated";
                    let event = crate::audit::OtherEvent { at: now, name, request_id: None, principal: None, fields };
                    // A full queue counts the loss itself.
                    let _counted = audit.emit(event);
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "signing keys could not be looked after"),
            Err(error) => tracing::error!(%error, "looking after signing keys failed"),
        }
    }
}

impl Running {
    /// Address of each listener, by name; with port 0, the port that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &BTreeMap<String, ListenAddress> {
        &self.addresses
    }

    /// Address of the admin listener.
    #[must_use]
    pub fn admin(&self) -> Option<&ListenAddress> {
        self.admin.as_ref()
    }

    /// Reads the configuration again, as SIGHUP does. Returns at once.
    pub fn reload(&self) {
        self.trigger.reload();
    }

    /// The signal to end, to cut a drain short with.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Writes the addresses as JSON, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_ready_file(&self, path: &Path) -> io::Result<()> {
        let listeners: BTreeMap<&str, String> =
            self.addresses.iter().map(|(name, address)| (name.as_str(), address.to_string())).collect();
        let admin = self.admin.as_ref().map(ToString::to_string);
        let document = serde_json::json!({ "pid": std::process::id(), "listeners": listeners, "admin": admin });
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        std::fs::write(&draft, document.to_string())?;
        std::fs::rename(&draft, path)
    }

    /// Drains: accepts nothing new, lets requests finish until the deadline, writes the last records. `true` when
    /// nothing was cut and nothing was lost.
    pub async fn drain(self) -> bool {
        let Self {
            shutdown,
            admin_shutdown,
            serving,
            admin_serving,
            mut background,
            proxy,
            runtime,
            writer,
            state_lock,
            workers,
            ..
        } = self;
        tracing::info!("draining");
        shutdown.drain();
        let report = serving.await;
        proxy.tunnels().close();
        let tunnels_ended = tokio::time::timeout(Duration::from_secs(5), proxy.tunnels().wait()).await.is_ok();
        background.shutdown().await;
        if let Some(state) = runtime.login_state() {
            // A refresh that is cut off may lose the one refresh token that is good.
            let _best_effort = tokio::time::timeout(login::LONGEST_REFRESH, state.drain()).await;
        }
        drop(proxy);
        drop(state_lock);
        runtime.leases().end(LAST_LEASES).await;
        let written = writer.finish(LAST_RECORDS).await;
        if let Err(error) = &written {
            tracing::error!(%error, "audit records were lost at the end");
        }
        admin_shutdown.cut();
        if let Some(admin) = admin_serving {
            let _ended = admin.await;
        }
        drop(workers);
        let cut = report.map_or(usize::MAX, |report| report.cut);
        tracing::info!(cut, "drained");
        cut == 0 && tunnels_ended && written.is_ok()
    }

    /// Resolves when the server ended on its own, which it never should.
    pub async fn failed(&mut self) {
        let _report = (&mut self.serving).await;
    }
}

/// Logs to standard error: for people, or JSON lines.
pub fn log_to_stderr(json: bool) {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::fmt;

    let filter = EnvFilter::try_from_env("DOORWARD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // It tells of every change of a file, and the log can be one.
    let filter = match "notify=info".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let colour = io::stderr().is_terminal();
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour).with_target(false);
    // A second call in one process (tests) keeps the first.
    let _already_set = if json { lines.json().try_init() } else { lines.try_init() };
}

/// What a process that serves does about its own faults: panics are logged by their place alone, and its memory goes into
/// no core file. For the whole process.
pub fn guard_process() {
    panics::log_places();
    panics::keep_memory_private();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reloads_that_end_or_panic_are_told() {
        let ends = std::future::ready(()).boxed();
        let panics = async { panic!("as a fault of ours would") }.boxed();
        for reloads in [ends, panics] {
            let (status, metrics) = (Arc::new(Status::default()), Arc::new(Metrics::new()));
            metrics.config_watched.set(1);
            assert!(!status.reloads_ended());
            supervised(reloads, status.clone(), metrics.clone()).await;
            assert!(status.reloads_ended());
            assert_eq!(metrics.config_watched.get(), 0);
        }
    }
}
