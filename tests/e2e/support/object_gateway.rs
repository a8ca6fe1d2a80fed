//! Ceph's object gateway: S3 with strict signatures, and an STS that verifies web identity tokens.

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::process::{Peer, python};
use super::token::uuid;
use super::{free_port, peer_file};

/// One gateway with storage in memory.
pub(crate) struct ObjectGateway {
    _process: Peer,
    _folder: TempDir,
    port: u16,
    secret: String,
}

impl ObjectGateway {
    /// The one of all tests: it takes a quarter of a minute to start. It ends with the process.
    pub(crate) async fn shared() -> &'static Self {
        static GATEWAY: OnceCell<ObjectGateway> = OnceCell::const_new();
        GATEWAY.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let (folder, port, secret) = (tempfile::tempdir().unwrap(), free_port(), uuid());
        let mut command = Command::new(peer_file("radosgw/start"));
        command.arg(folder.path()).arg(free_port().to_string()).arg(port.to_string()).env("ADMIN_SECRET", &secret);
        let (process, _ready) = Peer::start("radosgw", &mut command).await;
        Self { _process: process, _folder: folder, port, secret }
    }

    /// `http://127.0.0.1:…`
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Of its administrator, whose access key is `administrator`.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// Trusts the tokens of `issuer` for `audience`, and makes a role that they and its administrator may
    /// assume, for whatever `policy` allows.
    pub(crate) async fn trust(&self, issuer: &str, audience: &str, role: &str, policy: Value) {
        let settings = json!({
            "url": self.url(), "secret": self.secret,
            "issuer": issuer, "audience": audience, "role": role, "policy": policy,
        });
        python("radosgw/trust.py", &settings).await;
    }
}
