//! The session cookie as evidence.

use super::*;
use crate::login::session::SessionCookie;
use crate::login::store::Facts;
use crate::login::testing::HOUR;

const SESSION: &str = "__Host-doorward";

/// A session whose cookie fills several chunks.
async fn large() -> (World, Browser) {
    let (world, mut browser) = (World::new().await, Browser::default());
    let many: Vec<Value> = (0..400).map(|number| format!("group-{number:08}").into()).collect();
    world.issuer.set(|mode| drop(mode.claims.insert("groups".into(), many.into())));
    world.log_in(&mut browser, "").await;
    assert!(browser.session_cookies().len() >= 3, "{:?}", browser.session_cookies());
    (world, browser)
}

#[tokio::test]
async fn a_session_in_chunks_is_whole_or_nothing() {
    let (world, browser) = large().await;
    assert_eq!(world.ask(&browser).await.unwrap().groups.len(), 400);
    let name = |number: usize| format!("{SESSION}.{number}");
    let chunks = browser.session_cookies().len();
    for number in 0..chunks {
        let mut missing = browser.clone();
        missing.0.remove(&name(number));
        assert_eq!(code(&world.ask(&missing).await), "session_invalid", "without chunk {number}");
        let mut cut = browser.clone();
        cut.0.get_mut(&name(number)).unwrap().pop();
        assert_eq!(code(&world.ask(&cut).await), "session_invalid", "chunk {number} cut");
    }
    let mut reordered = browser.clone();
    let (first, second) = (browser.0[&name(0)].clone(), browser.0[&name(1)].clone());
    reordered.0.extend([(name(0), second), (name(1), first.clone())]);
    assert_eq!(code(&world.ask(&reordered).await), "session_invalid");
    let mut extra = browser.clone();
    extra.0.insert(name(chunks), first);
    assert_eq!(code(&world.ask(&extra).await), "session_invalid");
    let mut huge = browser.clone();
    huge.0.insert(format!("{SESSION}.99999999"), "x".into());
    assert_eq!(code(&world.ask(&huge).await), "session_invalid");
    let twice = format!("{SESSION}.0={}", browser.0[&name(0)]);
    assert_eq!(code(&world.ask_with(&browser, Method::GET, &[("cookie", &twice)]).await), "ok", "the jar replaces");
}

#[tokio::test]
async fn one_chunk_split_differently_is_refused() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let value = browser.0.remove(&format!("{SESSION}.0")).unwrap();
    let (a, b) = value.split_at(100);
    browser.0.extend([(format!("{SESSION}.0"), a.to_owned()), (format!("{SESSION}.1"), b.to_owned())]);
    assert_eq!(code(&world.ask(&browser).await), "session_invalid", "the count is inside");
}

#[tokio::test]
async fn no_altered_character_of_a_cookie_passes() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let name = format!("{SESSION}.0");
    let value = browser.0[&name].clone();
    for position in (0..value.len()).step_by(7) {
        let mut altered = value.clone().into_bytes();
        altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
        browser.0.insert(name.clone(), String::from_utf8(altered).unwrap());
        assert_eq!(code(&world.ask(&browser).await), "session_invalid", "position {position}");
    }
}

#[tokio::test]
async fn another_cookies_value_is_no_session() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.begin(&mut browser, "").await;
    let login = browser.0.values().next().unwrap().clone();
    browser.0.insert(format!("{SESSION}.0"), login);
    assert_eq!(code(&world.ask(&browser).await), "session_invalid");
}

#[tokio::test]
async fn a_chunk_twice_is_two_kinds_of_evidence() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let mut headers = HeaderMap::new();
    browser.send(&mut headers);
    browser.send(&mut headers);
    headers.append(header::COOKIE, format!("{SESSION}.0=x").parse().unwrap());
    let (peer, verifier) = (peer(), SessionVerifier::new(world.login.clone()));
    let seen = verifier.presents(&world.presented(&Method::GET, &headers, &peer));
    assert!(matches!(seen, Err(IdentityError::TwoKinds)));
}

#[tokio::test]
async fn an_idle_session_expires_and_a_used_one_slides() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let idle = browser.clone();
    let first = browser.0.clone();
    world.clock.advance(Duration::from_secs(4 * 60));
    world.visit(&mut browser).await.unwrap();
    assert_eq!(browser.0, first, "not written anew within five minutes");
    world.clock.advance(Duration::from_secs(60));
    world.visit(&mut browser).await.unwrap();
    assert_ne!(browser.0, first);
    world.clock.advance(Duration::from_secs(26 * 60));
    assert_eq!(code(&world.ask(&idle).await), "session_expired");
    assert!(world.ask(&browser).await.is_ok());
}

