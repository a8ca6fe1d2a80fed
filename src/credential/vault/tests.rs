//! Against a vault that looks at every request and keeps the books that a real one keeps.

mod fake;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use serde_json::json;

use super::*;
use crate::clock::Timestamp;
use crate::credential::testing::{Asked, Caller};
use crate::credential::{
    CredentialProvider, EventUnwritten, Events, IssueEvent, IssuedCache, Outcome, PATIENCE, Remote, RemoteSettings,
    Template,
};
use crate::telemetry::Metrics;
use fake::{NAMESPACE, Vault, VaultWorld};

fn text(issued: &Issued, name: &str) -> String {
    let headers = issued.proof.headers();
    let (_, value) = headers.iter().find(|(known, _)| known == name).unwrap();
    assert!(value.is_sensitive());
    value.to_str().unwrap().to_owned()
}

fn kv(path: &str) -> VaultSecret {
    VaultSecret::Kv(KvSecret {
        mount: "secret".into(),
        path: Template::parse(path).unwrap(),
        field: "api_key".into(),
        header: HeaderName::from_static("x-api-key"),
        prefix: "Token ".into(),
        refresh: Duration::from_secs(300),
    })
}

fn database(headers: UserHeaders) -> VaultSecret {
    VaultSecret::Database(DatabaseSecret { mount: "database".into(), role: Template::parse("app").unwrap(), headers })
}

fn asked() -> Asked {
    Asked::of(Caller::default().grant())
}

async fn fetch(source: &Arc<VaultSource>, asked: &Asked, now: Timestamp) -> Result<Issued, SourceError> {
    let request = source.request(&asked.at(now)).unwrap();
    source.clone().fetch(Arc::new(request)).await
}

#[tokio::test]
async fn a_secret_is_read_with_a_login_for_the_principal_and_goes_into_its_header() {
    let world = VaultWorld::start().await;
    world.vault.put("secret/data/apps/billing", json!({ "api_key": "s3cr3t", "other": 1 }));
    let source = world.source(kv("apps/{{path.app}}"));
    let mut asked = asked();
    asked.parameters = [("app", "billing")].into_iter().collect();
    let now = world.clock.now();
    let issued = fetch(&source, &asked, now).await.unwrap();
    assert_eq!(text(&issued, "x-api-key"), "Token s3cr3t");
    assert_eq!(&*issued.id, "secret/data/apps/billing@7");
    let life = issued.expires_at.since(now).as_secs();
    assert!((300..330).contains(&life), "{life}");
    let facts: Vec<_> = issued.facts.iter().map(|(name, value)| (*name, value.to_string())).collect();
    assert!(facts.contains(&("version", "7".to_owned())), "{facts:?}");
    assert!(facts.contains(&("vault_request_id", "\"r-1\"".to_owned())), "{facts:?}");
    let claims = world.vault.claims().pop().unwrap();
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("okta|ada"), &json!("https://vault.test")));
    assert_eq!((&claims["environment"], &claims["roles"]), (&json!("production"), &json!(["billing-admin", "reader"])));
    let shown = source.request(&asked.at(now)).unwrap().shown();
    assert_eq!((&shown["path"], &shown["namespace"]), (&json!("secret/data/apps/billing"), &json!(NAMESPACE)));
    assert!(!format!("{source:?} {issued:?} {shown}").contains("s3cr3t"));
}

#[tokio::test]
async fn one_login_serves_all_secrets_of_its_subject_and_nobody_elses() {
    let world = VaultWorld::start().await;
    for path in ["secret/data/one", "secret/data/two"] {
        world.vault.put(path, json!({ "api_key": "s3cr3t" }));
    }
    let (one, two) = (world.source(kv("one")), world.source(kv("two")));
    let now = world.clock.now();
    for source in [&one, &two] {
        fetch(source, &asked(), now).await.unwrap();
    }
    assert_eq!(world.vault.logins(), 1);
    let eve = Asked::of(Caller { subject: "eve", ..Caller::default() }.grant());
    fetch(&one, &eve, now).await.unwrap();
    assert_eq!(world.vault.logins(), 2);
    let narrower = Asked::of(Caller { roles: vec!["reader"], ..Caller::default() }.grant());
    fetch(&one, &narrower, now).await.unwrap();
    assert_eq!(world.vault.logins(), 3, "with fewer roles it is another login");
}

