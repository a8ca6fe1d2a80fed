//! The store against an issuer that is slow, down, wrong, or changes its keys.

mod rotation;
mod wycheproof;

use std::sync::Mutex;

use http::Response;
use http_body_util::Full;
use serde_json::json;

use super::*;
use crate::identity::testing::{Claims, SigningKey, jwks};
use crate::outbound::testing::{TestServer, answer};

/// What a test's issuer answers now.
struct Answers {
    discovery: Option<String>,
    keys: (u16, String),
    cache_control: Option<&'static str>,
}

struct Issuer {
    server: TestServer,
    answers: Arc<Mutex<Answers>>,
}

impl Issuer {
    async fn with(keys: &[&SigningKey]) -> Self {
        let keys = (200, jwks(keys));
        let answers = Arc::new(Mutex::new(Answers { discovery: None, keys, cache_control: Some("max-age=1000") }));
        let shared = answers.clone();
        let server = TestServer::start(move |request| {
            let answers = shared.lock().unwrap();
            let host = request.headers()["host"].to_str().unwrap();
            respond(&answers, host, request.uri().path())
        })
        .await;
        Self { server, answers }
    }

    fn discovery(&self) -> KeySource {
        KeySource::Discovery { issuer: self.server.origin().to_owned() }
    }

    fn jwks_uri(&self) -> KeySource {
        KeySource::JwksUri(self.server.at("/keys"))
    }

    fn answer(&self, status: u16, body: impl Into<String>) {
        self.answers.lock().unwrap().keys = (status, body.into());
    }

    fn publish(&self, keys: &[&SigningKey]) {
        self.answer(200, jwks(keys));
    }
}

fn respond(answers: &Answers, host: &str, path: &str) -> Response<Full<bytes::Bytes>> {
    if path == "/.well-known/openid-configuration" {
        let sound = json!({ "issuer": format!("http://{host}"), "jwks_uri": format!("http://{host}/keys") });
        return answer(200, answers.discovery.clone().unwrap_or_else(|| sound.to_string()));
    }
    let (status, body) = &answers.keys;
    let mut response = answer(*status, body.clone());
    if let Some(value) = answers.cache_control {
        response.headers_mut().insert("cache-control", value.parse().unwrap());
    }
    if *status == 302 {
        response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
    }
    response
}

fn store(source: KeySource) -> (KeyStore, Clock) {
    store_of(KeyStoreSettings::new("okta", source))
}

fn store_of(settings: KeyStoreSettings) -> (KeyStore, Clock) {
    let clock = Clock::system();
    (KeyStore::new(settings, clock.clone()).unwrap(), clock)
}

async fn verify(store: &KeyStore, clock: &Clock, token: &str) -> Result<u64, &'static str> {
    let token = UnverifiedToken::parse(token).unwrap();
    store.verify(&token, clock.now()).await.map_err(|error| error.code())
}

/// Waits until `count` fetches, or looks at a file, have ended.
async fn completed(store: &KeyStore, count: u64) {
    let mut progress = store.shared.progress.subscribe();
    let wait = progress.wait_for(|progress| progress.completed >= count && !progress.busy);
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap().unwrap();
}

async fn completed_more(store: &KeyStore, count: u64) {
    let before = store.shared.progress.borrow().completed;
    completed(store, before + count).await;
}

fn token(key: &SigningKey) -> String {
    key.sign(&Claims::default())
}

#[tokio::test]
async fn keys_are_discovered_once_for_many_tokens() {
    let key = SigningKey::es256("a");
    let issuer = Issuer::with(&[&key]).await;
    let (store, clock) = store(issuer.discovery());
    for _ in 0..3 {
        assert_eq!(verify(&store, &clock, &token(&key)).await, Ok(1));
    }
    assert_eq!((store.fetches(), issuer.server.hits("/keys")), (1, 1));
    let age = store.readiness(clock.now()).unwrap();
    assert_eq!((age.keys, age.fault), (1, None));
}

