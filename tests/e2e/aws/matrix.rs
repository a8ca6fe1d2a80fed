//! Every spelling of paths, queries, payloads and times that a signature can go wrong by, against a service that computes
//! the signature for itself.

use http::Method;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{World, storage_route};
use crate::support::{Answer, ObjectGateway};

impl World {
    async fn ask(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let client = self.gate.listener("public");
        let mut draft = client.request(method, target).header("host", "127.0.0.1").bearer(&self.issuer.token().mint());
        for (name, value) in headers {
            draft = draft.header(name, value);
        }
        if body.is_empty() { draft.send().await } else { draft.body(body.to_owned()).send().await }
    }

    async fn ok(&self, method: Method, target: &str, body: &str) -> String {
        let answer = self.ask(method.clone(), target, &[], body).await;
        assert_eq!(answer.status, 200, "{method} {target}: {}", answer.text());
        answer.text()
    }

    /// The keys that a listing shows, as the service wrote them.
    async fn listed(&self, query: &str) -> Vec<String> {
        let text = self.ok(Method::GET, &format!("/{}?{query}", self.bucket), "").await;
        let keys = text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap());
        let plain = |key: &str| {
            let marks = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
            marks.iter().fold(key.to_owned(), |text, (from, to)| text.replace(from, to))
        };
        keys.map(plain).collect()
    }
}

