//! Browser sessions past the login: refresh, restart, parallel tabs.

use serde_json::{Value, json};

use crate::support::{Authority, Browser, Gate, ORIGIN, Provider, RecordingUpstream, RunningGate, eventually, now};

/// How long the first ID token of a session lives.
const ID_TOKEN_SECONDS: u64 = 6;

pub(crate) async fn signed_in() -> (Provider, RecordingUpstream, RunningGate, Browser) {
    signed_in_where(json!({})).await
}

/// Alice has signed in; `login` changes what the issuer's entry says about logins.
async fn signed_in_where(login: Value) -> (Provider, RecordingUpstream, RunningGate, Browser) {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::for_people(&authority, &provider, &upstream);
    let gate = gate.config(json!({ "issuers": { "people": { "login": login } } })).start().await;
    gate.becomes_ready(200).await;
    provider.id_tokens_live(ID_TOKEN_SECONDS).await;
    let mut browser = Browser::start(gate.port()).await;
    browser.goto(&format!("{ORIGIN}/app/start")).await;
    assert_eq!(browser.sign_in("alice").await.url, format!("{ORIGIN}/app/start"));
    (provider, upstream, gate, browser)
}

/// Doorward's cookies as a request carries them.
pub(crate) fn header(cookies: &[Value]) -> String {
    let own = cookies.iter().filter(|cookie| cookie["domain"] == crate::support::HOST);
    let pairs = own.map(|cookie| format!("{}={}", cookie["name"].as_str().unwrap(), cookie["value"].as_str().unwrap()));
    pairs.collect::<Vec<_>>().join("; ")
}

async fn status_of(browser: &mut Browser, path: &str) -> Value {
    browser.fetch(path, json!({})).await["status"].clone()
}

#[tokio::test]
async fn parallel_requests_refresh_a_session_exactly_once() {
    let (provider, _upstream, gate, mut browser) = signed_in().await;
    // What lives for less than two minutes is refreshed half-way.
    let half = now() + i64::try_from(ID_TOKEN_SECONDS / 2).unwrap();
    eventually("half of the ID token's life to pass", || async { (now() > half).then_some(()) }).await;
    provider.id_tokens_live(300).await;
    let all = "Promise.all([...Array(12).keys()].map((n) => fetch('/app/' + n).then((answer) => answer.status)))";
    assert_eq!(browser.evaluate(all).await, json!(vec![200; 12]));
    assert_eq!(status_of(&mut browser, "/app/after").await, 200);
    gate.audited("the refresh", |record| record.event() == "session.refreshed").await;
    assert_eq!(provider.count("refresh").await, 1, "one refresh for any number of parallel requests");
    let records = gate.settled_audit().await;
    let refreshed: Vec<_> = records.iter().filter(|record| record.event() == "session.refreshed").collect();
    assert_eq!(refreshed.len(), 1);
    assert_eq!(refreshed[0].text("principal.subject"), "alice");
}

#[tokio::test]
async fn a_restart_logs_nobody_out_and_revives_no_ended_session() {
    let (provider, _upstream, gate, mut browser) = signed_in().await;
    provider.id_tokens_live(300).await;
    assert_eq!(status_of(&mut browser, "/app/before").await, 200);
    let cookies = browser.cookies().await;
    let gate = gate.restart().await;
    assert_eq!(status_of(&mut browser, "/app/after").await, 200);

    let kept = header(&cookies);
    assert_eq!(gate.get("/app/kept").header("cookie", &kept).send().await.status, 200);
    let logout = gate.post("/.doorward/logout").header("cookie", &kept).header("sec-fetch-site", "same-origin");
    logout.header("origin", ORIGIN).send().await;
    assert_eq!(gate.get("/app/gone").header("cookie", &kept).send().await.status, 401);
    let gate = gate.restart().await;
    assert_eq!(gate.get("/app/gone").header("cookie", &kept).send().await.status, 401, "a restart revived a session");
}

#[tokio::test]
async fn new_keys_of_the_provider_do_not_break_its_logins() {
    let (provider, _upstream, _gate, mut browser) = signed_in().await;
    provider.rotate_keys().await;
    browser.clear_cookies().await;
    browser.goto(&format!("{ORIGIN}/app/again")).await;
    assert_eq!(browser.sign_in("alice").await.url, format!("{ORIGIN}/app/again"));
}

