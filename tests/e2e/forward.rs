//! Bodies, protocols and headers between the caller and the upstream.

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{
    Answer, Authority, Gate, RecordingUpstream, RunningGate, Script, StaticIssuer, eventually, now, within,
};

struct World {
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
    token: String,
}

impl World {
    async fn changed(change: impl FnOnce(Gate) -> Gate) -> Self {
        let authority = Authority::new();
        let upstream = RecordingUpstream::start().await;
        Self::before(&authority, upstream, change).await
    }

    async fn before(
        authority: &std::sync::Arc<Authority>,
        upstream: RecordingUpstream,
        change: impl FnOnce(Gate) -> Gate,
    ) -> Self {
        let issuer = StaticIssuer::start(authority).await;
        let gate = change(Gate::standard(authority, &issuer, &upstream)).start().await;
        gate.becomes_ready(200).await;
        let token = issuer.token().groups(&["readers", "writers"]).mint();
        Self { issuer, upstream, gate, token }
    }
}

fn upstream_of(settings: Value) -> Value {
    json!({ "upstreams": { "api": settings } })
}

#[tokio::test]
async fn the_first_piece_of_an_upload_arrives_before_the_second_is_made_over_both_versions() {
    let world = World::changed(|gate| gate).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (pieces, received) = mpsc::channel::<Bytes>(1);
        let frames = stream::unfold(received, |mut received| async move {
            let piece = received.recv().await?;
            Some((Ok(Frame::data(piece)), received))
        });
        let path = format!("/things/{version:?}");
        let draft = world.gate.post(&path).bearer(&world.token).stream(BodyExt::boxed_unsync(StreamBody::new(frames)));
        let sending = async {
            if version == Version::HTTP_2 { Box::pin(draft.send_http2()).await } else { Box::pin(draft.send()).await }
        };
        let feeding = Box::pin(async {
            for number in 1..=4 {
                pieces.send(Bytes::from_static(b"piece")).await.unwrap();
                let all = 5 * number;
                let is_it = |received: &crate::support::Received| received.target == path && received.body_bytes == all;
                world.upstream.receives("the piece", is_it).await;
            }
            drop(pieces);
        });
        let (answer, ()) = within("the upload", async { tokio::join!(sending, feeding) }).await;
        assert_eq!(answer.status, 200);
    }
}

/// Whatever the test waits for, a token's end is its end.
fn barely_lenient() -> serde_json::Value {
    json!({ "issuers": { "machines": { "leeway": "1s" } } })
}

