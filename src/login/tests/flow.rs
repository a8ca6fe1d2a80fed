//! Logging in.

use super::*;
use crate::login::testing::HOUR;

#[tokio::test]
async fn a_login_leads_back_to_the_page_with_a_session() {
    let (world, mut browser) = (World::new().await, Browser::default());
    assert_eq!(code(&world.ask(&browser).await), "unauthenticated");
    assert_eq!(world.log_in(&mut browser, "return_to=/a%3Fb%3Dc").await, "https://own.test/a?b=c");
    let principal = world.ask(&browser).await.unwrap();
    assert_eq!((&**principal.id(), principal.evidence), ("okta|alice", EvidenceKind::Session));
    assert_eq!(world.happened(), [(SessionEventKind::Started, "ok")]);
    let event = world.events.lock().unwrap().events[0].clone();
    assert_eq!((&*event.issuer, &**event.principal.unwrap().id()), ("okta", "okta|alice"));
    assert_eq!(browser.login_cookies(), [""; 0], "the attempt's cookie is gone");
}

#[tokio::test]
async fn ten_tabs_log_in_at_once_and_all_succeed() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let mut callbacks = Vec::new();
    for tab in 0..10 {
        let url = world.begin(&mut browser, &format!("return_to=/tab/{tab}")).await;
        callbacks.push((tab, world.issuer.authorize(&url)));
    }
    callbacks.reverse();
    let shared = browser.clone();
    let answers = callbacks.iter().map(|(tab, callback)| {
        let (world, mut browser) = (&world, shared.clone());
        async move { (*tab, world.get(&mut browser, callback).await, browser) }
    });
    for (tab, response, own) in futures_util::future::join_all(answers).await {
        assert_eq!(location(&response), format!("https://own.test/tab/{tab}"));
        assert!(world.ask(&own).await.is_ok(), "tab {tab}");
        browser.take(response.headers().get_all(header::SET_COOKIE));
    }
    assert!(world.ask(&browser).await.is_ok());
}

#[tokio::test]
async fn tabs_one_after_the_other_in_one_jar_all_succeed() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let mut callbacks = Vec::new();
    for _ in 0..10 {
        callbacks.push(world.issuer.authorize(&world.begin(&mut browser, "return_to=/").await));
    }
    for callback in callbacks {
        let before = browser.clone();
        assert_eq!(world.get(&mut browser, &callback).await.status(), 303);
        assert!(world.ask(&browser).await.is_ok());
        let in_flight = world.ask(&before).await;
        assert!(in_flight.is_ok() || code(&in_flight) == "unauthenticated", "a request in flight is served");
    }
}

#[tokio::test]
async fn a_session_begins_under_a_new_identifier_and_the_old_one_ends() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let old = browser.clone();
    world.issuer.set(|mode| drop(mode.claims.insert("sub".into(), "mallory".into())));
    world.log_in(&mut browser, "").await;
    assert_eq!(&*world.ask(&browser).await.unwrap().subject, "mallory");
    assert_eq!(code(&world.ask(&old).await), "session_ended", "another user's session ends at once");

    let old = browser.clone();
    world.log_in(&mut browser, "").await;
    assert!(world.ask(&old).await.is_ok(), "the same user's other tabs have a minute");
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(code(&world.ask(&old).await), "session_expired");
    assert!(world.ask(&browser).await.is_ok());
}

#[tokio::test]
async fn forty_logins_begun_stay_under_sixteen_kilobytes_of_cookies() {
    let world = World::new().await;
    let long = format!("return_to=/{}", "x".repeat(2000));
    for query in ["return_to=/a/b?c=d", &long] {
        let mut browser = Browser::default();
        for _ in 0..40 {
            world.begin(&mut browser, query).await;
            assert!(browser.header().len() < 12_000, "{}", browser.header().len());
            assert!(browser.login_cookies().len() <= 12);
        }
        // All at once, none knowing of the others.
        let mut jar = Browser::default();
        for _ in 0..if query.len() < 100 { 40 } else { 0 } {
            let response = world.get(&mut Browser::default(), &format!("/.doorward/login?{query}")).await;
            jar.take(response.headers().get_all(header::SET_COOKIE));
        }
        assert!(jar.header().len() < 16_000, "{}", jar.header().len());
        let url = world.begin(&mut jar, "return_to=/last").await;
        assert!(jar.login_cookies().len() <= 12);
        assert_eq!(world.get(&mut jar, &world.issuer.authorize(&url)).await.status(), 303, "the newest is kept");
    }
}

#[tokio::test]
async fn an_issuer_out_of_reach_is_a_page_and_mends_by_itself() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.issuer.set(|mode| mode.down = true);
    let response = world.get(&mut browser, "/.doorward/login?return_to=/x").await;
    assert_eq!(response.status(), 503);
    assert!(text(response).await.contains("issuer_unavailable"));
    world.issuer.set(|mode| mode.down = false);
    world.clock.advance(Duration::from_secs(3));
    world.log_in(&mut browser, "return_to=/x").await;
}

