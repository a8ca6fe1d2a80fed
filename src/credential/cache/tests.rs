use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::*;
use crate::credential::Proof;

const KEY: Key = [7; 32];
const PATIENCE: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// An issuer that counts, and answers what it is told to.
#[derive(Clone)]
struct Issuer {
    clock: Clock,
    asked: Arc<AtomicUsize>,
    takes: Duration,
    answer: Arc<Mutex<Result<Duration, SourceError>>>,
    recorded: Arc<Mutex<Vec<Result<(), &'static str>>>>,
    places: Places,
}

impl Issuer {
    fn new(answer: Result<Duration, SourceError>) -> (Self, IssuedCache) {
        let clock = Clock::system();
        let cache = IssuedCache::new(100, clock.clone());
        let (asked, answer) = (Arc::default(), Arc::new(Mutex::new(answer)));
        (
            Self {
                clock,
                asked,
                takes: Duration::from_millis(50),
                answer,
                recorded: Arc::default(),
                places: Places::default(),
            },
            cache,
        )
    }

    fn answers(&self, answer: Result<Duration, SourceError>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn fetch(&self) -> Arc<Self> {
        Arc::new(self.clone())
    }

    async fn id(&self, cache: &IssuedCache) -> Result<String, &'static str> {
        let found = cache.obtain(KEY, PATIENCE, &self.fetch()).await;
        found.map(|found| found.issued.id.to_string()).map_err(|error| error.code)
    }
}

impl Fetch for Issuer {
    fn attempt(&self) -> BoxFuture<'static, Result<Issued, SourceError>> {
        let issuer = self.clone();
        async move {
            let number = issuer.asked.fetch_add(1, Ordering::Relaxed);
            sleep(issuer.takes).await;
            let life = issuer.answer.lock().unwrap().clone()?;
            let expires_at = issuer.clock.now().plus(life);
            let id = number.to_string().into();
            Ok(Issued { id, proof: Proof::nothing(), expires_at, renew_at: None, facts: Vec::new() })
        }
        .boxed()
    }

    fn places(&self) -> &Places {
        &self.places
    }

    fn record(&self, outcome: Result<&Issued, &SourceError>) -> Result<(), SourceError> {
        self.recorded.lock().unwrap().push(outcome.map(|_| ()).map_err(|error| error.code));
        Ok(())
    }
}

fn away() -> SourceError {
    SourceError::passing(SourceError::UNAVAILABLE, "away")
}

