//! Keys that come and go, and tokens whose key nobody knows.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

#[tokio::test]
async fn a_new_key_is_fetched_at_its_first_token_and_a_withdrawn_one_is_gone() {
    let (old, new) = (SigningKey::es256("old"), SigningKey::es256("new"));
    let issuer = Issuer::with(&[&old]).await;
    let (store, clock) = store(issuer.discovery());
    assert_eq!(verify(&store, &clock, &token(&old)).await, Ok(1));
    issuer.publish(&[&new]);
    assert_eq!(verify(&store, &clock, &token(&new)).await, Ok(2));
    assert_eq!(verify(&store, &clock, &token(&old)).await, Err("key_unknown"));
    assert_eq!(store.fetches(), 2);
}

#[tokio::test]
async fn a_key_that_anothers_fetch_brought_meanwhile_is_seen() {
    let (old, new) = (SigningKey::es256("old"), SigningKey::es256("new"));
    let issuer = Issuer::with(&[&old]).await;
    let (store, clock) = store(issuer.jwks_uri());
    assert_eq!(verify(&store, &clock, &token(&old)).await, Ok(1));
    let (now, until) = (clock.now(), Instant::now() + PATIENCE);
    let read = store.current(now, until).await.unwrap();
    // Its request is older than the other's.
    clock.advance(Duration::from_millis(5));
    issuer.publish(&[&new]);
    assert_eq!(verify(&store, &clock, &token(&new)).await, Ok(2));
    // This caller read the keys before the other's fetch and found them lacking after it: no further fetch is due.
    let (late, forged) = (token(&new), token(&SigningKey::es256("new")));
    let late = store.verify_from(read.clone(), &UnverifiedToken::parse(&late).unwrap(), now, until).await;
    assert_eq!(late.unwrap(), 2);
    let forged = store.verify_from(read, &UnverifiedToken::parse(&forged).unwrap(), now, until).await;
    assert_eq!(forged.unwrap_err().code(), "signature_invalid");
    assert_eq!(store.fetches(), 2);
}

#[tokio::test]
async fn who_asks_for_an_unknown_key_makes_the_store_busy_in_the_same_step() {
    let issuer = Issuer::with(&[&SigningKey::es256("a")]).await;
    let (store, clock) = store(issuer.jwks_uri());
    verify(&store, &clock, &token(&SigningKey::es256("x"))).await.unwrap_err();
    clock.advance(Duration::from_secs(120));
    let stranger = token(&SigningKey::es256("y"));
    let stranger = UnverifiedToken::parse(&stranger).unwrap();
    // Nothing is awaited here, so the store's task cannot come between.
    let first = store.shared.search(stranger.header());
    assert!(matches!(first, Search::Begun(seen) if seen.busy), "{first:?}");
    let second = store.shared.search(stranger.header());
    assert!(matches!(second, Search::Joined(seen) if seen.busy), "{second:?}");
    completed(&store, 3).await;
    let third = store.shared.search(stranger.header());
    assert!(matches!(third, Search::Refused), "{third:?}");
    assert!(store.shared.unknown_keys.get(&remembered(stranger.header())).is_none(), "nobody looked for it there");
}

#[tokio::test]
async fn a_fetch_that_began_before_a_token_came_says_nothing_about_its_key() {
    let (old, new) = (SigningKey::es256("old"), SigningKey::es256("new"));
    let (set, gate) = (Arc::new(Mutex::new(jwks(&[&old]))), Arc::new(tokio::sync::Semaphore::new(1)));
    let (published, opened) = (set.clone(), gate.clone());
    let server = TestServer::start_async(move |_| {
        let (body, gate) = (published.lock().unwrap().clone(), opened.clone());
        async move {
            gate.acquire().await.unwrap().forget();
            answer(200, body)
        }
    })
    .await;
    let (store, clock) = store(KeySource::JwksUri(server.at("/keys")));
    assert_eq!(verify(&store, &clock, &token(&old)).await, Ok(1));
    clock.advance(Duration::from_secs(900));
    assert_eq!(verify(&store, &clock, &token(&old)).await, Ok(1), "the keys are old enough to be fetched again");
    while server.hits("/keys") < 2 {
        tokio::task::yield_now().await;
    }
    *set.lock().unwrap() = jwks(&[&old, &new]);
    let token = token(&new);
    let (verdict, ()) = tokio::join!(verify(&store, &clock, &token), async { gate.add_permits(2) });
    assert_eq!(verdict, Ok(2));
}

