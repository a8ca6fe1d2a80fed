//! A person with a real browser, at a real provider's own pages.

use serde_json::json;

use crate::support::{Authority, Browser, Gate, ORIGIN, Provider, RecordingUpstream, RunningGate};

async fn world() -> (Provider, RecordingUpstream, RunningGate, Browser) {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::for_people(&authority, &provider, &upstream).start().await;
    gate.becomes_ready(200).await;
    let browser = Browser::start(gate.port()).await;
    (provider, upstream, gate, browser)
}

#[tokio::test]
async fn a_person_signs_in_reads_a_page_and_signs_out() {
    let (provider, upstream, gate, mut browser) = world().await;
    let page = format!("{ORIGIN}/app/invoices?year=2026");
    let place = browser.goto(&page).await;
    assert!(place.url.starts_with(provider.url()), "not at the provider: {place:?}");
    upstream.heard_nothing();

    let place = browser.sign_in("alice").await;
    assert_eq!((place.url.as_str(), place.title.as_str(), place.status), (page.as_str(), "Upstream", 200));
    let received = upstream.receives("the page", |received| received.target == "/app/invoices?year=2026").await;
    assert_eq!(received.header("cookie"), None, "a cookie of Doorward's reached the upstream");
    let assertion = received.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let claims = gate.verify_assertion(assertion, &upstream.url()).await;
    assert_eq!(claims["sub"], "people|alice");

    for cookie in browser.cookies().await.iter().filter(|cookie| cookie["domain"] == crate::support::HOST) {
        assert!(cookie["name"].as_str().unwrap().starts_with("__Host-"), "{cookie}");
        assert_eq!(
            (&cookie["secure"], &cookie["httpOnly"], &cookie["path"]),
            (&json!(true), &json!(true), &json!("/"))
        );
        gate.never_wrote(cookie["value"].as_str().unwrap());
    }
    assert_eq!(browser.evaluate("document.cookie").await, "");

    let record =
        gate.audited("the page", |record| record.is_request_to("/app/invoices") && record.value("status") == 200);
    let record = record.await;
    assert_eq!((record.text("principal.subject"), record.verdict()), ("alice", ("allow", "ok")));
    gate.audited("the login", |record| record.event() == "session.started").await;

    // Doorward's own page asks, since a mere link must sign nobody out.
    browser.goto(&format!("{ORIGIN}/.doorward/logout")).await;
    let place = browser.follow("button[type=submit]").await;
    // The provider asks whether to end its own session too.
    if place.url.starts_with(provider.url()) {
        browser.follow("button[name=logout]").await;
    }
    assert_eq!(provider.count("logout").await, 1, "the provider was told");
    gate.audited("the logout", |record| record.event() == "session.ended").await;
    assert!(browser.place().await.url.starts_with(&format!("{ORIGIN}/.doorward/signed-out")));
    let place = browser.goto(&page).await;
    assert!(place.url.starts_with(provider.url()), "the provider's own session goes on: {place:?}");
    let records = gate.settled_audit().await;
    for name in ["session.started", "session.ended"] {
        assert_eq!(records.iter().filter(|record| record.event() == name).count(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_person_without_the_role_sees_a_page_with_a_code_and_the_request_id() {
    let (_provider, upstream, gate, mut browser) = world().await;
    browser.goto(&format!("{ORIGIN}/app/invoices")).await;
    let place = browser.sign_in("bob").await;
    assert_eq!((place.url, place.status), (format!("{ORIGIN}/app/invoices"), 403));
    let text = browser.text().await;
    let record = gate.audited("the denial", |record| record.value("status") == 403).await;
    assert_eq!(record.verdict(), ("deny", "not_permitted"));
    assert!(text.contains("not_permitted") && text.contains(record.text("request_id")), "{text}");
    assert!(!browser.html().await.contains("admins-may"), "the page tells which rule decided");
    let place = browser.follow("a[href='/.doorward/logout']").await;
    assert_eq!(place.title, "Sign out", "somebody who may not do this may want to be somebody else");
    upstream.heard_nothing();
}

#[tokio::test]
async fn ten_tabs_that_begin_a_login_each_arrive() {
    let (_provider, _upstream, _gate, mut browser) = world().await;
    for number in 0..10 {
        browser.use_tab(&format!("tab {number}"));
        browser.goto(&format!("{ORIGIN}/app/{number}")).await;
    }
    for number in 0..10 {
        browser.use_tab(&format!("tab {number}"));
        let place = browser.sign_in("alice").await;
        assert_eq!((place.url, place.status), (format!("{ORIGIN}/app/{number}"), 200));
    }
}

#[tokio::test]
async fn a_route_of_several_issuers_lets_the_person_choose() {
    let authority = Authority::new();
    let (people, partners) = (Provider::start(&authority).await, Provider::start(&authority).await);
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::for_people(&authority, &people, &upstream)
        .provider_named("partners", &partners)
        .role("partner", json!({ "issuer": "partners", "groups": ["sales"] }))
        .route("both", json!({ "path": "/both/{*rest}" }))
        .policy(r#"@id("partners-may") permit(principal in Role::"partner", action, resource);"#);
    let gate = gate.start().await;
    gate.becomes_ready(200).await;
    let mut browser = Browser::start(gate.port()).await;

    let page = format!("{ORIGIN}/both/x?year=2026&month=1");
    let place = browser.goto(&page).await;
    assert_eq!((place.title.as_str(), place.status), ("Sign in", 200));
    assert!(browser.text().await.contains("people"));
    let place = browser.follow("a[href*='issuer=partners']").await;
    assert!(place.url.starts_with(partners.url()), "{place:?}");
    let place = browser.sign_in("bob").await;
    assert_eq!((place.url, place.status), (page, 200));
    assert_eq!(people.count("authorize").await, 0);
    let record = gate.audited("the page", |record| record.is_request_to("/both/x") && record.value("status") == 200);
    assert_eq!(record.await.text("principal.issuer"), "partners");
    assert_eq!(browser.fetch("/app/x", json!({})).await["status"], 403, "this route takes people only");
}

#[tokio::test]
async fn only_a_navigation_is_sent_to_the_login() {
    let (provider, upstream, gate, _browser) = world().await;
    let navigation = gate.get("/app/x").navigation().send().await;
    assert!(matches!(navigation.status.as_u16(), 302 | 303), "{navigation:?}");
    let program = gate.get("/app/x").send().await;
    assert_eq!(program.status, 401);
    assert!(program.header("www-authenticate").is_some() && program.set_cookies().is_empty());
    let script = gate.get("/app/x").header("accept", "text/html").header("sec-fetch-mode", "cors").send().await;
    assert_eq!(script.status, 401);
    let xhr = gate.get("/app/x").navigation().header("x-requested-with", "XMLHttpRequest").send().await;
    assert_eq!(xhr.status, 401);
    // The route takes tokens as well as sessions.
    let bearer = gate.get("/app/x").bearer("x.y.z").header("accept", "text/html").send().await;
    assert_eq!(bearer.status, 401);
    assert!(bearer.header("www-authenticate").is_some(), "{bearer:?}");
    let post = gate.post("/app/x").navigation().send().await;
    assert_eq!(post.status, 401, "a form's body would be lost");
    let socket = gate.get("/app/x").header("accept", "text/html").header("connection", "Upgrade");
    let socket = socket.header("upgrade", "websocket").header("sec-websocket-version", "13");
    let socket = socket.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").send().await;
    assert_eq!(socket.status, 401);
    let call = gate.post("/app/x").header("content-type", "application/grpc").header("te", "trailers");
    let call = call.send_http2().await;
    assert_eq!((call.status.as_u16(), call.header("grpc-status")), (200, Some("16")), "{call:?}");
    for answer in [&program, &script, &xhr, &bearer, &post, &socket, &call] {
        assert!(answer.header("location").is_none() && answer.set_cookies().is_empty(), "{answer:?}");
    }
    assert_eq!(provider.count("authorize").await, 0);
    upstream.heard_nothing();
}
