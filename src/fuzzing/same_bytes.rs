//! For any bytes: what the route matched and policy saw is what the upstream's request line holds.

use std::sync::LazyLock;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use super::target::{World, parts_of};
use crate::target::Target;
use crate::upstream::uri_of;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// Pieces that two readers of a path could read differently, and plain ones between them.
const PIECES: [&str; 48] = [
    "/",
    "//",
    "/things/",
    "/admin/",
    "/npm/",
    "/npm/private/",
    "/parts/",
    "a",
    "admin",
    "1",
    "%2f",
    "%2F",
    "%5c",
    "%5C",
    "%2e",
    "%2E",
    ".",
    "..",
    "...",
    "%252e",
    "%252f",
    "%255c",
    "%25252f",
    "%25",
    "%2525",
    "%23",
    "%3f",
    "%3B",
    ";",
    ";v=1",
    "\\",
    "%00",
    "%0d%0a",
    "%7f",
    "%20",
    "+",
    "%2b",
    "%61",
    "%41",
    "%c0%af",
    "%e0%80%af",
    "%c3%a9",
    "%ff",
    "%zz",
    "%",
    "@",
    "{id}",
    "%7Bid%7D",
];

/// Anything that a client could send for a target.
fn raw_target() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|rest| [b"/things/", &rest[..]].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|rest| [b"/npm/", &rest[..]].concat()),
        8 => (
            prop::sample::select(vec!["/", "/things/", "/npm/", "/npm/private/", "/things/1/parts/", ""]),
            prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..8),
            prop::option::of("[?][a-z%2e/;#=&]{0,12}"),
        )
            .prop_map(|(start, pieces, query)| {
                format!("{start}{}{}", pieces.concat(), query.unwrap_or_default()).into_bytes()
            }),
    ]
}

fn raw_host() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => Just(b"api.test".to_vec()),
        1 => "[A-Za-z.-]{1,12}(:[0-9]{1,5})?".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..16),
    ]
}

/// The request line that goes out for this target, as bytes on the wire.
async fn request_line(target: &Target) -> String {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = target.method().clone();
    *request.uri_mut() = uri_of(target).unwrap();
    let sent = async move {
        let _never_answered = futures_util::future::join(sender.send_request(request), connection).await;
    };
    let line = async move {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(theirs.read_u8().await.unwrap());
        }
        String::from_utf8(line).unwrap()
    };
    tokio::select! { biased; line = line => line, () = sent => panic!("the connection ended") }
}

/// How many of the targets so far came through, by the form of their route.
#[derive(Default)]
struct Passed {
    normal: usize,
    opaque: usize,
}

#[test]
fn what_policy_saw_is_what_the_upstream_gets_for_any_bytes() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let passed = std::cell::RefCell::new(Passed::default());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&(raw_host(), raw_target()), |(host, target)| {
        let Some(parts) = parts_of(&host, &target) else { return Ok(()) };
        let Some(found) = WORLD.found(&parts) else { return Ok(()) };
        WORLD.everybody_sees_the_same(&found, &parts);
        let line = runtime.block_on(request_line(&found.target));
        prop_assert_eq!(line, format!("GET {} HTTP/1.1\r\n", found.target.path_and_query()));
        let mut passed = passed.borrow_mut();
        if found.route.is_opaque() {
            passed.opaque += 1
        } else {
            passed.normal += 1
        }
        Ok(())
    });
    outcome.unwrap();
    let passed = passed.into_inner();
    assert!(passed.normal > 100 && passed.opaque > 100, "{} and {} came through", passed.normal, passed.opaque);
}
