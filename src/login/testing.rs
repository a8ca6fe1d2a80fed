//! A small issuer over real HTTP, a browser's cookie jar, and the world that the tests share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

use crate::clock::Clock;
use crate::route::{Accepts, Access, Cors, HostPattern, LoginRequirement, PathMode, Route, RouteLimits};

/// A route that takes sessions.
pub(super) fn route() -> Route {
    Route {
        name: "r".into(),
        index: 0,
        host: HostPattern::Any,
        path: "/{*rest}".into(),
        path_mode: PathMode::Normal,
        environment: "test".into(),
        tags: BTreeSet::new(),
        access: Access::Authenticated(Accepts::default()),
        login: LoginRequirement::default(),
        cors: Cors::default(),
        csrf_origins: BTreeSet::new(),
        pass_authorization: None,
        pass_cookies: None,
        speaks_aws: false,
        websocket: true,
        identity_headers: None,
        limits: RouteLimits::default(),
    }
}

/// What the issuer does next.
#[derive(Clone, Default)]
pub(super) struct Mode {
    pub(super) down: bool,
    pub(super) issuer_parameter: bool,
    pub(super) no_end_session: bool,
    pub(super) no_refresh_token: bool,
    pub(super) no_id_token_at_refresh: bool,
    pub(super) keys_down: bool,
    /// Status and OAuth error of every answer to a refresh.
    pub(super) refuse_refresh: Option<(u16, &'static str)>,
    pub(super) sign_with_stranger: bool,
    pub(super) claims: BTreeMap<String, Value>,
    pub(super) header: BTreeMap<String, Value>,
    /// Text put before the claims of ID tokens, inside their object.
    pub(super) before_claims: &'static str,
    pub(super) refresh_claims: BTreeMap<String, Value>,
    pub(super) lifetime: Option<i64>,
}

struct Grant {
    nonce: String,
    challenge: String,
    redirect: String,
}

struct Key {
    id: String,
    pair: EcdsaKeyPair,
}

#[derive(Default)]
pub(super) struct Calls {
    pub(super) discovery: usize,
    pub(super) keys: usize,
    pub(super) code: usize,
    pub(super) refresh: usize,
}

pub(super) struct Inner {
    pub(super) mode: Mode,
    pub(super) calls: Calls,
    grants: HashMap<String, Grant>,
    refresh_token: HashMap<String, ()>,
    keys: Vec<Key>,
    counter: usize,
    /// Holds answers to refreshes until it is opened.
    pub(super) gate: Option<Arc<tokio::sync::Semaphore>>,
}

/// A development issuer: discovery, JWKS, codes with PKCE, rotating refresh tokens.
#[derive(Clone)]
pub(super) struct TestIssuer {
    pub(super) url: String,
    pub(super) clock: Clock,
    /// Told when a refresh has arrived, before it is answered.
    pub(super) refresh_asked: Arc<tokio::sync::Notify>,
    pub(super) inner: Arc<Mutex<Inner>>,
}

fn key(id: &str) -> Key {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
    Key { id: id.to_owned(), pair }
}

fn rng() -> aws_lc_rs::rand::SystemRandom {
    aws_lc_rs::rand::SystemRandom::new()
}

impl TestIssuer {
    pub(super) async fn start(clock: Clock) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Inner {
            mode: Mode::default(),
            calls: Calls::default(),
            grants: HashMap::new(),
            refresh_token: HashMap::new(),
            keys: vec![key("k1")],
            counter: 0,
            gate: None,
        };
        let issuer = Self { url, clock, refresh_asked: Arc::default(), inner: Arc::new(Mutex::new(inner)) };
        let server = issuer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let issuer = server.clone();
                let service = hyper::service::service_fn(move |request| {
                    let issuer = issuer.clone();
                    async move { Ok::<_, Infallible>(issuer.answer(request).await) }
                });
                let stream = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
            }
        });
        issuer
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Mode)) {
        change(&mut self.inner.lock().unwrap().mode);
    }

    pub(super) fn calls<T>(&self, read: impl FnOnce(&Calls) -> T) -> T {
        read(&self.inner.lock().unwrap().calls)
    }

    pub(super) fn rotate_keys(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.counter += 1;
        inner.keys = vec![key(&format!("k{}", inner.counter))];
    }

    /// The user signs in: from the authorization URL to the callback's path and query.
    pub(super) fn authorize(&self, url: &str) -> String {
        let url = Url::parse(url).unwrap();
        let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!((query["response_type"].as_str(), query["code_challenge_method"].as_str()), ("code", "S256"));
        let mut inner = self.inner.lock().unwrap();
        inner.counter += 1;
        let code = format!("code-{}", inner.counter);
        let [nonce, challenge, redirect] = ["nonce", "code_challenge", "redirect_uri"].map(|name| query[name].clone());
        inner.grants.insert(code.clone(), Grant { nonce, challenge, redirect: redirect.clone() });
        let mut answer = form_urlencoded::Serializer::new(String::new());
        answer.append_pair("code", &code).append_pair("state", &query["state"]);
        if inner.mode.issuer_parameter {
            answer.append_pair("iss", &self.url);
        }
        format!("{}?{}", Url::parse(&redirect).unwrap().path(), answer.finish())
    }

    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if self.inner.lock().unwrap().mode.down {
            return json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({}));
        }
        match path.as_str() {
            "/.well-known/openid-configuration" => json_answer(StatusCode::OK, &self.discovery()),
            "/jwks" if self.inner.lock().unwrap().mode.keys_down => {
                json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({}))
            }
            "/jwks" => json_answer(StatusCode::OK, &self.jwks()),
            "/token" => {
                let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
                let gate = self.inner.lock().unwrap().gate.clone();
                if let (Some(gate), "refresh_token") = (gate, form["grant_type"].as_str()) {
                    self.refresh_asked.notify_one();
                    gate.acquire().await.unwrap().forget();
                }
                match self.token(&form) {
                    Ok(answer) => json_answer(StatusCode::OK, &answer),
                    Err((status, error)) => {
                        json_answer(StatusCode::from_u16(status).unwrap(), &json!({ "error": error }))
                    }
                }
            }
            _ => json_answer(StatusCode::NOT_FOUND, &json!({})),
        }
    }

    fn discovery(&self) -> Value {
        let mut inner = self.inner.lock().unwrap();
        inner.calls.discovery += 1;
        let url = &self.url;
        let mut document = json!({
            "issuer": url, "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/jwks"),
            "end_session_endpoint": format!("{url}/end"), "response_types_supported": ["code"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
            "authorization_response_iss_parameter_supported": inner.mode.issuer_parameter,
        });
        if inner.mode.no_end_session {
            document.as_object_mut().unwrap().remove("end_session_endpoint");
        }
        document
    }

    fn jwks(&self) -> Value {
        let mut inner = self.inner.lock().unwrap();
        inner.calls.keys += 1;
        let keys = inner.keys.iter().map(|key| {
            let point = key.pair.public_key().as_ref();
            let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
            json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key.id, "x": x, "y": y })
        });
        json!({ "keys": keys.collect::<Vec<_>>() })
    }

    fn token(&self, form: &HashMap<String, String>) -> Result<Value, (u16, &'static str)> {
        let spent = || (400, "invalid_grant");
        let mut inner = self.inner.lock().unwrap();
        let (nonce, refreshing) = match form["grant_type"].as_str() {
            "authorization_code" => {
                inner.calls.code += 1;
                let grant = inner.grants.remove(&form["code"]).ok_or_else(spent)?;
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, form["code_verifier"].as_bytes());
                if grant.challenge != URL_SAFE_NO_PAD.encode(digest) || grant.redirect != form["redirect_uri"] {
                    return Err(spent());
                }
                (Some(grant.nonce), false)
            }
            _ => {
                inner.calls.refresh += 1;
                if let Some(refusal) = inner.mode.refuse_refresh {
                    return Err(refusal);
                }
                inner.refresh_token.remove(&form["refresh_token"]).ok_or_else(spent)?;
                (None, true)
            }
        };
        inner.counter += 1;
        let (number, mode) = (inner.counter, inner.mode.clone());
        let (now, lifetime) = (self.clock.now().unix_seconds(), mode.lifetime.unwrap_or(3600));
        let mut claims = json!({
            "iss": self.url, "sub": "alice", "aud": "client", "iat": now, "exp": now + lifetime,
            "auth_time": now, "acr": "basic", "groups": [format!("generation-{number}")],
        });
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        let further = if refreshing { &mode.refresh_claims } else { &mode.claims };
        for (name, value) in further {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let mut answer = json!({ "access_token": format!("access-{number}"), "token_type": "Bearer" });
        if !(refreshing && mode.no_id_token_at_refresh) {
            answer["id_token"] = inner.sign(&claims, &mode).into();
        }
        if !mode.no_refresh_token {
            let token = format!("refresh-{number}");
            inner.refresh_token.insert(token.clone(), ());
            answer["refresh_token"] = token.into();
        }
        Ok(answer)
    }
}

impl Inner {
    fn sign(&self, claims: &Value, mode: &Mode) -> String {
        let stranger = key(&self.keys[0].id);
        let key = if mode.sign_with_stranger { &stranger } else { &self.keys[0] };
        let mut header = json!({ "alg": "ES256", "typ": "JWT", "kid": key.id });
        for (name, value) in &mode.header {
            header[name] = value.clone();
        }
        let claims = claims.to_string().replacen('{', &format!("{{{}", mode.before_claims), 1);
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(&header.to_string()), encode(&claims));
        let signature = key.pair.sign(&rng(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let builder = Response::builder().status(status).header("content-type", "application/json");
    builder.body(Full::new(Bytes::from(value.to_string()))).unwrap()
}

/// A time in the claims.
pub(super) fn seconds(claims: &Map<String, Value>, name: &str) -> Option<i64> {
    claims.get(name).and_then(Value::as_i64)
}

/// An hour.
pub(super) const HOUR: Duration = Duration::from_secs(3600);