#[tokio::test]
async fn metadata_is_fetched_once_an_hour_and_the_last_good_serves_meanwhile() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let starts = (0..20).map(|_| {
        let world = &world;
        async move { world.begin(&mut Browser::default(), "").await }
    });
    futures_util::future::join_all(starts).await;
    assert_eq!(world.issuer.calls(|calls| calls.discovery), 1);
    world.clock.advance(HOUR);
    world.issuer.set(|mode| mode.down = true);
    world.begin(&mut browser, "").await;
    world.issuer.set(|mode| mode.down = false);
    world.clock.advance(Duration::from_secs(3));
    world.begin(&mut browser, "").await;
    assert_eq!(world.issuer.calls(|calls| calls.discovery), 2);
}

#[tokio::test]
async fn a_new_signing_key_is_found_at_once_but_asked_for_at_most_every_thirty_seconds() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let before = world.issuer.calls(|calls| calls.keys);
    world.issuer.rotate_keys();
    world.log_in(&mut browser, "").await;
    assert_eq!(world.issuer.calls(|calls| calls.keys), before + 1);

    world.issuer.rotate_keys();
    let callback = world.issuer.authorize(&world.begin(&mut browser, "").await);
    assert_eq!(world.get(&mut browser, &callback).await.status(), 502);
    assert_eq!(world.issuer.calls(|calls| calls.keys), before + 1, "the issuer is not asked by every login");
    world.clock.advance(Duration::from_secs(30));
    world.log_in(&mut browser, "again=1").await;
    assert_eq!(world.issuer.calls(|calls| calls.keys), before + 2);
}

#[tokio::test]
async fn several_issuers_are_a_choice() {
    let (mut world, mut browser) = (World::new().await, Browser::default());
    world.reload(vec![world.settings(), LoginIssuerSettings { name: "other".into(), ..world.settings() }]);
    let response = world.get(&mut browser, "/.doorward/login?return_to=/x").await;
    assert_eq!(response.status(), 200);
    let page = text(response).await.replace("&#x2f;", "/").replace("&amp;", "&");
    assert!(page.contains("/.doorward/login?issuer=okta&return_to=%2Fx") && page.contains("issuer=other"), "{page}");
    assert_eq!(world.get(&mut browser, "/.doorward/login?issuer=none").await.status(), 404);

    let third = LoginIssuerSettings { name: "third".into(), ..world.settings() };
    world.reload(vec![world.settings(), LoginIssuerSettings { name: "other".into(), ..world.settings() }, third]);
    let response = world.get(&mut browser, "/.doorward/login?among=okta&among=other&among=none&return_to=/x").await;
    let page = text(response).await;
    assert!(page.contains("issuer=okta") && page.contains("issuer=other"), "{page}");
    assert!(!page.contains("third") && !page.contains("among") && !page.contains("issuer=none"), "{page}");
    world.log_in(&mut browser, "among=other").await;
    assert_eq!(&*world.ask(&browser).await.unwrap().issuer, "other", "one is no choice");
    world.log_in(&mut browser, "issuer=other").await;
    assert_eq!(&*world.ask(&browser).await.unwrap().issuer, "other");
}

#[tokio::test]
async fn only_a_browser_that_navigates_is_sent_to_log_in() {
    let mut world = World::new().await;
    world.route.login.issuer = Some("okta".into());
    let sent = |method: Method, pairs: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        let (peer, target) = (peer(), target(method.clone(), "/a?b=c"));
        let presented = world.presented(&method, &headers, &peer);
        world.login.redirect_for(&presented, &target, LoginReason::Unauthenticated).map(|found| location(&found))
    };
    let expected = Some("/.doorward/login?issuer=okta&return_to=%2Fa%3Fb%3Dc".to_owned());
    let html = ("accept", "text/html,*/*");
    assert_eq!(sent(Method::GET, &[html]), expected);
    assert_eq!(sent(Method::HEAD, &[("sec-fetch-mode", "navigate")]), expected);
    let own_word = [("sec-fetch-mode", "navigate"), ("authorization", "Basic x")];
    assert_eq!(sent(Method::GET, &own_word), expected, "a browser may remember a password");
    for pairs in [
        &[("accept", "application/json")][..],
        &[],
        &[html, ("x-requested-with", "XMLHttpRequest")],
        &[html, ("sec-fetch-mode", "cors")],
        &[html, ("upgrade", "websocket")],
        &[html, ("content-type", "application/grpc")],
        &[html, ("authorization", "Bearer x.y.z")],
    ] {
        assert_eq!(sent(Method::GET, pairs), None, "{pairs:?}");
    }
    assert_eq!(sent(Method::POST, &[html]), None);
}

