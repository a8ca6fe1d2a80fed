//! A child process that speaks lines of JSON, and that never outlives its test.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{peer_file, within};

/// A Node.js peer. It ends when its standard input closes, and is killed when this is dropped.
pub(crate) struct NodePeer {
    name: &'static str,
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl NodePeer {
    /// Starts a script of `tests/peers/` with its settings, and returns it with its first line.
    pub(crate) async fn start(name: &'static str, settings: &Value) -> (Self, Value) {
        let mut child = Command::new("node")
            .arg(peer_file(name))
            .arg(settings.to_string())
            .env("NODE_NO_WARNINGS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts (`make test` installs it)");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut peer = Self { name, _child: child, input, output };
        let ready = peer.line().await;
        (peer, ready)
    }

    pub(crate) async fn ask(&mut self, command: &Value) -> Value {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        self.line().await
    }

    async fn line(&mut self) -> Value {
        let line = within(self.name, self.output.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("{} ended; `make test` installs what it needs", self.name));
        serde_json::from_str(&line).unwrap()
    }
}

/// Sends a signal to a child process of ours.
pub(crate) async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("the process still runs");
    // The shell's own `kill`: not every machine has it as a program.
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status().await.unwrap();
    assert!(sent.success(), "{name} could not be sent");
}