#[tokio::test]
async fn an_unknown_key_is_remembered_only_by_an_answer() {
    let (old, new) = (SigningKey::es256("old"), SigningKey::es256("new"));
    let issuer = Issuer::with(&[&old]).await;
    let (store, clock) = store(issuer.jwks_uri());
    verify(&store, &clock, &token(&old)).await.unwrap();
    issuer.answer(503, "");
    assert_eq!(verify(&store, &clock, &token(&new)).await, Err("issuer_unavailable"));
    issuer.publish(&[&old, &new]);
    clock.advance(Duration::from_secs(31));
    assert_eq!(verify(&store, &clock, &token(&new)).await, Ok(2));
}

#[tokio::test]
async fn an_issuer_that_hangs_holds_a_caller_for_two_seconds_at_most() {
    let key = SigningKey::es256("a");
    let (set, hangs) = (jwks(&[&key]), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let stuck = hangs.clone();
    let server = TestServer::start_async(move |_| {
        let (body, hangs) = (set.clone(), stuck.load(Ordering::Relaxed));
        async move { if hangs { std::future::pending().await } else { answer(200, body) } }
    })
    .await;
    let (store, clock) = store(KeySource::JwksUri(server.at("/keys")));
    verify(&store, &clock, &token(&key)).await.unwrap();
    hangs.store(true, Ordering::Relaxed);
    tokio::time::pause();
    for number in 0..2 {
        let (begun, stranger) = (Instant::now(), token(&key.named(&number.to_string())));
        assert_eq!(verify(&store, &clock, &stranger).await, Err("issuer_unavailable"));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    assert_eq!(verify(&store, &clock, &token(&key)).await, Ok(1), "known keys serve on");

    let (empty, clock) = self::store(KeySource::JwksUri(server.at("/keys")));
    let begun = Instant::now();
    assert_eq!(verify(&empty, &clock, &token(&key)).await, Err("issuer_unavailable"));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn unknown_keys_cost_the_issuer_one_fetch_in_thirty_seconds() {
    let issuer = Issuer::with(&[&SigningKey::es256("a")]).await;
    let (store, clock) = store(issuer.jwks_uri());
    let stranger = SigningKey::es256("x");
    // A signature is not looked at before its key is there: one stands for all.
    let signed = token(&stranger);
    let (_, rest) = signed.split_once('.').unwrap();
    for number in 0..100_000 {
        let header = format!(r#"{{"alg":"ES256","kid":"unknown-{number}"}}"#);
        let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
        assert_eq!(verify(&store, &clock, &token).await, Err("key_unknown"));
    }
    assert_eq!(store.fetches(), 2, "the first keys, and one for the unknown");
    clock.advance(Duration::from_secs(31));
    let all = (0..20).map(|number| token(&stranger.named(&format!("again-{number}")))).collect::<Vec<_>>();
    futures_util::future::join_all(all.iter().map(|token| verify(&store, &clock, token))).await;
    assert_eq!(store.fetches(), 3);
}

#[tokio::test]
async fn an_unknown_key_is_remembered_for_a_minute() {
    let issuer = Issuer::with(&[&SigningKey::es256("a")]).await;
    let (store, clock) = store(issuer.jwks_uri());
    let stranger = token(&SigningKey::es256("x"));
    assert_eq!(verify(&store, &clock, &stranger).await, Err("key_unknown"));
    assert_eq!(store.fetches(), 2);
    clock.advance(Duration::from_secs(45));
    assert_eq!(verify(&store, &clock, &stranger).await, Err("key_unknown"));
    assert_eq!(store.fetches(), 2);
    clock.advance(Duration::from_secs(16));
    assert_eq!(verify(&store, &clock, &stranger).await, Err("key_unknown"));
    assert_eq!(store.fetches(), 3);
}

#[tokio::test]
async fn an_issuer_that_withdraws_every_key_is_believed() {
    let key = SigningKey::es256("a");
    let issuer = Issuer::with(&[&key]).await;
    let (store, clock) = store(issuer.jwks_uri());
    verify(&store, &clock, &token(&key)).await.unwrap();
    issuer.publish(&[]);
    clock.advance(Duration::from_secs(900));
    verify(&store, &clock, &token(&key)).await.unwrap();
    completed(&store, 2).await;
    assert_eq!(verify(&store, &clock, &token(&key)).await, Err("key_unknown"));
    assert!(store.readiness(clock.now()).unwrap_err().contains("no usable key"));
}