#[tokio::test]
async fn a_route_that_asks_for_more_gets_a_stronger_login() {
    let (mut world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    world.route.login.acr_values = vec!["mfa".into()];
    world.route.login.max_age = Some(HOUR);
    assert_eq!(code(&world.ask(&browser).await), "insufficient_user_authentication");
    let mut headers = HeaderMap::new();
    browser.send(&mut headers);
    headers.insert("sec-fetch-mode", "navigate".parse().unwrap());
    let (peer, target) = (peer(), target(Method::GET, "/a"));
    let presented = world.presented(&Method::GET, &headers, &peer);
    let step_up = world.login.redirect_for(&presented, &target, LoginReason::StepUp).unwrap();
    let url = location(&world.get(&mut browser, &location(&step_up)).await);
    assert!(url.contains("acr_values=mfa") && url.contains("max_age=3600"), "{url}");

    let weak = world.get(&mut browser.clone(), &world.issuer.authorize(&url)).await;
    assert_eq!(weak.status(), 403, "an issuer that does not do it is a page, not a circle");
    let page = text(weak).await.replace("&amp;", "&");
    assert!(page.contains("acr_values=mfa&max_age=3600&prompt=login"), "trying again asks for the same: {page}");
    world.issuer.set(|mode| drop(mode.claims.insert("acr".into(), "mfa".into())));
    world.log_in(&mut browser, "acr_values=mfa&max_age=3600").await;
    assert!(world.ask(&browser).await.is_ok());
    for _ in 0..2 {
        world.clock.advance(Duration::from_secs(25 * 60));
        assert!(world.visit(&mut browser).await.is_ok());
    }
    world.issuer.set(|mode| drop(mode.refresh_claims.insert("auth_time".into(), Value::Null)));
    world.clock.advance(Duration::from_secs(11 * 60));
    assert_eq!(code(&world.ask(&browser).await), "insufficient_user_authentication", "a refresh is no new login");
}

#[tokio::test]
async fn logins_that_lead_nowhere_stop_after_three() {
    let (world, mut browser) = (World::new().await, Browser::default());
    for _ in 0..3 {
        world.log_in(&mut browser, "return_to=/loop").await;
    }
    let stopped = world.get(&mut browser, "/.doorward/login?return_to=/loop").await;
    assert_eq!(stopped.status(), 429);
    assert!(text(stopped).await.contains("login_loop"));
    world.begin(&mut browser, "return_to=/loop&again=1").await;
    world.clock.advance(Duration::from_secs(61));
    world.log_in(&mut browser, "return_to=/loop").await;
}

#[tokio::test]
async fn an_address_too_long_to_come_back_to_still_leads_to_the_login() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let mut headers = HeaderMap::new();
    headers.insert("sec-fetch-mode", "navigate".parse().unwrap());
    let peer = peer();
    for (length, kept) in [(2000, true), (3000, false), (9000, false)] {
        let target = target(Method::GET, &format!("/a?{}", "/".repeat(length)));
        let presented = world.presented(&Method::GET, &headers, &peer);
        let login = world.login.redirect_for(&presented, &target, LoginReason::Unauthenticated).unwrap();
        assert_eq!(location(&login).contains("return_to="), kept, "{length}");
        let url = location(&world.get(&mut browser, &location(&login)).await);
        assert!(url.starts_with(&world.issuer.url), "{length}: {url}");
    }
}

#[tokio::test]
async fn a_login_that_cannot_be_recorded_is_none() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let before = browser.session_cookies();
    let callback = world.issuer.authorize(&world.begin(&mut browser, "").await);
    world.events.lock().unwrap().full = true;
    let answer = world.get(&mut browser, &callback).await;
    assert_eq!(answer.status(), 503);
    assert!(text(answer).await.contains("audit_queue_full"));
    assert_eq!(browser.session_cookies(), before);
    assert!(world.ask(&browser).await.is_ok(), "the session that was there goes on");
}

#[tokio::test]
async fn a_login_that_is_recent_enough_by_the_issuers_clock_leads_to_the_page() {
    for (seconds_off, taken) in [(15, true), (45, false)] {
        let (mut world, mut browser) = (World::new().await, Browser::default());
        let at = world.clock.now().unix_seconds() - 60 - seconds_off;
        world.route.login.max_age = Some(Duration::from_secs(60));
        world.issuer.set(|mode| drop(mode.claims.insert("auth_time".into(), at.into())));
        let callback = world.issuer.authorize(&world.begin(&mut browser, "max_age=60").await);
        let status = world.get(&mut browser, &callback).await.status().as_u16();
        assert_eq!(status == 303, taken, "{seconds_off} s");
        assert_eq!(world.ask(&browser).await.is_ok(), taken, "{seconds_off} s");
    }
}

#[tokio::test]
async fn what_an_issuer_wants_besides_goes_with_the_authorization_request() {
    let (mut world, mut browser) = (World::new().await, Browser::default());
    let parameters = [("access_type", "offline"), ("prompt", "consent")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    world.reload(vec![LoginIssuerSettings { parameters, ..world.settings() }]);
    let url = world.begin(&mut browser, "").await;
    assert!(url.contains("access_type=offline") && url.contains("prompt=consent"), "{url}");
    let url = world.begin(&mut browser, "prompt=login").await;
    assert!(url.contains("prompt=login") && !url.contains("consent"), "one prompt at a time: {url}");
}