#[tokio::test]
async fn a_session_that_is_soon_idle_slides_sooner() {
    let (mut world, mut browser) = (World::new().await, Browser::default());
    world.reload(vec![LoginIssuerSettings { idle: Duration::from_secs(120), ..world.settings() }]);
    world.log_in(&mut browser, "").await;
    for _ in 0..5 {
        world.clock.advance(Duration::from_secs(90));
        world.visit(&mut browser).await.expect("it was used a minute and a half ago");
    }
    world.clock.advance(Duration::from_secs(121));
    assert_eq!(code(&world.ask(&browser).await), "session_expired");
}

#[tokio::test]
async fn no_use_carries_a_session_past_its_longest_time() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    for minutes in (0..12 * 60 - 20).step_by(20) {
        assert!(world.visit(&mut browser).await.is_ok(), "after {minutes} minutes");
        world.clock.advance(Duration::from_secs(20 * 60));
    }
    assert!(world.visit(&mut browser).await.is_ok());
    world.clock.advance(Duration::from_secs(20 * 60));
    assert_eq!(code(&world.ask(&browser).await), "session_expired");
}

#[tokio::test]
async fn a_restart_logs_nobody_out_and_revives_no_ended_session() {
    let (mut world, mut kept, mut ended) = (World::new().await, Browser::default(), Browser::default());
    world.log_in(&mut kept, "").await;
    world.log_in(&mut ended, "").await;
    let copy = ended.clone();
    world.send(&mut ended, Method::POST, "/.doorward/logout", &[("sec-fetch-site", "same-origin")]).await;
    assert_eq!(code(&world.ask(&copy).await), "session_ended");
    world.restart().await;
    assert!(world.ask(&kept).await.is_ok());
    assert_eq!(code(&world.ask(&copy).await), "session_ended");
}

#[tokio::test]
async fn a_login_begun_before_a_restart_ends_well_after_it() {
    let (mut world, mut browser) = (World::new().await, Browser::default());
    let callback = world.issuer.authorize(&world.begin(&mut browser, "return_to=/x").await);
    world.restart().await;
    assert_eq!(location(&world.get(&mut browser, &callback).await), "https://own.test/x");
}