#[tokio::test]
async fn a_token_subject_that_names_nobody_is_one_login_for_all() {
    let world = VaultWorld::start().await;
    world.vault.put("secret/data/one", json!({ "api_key": "s3cr3t" }));
    let source = world.source_as(kv("one"), world.doorward("doorward:{{environment}}"));
    for subject in ["ada", "eve"] {
        let asked = Asked::of(Caller { subject, ..Caller::default() }.grant());
        fetch(&source, &asked, world.clock.now()).await.unwrap();
    }
    let claims = world.vault.claims();
    assert_eq!(claims.len(), 1);
    assert_eq!((&claims[0]["sub"], claims[0].get("roles")), (&json!("doorward:production"), None));
}

#[tokio::test]
async fn the_callers_own_token_logs_in_as_it_came_and_without_one_nothing_does() {
    let world = VaultWorld::start().await;
    world.vault.put("secret/data/one", json!({ "api_key": "s3cr3t" }));
    let source = world.source_as(kv("one"), VaultSubject::Caller);
    let mut asked = asked();
    let now = world.clock.now();
    let error = source.request(&asked.at(now)).unwrap_err();
    assert_eq!(error.code, CredentialError::NO_CALLER_TOKEN);
    asked.token = Some("e30.eyJzdWIiOiJtZSJ9.c2ln".to_owned());
    fetch(&source, &asked, now).await.unwrap();
    assert_eq!(world.vault.claims(), [json!({ "sub": "me" })]);
    let shown = source.request(&asked.at(now)).unwrap().shown();
    assert_eq!(shown["login"]["by"], "the caller's token");
}

#[tokio::test]
async fn a_value_of_the_request_cannot_leave_its_place_in_the_path() {
    let world = VaultWorld::start().await;
    let source = world.source(kv("apps/{{path.app}}/key"));
    for value in ["..", ".", "a%2Fb", "..%2Fother", "a..b", "%2E%2E", "a%3Fb", "a%23b", "a%5Cb", "a*b", "a%00b", ""] {
        let mut asked = asked();
        asked.parameters = [("app", value)].into_iter().collect();
        let error = source.request(&asked.at(world.clock.now())).unwrap_err();
        assert_eq!(error.code, CredentialError::UNFIT_VALUE, "{value}");
    }
    assert_eq!(world.vault.logins(), 0);
}

#[tokio::test]
async fn a_secret_never_outlives_the_token_that_it_was_read_by() {
    let world = VaultWorld::start().await;
    world.vault.put("secret/data/one", json!({ "api_key": "s3cr3t" }));
    world.vault.tokens_live(60);
    let now = world.clock.now();
    let issued = fetch(&world.source(kv("one")), &asked(), now).await.unwrap();
    assert!(issued.expires_at <= now.plus(Duration::from_secs(90)), "{:?}", issued.expires_at.since(now));
}

#[tokio::test]
async fn a_token_reads_until_two_thirds_of_its_life_and_then_another_does() {
    let world = VaultWorld::start().await;
    world.vault.put("secret/data/one", json!({ "api_key": "s3cr3t" }));
    world.vault.tokens_live(120);
    let source = world.source(kv("one"));
    fetch(&source, &asked(), world.clock.now()).await.unwrap();
    world.advance(70);
    fetch(&source, &asked(), world.clock.now()).await.unwrap();
    assert_eq!(world.vault.logins(), 1);
    world.advance(11);
    let now = world.clock.now();
    let issued = fetch(&source, &asked(), now).await.unwrap();
    assert_eq!(world.vault.logins(), 2);
    assert!(issued.expires_at >= now.plus(Duration::from_secs(120)), "{:?}", issued.expires_at.since(now));
}

#[tokio::test]
async fn a_token_that_the_vault_forgot_is_replaced_once() {
    let world = VaultWorld::start().await;
    world.vault.put("secret/data/one", json!({ "api_key": "s3cr3t" }));
    let source = world.source(kv("one"));
    fetch(&source, &asked(), world.clock.now()).await.unwrap();
    world.vault.forget_tokens();
    world.clock.advance(Duration::from_secs(60));
    let issued = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    assert_eq!((text(&issued, "x-api-key").as_str(), world.vault.logins()), ("Token s3cr3t", 2));
}

