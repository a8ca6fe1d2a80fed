//! Refresh.

use tokio::sync::Semaphore;

use super::*;

#[tokio::test]
async fn fifty_parallel_requests_make_one_refresh_and_all_see_the_new_claims() {
    let world = World::new().await;
    let browser = aged(&world).await;
    let gate = Arc::new(Semaphore::new(0));
    world.issuer.inner.lock().unwrap().gate = Some(gate.clone());
    let asked = (0..50).map(|_| world.ask(&browser));
    let (answers, ()) = tokio::join!(futures_util::future::join_all(asked), async { gate.add_permits(1) });
    let groups: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().groups.clone()).collect();
    assert!(groups.iter().all(|seen| *seen == groups[0] && *seen != ["generation-2"]), "{groups:?}");
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1);
    assert_eq!(world.happened().last(), Some(&(SessionEventKind::Refreshed, "ok")));

    // Another tab with the old cookie, and a restart: the newest claims are the server's.
    let mut other = browser.clone();
    assert_eq!(world.visit(&mut other).await.unwrap().groups, groups[0]);
    assert_ne!(other.0, browser.0, "it gets the new cookie");
    let mut world = world;
    world.restart().await;
    assert_eq!(world.ask(&browser).await.unwrap().groups, groups[0]);
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1);
}

/// A session in use whose claims end within a minute.
async fn aged(world: &World) -> Browser {
    let mut browser = Browser::default();
    world.log_in(&mut browser, "").await;
    world.clock.advance(Duration::from_secs(25 * 60));
    world.visit(&mut browser).await.unwrap();
    world.clock.advance(Duration::from_secs(25 * 60));
    world.visit(&mut browser).await.unwrap();
    world.clock.advance(Duration::from_secs(9 * 60 + 5));
    browser
}

#[tokio::test]
async fn a_refreshed_session_is_the_same_evidence_with_other_claims() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let before = world.visit(&mut browser).await.unwrap();
    for minutes in [25, 25, 9] {
        world.clock.advance(Duration::from_secs(minutes * 60 + 2));
        world.visit(&mut browser).await.unwrap();
    }
    let after = world.ask(&browser).await.unwrap();
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1);
    assert_ne!(before.fingerprint, after.fingerprint);
    assert_eq!(before.evidence_id(), after.evidence_id());
    let mut other = Browser::default();
    world.log_in(&mut other, "").await;
    assert_ne!(world.ask(&other).await.unwrap().evidence_id(), after.evidence_id());
}

#[tokio::test]
async fn claims_that_live_for_seconds_are_refreshed_half_way_but_not_by_every_request() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.issuer.set(|mode| mode.lifetime = Some(20));
    world.log_in(&mut browser, "").await;
    world.ask(&browser).await.unwrap();
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 0);
    world.clock.advance(Duration::from_secs(10));
    for _ in 0..3 {
        world.ask(&browser).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(20));
    world.ask(&browser).await.unwrap();
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_the_refresh() {
    let world = World::new().await;
    let browser = aged(&world).await;
    let gate = Arc::new(Semaphore::new(0));
    world.issuer.inner.lock().unwrap().gate = Some(gate.clone());
    let hung_up = tokio::time::timeout(Duration::ZERO, world.ask(&browser)).await;
    assert!(hung_up.is_err());
    gate.add_permits(1);
    assert_ne!(world.ask(&browser).await.unwrap().groups, ["generation-2"]);
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1);
}

#[tokio::test]
async fn a_spent_refresh_token_ends_the_session_for_good() {
    let mut world = World::new().await;
    let browser = aged(&world).await;
    world.issuer.set(|mode| mode.invalid_grant = true);
    assert_eq!(code(&world.ask(&browser).await), "session_ended");
    world.issuer.set(|mode| mode.invalid_grant = false);
    assert_eq!(code(&world.ask(&browser).await), "session_ended");
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1, "never asked again");
    assert_eq!(world.happened().last(), Some(&(SessionEventKind::Ended, "invalid_grant")));
    world.restart().await;
    assert_eq!(code(&world.ask(&browser).await), "session_ended");
}

