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

/// A session in use whose claims have just ended: whoever asks waits for the refresh.
async fn aged(world: &World) -> Browser {
    let browser = ageing(world).await;
    world.clock.advance(Duration::from_secs(60));
    browser
}

/// A session in use whose claims end within a minute.
async fn ageing(world: &World) -> Browser {
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
        world.settle().await;
    }
    world.clock.advance(Duration::from_secs(20));
    world.ask(&browser).await.unwrap();
    world.settle().await;
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
    world.issuer.set(|mode| mode.refuse_refresh = Some((400, "invalid_grant")));
    assert_eq!(code(&world.ask(&browser).await), "session_ended");
    world.issuer.set(|mode| mode.refuse_refresh = None);
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
    let mut browser = ageing(&world).await;
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

#[tokio::test]
async fn a_refresh_token_that_came_with_an_unknown_key_is_not_lost() {
    let mut world = World::new().await;
    let browser = aged(&world).await;
    world.issuer.rotate_keys();
    world.issuer.set(|mode| mode.keys_down = true);
    assert_eq!(world.ask(&browser).await.unwrap().groups, ["generation-2"], "the claims hold on");
    world.restart().await;
    world.issuer.set(|mode| mode.keys_down = false);
    world.clock.advance(Duration::from_secs(10));
    assert_ne!(world.ask(&browser).await.unwrap().groups, ["generation-2"], "the rotated token serves");
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 2);
}

#[tokio::test]
async fn a_second_new_key_within_half_a_minute_ends_no_session() {
    let world = World::new().await;
    let (one, mut other) = (ageing(&world).await, Browser::default());
    let groups = async || {
        world.ask(&one).await.unwrap();
        world.settle().await;
        world.ask(&one).await.unwrap().groups.clone()
    };
    // The first login finds keys that are due for a fetch of their own; the second one's fetch is for its key.
    world.issuer.rotate_keys();
    world.log_in(&mut other, "").await;
    world.clock.advance(Duration::from_secs(31));
    world.issuer.rotate_keys();
    world.log_in(&mut Browser::default(), "").await;
    world.issuer.rotate_keys();
    assert_eq!(groups().await, ["generation-2"], "its key is asked for later");
    world.clock.advance(Duration::from_secs(31));
    assert_ne!(groups().await, ["generation-2"]);
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 2);
}

#[tokio::test]
async fn what_an_issuer_refuses_for_good_ends_the_session_and_its_own_trouble_does_not() {
    for error in ["interaction_required", "login_required", "consent_required", "access_denied", "invalid_scope"] {
        let world = World::new().await;
        let browser = aged(&world).await;
        world.issuer.set(|mode| mode.refuse_refresh = Some((400, error)));
        assert_eq!(code(&world.ask(&browser).await), "session_ended", "{error}");
        assert_eq!(world.happened().last(), Some(&(SessionEventKind::Ended, "refresh_refused")), "{error}");
    }
    for refusal in [
        (401, "invalid_client"),
        (400, "temporarily_unavailable"),
        (400, "server_error"),
        (500, "access_denied"),
        (429, "access_denied"),
    ] {
        let world = World::new().await;
        let browser = aged(&world).await;
        world.issuer.set(|mode| mode.refuse_refresh = Some(refusal));
        assert_eq!(code(&world.ask(&browser).await), "ok", "{refusal:?}");
        world.issuer.set(|mode| mode.refuse_refresh = None);
        world.clock.advance(Duration::from_secs(10));
        assert_ne!(world.ask(&browser).await.unwrap().groups, ["generation-2"], "{refusal:?}");
    }
}

#[tokio::test]
async fn a_refresh_that_hangs_holds_nobody_up_while_the_claims_hold() {
    let world = World::new().await;
    let browser = ageing(&world).await;
    let gate = Arc::new(Semaphore::new(0));
    world.issuer.inner.lock().unwrap().gate = Some(gate.clone());
    let asked = world.ask(&browser);
    tokio::pin!(asked);
    let answer = tokio::select! {
        answer = &mut asked => answer,
        () = world.issuer.refresh_asked.notified() => {
            // From here on time passes only while everybody waits.
            tokio::time::pause();
            let began = tokio::time::Instant::now();
            let answer = asked.await;
            assert!(began.elapsed() <= Duration::from_secs(2), "it waited {:?}", began.elapsed());
            tokio::time::resume();
            answer
        }
    };
    assert_eq!(answer.unwrap().groups, ["generation-2"]);
    gate.add_permits(1);
    world.settle().await;
    assert_ne!(world.ask(&browser).await.unwrap().groups, ["generation-2"], "the refresh went on");
    assert_eq!(world.issuer.calls(|calls| calls.refresh), 1);
}

#[tokio::test]
async fn a_refresh_begins_a_minute_before_the_claims_end_and_not_sooner() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.issuer.set(|mode| mode.lifetime = Some(600));
    world.log_in(&mut browser, "").await;
    let until = world.clock.now().plus(Duration::from_secs(600));
    let refreshes = async |seconds_before: u64| {
        let wait = until.minus(Duration::from_secs(seconds_before)).since(world.clock.now());
        world.clock.advance(wait);
        world.ask(&browser).await.unwrap();
        world.settle().await;
        world.issuer.calls(|calls| calls.refresh)
    };
    assert_eq!(refreshes(62).await, 0);
    assert_eq!(refreshes(59).await, 1);
}

#[tokio::test]
async fn no_token_of_a_session_goes_to_another_issuer_or_client_of_the_same_name() {
    let mut world = World::new().await;
    let mut browser = aged(&world).await;
    let stranger = TestIssuer::start(world.clock.clone()).await;
    for elsewhere in
        [LoginIssuerSettings { client_id: "another".into(), ..world.settings() }, issuer_settings("okta", &stranger)]
    {
        world.reload(vec![elsewhere]);
        assert_eq!(code(&world.ask(&browser).await), "session_invalid");
    }
    assert_eq!(world.issuer.calls(|calls| calls.refresh) + stranger.calls(|calls| calls.refresh), 0);
    let form = [("sec-fetch-site", "same-origin")];
    let answer = world.send(&mut browser, Method::POST, "/.doorward/logout", &form).await;
    assert_eq!(location(&answer), "https://own.test/.doorward/signed-out", "nor the ID token");
    assert_eq!(stranger.calls(|calls| calls.discovery), 0);
}
