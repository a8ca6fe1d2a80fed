//! Sessions survive a restart; ended ones do not come back.

use super::*;
use crate::login::ages::MOST_OF_ONE_USER;

const DAY: Duration = Duration::from_secs(86_400);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn open(home: &Path, limit: usize, now: Timestamp) -> Store {
    let sealer = Sealer::open_or_create(&home.join("keys.json"), at(0)).unwrap();
    Store::open(&home.join("sessions"), Arc::new(sealer), limit, now).unwrap()
}

fn record(started_at: i64) -> Record {
    Record {
        issuer: "okta".into(),
        generation: 1,
        started_at: at(started_at),
        ends_at: at(started_at).plus(DAY),
        claims_from: at(started_at),
        claims_until: at(started_at + 3600),
        refresh_token: Some("refresh-secret".into()),
        id_token: Some("a.b.c".into()),
        facts: Some(Facts { claims: Map::new(), began_at: at(started_at) }),
        ended: false,
        replaced: false,
    }
}

#[tokio::test]
async fn a_restart_keeps_sessions_and_revives_no_ended_one() {
    let home = tempfile::tempdir().unwrap();
    let (kept, ended) = (SessionKey::of(b"kept"), SessionKey::of(b"ended"));
    let store = open(home.path(), 10, at(0));
    store.insert(kept, record(0)).await.unwrap();
    store.insert(ended, record(0)).await.unwrap();
    assert!(store.end(ended).await.unwrap());
    assert!(!store.end(ended).await.unwrap(), "it ends once");

    let store = open(home.path(), 10, at(5));
    assert!(store.entry(kept).unwrap().is_live(at(5)));
    assert_eq!(store.load(kept).await.unwrap().refresh_token.unwrap(), "refresh-secret");
    assert!(!store.entry(ended).unwrap().is_live(at(5)));
    assert_eq!(store.load(ended).await.unwrap().refresh_token, None, "an ended session keeps no token");
}

#[tokio::test]
async fn no_token_lies_readable_on_disk() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 10, at(0));
    let key = SessionKey::of(b"a");
    store.insert(key, record(0)).await.unwrap();
    let bytes = std::fs::read(store.0.path(key)).unwrap();
    assert!(!bytes.windows(14).any(|window| window == b"refresh-secret"));
}

#[tokio::test]
async fn a_file_under_another_sessions_name_is_no_session() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 10, at(0));
    let (one, two) = (SessionKey::of(b"one"), SessionKey::of(b"two"));
    store.insert(one, record(0)).await.unwrap();
    std::fs::copy(store.0.path(one), store.0.path(two)).unwrap();
    std::fs::write(store.0.path(one).with_extension(disk::UNFINISHED), b"half").unwrap();
    let store = open(home.path(), 10, at(1));
    assert!(store.entry(one).is_some() && store.entry(two).is_none());
    assert!(!store.0.path(one).with_extension(disk::UNFINISHED).exists());
}

#[tokio::test]
async fn past_the_limit_the_oldest_session_ends() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 2, at(0));
    let keys = [b"a", b"b", b"c"].map(|id| SessionKey::of(id));
    assert!(store.insert(keys[1], record(20)).await.unwrap().is_empty());
    assert!(store.insert(keys[0], record(10)).await.unwrap().is_empty());
    let evicted = store.insert(keys[2], record(30)).await.unwrap();
    assert_eq!(evicted.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [keys[0]]);
    assert!(store.entry(keys[0]).is_none() && store.entry(keys[1]).is_some());
    assert!(open(home.path(), 2, at(31)).entry(keys[0]).is_none());
}

#[tokio::test]
async fn a_refresh_that_comes_after_the_end_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 10, at(0));
    let key = SessionKey::of(b"a");
    store.insert(key, record(0)).await.unwrap();
    store.end(key).await.unwrap();
    assert!(!store.advance(key, Record { generation: 2, ..record(0) }).await.unwrap());
    assert!(!open(home.path(), 10, at(1)).entry(key).unwrap().is_live(at(1)));
}

