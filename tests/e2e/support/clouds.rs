//! Google and Microsoft, as far as they give tokens (`tests/peers/clouds/`), and their own SDKs as clients of them.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{Authority, Client, StaticIssuer, peer_file, within};

/// Both clouds. They end when standard input closes, and are killed when this is dropped.
pub(crate) struct Clouds {
    _process: Child,
    control: Client,
    authorities: String,
    /// Security Token Service and IAM Credentials.
    pub(crate) google: String,
    /// Google's metadata server.
    pub(crate) google_metadata: String,
    /// Entra ID.
    pub(crate) entra: String,
    /// Instance metadata and App Service of Azure.
    pub(crate) managed_identity: String,
}

fn python() -> Command {
    let mut command = Command::new(peer_file("python/bin/python"));
    // What the machine says of proxies and of other identities is not this test's.
    command.env_clear().env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
    command
}

impl Clouds {
    pub(crate) async fn start(authority: &Authority) -> Self {
        let path = |name: &str| authority.folder().join(name).to_str().unwrap().to_owned();
        let authorities = path("ca.pem");
        let settings =
            json!({ "certificate": path("server.pem"), "key": path("server.key"), "authorities": authorities });
        let mut process = python()
            .arg(peer_file("clouds/clouds.py"))
            .arg(settings.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python starts (`make test` installs it)");
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = within("the clouds", output.next_line()).await.unwrap();
        let line = line.expect("the clouds start (`make test` installs what they need)");
        let ready: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| ready[name].as_str().unwrap().to_owned();
        Self {
            _process: process,
            control: Client::plain(text("control").parse().unwrap()),
            authorities,
            google: text("google"),
            google_metadata: text("google_metadata"),
            entra: text("entra"),
            managed_identity: text("managed_identity"),
        }
    }

    /// Lets both clouds read the documents of an issuer, which are at `address` whatever its URL says.
    pub(crate) async fn reach(&self, issuer: &str, address: SocketAddr) {
        self.command("/issuer", json!({ "issuer": issuer, "address": address.to_string() })).await;
    }

    /// The same for the test's own issuer.
    pub(crate) async fn reach_issuer(&self, issuer: &StaticIssuer) {
        let url = issuer.url();
        self.reach(&url, url.strip_prefix("https://").unwrap().parse().unwrap()).await;
    }

    /// Sets attributes of Google's stand-in and returns what it did so far.
    pub(crate) async fn google(&self, change: Value) -> Value {
        self.command("/google", change).await
    }

    /// Sets attributes of Microsoft's stand-in and returns what it did so far.
    pub(crate) async fn entra(&self, change: Value) -> Value {
        self.command("/entra", change).await
    }

    async fn command(&self, path: &str, body: Value) -> Value {
        let answer = self.control.post(path).body(body.to_string()).send().await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// A token as the vendor's own SDK obtains it, or what that says.
    pub(crate) async fn sdk(&self, mut settings: Value) -> Result<String, String> {
        settings["authorities"] = json!(self.authorities);
        let asking = python().arg(peer_file("clouds/sdk.py")).arg(settings.to_string()).output();
        let output = within("the SDK", asking).await.unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        match answer["token"].as_str() {
            Some(token) => Ok(token.to_owned()),
            None => Err(answer["error"].as_str().unwrap().to_owned()),
        }
    }
}
