//! The gate while it runs: the real binary, seen through its sockets, its files and its signals.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, ChildStdout, Command};

use super::authority::Pair;
use super::{Answer, AuditRecord, Authority, Client, HOST, ORIGIN, eventually, process, secrets, token, within};

/// A gate that serves. Dereferences to the [`Client`] that calls it; dropping it kills it.
pub(crate) struct RunningGate {
    child: Child,
    authority: Arc<Authority>,
    folder: TempDir,
    address: SocketAddr,
    listeners: Value,
    manner: Manner,
    admin: Client,
    client: Client,
}

/// How the binary is run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// `DOORWARD_LOG`.
    pub(crate) log_level: Option<&'static str>,
    /// Whether standard output is a pipe to the test rather than the log.
    pub(crate) piped: bool,
    /// What the shell does with its limits first, such as `ulimit -Sn 256`.
    pub(crate) limits: Option<&'static str>,
    /// `--workers`.
    pub(crate) workers: Option<usize>,
    /// Further variables of its environment.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Deref for RunningGate {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl RunningGate {
    pub(crate) async fn start(authority: Arc<Authority>, folder: TempDir, manner: Manner) -> Self {
        let mut child = spawn(folder.path(), &manner);
        let ready = ready(&mut child, folder.path()).await;
        let address = ready["listeners"]["public"].as_str().unwrap().parse().unwrap();
        let admin = ready["admin"].as_str().unwrap();
        // A Unix socket is asked by its own test; nothing listens on port 0.
        let on_a_socket = admin.starts_with("unix:").then(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let admin = Client::plain(on_a_socket.unwrap_or_else(|| admin.parse().unwrap()));
        let client = Client::tls(address, HOST, authority.client_config(None));
        assert_eq!(ready["pid"].as_u64(), child.id().map(u64::from), "the ready file is of another process");
        let listeners = ready["listeners"].clone();
        Self { child, authority, folder, address, listeners, manner, admin, client }
    }

    /// Runs a gate that must not come to serve.
    pub(crate) async fn refusal(folder: &TempDir) -> (i32, String) {
        let mut child = spawn(folder.path(), &Manner::default());
        let status = within("the gate to refuse", child.wait()).await.unwrap();
        (status.code().expect("an exit code, not a signal"), log(folder.path()))
    }

    /// Starts a second gate over the same files and state, which must refuse; returns its exit code and the log.
    pub(crate) async fn rival_refuses(&self) -> (i32, String) {
        Self::refusal(&self.folder).await
    }

    /// Stops the gate by SIGTERM and starts it again with the same files, state and port.
    pub(crate) async fn restart(mut self) -> Self {
        self.terminate().await;
        assert!(self.exit().await.success(), "the gate did not stop well");
        self.start_again().await
    }

    /// Ends the gate by SIGKILL and starts it again with the same files, state and port.
    pub(crate) async fn crash(mut self) -> Self {
        self.child.kill().await.unwrap();
        self.start_again().await
    }

    async fn start_again(mut self) -> Self {
        let mut config: Value = serde_json::from_str(&self.read("doorward.yaml")).unwrap();
        config["listeners"]["public"]["address"] = self.address.to_string().into();
        self.write("doorward.yaml", &format!("{config}\n"));
        fs::remove_file(self.folder.path().join("ready.json")).unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Self::start(self.authority.clone(), folder, self.manner.clone()).await
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where the public listener is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where another listener is, as the ready file has it.
    pub(crate) fn listener_address(&self, name: &str) -> &str {
        self.listeners[name].as_str().unwrap_or_else(|| panic!("no listener {name} in {}", self.listeners))
    }

    /// What the gate writes to standard output, where that is a pipe.
    pub(crate) fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("standard output is a pipe")
    }

    pub(crate) fn admin(&self) -> &Client {
        &self.admin
    }

    /// Resident memory now, KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Who signed what its parties show.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// How many descriptors the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id().unwrap())).unwrap().count()
    }

    /// The soft and the hard limit of open files that the process has now.
    pub(crate) fn descriptor_limits(&self) -> (String, String) {
        self.limits_of("Max open files")
    }

    /// The soft and the hard limit of this name that the process has now.
    pub(crate) fn limits_of(&self, name: &str) -> (String, String) {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.child.id().unwrap())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    }

    /// A client with a certificate of its own.
    pub(crate) fn client_with(&self, pair: &Pair) -> Client {
        Client::tls(self.address, HOST, self.authority.client_config(Some(pair)))
    }

    /// A client without a certificate at another listener, which speaks TLS.
    pub(crate) fn listener(&self, name: &str) -> Client {
        let ready: Value = serde_json::from_str(&self.read("ready.json")).unwrap();
        let address = ready["listeners"][name].as_str().unwrap().parse().unwrap();
        Client::tls(address, HOST, self.authority.client_config(None))
    }

    /// A file of the gate's configuration.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file of the configuration at once, as an editor or a config map does.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let beside = self.path(&format!("{name}.new"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// SIGHUP.
    pub(crate) async fn hang_up(&self) {
        process::signal(&self.child, "HUP").await;
    }

    /// SIGTERM.
    pub(crate) async fn terminate(&self) {
        process::signal(&self.child, "TERM").await;
    }

    /// Waits for the process to end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        within("the gate to end", self.child.wait()).await.unwrap()
    }

    /// `/readyz`: status and text.
    pub(crate) async fn readiness(&self) -> (u16, String) {
        let answer = self.admin.get("/readyz").send().await;
        secrets::absent_from("/readyz", &answer.body);
        (answer.status.as_u16(), answer.text())
    }

    /// The value of a metric, summed over its labels that hold all of `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin.get("/metrics").send().await.text();
        secrets::absent_from("the metrics", text.as_bytes());
        let mut found = false;
        let value = text
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(sample, _)| sample.split('{').next() == Some(name))
            .filter(|(sample, _)| labels.iter().all(|label| sample.contains(label)))
            .map(|(_, value)| {
                found = true;
                value.parse::<f64>().unwrap()
            })
            .sum();
        assert!(found, "no metric {name} {labels:?} in\n{text}");
        value
    }

    /// Waits until `/readyz` gives this status, 200 with nothing to complain of, and returns what it says.
    pub(crate) async fn becomes_ready(&self, status: u16) -> String {
        eventually(&format!("/readyz to say {status}"), || async {
            let (found, text) = self.readiness().await;
            (found == status && (status != 200 || !is_degraded(&text))).then_some(text)
        })
        .await
    }

    /// Waits until `/readyz` says that requests are served although something is wrong, and returns what it says.
    pub(crate) async fn becomes_degraded(&self) -> String {
        eventually("/readyz to say 200 with reasons", || async {
            let (found, text) = self.readiness().await;
            (found == 200 && is_degraded(&text)).then_some(text)
        })
        .await
    }

    /// Begins a login as a browser does that opens `path` with these cookies: to Doorward's own login page, which
    /// sends it to the provider. The answer of that page.
    pub(crate) async fn begin_login(&self, path: &str, cookies: &str) -> Answer {
        let sent = self.get(path).navigation().header("cookie", cookies).send().await;
        let login = sent.header("location").unwrap_or_else(|| panic!("no redirect to the login: {sent:?}"));
        assert!(sent.status == 303 && login.starts_with("/.doorward/login?"), "{sent:?}");
        self.get(login).navigation().header("cookie", cookies).send().await
    }

    /// Every audit record so far.
    pub(crate) fn audit(&self) -> Vec<AuditRecord> {
        AuditRecord::lines(&fs::read_to_string(self.path("audit.jsonl")).unwrap_or_default())
    }

    /// Waits until a record that `is_it` recognises is there.
    pub(crate) async fn audited(&self, what: &str, is_it: impl Fn(&AuditRecord) -> bool) -> AuditRecord {
        eventually(&format!("an audit record of {what}"), || async { self.audit().into_iter().find(&is_it) }).await
    }

    /// Waits until all that happened before this call is on record, in a file that a kill may have cut.
    pub(crate) async fn settled_lenient(&self) {
        let path = format!("/fence/{}", token::uuid());
        self.client.get(&path).send().await;
        let recorded = || async { self.read("audit.jsonl").contains(&path).then_some(()) };
        eventually("an audit record of the fence", recorded).await;
    }

    /// Every audit record, once all that happened before this call is on record: records keep their order, so one
    /// more request of a path of its own shows that those before it are written.
    pub(crate) async fn settled_audit(&self) -> Vec<AuditRecord> {
        let path = format!("/fence/{}", token::uuid());
        self.client.get(&path).send().await;
        self.audited("the fence", |record| record.is_request_to(&path)).await;
        self.audit()
    }

    /// The one record of the only request to `path`.
    pub(crate) async fn only_record_of(&self, path: &str) -> AuditRecord {
        let all = self.settled_audit().await;
        let mut records: Vec<_> = all.iter().filter(|record| record.is_request_to(path)).cloned().collect();
        assert_eq!(records.len(), 1, "{path} has {} records among {all:#?}", records.len());
        records.remove(0)
    }

    /// Verifies an assertion as an upstream would, by the gate's own published keys, and returns its claims.
    pub(crate) async fn verify_assertion(&self, assertion: &str, audience: &str) -> Value {
        let keys: JwkSet = self.client.get("/.doorward/jwks.json").send().await.json_as();
        let header = jsonwebtoken::decode_header(assertion).unwrap();
        let key = keys.find(header.kid.as_deref().unwrap()).expect("the assertion's key is published");
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[format!("{ORIGIN}/.doorward")]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let decoded = jsonwebtoken::decode(assertion, &DecodingKey::from_jwk(key).unwrap(), &validation);
        decoded.expect("the assertion verifies").claims
    }

    /// Everything that the gate logged.
    pub(crate) fn log(&self) -> String {
        log(self.folder.path())
    }

    /// Fails if `secret` stands in the log or in the audit file.
    pub(crate) fn never_wrote(&self, secret: &str) {
        assert!(!secret.is_empty());
        assert!(!self.log().contains(secret), "the log holds a secret");
        assert!(!self.read("audit.jsonl").contains(secret), "the audit file holds a secret");
    }
}

