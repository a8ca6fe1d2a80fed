//! Whole flows against a small real issuer.

mod attacks;
mod flow;
mod logout;
mod refresh;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use serde_json::{Map, Value};

use super::testing::{TestIssuer, route, seconds};
use super::*;
use crate::clock::Clock;
use crate::identity::keys::{KeySource, KeyStoreSettings};
use crate::identity::{IdentityVerifier, Presented, PrincipalKind};
use crate::outbound::{OutboundClient, OutboundSettings};
use crate::peer::{Downstream, Peer, Scheme, Transport};
use crate::route::{EvidenceKind, Route};
use crate::target::{RequestTarget, Target};

/// Doorward's login, an issuer, and what happened.
struct World {
    home: tempfile::TempDir,
    clock: Clock,
    issuer: TestIssuer,
    state: Arc<LoginState>,
    login: Arc<Login>,
    events: Arc<Mutex<Records>>,
    route: Route,
}

/// What was put on record, and whether there is room for more.
#[derive(Default)]
struct Records {
    events: Vec<SessionEvent>,
    full: bool,
}

/// A browser: its jar.
#[derive(Clone, Debug, Default)]
struct Browser(BTreeMap<String, String>);

impl World {
    async fn new() -> Self {
        let clock = Clock::system();
        let issuer = TestIssuer::start(clock.clone()).await;
        let home = tempfile::tempdir().unwrap();
        let events = Arc::default();
        let (state, login) = open(&home, &clock, &issuer, &events);
        Self { home, clock, issuer, state, login, events, route: route() }
    }

    /// The process ends and starts again over the same directory.
    async fn restart(&mut self) {
        self.state.drain().await;
        (self.state, self.login) = open(&self.home, &self.clock, &self.issuer, &self.events);
    }

    fn settings(&self) -> LoginIssuerSettings {
        issuer_settings("okta", &self.issuer)
    }

    fn reload(&mut self, issuers: Vec<LoginIssuerSettings>) {
        let settings = LoginSettings { external_origin: "https://own.test".into(), issuers };
        self.login = Arc::new(Login::new(settings, self.state.clone()).unwrap());
    }

    async fn send(&self, browser: &mut Browser, method: Method, uri: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        browser.send(&mut head.headers);
        let response = self.login.handle(&head, &"request-1".into()).await;
        browser.take(response.headers().get_all(header::SET_COOKIE));
        response
    }

    async fn get(&self, browser: &mut Browser, uri: &str) -> Response<Body> {
        self.send(browser, Method::GET, uri, &[]).await
    }

    /// Begins a login; the issuer's authorization URL.
    async fn begin(&self, browser: &mut Browser, query: &str) -> String {
        location(&self.get(browser, &format!("/.doorward/login?{query}")).await)
    }

    /// A whole login; where the browser is sent in the end.
    async fn log_in(&self, browser: &mut Browser, query: &str) -> String {
        let callback = self.issuer.authorize(&self.begin(browser, query).await);
        let response = self.get(browser, &callback).await;
        assert_eq!(response.status(), 303);
        location(&response)
    }

    async fn ask(&self, browser: &Browser) -> Result<Arc<Principal>, IdentityError> {
        self.ask_with(browser, Method::GET, &[]).await
    }