#[tokio::test]
async fn a_provider_that_is_away_costs_no_request_of_a_fresh_session() {
    let (provider, _upstream, _gate, mut browser) = signed_in().await;
    provider.id_tokens_live(300).await;
    assert_eq!(status_of(&mut browser, "/app/refreshed").await, 200);
    provider.go_away().await;
    assert_eq!(status_of(&mut browser, "/app/during").await, 200);
    provider.come_back().await;
}

#[tokio::test]
async fn an_idle_session_and_one_that_is_too_old_are_over_even_for_a_kept_cookie() {
    for login in [json!({ "idle": "8s" }), json!({ "idle": "8s", "longest": "8s" })] {
        let (provider, _upstream, gate, mut browser) = signed_in_where(login.clone()).await;
        let (kept, end) = (header(&browser.cookies().await), now() + 8);
        eventually("the session to end", || async { (now() > end).then_some(()) }).await;
        let answer = gate.get("/app/late").header("cookie", &kept).send().await;
        assert_eq!(answer.status, 401, "{login}");
        assert_eq!(gate.only_record_of("/app/late").await.verdict(), ("deny", "session_expired"), "{login}");
        assert_eq!(status_of(&mut browser, "/app/script").await, 401, "{login}");
        // A navigation gets a new session by itself, since the provider's own session goes on.
        let place = browser.goto(&format!("{ORIGIN}/app/again")).await;
        assert_eq!((place.url, place.status), (format!("{ORIGIN}/app/again"), 200));
        assert_eq!(provider.count("authorize").await, 2, "once for each session");
    }
}

#[tokio::test]
async fn a_logout_after_a_restart_still_ends_the_providers_session() {
    let (provider, _upstream, gate, mut browser) = signed_in().await;
    let gate = gate.restart().await;
    browser.goto(&format!("{ORIGIN}/.doorward/logout")).await;
    let place = browser.follow("button[type=submit]").await;
    assert!(place.url.starts_with(provider.url()), "{place:?}");
    assert_eq!(provider.count("logout").await, 1);
    gate.audited("the logout", |record| record.event() == "session.ended").await;
}

#[tokio::test]
async fn a_logout_does_not_wait_for_a_provider_that_is_away() {
    let (provider, _upstream, gate, mut browser) = signed_in().await;
    let gate = gate.restart().await;
    provider.go_away().await;
    browser.goto(&format!("{ORIGIN}/.doorward/logout")).await;
    let place = browser.follow("button[type=submit]").await;
    assert_eq!((place.url, place.status), (format!("{ORIGIN}/.doorward/signed-out"), 200));
    gate.audited("the logout", |record| record.event() == "session.ended").await;
}

#[tokio::test]
async fn a_second_process_on_one_state_directory_is_refused_and_a_restart_is_not() {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::for_people(&authority, &provider, &upstream).config(json!({ "limits": { "drain": "1s" } }));
    let gate = gate.start().await;
    gate.becomes_ready(200).await;
    let (code, told) = gate.rival_refuses().await;
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("another process uses the state directory"), "{told}");
    gate.becomes_ready(200).await;
    gate.restart().await.becomes_ready(200).await;
}

#[tokio::test]
async fn a_crash_loses_no_session_and_revives_no_ended_one() {
    let (provider, _upstream, gate, mut browser) = signed_in().await;
    provider.id_tokens_live(300).await;
    let half = now() + i64::try_from(ID_TOKEN_SECONDS / 2).unwrap();
    let gate = gate.crash().await;
    assert_eq!(status_of(&mut browser, "/app/signed-in").await, 200);

    eventually("half of the ID token's life to pass", || async { (now() > half).then_some(()) }).await;
    assert_eq!(status_of(&mut browser, "/app/refreshing").await, 200);
    gate.audited("the refresh", |record| record.event() == "session.refreshed").await;
    let gate = gate.crash().await;
    assert_eq!(status_of(&mut browser, "/app/refreshed").await, 200);
    assert_eq!(provider.count("refresh").await, 1, "what the refresh brought was on the disk");

    let kept = header(&browser.cookies().await);
    let logout = gate.post("/.doorward/logout").header("cookie", &kept).header("sec-fetch-site", "same-origin");
    assert_eq!(logout.header("origin", ORIGIN).send().await.status, 303);
    let gate = gate.crash().await;
    assert_eq!(gate.get("/app/gone").header("cookie", &kept).send().await.status, 401, "a crash revived a session");
}
