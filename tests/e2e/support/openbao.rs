//! OpenBao, a fork of HashiCorp Vault with its API, and a Valkey whose users it makes.

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{Client, eventually, peer_file, token, within};

/// A server of its own, in memory, unsealed, with a key-value engine at `secret`. Dropping it ends it.
pub(crate) struct OpenBao {
    process: Child,
    client: Client,
    root: String,
}

impl OpenBao {
    /// One that serves. It takes the port above its own too, which may be somebody else's by then: another is tried.
    pub(crate) async fn start() -> Self {
        for _ in 0..5 {
            let mut bao = Self::spawned();
            if within("OpenBao", bao.comes_to_serve()).await {
                return bao;
            }
        }
        panic!("OpenBao does not start");
    }

    fn spawned() -> Self {
        let root = token::uuid();
        let address = free_address();
        let process = Command::new(peer_file("python/bin/bao"))
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={root}"))
            .arg(format!("-dev-listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("OpenBao starts (`make test` installs it)");
        Self { process, client: Client::plain(address), root }
    }

    /// Whether it serves; false once it has ended. Nobody else knows its token.
    async fn comes_to_serve(&mut self) -> bool {
        loop {
            let asked = self.client.get("/v1/sys/mounts").header("x-vault-token", &self.root).try_send().await;
            let mounts = asked.filter(|answer| answer.status == 200);
            let mounts: Option<Value> = mounts.and_then(|answer| serde_json::from_slice(&answer.body).ok());
            if mounts.is_some_and(|mounts| mounts["data"].get("secret/").is_some()) {
                return true;
            }
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.client.address())
    }

    /// As the root of this namespace; status and answer.
    async fn ask(&self, method: Method, namespace: Option<&str>, path: &str, body: &Value) -> (u16, Value) {
        let mut request = self.client.request(method, &format!("/v1/{path}")).header("x-vault-token", &self.root);
        if let Some(namespace) = namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await;
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    pub(crate) async fn write(&self, path: &str, body: Value) -> Value {
        self.write_in(None, path, body).await
    }

    pub(crate) async fn write_in(&self, namespace: Option<&str>, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(Method::POST, namespace, path, &body).await;
        assert!(status == 200 || status == 204, "{path}: {status} {answer}");
        answer
    }

    /// As [`Self::write_in`], where it may be too early.
    pub(crate) async fn try_write_in(&self, namespace: Option<&str>, path: &str, body: Value) -> Option<()> {
        (self.ask(Method::POST, namespace, path, &body).await.0 == 200).then_some(())
    }

    /// Lets bearers of tokens log in at `auth/MOUNT` that `keys` (settings of the method) verify, as the role `app`,
    /// which may read these paths.
    pub(crate) async fn trust(&self, namespace: Option<&str>, mount: &str, keys: Value, role: Value) {
        self.write_in(namespace, &format!("sys/auth/{mount}"), json!({ "type": "jwt" })).await;
        self.write_in(namespace, &format!("auth/{mount}/config"), keys).await;
        let policy = r#"
            path "secret/data/apps/*" { capabilities = ["read"] }
            path "database/creds/app" { capabilities = ["read"] }
            path "pki/issue/upstreams" { capabilities = ["update"] }
            path "sys/leases/revoke" { capabilities = ["update"] }
        "#;
        self.write_in(namespace, "sys/policies/acl/app", json!({ "policy": policy })).await;
        let mut settings = json!({
            "role_type": "jwt", "user_claim": "sub", "token_policies": ["app"], "token_type": "batch",
            "token_ttl": "10m",
        });
        settings.as_object_mut().unwrap().extend(role.as_object().unwrap().clone());
        self.write_in(namespace, &format!("auth/{mount}/role/app"), settings).await;
    }

    /// What it knows of a lease; `None` when it has ended.
    pub(crate) async fn lease(&self, id: &str) -> Option<Value> {
        let (status, answer) = self.ask(Method::POST, None, "sys/leases/lookup", &json!({ "lease_id": id })).await;
        (status == 200).then(|| answer["data"].clone())
    }
}

/// A store whose users are made by [`OpenBao`], at `database/creds/app`. Dropping it ends it.
pub(crate) struct Valkey {
    _process: Child,
    address: SocketAddr,
    password: String,
}

impl Valkey {
    pub(crate) async fn start() -> Self {
        let (address, password) = (free_address(), token::uuid());
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &address.port().to_string()])
            .args(["--requirepass", &password])
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server starts (`make test` installs it)");
        answers(address).await;
        Self { _process: process, address, password }
    }

    /// Lets `bao` make users of it that live so long, and longer by renewal.
    pub(crate) async fn given_to(&self, bao: &OpenBao, life: &str, longest: &str) {
        bao.write("sys/mounts/database", json!({ "type": "database" })).await;
        let settings = json!({
            "plugin_name": "valkey-database-plugin", "host": "127.0.0.1", "port": self.address.port(),
            "username": "default", "password": self.password, "allowed_roles": ["app"],
        });
        bao.write("database/config/valkey", settings).await;
        let role = json!({
            "db_name": "valkey", "creation_statements": r#"["~*", "+@read"]"#, "default_ttl": life, "max_ttl": longest,
        });
        bao.write("database/roles/app", role).await;
    }

    /// Whether it knows a user.
    pub(crate) async fn knows(&self, user: &str) -> bool {
        self.said(&format!("AUTH {}\r\nACL USERS\r\nQUIT\r\n", self.password)).await.contains(user)
    }

    /// Whether name and password open it.
    pub(crate) async fn opens(&self, user: &str, password: &str) -> bool {
        self.said(&format!("AUTH {user} {password}\r\nQUIT\r\n")).await.starts_with("+OK")
    }

    async fn said(&self, commands: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(commands.as_bytes()).await.unwrap();
        let mut answer = String::new();
        super::within("the store", stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }
}

/// Nobody listens there; somebody else may before a peer does, as for every peer that cannot choose its port.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn answers(address: SocketAddr) {
    eventually("a peer to listen", || async { TcpStream::connect(address).await.ok() }).await;
}
