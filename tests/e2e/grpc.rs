//! gRPC through HTTP/2 on both sides.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use crate::support::{Answer, Authority, Gate, RecordingUpstream, RunningGate, Script, StaticIssuer, within};

const CALL: &str = "/things.Service/Call";
const MESSAGE: &[u8] = b"\0\0\0\0\x02hi";

struct World {
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
    token: String,
}

async fn world(tls: bool) -> World {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = if tls { RecordingUpstream::start_tls(&authority).await } else { RecordingUpstream::start().await };
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .config(json!({ "upstreams": { "api": { "protocol": "http2" } } }))
        .route("grpc", json!({ "path": "/things.Service/{*rest}" }))
        .start()
        .await;
    gate.becomes_ready(200).await;
    upstream.script(CALL, Script::Grpc);
    let token = issuer.token().groups(&["writers"]).mint();
    World { issuer, upstream, gate, token }
}

impl World {
    async fn call(&self, path: &str, token: Option<&str>) -> Answer {
        let call = self.gate.post(path).header("content-type", "application/grpc").header("te", "trailers");
        let call = token.into_iter().fold(call, |call, token| call.bearer(token));
        call.body(Bytes::from_static(MESSAGE)).send_http2().await
    }
}

fn status(answer: &Answer) -> &str {
    let status = answer.headers.get("grpc-status").or_else(|| answer.trailers.get("grpc-status"));
    status.expect("a gRPC status").to_str().unwrap()
}

#[tokio::test]
async fn a_call_passes_with_trailers_both_ways_over_h2c_and_tls() {
    for tls in [false, true] {
        let world = world(tls).await;
        let trailers = HeaderMap::from_iter([("x-checksum".parse().unwrap(), "7".parse().unwrap())]);
        let frames = [Ok(Frame::data(Bytes::from_static(MESSAGE))), Ok(Frame::trailers(trailers))];
        let body = BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames)));
        let call = world.gate.post(CALL).header("content-type", "application/grpc").header("te", "trailers");
        let answer = call.bearer(&world.token).stream(body).send_http2().await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, MESSAGE));
        assert_eq!((status(&answer), &answer.trailers["grpc-message"]), ("0", &"well received".parse().unwrap()));
        let received = world.upstream.only();
        assert_eq!((received.version, received.header("te")), (Version::HTTP_2, Some("trailers")));
        assert_eq!((received.body_bytes, received.complete), (MESSAGE.len() as u64, true));
        assert_eq!(world.gate.only_record_of(CALL).await.verdict(), ("allow", "ok"));
    }
}

#[tokio::test]
async fn messages_of_a_stream_pass_one_by_one() {
    let world = world(false).await;
    let (pieces, script) = Script::pieces("application/grpc");
    world.upstream.script("/things.Service/Watch", script);
    let request = world.gate.post("/things.Service/Watch").header("content-type", "application/grpc");
    let request = request.bearer(&world.token).body(Bytes::from_static(MESSAGE)).into_http2();
    let mut sender = world.gate.http2().await;
    let answer = within("the head", sender.send_request(request)).await.unwrap();
    let mut body = answer.into_body();
    for _ in 0..4 {
        pieces.send(Bytes::from_static(MESSAGE)).await.unwrap();
        let frame = within("the message", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), MESSAGE);
    }
    drop(pieces);
    let end = within("the end", body.collect()).await.expect("the stream ends well");
    assert!(end.to_bytes().is_empty());
}

#[tokio::test]
async fn a_refusal_is_a_status_that_a_grpc_client_understands() {
    let world = world(false).await;
    let reader = world.issuer.token().mint();
    for (path, token, wanted, code) in [
        (CALL, None, "16", "unauthenticated"),
        (CALL, Some("no.token.atall"), "16", "token_malformed"),
        (CALL, Some(reader.as_str()), "7", "not_permitted"),
        ("/nowhere.Service/Call", Some(reader.as_str()), "12", "no_route"),
    ] {
        let answer = world.call(path, token).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/grpc")), "{code}");
        assert_eq!((status(&answer), answer.body.len()), (wanted, 0), "{code}");
        let message = answer.header("grpc-message").unwrap();
        assert!(message.starts_with(code) && message.contains(answer.header("x-request-id").unwrap()), "{message}");
    }
    world.upstream.heard_nothing();
    world.upstream.go_away().await;
    let answer = world.call(CALL, Some(&world.token)).await;
    assert_eq!((status(&answer), answer.body.len()), ("14", 0), "UNAVAILABLE: {answer:?}");
    assert_eq!(world.gate.settled_audit().await.iter().filter(|record| record.is_request_to(CALL)).count(), 4);
}
