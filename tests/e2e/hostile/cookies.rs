//! Session and login cookies that were forged, moved, kept or piled up.

use serde_json::{Value, json};

use crate::support::{Authority, Browser, Gate, HOST, ORIGIN, Provider, RecordingUpstream, RunningGate};

struct World {
    _provider: Provider,
    upstream: RecordingUpstream,
    gate: RunningGate,
    browser: Browser,
}

async fn signed_in() -> World {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::for_people(&authority, &provider, &upstream).start().await;
    gate.becomes_ready(200).await;
    let mut browser = Browser::start(gate.port()).await;
    browser.goto(&format!("{ORIGIN}/app/start")).await;
    assert_eq!(browser.sign_in("alice").await.status, 200);
    World { _provider: provider, upstream, gate, browser }
}

/// Doorward's cookies in the browser: name and value.
async fn own_cookies(browser: &mut Browser) -> Vec<(String, String)> {
    let text = |cookie: &Value, field: &str| cookie[field].as_str().unwrap().to_owned();
    let cookies = browser.cookies().await;
    let own = cookies.iter().filter(|cookie| cookie["domain"] == HOST);
    own.map(|cookie| (text(cookie, "name"), text(cookie, "value"))).collect()
}

fn header(cookies: &[(String, String)]) -> String {
    cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

async fn status(gate: &RunningGate, cookies: &str) -> u16 {
    gate.get("/app/x").header("cookie", cookies).send().await.status.as_u16()
}

#[tokio::test]
async fn a_session_cookie_with_one_character_changed_is_nobodys() {
    let mut world = signed_in().await;
    let cookies = own_cookies(&mut world.browser).await;
    assert_eq!(status(&world.gate, &header(&cookies)).await, 200);
    let before = world.upstream.received().len();
    let longest = cookies.iter().map(|(_, value)| value.len()).max().unwrap();
    for at in [0, longest / 3, longest / 2, longest - 1] {
        let mut forged = cookies.clone();
        for (_, value) in &mut forged {
            let at = at.min(value.len() - 1);
            let other = if &value[at..=at] == "A" { "B" } else { "A" };
            value.replace_range(at..=at, other);
        }
        assert_eq!(status(&world.gate, &header(&forged)).await, 401, "changed at {at}");
    }
    assert_eq!(world.upstream.received().len(), before);
}

#[tokio::test]
async fn a_cookie_value_under_another_name_is_nothing() {
    let mut world = signed_in().await;
    let cookies = own_cookies(&mut world.browser).await;
    let before = world.upstream.received().len();
    for rename in
        [|name: &str| format!("{name}.1"), |name: &str| name.replace("__Host-", ""), |name: &str| name.to_lowercase()]
    {
        let moved: Vec<_> = cookies.iter().map(|(name, value)| (rename(name), value.clone())).collect();
        if moved != cookies {
            assert_eq!(status(&world.gate, &header(&moved)).await, 401, "{}", header(&moved));
        }
    }
    assert_eq!(world.upstream.received().len(), before);
}

#[tokio::test]
async fn numbers_in_cookies_are_bounded() {
    let mut world = signed_in().await;
    let (name, _) = own_cookies(&mut world.browser).await.remove(0);
    for value in ["99999999", "99999999.x", "-1", "chunks:99999999"] {
        assert_eq!(status(&world.gate, &format!("{name}={value}; {name}.0={value}; {name}.99999999=x")).await, 401);
    }
}

#[tokio::test]
async fn a_session_cookie_twice_or_beside_a_token_is_refused() {
    let mut world = signed_in().await;
    let cookies = header(&own_cookies(&mut world.browser).await);
    assert_eq!(status(&world.gate, &format!("{cookies}; {cookies}")).await, 400);
    let both = world.gate.get("/app/x").header("cookie", &cookies).bearer("x.y.z").send().await;
    assert_eq!(both.status, 400);
}

#[tokio::test]
async fn a_copied_cookie_ends_with_its_session() {
    let mut world = signed_in().await;
    let copied = header(&own_cookies(&mut world.browser).await);
    assert_eq!(status(&world.gate, &copied).await, 200);
    let logout = world.browser.fetch("/.doorward/logout", json!({ "method": "POST", "redirect": "manual" })).await;
    assert!(logout["failed"].is_null(), "{logout}");
    assert_eq!(status(&world.gate, &copied).await, 401);
}

#[tokio::test]
async fn a_session_that_somebody_planted_does_not_become_the_victims() {
    let mut world = signed_in().await;
    let planted = own_cookies(&mut world.browser).await;
    assert_eq!(status(&world.gate, &header(&planted)).await, 200, "the attacker's session, in the victim's browser");
    world.browser.goto(&format!("{ORIGIN}/.doorward/login?return_to=/app/start&prompt=login")).await;
    assert_eq!(world.browser.sign_in("bob").await.url, format!("{ORIGIN}/app/start"));
    let own = own_cookies(&mut world.browser).await;
    assert!(planted.iter().all(|cookie| !own.contains(cookie)), "a cookie was used again");
    assert_eq!(status(&world.gate, &header(&own)).await, 403, "bob may do nothing here");
    assert_eq!(status(&world.gate, &header(&planted)).await, 401, "and whoever planted it has lost it");
    let ended = world.gate.audited("the end", |record| record.event() == "session.ended").await;
    assert_eq!((ended.text("reason"), ended.text("principal.subject")), ("replaced", "alice"));
}

#[tokio::test]
async fn forty_logins_begun_stay_under_sixteen_kilobytes() {
    let world = signed_in().await;
    let mut jar = std::collections::BTreeMap::new();
    for number in 0..40 {
        let long = "x".repeat(400);
        let cookies = jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let answer = world.gate.begin_login(&format!("/app/{number}?{long}"), &cookies).await;
        assert!(answer.status.is_redirection(), "login {number}: {answer:?}");
        for cookie in answer.set_cookies() {
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            let ended = cookie.to_ascii_lowercase().contains("max-age=0");
            if ended {
                jar.remove(name)
            } else {
                jar.insert(name.to_owned(), value.to_owned())
            };
        }
        let size: usize = jar.iter().map(|(name, value)| name.len() + value.len() + 3).sum();
        assert!(size < 16 * 1024, "{size} bytes after {number} logins");
    }
    assert!(!jar.is_empty());
}
