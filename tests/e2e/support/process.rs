//! A child process that speaks lines of JSON, and that never outlives its test.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{PATIENCE, peer_file, within};

/// A peer that speaks lines of JSON. It ends when its standard input closes, and is killed when this is dropped.
pub(crate) struct Peer {
    name: &'static str,
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts a Node.js script of `tests/peers/` with its settings, and returns it with its first line.
    pub(crate) async fn node(name: &'static str, settings: &Value) -> (Self, Value) {
        let mut command = Command::new("node");
        command.arg(peer_file(name)).arg(settings.to_string()).env("NODE_NO_WARNINGS", "1");
        Self::start(name, &mut command).await
    }

    /// Starts a program, and returns it with its first line.
    pub(crate) async fn start(name: &'static str, command: &mut Command) -> (Self, Value) {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} starts (`make test` installs it): {error}"));
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut peer = Self { name, _child: child, input, output };
        // Storage with all its parts takes longer than any answer.
        let ready = tokio::time::timeout(PATIENCE * 4, peer.next()).await;
        (peer, ready.unwrap_or_else(|_| panic!("{name} does not start")))
    }

    pub(crate) async fn ask(&mut self, command: &Value) -> Value {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        self.line().await
    }

    async fn line(&mut self) -> Value {
        within(self.name, self.next()).await
    }

    async fn next(&mut self) -> Value {
        let line = self.output.next_line().await.unwrap();
        let line = line.unwrap_or_else(|| panic!("{} ended; `make test` installs what it needs", self.name));
        serde_json::from_str(&line).unwrap()
    }
}

/// Starts a Python script of `tests/peers/` with its settings, and returns it with its first line.
pub(crate) async fn python_peer(name: &'static str, settings: &Value) -> (Peer, Value) {
    let mut command = Command::new(peer_file("python/bin/python"));
    command.arg("-B").arg(peer_file(name)).arg(settings.to_string());
    Peer::start(name, &mut command).await
}

/// Runs a Python script of `tests/peers/` with its settings to its end, and returns the JSON that it prints.
pub(crate) async fn python(name: &str, settings: &Value) -> Value {
    let mut command = Command::new(peer_file("python/bin/python"));
    command.arg("-B").arg(peer_file(name)).arg(settings.to_string()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE * 10, command.output()).await;
    let output = ended.unwrap_or_else(|_| panic!("{name} does not end")).expect("Python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name}: {error}: {errors}"))
}

/// Sends a signal to a child process of ours.
pub(crate) async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("the process still runs");
    // The shell's own `kill`: not every machine has it as a program.
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status().await.unwrap();
    assert!(sent.success(), "{name} could not be sent");
}