#[tokio::test]
async fn many_first_tokens_share_one_fetch() {
    let key = SigningKey::es256("a");
    let issuer = Issuer::with(&[&key]).await;
    let (store, clock) = store(issuer.jwks_uri());
    let token = token(&key);
    let all = futures_util::future::join_all((0..50).map(|_| verify(&store, &clock, &token))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!((store.fetches(), issuer.server.hits("/keys")), (1, 1));
}

#[tokio::test]
async fn a_store_fetches_nothing_before_it_is_asked() {
    let issuer = Issuer::with(&[]).await;
    let (store, clock) = store(issuer.jwks_uri());
    assert_eq!(store.readiness(clock.now()), Err("the keys have not been fetched yet".to_owned()));
    assert_eq!((store.fetches(), store.generation(clock.now())), (0, None));
    store.start();
    store.start();
    completed(&store, 1).await;
    assert_eq!(store.fetches(), 1);
}

#[tokio::test]
async fn a_discovery_document_that_speaks_for_another_issuer_gives_no_keys() {
    let key = SigningKey::es256("a");
    let issuer = Issuer::with(&[&key]).await;
    let (store, clock) = store(issuer.discovery());
    let origin = issuer.server.origin();
    for other in [json!("https://other.example"), json!(format!("{origin}/")), json!([origin]), json!(null)] {
        let document = json!({ "issuer": other, "jwks_uri": format!("{origin}/keys") });
        issuer.answers.lock().unwrap().discovery = Some(document.to_string());
        assert_eq!(verify(&store, &clock, &token(&key)).await, Err("issuer_unavailable"));
        assert!(store.readiness(clock.now()).unwrap_err().contains("another issuer"));
    }
    assert_eq!(issuer.server.hits("/keys"), 0);
}

#[tokio::test]
async fn a_discovered_address_that_cannot_be_called_gives_no_keys() {
    let origin_free = ["http://keys.example/jwks", "file:///etc/passwd", "", "/keys"];
    for address in origin_free {
        let issuer = Issuer::with(&[]).await;
        let document = json!({ "issuer": issuer.server.origin(), "jwks_uri": address });
        issuer.answers.lock().unwrap().discovery = Some(document.to_string());
        let (store, clock) = store(issuer.discovery());
        store.start();
        completed(&store, 1).await;
        assert!(store.readiness(clock.now()).unwrap_err().contains("jwks_uri"), "{address}");
    }
}

#[tokio::test]
async fn an_issuer_over_tls_names_no_address_in_plain_text_even_on_this_machine() {
    let plain = Issuer::with(&[&SigningKey::es256("a")]).await;
    let keys = plain.server.at("/keys");
    let (server, authority_pem) = TestServer::start_tls(move |request| {
        let issuer = format!("https://{}", request.headers()["host"].to_str().unwrap());
        answer(200, json!({ "issuer": issuer, "jwks_uri": keys }).to_string())
    })
    .await;
    let mut settings = KeyStoreSettings::new("okta", KeySource::Discovery { issuer: server.origin().to_owned() });
    settings.outbound.authorities_pem = Some(authority_pem.into_bytes());
    let (store, clock) = store_of(settings);
    store.start();
    completed(&store, 1).await;
    let fault = store.readiness(clock.now()).unwrap_err();
    assert!(fault.contains("it is plain http, and the issuer is not"), "{fault}");
    assert_eq!(plain.server.hits("/keys"), 0);
}

#[tokio::test]
async fn a_wrong_answer_gives_no_keys_and_says_why() {
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "y".repeat(512 * 1024));
    for (status, body, why) in [
        (200, "<html>", "no JSON"),
        (200, "{}", "no array `keys`"),
        (200, r#"{"keys":[],"keys":[]}"#, "twice"),
        (200, huge.as_str(), "more than 524288 bytes"),
        (302, "", "redirect"),
        (404, "{}", "404"),
        (500, r#"{"keys":[]}"#, "500"),
        (204, "", "204"),
    ] {
        let issuer = Issuer::with(&[]).await;
        issuer.answer(status, body);
        let (store, clock) = store(issuer.jwks_uri());
        assert_eq!(verify(&store, &clock, &token(&SigningKey::es256("a"))).await, Err("issuer_unavailable"));
        let fault = store.readiness(clock.now()).unwrap_err();
        assert!(fault.contains(why), "{status}: {fault}");
        assert_eq!(issuer.server.hits("/elsewhere"), 0);
    }
}

#[tokio::test]
async fn an_issuer_that_never_answers_does_not_hold_a_caller_for_long() {
    let server = TestServer::start_async(|_| std::future::pending()).await;
    let mut settings = KeyStoreSettings::new("okta", KeySource::JwksUri(server.at("/keys")));
    settings.outbound.total_deadline = Duration::from_millis(50);
    let (store, clock) = store_of(settings);
    assert_eq!(verify(&store, &clock, &token(&SigningKey::es256("a"))).await, Err("issuer_unavailable"));
    assert!(store.readiness(clock.now()).unwrap_err().contains("did not answer within 50 ms"));
}

#[tokio::test]
async fn an_issuer_that_is_away_at_start_is_found_again_without_help() {
    let key = SigningKey::es256("a");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (store, clock) = store(KeySource::JwksUri(format!("http://{address}/keys")));
    store.start();
    completed(&store, 1).await;
    assert!(store.readiness(clock.now()).unwrap_err().contains("out of reach"));
    assert_eq!(verify(&store, &clock, &token(&key)).await, Err("issuer_unavailable"));
    assert_eq!(store.fetches(), 1, "a caller does not hurry a store that is backing off");

    let set = jwks(&[&key]);
    let _server = TestServer::start_at(address, move |_| answer(200, set.clone())).await;
    completed(&store, 2).await;
    assert_eq!(verify(&store, &clock, &token(&key)).await, Ok(1));
    assert_eq!(store.readiness(clock.now()).unwrap().fault, None);
}

#[test]
fn pauses_after_failures_grow_to_half_a_minute() {
    for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (64, 30), (u32::MAX, 30)] {
        let pause = backoff(failures);
        let longest = Duration::from_secs(seconds);
        assert!(pause <= longest && pause >= longest * 7 / 10, "{failures}: {pause:?}");
    }
}

#[tokio::test]
async fn keys_are_refreshed_in_the_background_at_four_fifths_of_their_lifetime() {
    let key = SigningKey::es256("a");
    let issuer = Issuer::with(&[&key]).await;
    let (store, clock) = store(issuer.jwks_uri());
    verify(&store, &clock, &token(&key)).await.unwrap();
    clock.advance(Duration::from_secs(700));
    verify(&store, &clock, &token(&key)).await.unwrap();
    assert_eq!(store.fetches(), 1);
    clock.advance(Duration::from_secs(101));
    verify(&store, &clock, &token(&key)).await.unwrap();
    completed(&store, 2).await;
    assert_eq!(store.fetches(), 2);
    assert_eq!(store.generation(clock.now()), Some(1), "the same keys are the same generation");
    assert!(store.readiness(clock.now()).unwrap().age < Duration::from_secs(60));
}

#[tokio::test]
async fn the_last_good_keys_serve_while_the_issuer_is_away_and_not_for_ever() {
    let key = SigningKey::es256("a");
    let issuer = Issuer::with(&[&key]).await;
    let (store, clock) = store(issuer.jwks_uri());
    verify(&store, &clock, &token(&key)).await.unwrap();
    issuer.answer(503, "");
    clock.advance(Duration::from_secs(2000));
    assert_eq!(verify(&store, &clock, &token(&key)).await, Ok(1));
    completed(&store, 2).await;
    assert!(store.readiness(clock.now()).unwrap().fault.unwrap().contains("503"));
    assert_eq!(verify(&store, &clock, &token(&SigningKey::es256("b"))).await, Err("issuer_unavailable"));

    clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(verify(&store, &clock, &token(&key)).await, Err("issuer_unavailable"));
    assert_eq!(store.generation(clock.now()), None);
    assert!(store.readiness(clock.now()).is_err());
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    let (old, new) = (SigningKey::es256("old"), SigningKey::es256("new"));
    std::fs::write(&path, jwks(&[&old])).unwrap();
    let (store, clock) = store(KeySource::File(path.clone()));
    assert_eq!(verify(&store, &clock, &token(&old)).await, Ok(1));
    std::fs::write(&path, jwks(&[&new])).unwrap();
    completed_more(&store, 2).await;
    assert_eq!(verify(&store, &clock, &token(&new)).await, Ok(2));
    assert_eq!(verify(&store, &clock, &token(&old)).await, Err("key_unknown"));
    assert_eq!(store.fetches(), 2);

    std::fs::write(&path, "half a fi").unwrap();
    completed_more(&store, 2).await;
    assert_eq!(verify(&store, &clock, &token(&new)).await, Ok(2), "a broken file changes nothing");
    assert!(store.readiness(clock.now()).unwrap().fault.is_some());
}

#[tokio::test]
async fn a_file_that_is_missing_no_file_or_too_large_gives_no_keys() {
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large.json");
    std::fs::write(&large, " ".repeat(512 * 1024 + 1)).unwrap();
    for (path, why) in [
        (directory.path().join("missing.json"), "cannot be read"),
        (directory.path().to_owned(), "no regular file"),
        (large, "larger than 512 KiB"),
    ] {
        let (store, clock) = store(KeySource::File(path));
        assert_eq!(verify(&store, &clock, &token(&SigningKey::es256("a"))).await, Err("issuer_unavailable"));
        assert!(store.readiness(clock.now()).unwrap_err().contains(why), "{why}");
    }
}

#[tokio::test]
async fn a_dropped_store_ends_its_task() {
    let issuer = Issuer::with(&[]).await;
    let (store, _clock) = store(issuer.jwks_uri());
    store.start();
    completed(&store, 1).await;
    let shared = Arc::downgrade(&store.shared);
    drop(store);
    let gone = async {
        while shared.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
}

#[test]
fn a_source_in_plain_text_makes_no_store() {
    let settings = KeyStoreSettings::new("okta", KeySource::JwksUri("http://issuer.example/keys".to_owned()));
    assert!(matches!(KeyStore::new(settings, Clock::system()), Err(KeyStoreError::Source { .. })));
    let mut settings = KeyStoreSettings::new("okta", KeySource::JwksUri("https://issuer.example/keys".to_owned()));
    settings.outbound.authorities_pem = Some(b"none".to_vec());
    assert!(matches!(KeyStore::new(settings, Clock::system()), Err(KeyStoreError::Client { .. })));
}