impl Drop for RunningGate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell(&self.log());
            return;
        }
        secrets::mark_files(self.folder.path());
        secrets::absent_from("the log", self.log().as_bytes());
        for entry in fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("audit.jsonl") {
                secrets::absent_from("the audit file", &fs::read(entry.path()).unwrap_or_default());
            }
        }
    }
}

fn is_degraded(readiness: &str) -> bool {
    serde_json::from_str::<Value>(readiness).unwrap()["degraded"].as_bool().unwrap()
}

fn spawn(folder: &Path, manner: &Manner) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("doorward.log")).unwrap();
    let binary = env!("CARGO_BIN_EXE_doorward");
    let mut command = match manner.limits {
        None => Command::new(binary),
        Some(limits) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(format!("{limits} && exec \"$0\" \"$@\"")).arg(binary);
            shell
        }
    };
    command
        .args(["run", "--config", "doorward.yaml", "--ready-file", "ready.json"])
        .args(manner.workers.map(|workers| format!("--workers={workers}")))
        .current_dir(folder)
        .envs(manner.variables.iter().map(|(name, value)| (name, value)))
        .envs(manner.log_level.map(|level| ("DOORWARD_LOG", level)))
        .stdin(Stdio::null())
        .stdout(if manner.piped { Stdio::piped() } else { log.try_clone().unwrap().into() })
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn ready(child: &mut Child, folder: &Path) -> Value {
    let path = folder.join("ready.json");
    let asking = async {
        loop {
            if let Ok(text) = fs::read_to_string(&path) {
                return serde_json::from_str(&text).expect("the ready file is written whole");
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the gate ended with {status}:\n{}", log(folder));
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(super::PATIENCE, asking).await {
        Ok(ready) => ready,
        Err(_) => panic!("the gate never served:\n{}", log(folder)),
    }
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("doorward.log")).unwrap_or_default()
}

#[expect(clippy::print_stderr, reason = "a failed test shows what the gate logged")]
fn tell(log: &str) {
    eprintln!("--- the gate's log\n{log}---");
}