#[tokio::test]
async fn a_disk_that_takes_no_writes_loses_no_refreshed_session() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 10, at(0));
    let key = SessionKey::of(b"a");
    store.insert(key, record(0)).await.unwrap();
    let (directory, away) = (home.path().join("sessions"), home.path().join("away"));
    std::fs::rename(&directory, &away).unwrap();
    let newer = Record { generation: 2, refresh_token: Some("second".into()), ..record(0) };
    assert!(store.advance(key, newer).await.unwrap());
    assert_eq!(store.load(key).await.unwrap().refresh_token.unwrap(), "second");
    std::fs::rename(&away, &directory).unwrap();
    store.sweep(at(1));
    assert_eq!(open(home.path(), 10, at(1)).load(key).await.unwrap().refresh_token.unwrap(), "second");
}

#[tokio::test]
async fn what_is_over_is_swept() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 10, at(0));
    let key = SessionKey::of(b"a");
    store.insert(key, record(0)).await.unwrap();
    assert!(store.replace_by(key, at(60)).await.unwrap());
    assert!(!store.replace_by(key, at(60)).await.unwrap(), "it is replaced once");
    store.sweep(at(59));
    assert!(store.entry(key).is_some());
    assert!(open(home.path(), 10, at(60)).entry(key).is_none(), "the nearer end is durable");
    store.sweep(at(60));
    assert!(store.entry(key).is_none() && !store.0.path(key).exists());
}

#[tokio::test]
async fn the_nearer_end_of_a_replaced_session_is_written_when_the_disk_takes_it() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 10, at(0));
    let key = SessionKey::of(b"a");
    store.insert(key, record(0)).await.unwrap();
    store.advance(key, record(0)).await.unwrap();
    // A directory in the way of the file to be: it can be read, and not replaced.
    let unfinished = store.0.path(key).with_extension(disk::UNFINISHED);
    std::fs::create_dir(&unfinished).unwrap();
    store.replace_by(key, at(60)).await.unwrap_err();
    assert_eq!(store.entry(key).unwrap().ends_at, at(60), "in force all the same");
    std::fs::remove_dir(&unfinished).unwrap();
    store.sweep(at(1));
    let entry = open(home.path(), 10, at(2)).entry(key).unwrap();
    assert!(entry.replaced && entry.ends_at == at(60), "{entry:?}");
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "it stands for the disk that hangs")]
async fn nobody_waits_for_a_disk_that_hangs() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 10, at(0));
    let (kept, new) = (SessionKey::of(b"kept"), SessionKey::of(b"new"));
    store.insert(kept, record(0)).await.unwrap();
    let hanging = store.0.writing.lock().unwrap();
    tokio::time::pause();
    let insert = async { store.insert(new, record(0)).await.map(drop) };
    let end = async { store.end(kept).await.map(drop) };
    let time = async {
        for _ in 0..=DISK.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    };
    let (inserted, ended, ()) = tokio::join!(insert, end, time);
    drop(hanging);
    for answer in [inserted, ended] {
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
    assert!(store.entry(kept).unwrap().ended, "its end is in force all the same");
}

#[tokio::test]
async fn ended_sessions_make_room_before_live_ones() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 2, at(0));
    let keys = [b"a", b"b", b"c"].map(|id| SessionKey::of(id));
    store.insert(keys[0], record(10)).await.unwrap();
    store.insert(keys[1], record(20)).await.unwrap();
    store.end(keys[1]).await.unwrap();
    assert!(store.insert(keys[2], record(30)).await.unwrap().is_empty(), "nobody is signed out");
    assert!(store.entry(keys[0]).is_some() && store.entry(keys[1]).is_none());
}

#[tokio::test]
async fn a_user_with_too_many_sessions_loses_the_oldest_and_nobody_else_does() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path(), 1000, at(0));
    let of = |user: &str, started_at: i64| {
        let claims = [("iss", "https://issuer.test"), ("sub", user)].map(|(name, text)| (name.to_owned(), text.into()));
        let facts = Facts { claims: claims.into_iter().collect(), began_at: at(started_at) };
        Record { facts: Some(facts), ..record(started_at) }
    };
    let bob = SessionKey::of(b"bob");
    store.insert(bob, of("bob", 0)).await.unwrap();
    let mut evicted = Vec::new();
    let key = |number: i64| SessionKey::of(number.to_string().as_bytes());
    for number in 1..=i64::try_from(MOST_OF_ONE_USER).unwrap() + 2 {
        evicted.extend(store.insert(key(number), of("alice", number)).await.unwrap());
    }
    assert_eq!(evicted.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(1), key(2)]);
    assert!(store.entry(bob).is_some());
}