#[tokio::test]
async fn a_stream_of_events_ends_with_the_token_that_opened_it() {
    let world = World::changed(|gate| gate.config(barely_lenient())).await;
    let (pieces, script) = Script::pieces("text/event-stream");
    world.upstream.script("/things/events", script);
    let token = world.issuer.token().claim("exp", now() + 6).mint();
    let answer = world.gate.get("/things/events").bearer(&token).begin().await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    pieces.send("data: 1\n\n".into()).await.unwrap();
    assert_eq!(within("the event", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
    let end = within("the end of the stream", body.frame()).await;
    assert!(end.is_some_and(|frame| frame.is_err()), "a stream that was cut must not look whole");
    within("the upstream to be let go", pieces.closed()).await;
    let record = world.gate.only_record_of("/things/events").await;
    assert_eq!(record.verdict(), ("allow", "grant_ended"));
    assert_eq!((record.number("status"), record.number("response_bytes")), (200, 9));
}

#[tokio::test]
async fn a_stream_that_moves_all_the_time_ends_with_its_token_too() {
    let world = World::changed(|gate| gate.config(barely_lenient())).await;
    let (pieces, script) = Script::pieces("text/event-stream");
    world.upstream.script("/things/events", script);
    let token = world.issuer.token().claim("exp", now() + 6).mint();
    let answer = world.gate.get("/things/events").bearer(&token).begin().await;
    let producing = async {
        while pieces.send("data: 1\n\n".into()).await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    let reading = answer.into_body().collect();
    let (read, ()) = within("the end of the stream", async { tokio::join!(reading, producing) }).await;
    read.expect_err("a stream that was cut must not look whole");
    assert_eq!(world.gate.only_record_of("/things/events").await.text("code"), "grant_ended");
}

#[tokio::test]
async fn every_way_to_an_upstream_carries_requests_and_uses_its_connection_again() {
    for (protocol, tls, version) in [
        ("http1", false, Version::HTTP_11),
        ("http2", false, Version::HTTP_2),
        ("http1", true, Version::HTTP_11),
        ("http2", true, Version::HTTP_2),
        ("auto", true, Version::HTTP_2),
    ] {
        let authority = Authority::new();
        let upstream =
            if tls { RecordingUpstream::start_tls(&authority).await } else { RecordingUpstream::start().await };
        let settings = upstream_of(json!({ "protocol": protocol }));
        let world = World::before(&authority, upstream, |gate| gate.config(settings).workers(1)).await;
        for number in 0..5 {
            let answer = world.gate.post(&format!("/things/{number}")).bearer(&world.token).body("hello").send().await;
            assert_eq!(answer.status, 200, "{protocol}, TLS {tls}: {}", answer.text());
        }
        let received = world.upstream.received();
        assert_eq!(received.len(), 5);
        for one in &received {
            assert_eq!((one.version, one.body_bytes, one.connection), (version, 5, received[0].connection));
        }
    }
}

#[tokio::test]
async fn an_upstream_under_another_authority_or_name_is_not_trusted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let upstream = RecordingUpstream::start_tls(&stranger).await;
    let world = World::before(&authority, upstream, |gate| gate).await;
    let answer = world.gate.get("/things/1").bearer(&world.token).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (502, &json!("upstream_tls")));
    assert_eq!(world.gate.only_record_of("/things/1").await.verdict(), ("allow", "upstream_tls"));

    let upstream = RecordingUpstream::start_tls(&authority).await;
    let named = |name: &str| upstream_of(json!({ "tls": { "server_name": name } }));
    let world = World::before(&authority, upstream, |gate| gate.config(named("upstream.test"))).await;
    assert_eq!(world.gate.get("/things/1").bearer(&world.token).send().await.status, 200);
    let config = world.gate.read("doorward.yaml").replace("upstream.test", "other.test");
    world.gate.write("doorward.yaml", &config);
    eventually("the other name", || async {
        (world.gate.get("/things/2").bearer(&world.token).send().await.status == 502).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_is_shown_doorwards_own() {
    let authority = Authority::new();
    let pair = authority.client_pair("spiffe://test/doorward");
    let tls = json!({ "authorities": "ca.pem", "certificate": "own.pem", "key": "file:own.key" });
    let upstream = RecordingUpstream::start_mutual_tls(&authority).await;
    let world = World::before(&authority, upstream, |gate| {
        gate.file("own.pem", &pair.certificate).file("own.key", &pair.key).config(upstream_of(json!({ "tls": tls })))
    })
    .await;
    assert_eq!(world.gate.get("/things/1").bearer(&world.token).send().await.status, 200);

    let upstream = RecordingUpstream::start_mutual_tls(&authority).await;
    let world = World::before(&authority, upstream, |gate| gate).await;
    let answer = world.gate.get("/things/1").bearer(&world.token).send().await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    world.upstream.heard_nothing();
}

#[tokio::test]
async fn the_host_that_an_upstream_hears_is_the_one_that_its_entry_says() {
    for (host, heard) in [(json!("billing.internal"), "billing.internal"), (json!("downstream"), "gate.test")] {
        let world = World::changed(|gate| gate.config(upstream_of(json!({ "host": host })))).await;
        assert_eq!(world.gate.get("/things/1").bearer(&world.token).send().await.status, 200);
        assert_eq!(world.upstream.only().authority.as_deref(), Some(heard));
        assert_eq!(world.upstream.only().header("x-forwarded-host"), Some("gate.test"));
    }
}

#[tokio::test]
async fn an_answer_comes_back_as_it_was_without_what_belongs_to_its_hop() {
    let world = World::changed(|gate| gate).await;
    let headers = vec![
        ("content-type", "text/plain"),
        ("etag", "\"7\""),
        ("x-own", "one"),
        ("x-own", "two"),
        ("keep-alive", "timeout=5"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("proxy-authenticate", "Basic"),
    ];
    world.upstream.script("/things/1", Script::Fixed(StatusCode::IM_A_TEAPOT, headers, "short and stout"));
    for answer in [
        world.gate.get("/things/1").bearer(&world.token).send().await,
        world.gate.get("/things/1").bearer(&world.token).send_http2().await,
    ] {
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::IM_A_TEAPOT, "short and stout"));
        assert_eq!((answer.header("etag"), answer.headers.get_all("x-own").iter().count()), (Some("\"7\""), 2));
        for name in ["keep-alive", "x-hop", "proxy-authenticate"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
    }
    let head = world.gate.request(Method::HEAD, "/things/1").bearer(&world.token).send().await;
    assert_eq!((head.status, head.body.len()), (StatusCode::IM_A_TEAPOT, 0));
}

#[tokio::test]
async fn one_request_has_one_id_and_one_trace_from_caller_to_upstream_and_record() {
    let world = World::changed(|gate| gate).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let continued = world
        .gate
        .get("/things/1")
        .header("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"))
        .header("tracestate", "vendor=1")
        .header("x-request-id", "chosen-by-the-caller")
        .bearer(&world.token)
        .send()
        .await;
    let received = world.upstream.only();
    let record = world.gate.only_record_of("/things/1").await;
    let id = continued.header("x-request-id").unwrap();
    assert_eq!((received.header("x-request-id"), record.text("request_id")), (Some(id), id));
    assert_ne!(id, "chosen-by-the-caller", "a stranger chooses no id for the record");
    let parent = received.header("traceparent").unwrap();
    assert!(
        parent.starts_with(&format!("00-{trace}-")) && parent.ends_with("-01") && !parent.contains("b7ad6b7169203331")
    );
    assert_eq!((received.header("tracestate"), record.text("trace_id")), (Some("vendor=1"), trace));

    for (path, malformed) in
        [("/things/2", "00-0000"), ("/things/3", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
    {
        let begun = world.gate.get(path).header("traceparent", malformed).header("tracestate", "vendor=1");
        assert_eq!(begun.bearer(&world.token).send().await.status, 200);
        let received = world.upstream.received().pop().unwrap();
        let parent = received.header("traceparent").unwrap();
        assert!(parent.len() == 55 && !parent.contains(trace), "{parent}");
        assert_eq!(received.header("tracestate"), None, "the state of another trace");
        assert_eq!(world.gate.only_record_of(path).await.text("trace_id"), &parent[3..35]);
    }
}

#[tokio::test]
async fn forwarded_says_who_called_over_what_and_for_which_host() {
    let world = World::changed(|gate| gate.config(json!({ "trusted_proxies": ["127.0.0.0/8"] }))).await;
    let request = world.gate.get("/things/1").header("x-forwarded-for", "198.51.100.1, 203.0.113.9");
    assert_eq!(request.header("x-forwarded-proto", "https").bearer(&world.token).send().await.status, 200);
    let received = world.upstream.only();
    assert_eq!(received.header("forwarded"), Some("for=203.0.113.9;proto=https;host=\"gate.test\""));
    assert_eq!(received.header("x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    let record = world.gate.only_record_of("/things/1").await;
    assert_eq!((record.text("source"), record.text("peer").starts_with("127.0.0.1")), ("203.0.113.9", true));
}

#[tokio::test]
async fn a_large_answer_passes_whole_in_flat_memory() {
    const PIECE: usize = 256 * 1024;
    const PIECES: usize = 512;
    let world = World::changed(|gate| gate).await;
    let (pieces, script) = Script::pieces("application/octet-stream");
    world.upstream.script("/things/large", script);
    assert_eq!(world.gate.get("/things/warm").bearer(&world.token).send().await.status, 200);
    let before = world.gate.resident_kib();
    let answer = world.gate.get("/things/large").bearer(&world.token).begin().await;
    let piece = Bytes::from(vec![0x5a; PIECE]);
    let producing = async {
        for _ in 0..PIECES {
            pieces.send(piece.clone()).await.unwrap();
        }
        drop(pieces);
    };
    let reading = async {
        let mut body = answer.into_body();
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
        }
        read
    };
    let (read, ()) = within("the whole answer", async { tokio::join!(reading, producing) }).await;
    let grown = world.gate.resident_kib().saturating_sub(before);
    assert_eq!(read, PIECE * PIECES);
    assert!(grown < 32 * 1024, "{} MiB grew the gate by {grown} KiB", (PIECE * PIECES) >> 20);
}

#[tokio::test]
async fn an_early_answer_ends_an_upload_that_nobody_reads() {
    let world = World::changed(|gate| gate).await;
    let denied = world.issuer.token().mint();
    let endless = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; 64 * 1024]))));
    let body = BodyExt::boxed_unsync(StreamBody::new(endless));
    let request = world.gate.post("/things/1").bearer(&denied).stream(body).into_http1();
    let answer = within("an answer", Box::pin(world.gate.http1().await.send_request(request))).await;
    assert_eq!(Answer::read(answer.expect("the answer is not lost")).await.status, 403);
    assert_eq!(world.gate.only_record_of("/things/1").await.number("status"), 403);
    world.upstream.heard_nothing();
}
