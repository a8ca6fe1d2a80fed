//! npm `oidc-provider`: a certified OpenID provider with login pages of its own.

use serde_json::{Value, json};

use super::process::Peer;
use super::{Authority, Client, ORIGIN};

/// The provider and its control port. Its name in the gate's configuration is `people`.
pub(crate) struct Provider {
    _process: Peer,
    url: String,
    control: Client,
}

impl Provider {
    pub(crate) const CLIENT_ID: &str = "doorward";
    pub(crate) const CLIENT_SECRET: &str = "doorward-secret";

    pub(crate) async fn start(authority: &Authority) -> Self {
        Self::trusting(authority, None).await
    }

    /// A provider that takes assertions of the issuer `trusted`, and knows the client `by-key` by that issuer's keys.
    pub(crate) async fn trusting(authority: &Authority, trusted: Option<&str>) -> Self {
        let settings = json!({
            "trusted": trusted,
            "certificate": authority.folder().join("server.pem"),
            "key": authority.folder().join("server.key"),
            "redirect_uris": [format!("{ORIGIN}/.doorward/callback")],
            "post_logout_redirect_uris": [format!("{ORIGIN}/.doorward/signed-out")],
        });
        let (process, ready) = Peer::node("oidc-provider/provider.mjs", &settings).await;
        let control = Client::plain(ready["control"].as_str().unwrap().parse().unwrap());
        Self { _process: process, url: ready["issuer"].as_str().unwrap().to_owned(), control }
    }

    /// The exact `iss`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Requests so far at `endpoint`: `discovery`, `jwks`, `authorize`, `token`, `refresh` or `logout`.
    pub(crate) async fn count(&self, endpoint: &str) -> u64 {
        self.command("/counts").await[endpoint].as_u64().unwrap()
    }

    /// Parameters of the latest authorization request.
    pub(crate) async fn asked(&self) -> Value {
        self.command("/asked").await
    }

    /// Signs with new keys from now on, and publishes no others.
    pub(crate) async fn rotate_keys(&self) {
        self.command("/rotate").await;
    }

    pub(crate) async fn go_away(&self) {
        self.command("/outage/begin").await;
    }

    pub(crate) async fn come_back(&self) {
        self.command("/outage/end").await;
    }

    /// How long ID tokens live that are issued from now on.
    pub(crate) async fn id_tokens_live(&self, seconds: u64) {
        self.command(&format!("/id-token-seconds?value={seconds}")).await;
    }

    /// An access token by client credentials, as `RS256` or `ES256`.
    pub(crate) async fn service_token(&self, authority: &Authority, algorithm: &str) -> String {
        let address = self.url.strip_prefix("https://").unwrap().parse().unwrap();
        let resource = format!("{ORIGIN}/{}", algorithm.to_lowercase());
        let form = format!(
            "grant_type=client_credentials&client_id=service&client_secret=service-secret&scope=api:read&resource={resource}"
        );
        let answer = Client::tls(address, "127.0.0.1", authority.client_config(None))
            .post("/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await;
        answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer:?}")).to_owned()
    }

    async fn command(&self, path: &str) -> Value {
        let answer = self.control.get(path).send().await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }
}