#[tokio::test]
async fn an_object_is_the_same_however_its_path_is_spelt() {
    let world = World::start(|gate, _, _| gate).await;
    let bucket = world.bucket.clone();
    world.ok(Method::PUT, &format!("/{bucket}"), "").await;
    // What it is called, and the ways to write that; the first one writes the object.
    let keys: [(&str, &[&str]); 14] = [
        ("plain-._~", &["plain-._~", "plain-._%7E", "%70lain%2D%2E%5F%7e"]),
        ("a b", &["a%20b"]),
        ("a+b", &["a+b", "a%2Bb", "a%2bb"]),
        ("a//b", &["a//b"]),
        ("/lead", &["/lead"]),
        ("trail/", &["trail/"]),
        ("!$&'()*,;=:@", &["!$&'()*,;=:@", "%21%24%26%27%28%29%2A%2C%3B%3D%3A%40", "!$%26'%28)*,;=:%40"]),
        ("q?x=1", &["q%3Fx=1", "q%3Fx%3D1"]),
        ("h#h", &["h%23h"]),
        ("100%", &["100%25"]),
        ("x%2Fy", &["x%252Fy", "x%25%32Fy"]),
        ("é∆", &["%C3%A9%E2%88%86", "%c3%a9%e2%88%86"]),
        (".dot..dots.", &[".dot..dots.", "%2Edot%2e.dots."]),
        ("[]{}|^`\"<>\\", &["%5B%5D%7B%7D%7C%5E%60%22%3C%3E%5C"]),
    ];
    for (key, spellings) in keys {
        world.ok(Method::PUT, &format!("/{bucket}/{}", spellings[0]), key).await;
        for spelling in spellings {
            assert_eq!(world.ok(Method::GET, &format!("/{bucket}/{spelling}"), "").await, key, "{spelling}");
        }
    }
    let mut listed = world.listed("list-type=2").await;
    let mut expected = keys.map(|(key, _)| key.to_owned());
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected, "and each is there once, by its own name");
    for refused in
        ["a%2Fb", "a/%2fb", "%2Flead", "..", "a/../b", "a/%2E%2e/b", "a/%2e/b", "a%2F..%2Fb", "a%zzb", "a%", "a%00b"]
    {
        let answer = world.ask(Method::GET, &format!("/{bucket}/{refused}"), &[], "").await;
        assert_eq!(answer.status, 400, "{refused}: {}", answer.text());
    }
    assert_eq!(
        world.ask(Method::GET, &format!("/{bucket}%2Fplain-._~"), &[], "").await.status,
        400,
        "a bucket is a segment"
    );
    for (_, spellings) in keys {
        let target = format!("/{bucket}/{}", spellings.last().unwrap());
        assert_eq!(world.ask(Method::DELETE, &target, &[], "").await.status, 204, "{target}");
    }
    assert_eq!(world.listed("list-type=2").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_query_says_the_same_however_it_is_spelt_and_nothing_of_a_callers_own_signature() {
    let world = World::start(|gate, _, _| gate).await;
    let bucket = world.bucket.clone();
    world.ok(Method::PUT, &format!("/{bucket}"), "").await;
    for key in ["a%20b/1", "a%2Bb/1", "a%26b=/1", "%C3%A9/1", "~/1"] {
        world.ok(Method::PUT, &format!("/{bucket}/{key}"), "x").await;
    }
    for (query, found) in [
        ("list-type=2&prefix=a%20b%2F", "a b/1"),
        ("prefix=a+b/&list-type=2", "a b/1"),
        ("prefix=a%2bb/&list-type=2&max-keys=5", "a+b/1"),
        ("list-type=2&prefix=a%26b%3D", "a&b=/1"),
        ("list-type=2&prefix=a%26b=", "a&b=/1"),
        ("list-type=2&prefix=%c3%A9", "é/1"),
        ("list-type=2&prefix=~", "~/1"),
        ("list-type=2&prefix=%7e", "~/1"),
        ("list-type=2&&prefix=%7E&", "~/1"),
        ("max-keys=1&list-type=2&start-after=a%2Bb%2F1&delimiter=", "~/1"),
        ("prefix=~&list-type=2&X-Amz-Signature=00&X-Amz-Credential=AK%2F1&x-amz-algorithm=AWS4-HMAC-SHA256", "~/1"),
        ("prefix=~&list-type=2&X%2DAmz-Security-Token=stolen&X-Amz-Date=19700101T000000Z&X-Amz-Expires=1", "~/1"),
    ] {
        assert_eq!(world.listed(query).await, [found], "{query}");
    }
    // A name without a value.
    let acl = world.ok(Method::GET, &format!("/{bucket}/~/1?acl"), "").await;
    assert!(
        acl.contains("AccessControlPolicy") && acl == world.ok(Method::GET, &format!("/{bucket}/~/1?acl="), "").await
    );
    world.ok(Method::GET, &format!("/{bucket}/~/1?response-content-type=text%2Fx%3B%20a%3Db"), "").await;
}

#[tokio::test]
async fn a_body_arrives_as_it_was_sent_and_one_that_is_not_what_was_stated_does_not() {
    let world = World::start(|gate, _, _| gate).await;
    let bucket = world.bucket.clone();
    world.ok(Method::PUT, &format!("/{bucket}"), "").await;
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let sha = "x-amz-content-sha256";
    for (name, headers, body, status) in [
        ("unstated", vec![], "abc", 200),
        ("unsigned", vec![(sha, "UNSIGNED-PAYLOAD")], "abc", 200),
        ("hashed", vec![(sha, hash)], "abc", 200),
        ("upper", vec![(sha, "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD")], "abc", 200),
        ("no-hash", vec![(sha, "abc")], "abc", 200),
        ("empty", vec![(sha, empty)], "", 200),
        ("empty-unstated", vec![], "", 200),
        ("metadata", vec![("x-amz-meta-a", "b   c"), ("x-amz-meta-z", "  é ")], "abc", 200),
        ("unknown", vec![("x-amz-of-tomorrow", "1")], "abc", 200),
        ("lied", vec![(sha, hash)], "abd", 400),
        ("lied-empty", vec![(sha, empty)], "abc", 400),
        ("chunks", vec![(sha, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")], "abc", 501),
    ] {
        let target = format!("/{bucket}/{name}");
        let answer = world.ask(Method::PUT, &target, &headers, body).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        if status == 200 {
            assert_eq!(world.ok(Method::GET, &target, "").await, body, "{name}");
        } else {
            assert_eq!(world.ask(Method::GET, &target, &[], "").await.status, 404, "{name}");
        }
    }
}

/// The gate's clock is this far ahead: more than what services take.
const AHEAD: &str = "+20m";

#[tokio::test]
async fn a_gate_whose_clock_is_wrong_signs_by_the_clock_of_the_service() {
    let gateway = ObjectGateway::shared().await;
    let world = World::start(|gate, aws, _| {
        let mut ambient = aws.clone();
        let more = json!({ "subject": "ambient", "ambient": "environment", "duration": "1h" });
        ambient.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        gate.config(json!({ "credentials": { "ambient": { "aws": ambient } } }))
            .route("bucket", storage_route("/{bucket}", "ambient"))
            .variable("AWS_ACCESS_KEY_ID", "administrator")
            .variable("AWS_SECRET_ACCESS_KEY", gateway.secret())
            .variable("LD_PRELOAD", "libfaketime.so.1")
            .variable("LD_LIBRARY_PATH", &format!("/usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH))
            .variable("FAKETIME", AHEAD)
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .variable("NO_FAKE_STAT", "1")
    })
    .await;
    let now = OffsetDateTime::now_utc();
    let theirs = now.unix_timestamp() + 20 * 60;
    let token = world.issuer.token().claim("iat", theirs).claim("exp", theirs + 300).mint();
    let client = world.gate.listener("public");
    for (method, body) in [(Method::PUT, ""), (Method::GET, "")] {
        let target = format!("/{}", world.bucket);
        let draft = client.request(method.clone(), &target).header("host", "127.0.0.1").bearer(&token);
        let answer = draft.body(body).send().await;
        assert_eq!(answer.status, 200, "{method}: {}", answer.text());
    }
    let record = world.gate.audited("the session", |record| record.event() == "credential.issued").await;
    let at = OffsetDateTime::parse(record.text("time"), &Rfc3339).unwrap();
    assert!(at - now > time::Duration::minutes(15), "the gate's clock is wrong: {at}");
}