#[tokio::test]
async fn sessions_survive_a_new_sealing_key_and_end_with_lost_ones() {
    let (mut world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let now = world.clock.now().plus(8 * 24 * HOUR);
    assert!(world.state.sealer.rotate(now, 7 * 24 * HOUR, 30 * 24 * HOUR).unwrap());
    world.restart().await;
    assert!(world.ask(&browser).await.is_ok());
    std::fs::remove_file(world.home.path().join("login/keys.json")).unwrap();
    world.restart().await;
    assert_eq!(code(&world.ask(&browser).await), "session_invalid");
}

#[tokio::test]
async fn a_reload_judges_a_session_by_the_new_configuration() {
    let (mut world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    world.reload(vec![LoginIssuerSettings { longest: Duration::from_secs(60), ..world.settings() }]);
    assert!(world.ask(&browser).await.is_ok());
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(code(&world.ask(&browser).await), "session_expired");
    world.reload(vec![LoginIssuerSettings { name: "other".into(), ..world.settings() }]);
    assert_eq!(code(&world.ask(&browser).await), "session_invalid", "its issuer is gone");
    let refuse: ClaimsToIdentity = Arc::new(|_| Err(IdentityError::invalid("claim_forbidden", "no")));
    world.reload(vec![LoginIssuerSettings { project: refuse, ..world.settings() }]);
    assert_eq!(code(&world.ask(&browser).await), "claim_forbidden");
}

#[tokio::test]
async fn a_session_belongs_to_the_issuer_and_the_client_that_it_began_with() {
    let (mut world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    for elsewhere in [
        LoginIssuerSettings { issuer_url: "https://other.test".into(), ..world.settings() },
        LoginIssuerSettings { client_id: "another".into(), ..world.settings() },
    ] {
        world.reload(vec![elsewhere]);
        assert_eq!(code(&world.ask(&browser).await), "session_invalid");
    }
    world.reload(vec![world.settings()]);
    assert!(world.ask(&browser).await.is_ok());
}

#[tokio::test]
async fn a_session_whose_end_could_not_be_written_is_written_later_and_never_revived() {
    let (mut world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let sessions = world.home.path().join("login/sessions");
    let aside = world.home.path().join("aside");
    std::fs::rename(&sessions, &aside).unwrap();
    let form = [("sec-fetch-site", "same-origin")];
    let old = browser.clone();
    let answer = world.send(&mut browser, Method::POST, "/.doorward/logout", &form).await;
    assert_eq!(answer.status(), 500);
    std::fs::rename(&aside, &sessions).unwrap();
    world.state.upkeep();
    world.restart().await;
    assert_eq!(code(&world.ask(&old).await), "session_ended");
}

#[tokio::test]
async fn a_shorter_session_leaves_no_chunk_of_a_longer_one() {
    let (world, mut browser) = large().await;
    world.issuer.set(|mode| mode.claims.clear());
    world.log_in(&mut browser, "").await;
    assert_eq!(browser.session_cookies(), [format!("{SESSION}.0")]);
    assert!(world.ask(&browser).await.is_ok());
}

#[tokio::test]
async fn claims_that_fit_no_cookie_stay_on_the_server() {
    let world = World::new().await;
    let many: Vec<Value> = (0..2000).map(|number| format!("group-{number:08}").into()).collect();
    let (now, claims) = (world.clock.now(), Map::from_iter([("groups".to_owned(), many.into())]));
    let facts = Some(Arc::new(Facts { claims, began_at: now }));
    let (sealed_at, idle_ends_at) = (now, now.plus(HOUR));
    let cookie = SessionCookie { id: "x".into(), issuer: "okta".into(), generation: 1, sealed_at, idle_ends_at, facts };
    assert!(world.login.seal_cookie(&cookie).unwrap().len() < 400);
}

#[tokio::test]
async fn a_cookie_is_no_evidence_for_another_sites_request() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let post = |pairs: &'static [(&'static str, &'static str)]| {
        let (world, browser) = (&world, &browser);
        async move { code(&world.ask_with(browser, Method::POST, pairs).await) }
    };
    assert_eq!(post(&[("sec-fetch-site", "same-origin")]).await, "ok");
    assert_eq!(post(&[("origin", "https://own.test")]).await, "ok");
    assert_eq!(post(&[("origin", "https://evil.test")]).await, "cross_origin");
    assert_eq!(post(&[("origin", "null")]).await, "cross_origin");
    assert_eq!(post(&[]).await, "cross_origin");
}

#[tokio::test]
async fn a_browser_whose_session_cannot_be_confirmed_any_more_goes_to_the_login() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let sent = |browser: &Browser, mode: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-mode", mode.parse().unwrap());
        browser.send(&mut headers);
        let (peer, target) = (peer(), target(Method::GET, "/a"));
        let presented = world.presented(&Method::GET, &headers, &peer);
        world.login.redirect_for(&presented, &target, LoginReason::Unconfirmed).map(|found| location(&found))
    };
    assert_eq!(sent(&browser, "navigate"), Some("/.doorward/login?issuer=okta&return_to=%2Fa".to_owned()));
    assert_eq!(sent(&browser, "cors"), None, "a script is told that the issuer is away");
    assert_eq!(sent(&Browser::default(), "navigate"), None, "without a session it is something else that is away");
}

#[tokio::test]
async fn an_answer_that_comes_after_a_new_login_leaves_its_session_alone() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let poll = browser.clone();
    world.clock.advance(Duration::from_secs(6 * 60));
    let verifier = SessionVerifier::new(world.login.clone());
    let mut headers = HeaderMap::new();
    poll.send(&mut headers);
    let shown = verifier.shown(&headers);
    assert!(!verifier.set_cookies(&shown, world.clock.now()).is_empty(), "it is time for a new cookie");
    world.log_in(&mut browser, "").await;
    assert_eq!(code(&world.ask(&poll).await), "ok", "what is under way may end well");
    assert!(verifier.set_cookies(&shown, world.clock.now()).is_empty(), "it would replace the newer session's cookie");
    assert_eq!(world.happened()[1..], [(SessionEventKind::Started, "ok"), (SessionEventKind::Ended, "replaced")]);
}

#[tokio::test]
async fn upkeep_replaces_the_sealing_key_and_keeps_the_old_one_for_what_it_sealed() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let keys = || std::fs::read_to_string(world.home.path().join("login/keys.json")).unwrap();
    world.log_in(&mut browser, "").await;
    let first = keys();
    world.state.upkeep();
    assert_eq!(keys(), first, "not before a week has passed");
    world.clock.advance(7 * 24 * HOUR);
    world.log_in(&mut browser, "").await;
    let sealed_before = browser.clone();
    world.state.upkeep();
    assert_ne!(keys(), first);
    assert!(world.ask(&sealed_before).await.is_ok(), "the old key opens");
    world.clock.advance(25 * HOUR);
    world.state.upkeep();
    let parsed: Value = serde_json::from_str(&keys()).unwrap();
    assert_eq!(parsed["keys"].as_array().unwrap().len(), 1, "and goes once nothing of it can be valid");
}
