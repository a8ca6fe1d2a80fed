//! What the strict reader refuses, as a client sees it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::testing::*;
use crate::server::{Anomaly, ServerLimits};

/// All that comes back for `text`, and what the connection is told of.
async fn answered(world: &mut World, text: &str) -> (String, Anomaly) {
    let mut stream = world.connect().await;
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    let told = soon(world.told.recv()).await.unwrap();
    (String::from_utf8(answer).unwrap(), told)
}

fn statuses(answer: &str) -> Vec<&str> {
    answer.match_indices("HTTP/1.1 ").map(|(at, before)| &answer[at + before.len()..][..3]).collect()
}

#[tokio::test]
async fn a_head_at_fault_is_answered_400_and_reaches_no_handler() {
    let mut world = World::start(None, patient());
    let post = |fields: &str| format!("POST /bad HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
    for (text, anomaly) in [
        ("GET /bad HTTP/1.1\nHost: a\n\n".to_owned(), Anomaly::LineEnd),
        ("GET /bad HTTP/1.1\r\nHost: a\nX: b\r\n\r\n".to_owned(), Anomaly::LineEnd),
        (post("Content-Length: 3\r\nTransfer-Encoding: chunked"), Anomaly::TwoFramings),
        (post("Content-Length: 5\r\nContent-Length: 5"), Anomaly::ContentLength),
        (post("Transfer-Encoding: gzip, chunked"), Anomaly::TransferEncoding),
        ("GET /bad HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), Anomaly::Field),
        ("GET  /bad HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Anomaly::RequestLine),
    ] {
        let (answer, told) = answered(&mut world, &text).await;
        assert_eq!(statuses(&answer), ["400"], "{text:?}");
        // hyper may find a fault first in what a read brought of the head.
        assert!([anomaly, Anomaly::Malformed].contains(&told), "{text:?}: {told:?}");
        assert!(world.entered.try_recv().is_err(), "{text:?} reached the handler");
    }
    assert_eq!(world.stats.protocol_errors(), 7);
}

#[tokio::test]
async fn requests_before_one_at_fault_are_answered_and_nothing_after_it_is_read() {
    let mut world = World::start(None, patient());
    let text = "GET /first HTTP/1.1\r\nHost: a\r\n\r\nPOST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\
                Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let (answer, told) = answered(&mut world, text).await;
    assert_eq!((statuses(&answer), told), (vec!["200", "400"], Anomaly::TwoFramings));
    assert_eq!(world.entered.recv().await.unwrap(), "/first");
    assert!(world.entered.try_recv().is_err());
}

#[tokio::test]
async fn a_fault_shows_wherever_the_reads_cut_the_head() {
    let mut world = World::start(None, patient());
    let text = "GET /bad HTTP/1.1\r\nHost: a\nX: b\r\n\r\n";
    for cut in 1..text.len() {
        let mut stream = world.connect().await;
        stream.set_nodelay(true).unwrap();
        stream.write_all(&text.as_bytes()[..cut]).await.unwrap();
        tokio::task::yield_now().await;
        // The fault may be in the first piece already, and the connection gone.
        let _ = stream.write_all(&text.as_bytes()[cut..]).await;
        let mut answer = String::new();
        let _reset = soon(stream.read_to_string(&mut answer)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{cut}: {answer}");
        assert_eq!(soon(world.told.recv()).await.unwrap(), Anomaly::LineEnd);
    }
    assert!(world.entered.try_recv().is_err());
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_told_as_such() {
    let mut world = World::start(None, ServerLimits { header_bytes: 8192, ..patient() });
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let (answer, told) = answered(&mut world, &text).await;
    assert_eq!((statuses(&answer), told), (vec!["431"], Anomaly::HeadTooLarge));
}

#[tokio::test]
async fn an_upgraded_stream_carries_any_bytes() {
    let mut world = World::start(None, patient());
    let mut stream = world.connect().await;
    let head = "GET /upgraded HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(soon(stream.read_u8()).await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    stream.write_all(b"\0\n\r anything \n\n").await.unwrap();
    let mut echo = [0; 15];
    soon(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"\0\n\r anything \n\n");
    drop(stream);
    assert!(world.told.try_recv().is_err());
}

#[tokio::test]
async fn bytes_that_come_before_an_upgrade_is_answered_put_none_of_ours_into_it() {
    let world = World::start(None, patient());
    let mut stream = world.connect().await;
    let head = "GET /upgraded HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _reset = soon(stream.read_to_end(&mut answer)).await;
    // The answer may come or not; nothing after it does.
    assert!(answer.is_empty() || answer.ends_with(b"\r\n\r\n"), "{answer:?}");
    assert!(!answer.contains(&0), "what the client never sent came back: {answer:?}");
}