#[tokio::test]
async fn an_issuer_that_is_away_is_bridged_for_five_minutes() {
    let world = World::new().await;
    let browser = aged(&world).await;
    world.issuer.set(|mode| mode.down = true);
    assert!(world.ask(&browser).await.is_ok());
    world.clock.advance(Duration::from_secs(4 * 60));
    assert!(world.ask(&browser).await.is_ok());
    world.clock.advance(Duration::from_secs(2 * 60));
    assert_eq!(code(&world.ask(&browser).await), "issuer_unavailable");
    world.issuer.set(|mode| mode.down = false);
    world.clock.advance(Duration::from_secs(11));
    assert!(world.ask(&browser).await.is_ok(), "and mends by itself");
}

#[tokio::test]
async fn a_failed_refresh_is_not_repeated_by_every_request() {
    let world = World::new().await;
    let browser = aged(&world).await;
    world.issuer.set(|mode| drop(mode.refresh_claims.insert("ignored".into(), 1.into())));
    world.issuer.set(|mode| mode.down = true);
    for _ in 0..5 {
        world.ask(&browser).await.unwrap();
    }
    world.issuer.set(|mode| mode.down = false);
    world.ask(&browser).await.unwrap();
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 0, "it waits ten seconds");
    world.clock.advance(Duration::from_secs(10));
    world.ask(&browser).await.unwrap();
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1);
}

#[tokio::test]
async fn role_sessions_do_not_begin_anew_with_a_refresh() {
    let world = World::new().await;
    world.issuer.set(|mode| drop(mode.claims.insert("auth_time".into(), Value::Null)));
    let browser = aged(&world).await;
    let before = world.clock.now().minus(Duration::from_secs(50 * 60));
    let principal = world.ask(&browser).await.unwrap();
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1);
    assert!(principal.began_at < before, "it began with the login, though the new token is younger");
}

#[tokio::test]
async fn what_the_first_login_said_lasts_where_a_refresh_says_nothing() {
    let world = World::new().await;
    for name in ["auth_time", "acr"] {
        world.issuer.set(|mode| drop(mode.refresh_claims.insert(name.into(), Value::Null)));
    }
    let browser = aged(&world).await;
    let principal = world.ask(&browser).await.unwrap();
    assert_eq!(principal.acr.as_deref(), Some("basic"));
    assert!(principal.authenticated_at.is_some());
}

#[tokio::test]
async fn an_answer_without_an_id_token_keeps_the_claims() {
    let world = World::new().await;
    world.issuer.set(|mode| mode.no_id_token_at_refresh = true);
    let browser = aged(&world).await;
    assert_eq!(world.ask(&browser).await.unwrap().groups, ["generation-2"]);
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1);
}

#[tokio::test]
async fn another_subject_or_a_suspended_account_ends_the_session() {
    for (name, value, reason) in
        [("sub", "mallory", "another_subject"), ("suspended", "yes", "claims_refused"), ("aud", "other", "id_token")]
    {
        let world = World::new().await;
        let browser = aged(&world).await;
        world.issuer.set(|mode| drop(mode.refresh_claims.insert(name.into(), value.into())));
        assert_eq!(code(&world.ask(&browser).await), "session_ended", "{name}");
        assert_eq!(world.happened().last(), Some(&(SessionEventKind::Ended, reason)));
    }
}

#[tokio::test]
async fn without_a_refresh_token_a_session_ends_with_its_claims() {
    let world = World::new().await;
    world.issuer.set(|mode| mode.no_refresh_token = true);
    let mut browser = aged(&world).await;
    world.visit(&mut browser).await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(code(&world.ask(&browser).await), "session_expired");
}

#[tokio::test]
async fn a_logout_during_a_refresh_wins() {
    let world = World::new().await;
    let browser = aged(&world).await;
    let gate = Arc::new(Semaphore::new(0));
    world.issuer.inner.lock().unwrap().gate = Some(gate.clone());
    let asked = world.ask(&browser);
    let logout = async {
        let mut leaving = browser.clone();
        world.issuer.refresh_asked.notified().await;
        world.send(&mut leaving, Method::POST, "/.doorward/logout", &[("sec-fetch-site", "same-origin")]).await;
        gate.add_permits(1);
    };
    let (answer, ()) = tokio::join!(asked, logout);
    assert_eq!(code(&answer), "session_ended");
    assert_eq!(code(&world.ask(&browser).await), "session_ended");
}
