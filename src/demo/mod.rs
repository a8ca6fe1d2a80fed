//! What `doorward demo` embeds: a development issuer, a sample API, a certificate authority, a configuration.
//!
//! Nothing here is reachable from any other command, and everything binds loopback.

pub mod certificates;

mod configuration;

pub mod issuer;

pub mod sample;

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;

use crate::app::{self, AppError, Options, Running};
use crate::audit::Destination;
use crate::clock::Clock;
use crate::login::CALLBACK_PATH;
use crate::server::ServerError;
use crate::worker::Workers;
use certificates::{CertificateError, DemoCertificates};
use configuration::Facts;
use issuer::{DevelopmentIssuer, IssuerError};

const ADMIN_PORT: u16 = 9901;
const BIND_TRIES: u32 = 5;

/// What a demo is started with.
#[derive(Debug)]
pub struct DemoOptions {
    /// Directory for certificates, keys and the configuration that is made.
    pub directory: PathBuf,
    /// Port of the proxy; another free one is taken when it is in use.
    pub port: u16,
    /// Takes audit records, one line each.
    pub audit: Sender<String>,
    /// Who serves; without any, the runtime that starts the demo.
    pub workers: Arc<Workers>,
}

/// Why the demo could not start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file could not be written.
    #[error("`{path}` cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another demo has the directory.
    #[error("another demo runs on `{directory}`: stop it first, or name another place with `--directory`")]
    Taken {
        /// The directory.
        directory: PathBuf,
    },
    /// No port on loopback.
    #[error("no port on loopback can be had")]
    Bind(#[source] io::Error),
    /// The development issuer.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// The certificates.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The proxy itself.
    #[error(transparent)]
    App(#[from] AppError),
}

/// A running demo.
#[derive(Debug)]
pub struct RunningDemo {
    /// The proxy.
    pub running: Running,
    /// Origin of the proxy, such as `https://localhost:8443`.
    pub origin: String,
    /// URL of the development issuer.
    pub issuer: String,
    /// The authority that clients have to trust.
    pub authority: PathBuf,
    /// Where the policies are.
    pub policies: PathBuf,
    /// Address of the admin listener.
    pub admin: SocketAddr,
    servers: JoinSet<io::Result<()>>,
}

impl RunningDemo {
    /// Gives the proxy to whoever waits for signals; issuer and sample API end with the returned set.
    #[must_use]
    pub fn into_parts(self) -> (Running, JoinSet<io::Result<()>>) {
        (self.running, self.servers)
    }
}

/// Starts everything.
///
/// # Errors
/// [`DemoError`].
pub async fn start(options: DemoOptions) -> Result<RunningDemo, DemoError> {
    let clock = Clock::system();
    let directory = &options.directory;
    let mut servers = JoinSet::new();
    // Before anything is written: a demo that runs would read it.
    let lock = take(directory)?;
    servers.spawn(async move {
        let _held = lock;
        std::future::pending().await
    });
    let certificates = absolute(DemoCertificates::make(directory)?);

    let sample_listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(DemoError::Bind)?;
    let sample_address = sample_listener.local_addr().map_err(DemoError::Bind)?;
    servers.spawn(sample::serve(sample_listener));

    let issuer_listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(DemoError::Bind)?;
    let issuer_address = issuer_listener.local_addr().map_err(DemoError::Bind)?;
    let issuer = Arc::new(DevelopmentIssuer::at(issuer_address, "doorward-demo", clock.clone())?);
    servers.spawn(issuer.clone().serve(issuer_listener));

    let client_secret = directory.join("demo-client.secret");
    write(&client_secret, issuer.client().1.expose())?;
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |source| DemoError::Write { path, source }
    };
    let client_secret = fs::canonicalize(&client_secret).map_err(fault(&client_secret))?;
    let policies = configuration::policies(directory).map_err(fault(directory))?;
    let state = fs::canonicalize(directory).map_err(fault(directory))?.join("state");
    let config = directory.join("demo.yaml");
    let mut tries = BIND_TRIES;
    let (running, origin, admin_port) = loop {
        let port = free_port(options.port).map_err(DemoError::Bind)?;
        let admin_port = free_port(ADMIN_PORT).map_err(DemoError::Bind)?;
        let origin = format!("https://localhost:{port}");
        issuer.register_redirect_uri(&format!("{origin}{CALLBACK_PATH}"));
        let text = configuration::text(&Facts {
            certificates: &certificates,
            client_secret: &client_secret,
            policies: &policies,
            state: &state,
            issuer: issuer.url(),
            client_id: issuer.client().0,
            sample: &format!("http://{sample_address}"),
            port,
            admin_port,
        });
        write(&config, &text)?;
        let audit = Some(Destination::Channel(options.audit.clone()));
        let workers = Arc::clone(&options.workers);
        match app::start(Options { config: config.clone(), clock: clock.clone(), audit, workers }).await {
            Ok(running) => break (running, origin, admin_port),
            // A port that was free a moment ago has been taken: another one then.
            Err(AppError::Server(ServerError::Bind { .. })) if tries > 0 => tries -= 1,
            Err(error) => return Err(error.into()),
        }
    };
    Ok(RunningDemo {
        running,
        origin,
        issuer: issuer.url().to_owned(),
        authority: directory.join("demo-authority.pem"),
        policies,
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port)),
        servers,
    })
}

/// The directory, for one demo at a time.
fn take(directory: &Path) -> Result<fs::File, DemoError> {
    let path = directory.join("demo.lock");
    let fault = |source| DemoError::Write { path: path.clone(), source };
    fs::create_dir_all(directory).map_err(fault)?;
    let file = fs::File::create(&path).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DemoError::Taken { directory: directory.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(fault(source)),
    }
}

fn absolute(files: DemoCertificates) -> DemoCertificates {
    let whole = |path: PathBuf| fs::canonicalize(&path).unwrap_or(path);
    DemoCertificates { authority: whole(files.authority), certificate: whole(files.certificate), key: whole(files.key) }
}

/// `wanted` when it is free, else one that is.
fn free_port(wanted: u16) -> io::Result<u16> {
    let listener =
        StdListener::bind((Ipv4Addr::LOCALHOST, wanted)).or_else(|_| StdListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(listener.local_addr()?.port())
}

fn write(path: &Path, text: &str) -> Result<(), DemoError> {
    let fault = |source| DemoError::Write { path: path.to_owned(), source };
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(fault)?;
    file.write_all(text.as_bytes()).map_err(fault)
}