#[tokio::test]
async fn what_no_policy_allows_is_refused_after_one_more_login_and_without_one_when_the_token_is_new() {
    let world = VaultWorld::start().await;
    world.vault.put("secret/data/one", json!({ "api_key": "s3cr3t" }));
    world.vault.deny("secret/data/one");
    let source = world.source(kv("one"));
    let denied = fetch(&source, &asked(), world.clock.now()).await.unwrap_err();
    assert_eq!((denied.code, denied.may_pass(), world.vault.logins()), (SourceError::REFUSED, false, 1));
    assert!(denied.detail.contains("403 at `secret/data/one`: permission denied"), "{}", denied.detail);
    world.clock.advance(Duration::from_secs(60));
    let denied = fetch(&source, &asked(), world.clock.now()).await.unwrap_err();
    assert_eq!((denied.code, world.vault.logins()), (SourceError::REFUSED, 2));
}

#[tokio::test]
async fn a_secret_that_fits_no_header_is_refused_and_never_quoted() {
    let world = VaultWorld::start().await;
    let source = world.source(kv("one"));
    let long = "x".repeat(8193);
    let secrets = [
        (json!({ "other": "hunter2" }), "has no field `api_key`"),
        (json!({ "api_key": 1234567 }), "has a field `api_key` that is no text"),
        (json!({ "api_key": { "a": "hunter2" } }), "has a field `api_key` that is no text"),
        (json!({ "api_key": "" }), "has a field `api_key` that fits no header"),
        (json!({ "api_key": "hunter2\nX-Evil: 1" }), "has a field `api_key` that fits no header"),
        (json!({ "api_key": " hunter2" }), "has a field `api_key` that fits no header"),
        (json!({ "api_key": "hunter2é" }), "has a field `api_key` that fits no header"),
        (json!({ "api_key": long }), "has a field `api_key` that fits no header"),
        (json!(null), "gives no secret of a key-value engine of version 2"),
        (json!("hunter2"), "what the vault answers at `secret/data/one` cannot be read"),
    ];
    for (secret, says) in secrets {
        world.vault.put("secret/data/one", secret.clone());
        let error = fetch(&source, &asked(), world.clock.now()).await.unwrap_err();
        assert!(error.code == SourceError::UNREADABLE && !error.may_pass(), "{secret}");
        assert!(error.detail.contains(says) && !error.detail.contains("hunter2"), "{}", error.detail);
    }
    world.vault.remove("secret/data/one");
    let error = fetch(&source, &asked(), world.clock.now()).await.unwrap_err();
    assert_eq!(error.detail, "the vault answered 404 at `secret/data/one`: there is nothing");
}

#[tokio::test]
async fn a_vault_that_is_sealed_or_lags_behind_may_be_well_again() {
    let world = VaultWorld::start().await;
    world.vault.put("secret/data/one", json!({ "api_key": "s3cr3t" }));
    let source = world.source(kv("one"));
    fetch(&source, &asked(), world.clock.now()).await.unwrap();
    for status in [412, 429, 473, 500, 503] {
        world.vault.answers_all_with(Some(status));
        let error = fetch(&source, &asked(), world.clock.now()).await.unwrap_err();
        assert_eq!((error.code, error.may_pass()), (SourceError::UNAVAILABLE, true), "{status}");
    }
    world.vault.answers_all_with(None);
    assert!(fetch(&source, &asked(), world.clock.now()).await.is_ok());
}