#[tokio::test(start_paused = true)]
async fn two_hundred_who_come_at_once_share_one_fetch() {
    let (issuer, cache) = Issuer::new(Ok(HOUR));
    let ids = join_all((0..200).map(|_| issuer.id(&cache))).await;
    assert!(ids.iter().all(|id| *id == Ok("0".to_owned())));
    assert_eq!((issuer.asked(), cache.len()), (1, 1));
    assert!(cache.at_hand(&KEY, issuer.clock.now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_outlives_the_one_who_began_it() {
    let (issuer, cache) = Issuer::new(Ok(HOUR));
    let impatient = cache.obtain(KEY, Duration::from_millis(1), &issuer.fetch()).await;
    assert_eq!(impatient.unwrap_err().code, "credential_timeout");
    let leaver = tokio::spawn({
        let (issuer, cache) = (issuer.clone(), cache.clone());
        async move { issuer.id(&cache).await }
    });
    tokio::task::yield_now().await;
    leaver.abort();
    assert_eq!((issuer.id(&cache).await, issuer.asked()), (Ok("0".to_owned()), 1));
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_for_one_fetch_than_may() {
    let (issuer, cache) = Issuer::new(Ok(HOUR));
    let outcomes = join_all((0..1200).map(|_| issuer.id(&cache))).await;
    let waited = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let refused = outcomes.iter().filter(|outcome| **outcome == Err("credential_overloaded")).count();
    assert_eq!((waited + refused, refused >= 199), (1200, true), "{waited} waited");
}

#[tokio::test(start_paused = true)]
async fn the_next_one_is_fetched_beside_requests_that_still_use_the_last() {
    let (issuer, cache) = Issuer::new(Ok(HOUR));
    assert_eq!(issuer.id(&cache).await.unwrap(), "0");
    issuer.clock.advance(Duration::from_secs(3000));
    sleep(RENEWAL_PAUSE).await;
    assert_eq!(issuer.id(&cache).await.unwrap(), "0", "nobody waits for a renewal");
    sleep(Duration::from_millis(100)).await;
    assert_eq!((issuer.id(&cache).await.unwrap().as_str(), issuer.asked()), ("1", 2));
}

#[tokio::test(start_paused = true)]
async fn half_an_hour_of_rotations_fails_no_request() {
    let (issuer, cache) = Issuer::new(Ok(Duration::from_secs(300)));
    for _ in 0..1800 {
        assert!(issuer.id(&cache).await.is_ok());
        issuer.clock.advance(Duration::from_secs(1));
        sleep(Duration::from_secs(1)).await;
    }
    assert!((6..12).contains(&issuer.asked()), "asked {} times", issuer.asked());
}

#[tokio::test(start_paused = true)]
async fn while_the_issuer_is_away_the_last_one_serves_to_its_end_and_then_nothing_does() {
    let (issuer, cache) = Issuer::new(Ok(HOUR));
    assert_eq!(issuer.id(&cache).await.unwrap(), "0");
    issuer.answers(Err(away()));
    for second in (3000..3597).step_by(60).chain([3597]) {
        let passed = issuer.clock.now();
        let began = cache.0.slots.get(&KEY).unwrap().lock().held.as_ref().unwrap().schedule.age(passed);
        issuer.clock.advance(Duration::from_secs(second).saturating_sub(began));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(issuer.id(&cache).await.as_deref(), Ok("0"), "after {second} s");
    }
    issuer.clock.advance(Duration::from_secs(2));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(issuer.id(&cache).await, Err(SourceError::UNAVAILABLE));
    issuer.answers(Ok(HOUR));
    assert_eq!(issuer.id(&cache).await, Err(SourceError::UNAVAILABLE), "for a second it is not asked again");
    sleep(FAILED).await;
    assert!(issuer.id(&cache).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_three_times_and_a_refusal_once() {
    for (error, tries) in [(away(), 3), (SourceError::lasting(SourceError::REFUSED, "no"), 1)] {
        let (issuer, cache) = Issuer::new(Err(error.clone()));
        let outcomes = join_all((0..50).map(|_| issuer.id(&cache))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Err(error.code)));
        assert_eq!((issuer.id(&cache).await, issuer.asked()), (Err(error.code), tries), "it is remembered");
        sleep(REFUSED).await;
        assert_eq!((issuer.id(&cache).await, issuer.asked()), (Err(error.code), 2 * tries), "not for good");
        assert_eq!(*issuer.recorded.lock().unwrap(), [Err(error.code); 2], "one record for all tries");
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_asks_to_be_left_alone_is() {
    let (issuer, cache) = Issuer::new(Err(SourceError::busy("429", Duration::from_secs(30))));
    assert_eq!((issuer.id(&cache).await, issuer.asked()), (Err(SourceError::UNAVAILABLE), 1));
    sleep(Duration::from_secs(29)).await;
    assert_eq!((issuer.id(&cache).await, issuer.asked()), (Err(SourceError::UNAVAILABLE), 1));
    issuer.answers(Ok(HOUR));
    sleep(Duration::from_secs(1)).await;
    assert_eq!((issuer.id(&cache).await.is_ok(), issuer.asked()), (true, 2));
}

#[tokio::test(start_paused = true)]
async fn what_an_upstream_finds_expired_is_fetched_once_more_and_not_at_each_request() {
    let (issuer, cache) = Issuer::new(Ok(HOUR));
    assert_eq!(issuer.id(&cache).await.unwrap(), "0");
    cache.drop_expired(&KEY, "0", || {});
    assert_eq!(issuer.id(&cache).await.unwrap(), "0", "it was issued a moment ago");
    issuer.clock.advance(SURELY_GOOD);
    cache.drop_expired(&KEY, "another", || {});
    assert_eq!(issuer.id(&cache).await.unwrap(), "0");
    cache.drop_expired(&KEY, "0", || {});
    assert_eq!(issuer.id(&cache).await.unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn what_is_replaced_serves_others_until_there_is_another() {
    let (issuer, cache) = Issuer::new(Ok(HOUR));
    let replaced = async |id: &str| {
        let replaced = cache.replace(KEY, id, PATIENCE, &issuer.fetch()).await;
        replaced.map(|issued| issued.id.to_string()).map_err(|error| error.code)
    };
    assert_eq!(issuer.id(&cache).await.unwrap(), "0");
    assert_eq!(replaced("0").await.unwrap(), "0", "it was issued a moment ago");
    issuer.clock.advance(SURELY_GOOD);
    assert_eq!(replaced("another").await.unwrap(), "0");
    issuer.answers(Err(away()));
    assert_eq!(replaced("0").await, Err(SourceError::UNAVAILABLE));
    assert_eq!(issuer.id(&cache).await.unwrap(), "0", "there was no other");
    issuer.answers(Ok(HOUR));
    sleep(FAILED).await;
    let (other, meanwhile) = tokio::join!(replaced("0"), issuer.id(&cache));
    assert_eq!(
        (meanwhile.unwrap().as_str(), other.unwrap(), issuer.id(&cache).await),
        ("0", "4".into(), Ok("4".into()))
    );
}

#[tokio::test(start_paused = true)]
async fn what_had_ended_when_it_came_is_none_and_a_clock_set_back_ends_all() {
    let (issuer, cache) = Issuer::new(Ok(Duration::ZERO));
    assert_eq!(issuer.id(&cache).await, Err(SourceError::UNREADABLE));
    assert_eq!(*issuer.recorded.lock().unwrap(), [Err(SourceError::UNREADABLE)], "nobody had it");
    sleep(REFUSED).await;
    issuer.answers(Ok(HOUR));
    assert!(issuer.id(&cache).await.is_ok());
    let earlier = issuer.clock.now().minus(Duration::from_secs(61));
    assert!(cache.at_hand(&KEY, earlier).is_none());
    cache.forget_ended(issuer.clock.now().plus(HOUR));
    assert!(cache.is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_more_fetches_are_under_way_than_may_and_one_issuer_holds_no_others_place() {
    let (issuer, cache) = Issuer::new(Ok(HOUR));
    let (other, _) = Issuer::new(Ok(HOUR));
    let ask = |issuer: &Issuer, number: usize| {
        let (cache, fetch) = (cache.clone(), issuer.fetch());
        let mut key = KEY;
        key[..8].copy_from_slice(&number.to_be_bytes());
        async move { cache.obtain(key, Duration::ZERO, &fetch).await.map_err(|error| error.code) }
    };
    let outcomes = join_all((0..MOST_FLIGHTS_OF_ONE + 10).map(|number| ask(&issuer, number))).await;
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err("credential_overloaded"))).count();
    assert_eq!(refused, 10);
    assert!(ask(&other, 1000).await.is_err_and(|code| code == "credential_timeout"), "another's is under way");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(issuer.asked(), MOST_FLIGHTS_OF_ONE, "the rest went on to their end");
    assert!(ask(&issuer, 2000).await.is_err_and(|code| code == "credential_timeout"), "there is room again");

    let issuers: Vec<Issuer> = (0..5).map(|_| Issuer::new(Ok(HOUR)).0).collect();
    let asked = (0..MOST_FLIGHTS + 10).map(|number| ask(&issuers[number / MOST_FLIGHTS_OF_ONE], 3000 + number));
    let outcomes = join_all(asked).await;
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err("credential_overloaded"))).count();
    assert!(refused >= 10, "of all together: {refused}");
}
