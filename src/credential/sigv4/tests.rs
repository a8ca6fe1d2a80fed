//! The examples of the vendor's own documentation, and what must not depend on who asks.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// 2013-05-24T00:00:00Z, as in "Authenticating Requests: Using the Authorization Header" of the S3 API reference.
fn then() -> Timestamp {
    Timestamp::from_unix_seconds(1_369_353_600)
}

/// The documentation's example keys, which were never anybody's.
fn signature(service: &str, payload: Payload, session_token: Option<&str>) -> RequestSignature {
    RequestSignature {
        keys: AwsKeys {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            session_token: session_token.map(Secret::new),
        },
        scope: SigningScope { service: service.into(), region: "us-east-1".into() },
        payload,
        skew: Arc::default(),
    }
}

/// The signature of a request whose signed headers are given, as the documentation's examples choose them.
fn stated(method: &Method, path: &str, query: &str, headers: &[(&str, &str)], payload: &str) -> String {
    let owned: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let query = uri::canonical_query(&uri::query(query).unwrap());
    let path = uri::path(path).unwrap();
    let canonical = Canonical { method, path: &path, query: &query, headers: &owned, payload };
    let at = SigningTime::of(then()).unwrap();
    let text = signature("s3", Payload::Empty, None).authorization(&canonical, &at);
    text.rsplit_once('=').unwrap().1.to_owned()
}

#[test]
fn the_documentations_examples_come_out_as_printed() {
    let host = ("host", "examplebucket.s3.amazonaws.com");
    let date = ("x-amz-date", "20130524T000000Z");
    let empty = Payload::Empty;
    let empty_hash = ("x-amz-content-sha256", empty.as_str());
    assert_eq!(
        stated(&Method::GET, "/test.txt", "", &[host, ("range", "bytes=0-9"), empty_hash, date], empty.as_str()),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    );
    let hash = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    let headers = [
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        host,
        ("x-amz-content-sha256", hash),
        date,
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ];
    assert_eq!(
        stated(&Method::PUT, "/test$file.text", "", &headers, hash),
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    );
    assert_eq!(
        stated(&Method::GET, "/", "lifecycle", &[host, empty_hash, date], empty.as_str()),
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    );
    assert_eq!(
        stated(&Method::GET, "/", "prefix=J&max-keys=2", &[host, empty_hash, date], empty.as_str()),
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    );
}

fn request(uri: &str) -> Request<()> {
    let request =
        Request::get(uri).header("x-amz-date", "19990101T000000Z").header("x-amz-security-token", "placeholder");
    let request =
        request.header("user-agent", "sdk").header("content-type", "text/plain").header("authorization", "AWS4");
    request.header("x-amz-meta-a", "a   b  c ").body(()).unwrap()
}

#[test]
fn what_the_caller_signed_with_is_replaced() {
    let mut signed = request("/b/k%201?X-Amz-Signature=00&prefix=a");
    signature("s3", Payload::Unsigned, Some("the-role's")).apply(&mut signed, "s3.test", then()).unwrap();
    assert_eq!(signed.uri(), "/b/k%201?prefix=a");
    assert_eq!(signed.headers()["x-amz-date"], "20130524T000000Z");
    assert_eq!(signed.headers()["x-amz-security-token"], "the-role's");
    assert_eq!(signed.headers()["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    let authorization = signed.headers()["authorization"].to_str().unwrap().to_owned();
    let names = "SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-meta-a;x-amz-security-token,";
    assert!(authorization.contains(names), "{authorization}");
    assert!(
        signed.headers()["authorization"].is_sensitive() && signed.headers()["x-amz-security-token"].is_sensitive()
    );
    signature("s3", Payload::Unsigned, Some("the-role's")).apply(&mut signed, "s3.test", then()).unwrap();
    assert_eq!(signed.headers()["authorization"], authorization, "signed again, it is the same");
    assert!(!format!("{:?}", signature("s3", Payload::Unsigned, Some("the-role's"))).contains("role's"));

    let mut without_session = request("/");
    signature("sqs", Payload::Empty, None).apply(&mut without_session, "sqs.test", then()).unwrap();
    assert!(!without_session.headers().contains_key("x-amz-security-token"), "the placeholder goes");
}

#[test]
fn a_request_that_can_be_written_in_two_ways_is_not_signed() {
    for uri in ["/b/%", "/b/%2", "/b?a=%z"] {
        let outcome = signature("s3", Payload::Empty, None).apply(&mut request(uri), "s3.test", then());
        assert!(matches!(outcome, Err(SigningError::Malformed(_))), "{uri}");
    }
}

#[test]
fn a_servers_clock_is_followed_within_reason() {
    let skew = ClockSkew::default();
    let ahead = |skew: &ClockSkew| skew.applied(then()).unix_seconds() - then().unix_seconds();
    skew.observe(then().plus(Duration::from_secs(1200)), then());
    assert_eq!(ahead(&skew), 1200);
    skew.observe(then().minus(Duration::from_secs(1200)), then());
    assert_eq!(ahead(&skew), -1200);
    skew.observe(then().plus(Duration::from_secs(2 * 3600)), then());
    assert_eq!(ahead(&skew), -1200, "two hours are no skew but a fault");
    skew.observe(then().plus(Duration::from_secs(3)), then());
    assert_eq!(ahead(&skew), 0);
}

proptest! {
    /// Whatever the caller writes, the wire form is its own canonical form, and the signature is of that.
    #[test]
    fn what_is_signed_is_what_is_sent(path in "/([a-zA-Z0-9 ~+=/._-]|%[0-9A-Fa-f]{2}){0,40}", query in "([a-z0-9+=&~]|%[0-9a-f]{2}){0,40}") {
        let target = format!("{}?{query}", path.replace(' ', "%20"));
        let mut first = request(&target);
        signature("s3", Payload::Empty, None).apply(&mut first, "s3.test", then()).unwrap();
        let mut second = request(&first.uri().to_string());
        signature("s3", Payload::Empty, None).apply(&mut second, "s3.test", then()).unwrap();
        prop_assert_eq!(first.uri(), second.uri());
        prop_assert_eq!(&first.headers()["authorization"], &second.headers()["authorization"]);
    }
}
