//! Cookie-authenticated requests that another site makes.

use http::Method;

use crate::support::{Authority, Browser, Gate, HOST, ORIGIN, Provider, RecordingUpstream, RunningGate};

struct World {
    _provider: Provider,
    upstream: RecordingUpstream,
    gate: RunningGate,
    cookies: String,
}

async fn signed_in() -> World {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::for_people(&authority, &provider, &upstream)
        .route(
            "partner",
            serde_json::json!({
                "path": "/partner/{*rest}",
                "login": { "issuer": "people" },
                "csrf": { "origins": ["https://partner.test"] },
            }),
        )
        .start()
        .await;
    gate.becomes_ready(200).await;
    let mut browser = Browser::start(gate.port()).await;
    browser.goto(&format!("{ORIGIN}/app/start")).await;
    assert_eq!(browser.sign_in("alice").await.status, 200);
    let cookies = browser.cookies().await;
    let own = cookies.iter().filter(|cookie| cookie["domain"] == HOST);
    let pairs = own.map(|cookie| format!("{}={}", cookie["name"].as_str().unwrap(), cookie["value"].as_str().unwrap()));
    let cookies = pairs.collect::<Vec<_>>().join("; ");
    World { _provider: provider, upstream, gate, cookies }
}

impl World {
    async fn status(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = self.gate.request(method, path).header("cookie", &self.cookies);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send().await.status.as_u16()
    }
}

#[tokio::test]
async fn unsafe_requests_of_another_site_are_refused() {
    let world = signed_in().await;
    let before = world.upstream.received().len();
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for headers in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site"), ("origin", ORIGIN)],
            &[("origin", "https://evil.test")],
            &[("origin", "null")],
            &[("origin", "https://gate.test.evil.test")],
            &[("origin", "http://gate.test")],
            &[("origin", "https://gate.test:8443")],
            &[("origin", ORIGIN), ("origin", "https://evil.test")],
            &[("origin", "https://partner.test")],
            &[],
        ] {
            let status = world.status(method.clone(), "/app/x", headers).await;
            assert!(matches!(status, 400 | 403), "{method} {headers:?}: {status}");
        }
    }
    assert_eq!(world.upstream.received().len(), before);
}

#[tokio::test]
async fn the_pages_own_unsafe_requests_pass() {
    let world = signed_in().await;
    assert_eq!(world.status(Method::POST, "/app/x", &[("sec-fetch-site", "same-origin")]).await, 200);
    assert_eq!(world.status(Method::POST, "/app/x", &[("origin", ORIGIN)]).await, 200);
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(world.status(Method::GET, "/app/x", &link).await, 200, "a link may be followed");
    let partner = [("sec-fetch-site", "cross-site"), ("origin", "https://partner.test")];
    assert_eq!(world.status(Method::POST, "/partner/x", &partner).await, 200, "the route names this origin");
}

#[tokio::test]
async fn another_site_may_link_here_but_not_fetch_with_the_session() {
    let world = signed_in().await;
    let before = world.upstream.received().len();
    for mode in [Some("no-cors"), Some("cors"), Some("same-origin"), Some("websocket"), None] {
        let mut headers = vec![("sec-fetch-site", "cross-site")];
        headers.extend(mode.map(|mode| ("sec-fetch-mode", mode)));
        assert_eq!(world.status(Method::GET, "/app/x", &headers).await, 403, "{mode:?}");
    }
    let form = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(world.status(Method::POST, "/app/x", &form).await, 403, "a form of another site");
    assert_eq!(world.upstream.received().len(), before);
}

#[tokio::test]
async fn another_site_cannot_sign_a_person_out() {
    let world = signed_in().await;
    world.status(Method::GET, "/.doorward/logout", &[]).await;
    world
        .status(Method::POST, "/.doorward/logout", &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.test")])
        .await;
    assert_eq!(world.status(Method::GET, "/app/x", &[]).await, 200);
}

#[tokio::test]
async fn a_websocket_of_another_site_is_refused() {
    let world = signed_in().await;
    let before = world.upstream.received().len();
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "https://evil.test"),
    ];
    let status = world.status(Method::GET, "/app/socket", &upgrade).await;
    assert!(matches!(status, 400 | 403), "{status}");
    assert_eq!(world.upstream.received().len(), before);
}