    async fn ask_with(
        &self,
        browser: &Browser,
        method: Method,
        pairs: &[(&'static str, &str)],
    ) -> Result<Arc<Principal>, IdentityError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        browser.send(&mut headers);
        let verifier = SessionVerifier::new(self.login.clone());
        let peer = peer();
        let presented = self.presented(&method, &headers, &peer);
        if !verifier.presents(&presented)? {
            return Err(IdentityError::Missing);
        }
        let principal = verifier.verify(presented).await?;
        // As the line goes on.
        let leeway = self.login.leeway(&principal.issuer);
        let enough = meets(&self.route.login, &principal, leeway, self.clock.now());
        if enough { Ok(principal) } else { Err(IdentityError::StepUp) }
    }

    fn presented<'a>(&'a self, method: &'a Method, headers: &'a HeaderMap, peer: &'a Peer) -> Presented<'a> {
        let downstream = Downstream { address: peer.address.ip(), scheme: Scheme::Https };
        Presented { method, headers, peer, downstream, route: &self.route, now: self.clock.now() }
    }

    /// Asks, and takes the cookies that come with the answer.
    async fn visit(&self, browser: &mut Browser) -> Result<Arc<Principal>, IdentityError> {
        let principal = self.ask(browser).await?;
        let mut headers = HeaderMap::new();
        browser.send(&mut headers);
        let verifier = SessionVerifier::new(self.login.clone());
        let set = verifier.set_cookies(&verifier.shown(&headers), self.clock.now());
        browser.take(set.iter());
        Ok(principal)
    }

    /// Waits for the end of every refresh that runs.
    async fn settle(&self) {
        self.state.tasks.close();
        self.state.tasks.wait().await;
        self.state.tasks.reopen();
    }

    fn happened(&self) -> Vec<(SessionEventKind, &'static str)> {
        self.events.lock().unwrap().events.iter().map(|event| (event.kind, event.reason)).collect()
    }
}

fn open(
    home: &tempfile::TempDir,
    clock: &Clock,
    issuer: &TestIssuer,
    events: &Arc<Mutex<Records>>,
) -> (Arc<LoginState>, Arc<Login>) {
    let events = events.clone();
    let told: SessionEvents = Arc::new(move |event| {
        let mut records = events.lock().unwrap();
        if records.full {
            return Err(EventRefused);
        }
        records.events.push(event);
        Ok(())
    });
    let state = LoginState::open(LoginStateSettings::new(home.path().into()), clock.clone(), told).unwrap();
    let issuers = vec![issuer_settings("okta", issuer)];
    let settings = LoginSettings { external_origin: "https://own.test".into(), issuers };
    let login = Login::new(settings, state.clone()).unwrap();
    (state, Arc::new(login))
}

fn issuer_settings(name: &str, issuer: &TestIssuer) -> LoginIssuerSettings {
    let keys = KeyStoreSettings::new(name, KeySource::JwksUri(format!("{}/jwks", issuer.url)));
    LoginIssuerSettings {
        name: name.into(),
        issuer_url: issuer.url.clone(),
        client_id: "client".into(),
        client_secret: None,
        scopes: vec!["openid".into(), "offline_access".into()],
        parameters: Vec::new(),
        algorithms: vec!["ES256".into()],
        keys: Arc::new(KeyStore::new(keys, issuer.clock.clone()).unwrap()),
        leeway: Duration::from_secs(30),
        idle: Duration::from_secs(30 * 60),
        longest: Duration::from_secs(12 * 3600),
        project: Arc::new(project),
        outbound: OutboundClient::new(&OutboundSettings::default()).unwrap(),
    }
}

fn project(claims: &Map<String, Value>) -> Result<VerifiedIdentity, IdentityError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let texts = |name: &str| {
        let values = claims.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    if claims.contains_key("suspended") {
        return Err(IdentityError::invalid("claim_forbidden", "the account is suspended"));
    }
    let at = |name| seconds(claims, name).map(Timestamp::from_unix_seconds);
    Ok(VerifiedIdentity {
        kind: PrincipalKind::User,
        issuer: "projected".into(),
        subject: text("sub").unwrap().into(),
        evidence: EvidenceKind::Bearer,
        email: text("email"),
        groups: texts("groups"),
        scopes: Vec::new(),
        acr: text("acr"),
        amr: texts("amr"),
        authenticated_at: at("auth_time"),
        began_at: at("auth_time").or(at("iat")).unwrap(),
        expires_at: None,
        environment: None,
        attributes: BTreeMap::new(),
        claims: claims.clone(),
        fingerprint: [0; 32],
    })
}

fn target(method: Method, path: &str) -> Target {
    let request = Request::builder().method(method).uri(path).header("host", "own.test").body(()).unwrap();
    RequestTarget::of(&request.into_parts().0).unwrap().into_normal().unwrap()
}

fn peer() -> Peer {
    let address = "192.0.2.1:1".parse().unwrap();
    let transport = Transport::Tls;
    Peer { address, socket_address: address, listener: "public".into(), transport, tls: None, certificate: None }
}

impl Browser {
    fn send(&self, headers: &mut HeaderMap) {
        if !self.0.is_empty() {
            headers.insert(header::COOKIE, self.header().parse().unwrap());
        }
    }

    fn header(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn take<'a>(&mut self, lines: impl IntoIterator<Item = &'a HeaderValue>) {
        for line in lines {
            let line = line.to_str().unwrap();
            let (pair, attributes) = line.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            assert!(line.len() <= 4096 && attributes.contains("HttpOnly") && attributes.contains("Secure"), "{line}");
            assert!(attributes.contains("SameSite=Lax") && attributes.contains("Path=/"), "{line}");
            if attributes.contains("Max-Age=0;") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn session_cookies(&self) -> Vec<String> {
        self.0.keys().filter(|name| name.starts_with("__Host-doorward.")).cloned().collect()
    }

    fn login_cookies(&self) -> Vec<String> {
        let count = |name: &&String| name.starts_with("__Host-doorward_login_") && !name.ends_with("_count");
        self.0.keys().filter(count).cloned().collect()
    }
}

fn location(response: &Response<Body>) -> String {
    assert_eq!(response.status(), 303, "{:?}", response.headers());
    response.headers()[header::LOCATION].to_str().unwrap().to_owned()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn code(error: &Result<Arc<Principal>, IdentityError>) -> &'static str {
    error.as_ref().err().map_or("ok", IdentityError::code)
}