#[tokio::test]
async fn a_login_that_gives_no_token_of_use_is_refused_and_says_why() {
    for (auth, says) in [
        (json!({ "client_token": "", "lease_duration": 60 }), "second factor"),
        (json!({ "client_token": "b.t", "lease_duration": 60, "num_uses": 1 }), "`token_num_uses`"),
        (json!({ "client_token": "b.t", "lease_duration": 0 }), "`token_ttl`"),
        (json!({ "client_token": "b.\nt", "lease_duration": 60 }), "no header value"),
        (json!(null), "no token"),
    ] {
        let world = VaultWorld::start().await;
        world.vault.logins_give(auth);
        let error = fetch(&world.source(kv("one")), &asked(), world.clock.now()).await.unwrap_err();
        assert!(error.code == SourceError::UNREADABLE && error.detail.contains(says), "{}", error.detail);
    }
    let world = VaultWorld::start().await;
    world.vault.knows_no_role();
    let error = fetch(&world.source(kv("one")), &asked(), world.clock.now()).await.unwrap_err();
    assert_eq!(error.code, SourceError::REFUSED);
    assert!(error.detail.ends_with(r#"role "app" could not be found"#), "{}", error.detail);
}

#[tokio::test]
async fn a_user_goes_upstream_as_basic_or_in_two_headers_until_its_lease_ends() {
    let world = VaultWorld::start().await;
    let now = world.clock.now();
    let basic = fetch(&world.source(database(UserHeaders::Basic)), &asked(), now).await.unwrap();
    let authorization = text(&basic, "authorization");
    assert_eq!(authorization, format!("Basic {}", STANDARD.encode("u-1:p:1")));
    assert_eq!(&*basic.id, "database/creds/app/1");
    let life = basic.expires_at.since(now).as_secs();
    assert!((60..90).contains(&life), "{life}");
    let renewal = basic.renew_at.unwrap().since(now).as_secs();
    assert!((40..70).contains(&renewal), "{renewal}");
    assert!(basic.facts.contains(&("username", json!("u-1"))) && basic.facts.contains(&("renewed", json!(false))));
    let named = UserHeaders::Named {
        username: HeaderName::from_static("x-user"),
        password: HeaderName::from_static("x-password"),
    };
    let named = fetch(&world.source(database(named)), &asked(), now).await.unwrap();
    assert_eq!((text(&named, "x-user").as_str(), text(&named, "x-password").as_str()), ("u-2", "p:2"));
    assert!(!format!("{basic:?}{named:?}{:?}", world.leases).contains("p:"));
}

#[tokio::test]
async fn a_lease_is_renewed_while_that_extends_it_and_then_replaced() {
    let world = VaultWorld::start().await;
    let source = world.source(database(UserHeaders::Basic));
    let mut held = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    for _ in 0..3 {
        world.advance(40);
        let now = world.clock.now();
        let renewed = fetch(&source, &asked(), now).await.unwrap();
        assert_eq!(text(&renewed, "authorization"), text(&held, "authorization"));
        assert!(renewed.expires_at >= now.plus(Duration::from_secs(50)) && renewed.expires_at > held.expires_at);
        assert!(renewed.facts.contains(&("renewed", json!(true))));
        held = renewed;
    }
    assert_eq!((world.vault.renewals(), world.vault.leases().len()), (3, 1));
    // Its longest life is 180 s: from 160 s on there is not enough left.
    world.advance(40);
    let next = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    assert_eq!((&*held.id, &*next.id), ("database/creds/app/1", "database/creds/app/2"));
    assert_eq!(world.all_leases.dropped(), 0, "the cache and requests still hold the old one");
    drop(held);
    assert_eq!((world.all_leases.dropped(), world.all_leases.len()), (1, 2));
    drop(next);
}

#[tokio::test]
async fn a_lease_that_cannot_be_renewed_is_replaced_before_it_ends() {
    let world = VaultWorld::start().await;
    let source = world.source(database(UserHeaders::Basic));
    for forbid in [Vault::deny_renewals as fn(&Vault), Vault::forget_leases, Vault::lease_for_once] {
        let held = fetch(&source, &asked(), world.clock.now()).await.unwrap();
        forbid(&world.vault);
        world.advance(40);
        let next = fetch(&source, &asked(), world.clock.now()).await.unwrap();
        assert_ne!(held.id, next.id);
        assert!(next.facts.contains(&("renewed", json!(false))));
        drop(next);
        world.vault.allow_all();
    }
}

#[tokio::test]
async fn a_lease_ends_with_the_token_that_it_was_issued_by_and_is_not_renewed_past_it() {
    let world = VaultWorld::start().await;
    world.vault.tokens_live(50);
    let source = world.source(database(UserHeaders::Basic));
    let now = world.clock.now();
    let held = fetch(&source, &asked(), now).await.unwrap();
    assert!(held.expires_at <= now.plus(Duration::from_secs(80)), "the lease itself says 60 s");
    world.advance(40);
    let next = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    assert_ne!(held.id, next.id);
    assert_eq!(world.vault.renewals(), 0);
}

#[tokio::test]
async fn while_the_vault_is_away_a_renewal_fails_for_now_and_goes_on_later() {
    let world = VaultWorld::start().await;
    let source = world.source(database(UserHeaders::Basic));
    let held = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    world.advance(40);
    world.vault.answers_all_with(Some(503));
    let error = fetch(&source, &asked(), world.clock.now()).await.unwrap_err();
    assert!(error.may_pass());
    world.vault.answers_all_with(None);
    let renewed = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    assert_eq!((renewed.id.clone(), world.vault.leases().len()), (held.id.clone(), 1));
}

#[tokio::test]
async fn what_the_upstream_finds_expired_is_replaced_and_not_renewed() {
    let world = VaultWorld::start().await;
    let source = world.source(database(UserHeaders::Basic));
    let held = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    world.advance(10);
    source.dropped("another");
    source.dropped(&held.id);
    let next = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    assert_ne!(held.id, next.id);
    assert_eq!(world.vault.renewals(), 0);
}

#[tokio::test]
async fn a_lease_is_held_by_every_copy_of_its_header_and_dropped_with_the_last() {
    let world = VaultWorld::start().await;
    let source = world.source(database(UserHeaders::Basic));
    let issued = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    let on_its_way = issued.proof.headers().first().unwrap().1.clone();
    drop(issued);
    assert_eq!(world.all_leases.dropped(), 0);
    drop(on_its_way);
    assert_eq!(world.all_leases.dropped(), 1);
}

#[tokio::test]
async fn at_the_end_every_lease_is_revoked_by_the_token_that_it_was_issued_by() {
    let world = VaultWorld::start().await;
    let source = world.source(database(UserHeaders::Basic));
    let ada = fetch(&source, &asked(), world.clock.now()).await.unwrap();
    let eve = Asked::of(Caller { subject: "eve", ..Caller::default() }.grant());
    let eve = fetch(&source, &eve, world.clock.now()).await.unwrap();
    assert_eq!(world.vault.leases().len(), 2);
    // The fake revokes a lease for its own token only.
    world.all_leases.end(Duration::from_secs(30)).await;
    assert_eq!((world.vault.leases().len(), world.vault.revocations()), (0, 2));
    drop((ada, eve));
}

#[tokio::test]
async fn a_user_that_cannot_be_used_is_given_back() {
    let world = VaultWorld::start().await;
    let source = world.source(database(UserHeaders::Basic));
    world.vault.users_are_called("a:b");
    let error = fetch(&source, &asked(), world.clock.now()).await.unwrap_err();
    assert!(error.code == SourceError::UNREADABLE && error.detail.contains("fits no `Authorization`"), "{error}");
    assert!(!error.detail.contains("a:b"));
    assert_eq!(world.all_leases.dropped(), 1);
    world.all_leases.end(Duration::from_secs(30)).await;
    assert!(world.vault.leases().is_empty());
}

/// The source behind the cache, with a record that takes events or does not.
fn remote(world: &VaultWorld, record_is_full: bool) -> Remote<VaultSource> {
    let source = Arc::into_inner(world.source(database(UserHeaders::Basic))).unwrap();
    let record = move |_: &IssueEvent, _: &Outcome<'_>, _| if record_is_full { Err(EventUnwritten) } else { Ok(()) };
    let events = Events::new(record, Metrics::new().credential("billing"));
    let settings = RemoteSettings { name: "billing".into(), lifetime: None, patience: PATIENCE };
    Remote::new(source, settings, IssuedCache::new(100, world.clock.clone()), events, world.clock.clone())
}

#[tokio::test]
async fn a_credential_that_an_upstream_finds_expired_is_another_user_the_next_time() {
    let world = VaultWorld::start().await;
    let (remote, asked) = (remote(&world, false), asked());
    let first = remote.issue(&asked.at(world.clock.now())).await.unwrap();
    assert_eq!((first.kind, &*first.id), ("vault", "database/creds/app/1"));
    world.advance(10);
    assert_eq!(remote.issue(&asked.at(world.clock.now())).await.unwrap().id, first.id);
    remote.drop_expired(&first);
    let second = remote.issue(&asked.at(world.clock.now())).await.unwrap();
    assert_eq!((&*second.id, world.vault.renewals()), ("database/creds/app/2", 0));
    assert_eq!(world.all_leases.dropped(), 0, "a request still holds the first");
    drop(first);
    assert_eq!(world.all_leases.dropped(), 1);
}

#[tokio::test]
async fn a_user_without_a_record_is_given_back() {
    let world = VaultWorld::start().await;
    let error = remote(&world, true).issue(&asked().at(world.clock.now())).await.unwrap_err();
    assert_eq!(error.code, "audit_full");
    let made = world.vault.leases().len();
    assert_eq!((made > 0, world.all_leases.dropped()), (true, made));
}
