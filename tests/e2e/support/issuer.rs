//! An issuer of workload tokens: discovery, keys, and tokens as good or bad as a test wants them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::json;

use super::authority::Clients;
use super::server::{Body, Server};
use super::token::SigningKey;
use super::{Authority, TokenDraft};

/// Discovery and JWKS over TLS on a loopback port. Its name in the gate's configuration is `machines`.
pub(crate) struct StaticIssuer {
    server: Server,
    state: Arc<State>,
}

struct State {
    keys: Mutex<Vec<SigningKey>>,
    discoveries: AtomicU64,
    key_fetches: AtomicU64,
}

impl StaticIssuer {
    pub(crate) async fn start(authority: &Authority) -> Self {
        let issuer = Self::away(authority);
        issuer.come_up().await;
        issuer
    }

    /// An issuer that has an address and does not answer.
    pub(crate) fn away(authority: &Authority) -> Self {
        let keys = vec![SigningKey::es256("es-1"), SigningKey::rs256("rs-1")];
        let state = Arc::new(State {
            keys: Mutex::new(keys),
            discoveries: AtomicU64::default(),
            key_fetches: AtomicU64::default(),
        });
        let answering = state.clone();
        let server = Server::reserve(Some(authority.server_config(Clients::Any)), |address| {
            let url = format!("https://{address}");
            Arc::new(move |_, request: Request<Incoming>| {
                let answer = answering.answer(request.uri().path(), &url);
                Box::pin(std::future::ready(answer))
            })
        });
        Self { server, state }
    }

    pub(crate) async fn come_up(&self) {
        self.server.come_up().await;
    }

    pub(crate) async fn go_away(&self) {
        self.server.go_away().await;
    }

    /// The exact `iss`.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.server.address())
    }

    pub(crate) fn discoveries(&self) -> u64 {
        self.state.discoveries.load(Ordering::SeqCst)
    }

    pub(crate) fn key_fetches(&self) -> u64 {
        self.state.key_fetches.load(Ordering::SeqCst)
    }

    /// A good ES256 token for the gate, of a machine in the group `readers`.
    pub(crate) fn token(&self) -> TokenDraft {
        self.token_by(0)
    }

    /// The same, RS256.
    pub(crate) fn rsa_token(&self) -> TokenDraft {
        self.token_by(1)
    }

    fn token_by(&self, key: usize) -> TokenDraft {
        let key = self.state.keys.lock().unwrap()[key].clone();
        TokenDraft::new(key, &self.url(), super::ORIGIN)
    }

    /// Replaces the ES256 key by a new one, which signs from now on.
    pub(crate) fn rotate(&self, id: &str) {
        self.state.keys.lock().unwrap()[0] = SigningKey::es256(id);
    }
}

impl State {
    fn answer(&self, path: &str, url: &str) -> Response<Body> {
        let document = match path {
            "/.well-known/openid-configuration" => {
                self.discoveries.fetch_add(1, Ordering::SeqCst);
                Some(json!({
                    "issuer": url,
                    "jwks_uri": format!("{url}/keys"),
                    "authorization_endpoint": format!("{url}/authorize"),
                    "token_endpoint": format!("{url}/token"),
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["ES256", "RS256"],
                }))
            }
            "/keys" => {
                self.key_fetches.fetch_add(1, Ordering::SeqCst);
                let keys = self.keys.lock().unwrap();
                Some(json!({ "keys": keys.iter().map(SigningKey::public).collect::<Vec<_>>() }))
            }
            _ => None,
        };
        let status = if document.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        let text = document.map(|document| document.to_string()).unwrap_or_default();
        let body = Full::from(text).map_err(|never| match never {}).boxed_unsync();
        Response::builder().status(status).header(header::CONTENT_TYPE, "application/json").body(body).unwrap()
    }
}
