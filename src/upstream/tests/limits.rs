//! Every wait ends.

use super::*;

/// Takes every byte and says nothing.
async fn silent() -> SocketAddr {
    raw(|_, mut stream| async move {
        let mut sink = tokio::io::sink();
        let _until_closed = tokio::io::copy(&mut stream, &mut sink).await;
    })
    .await
}

/// Says a head and one chunk, then nothing, and stays.
async fn begins() -> SocketAddr {
    raw(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await.unwrap();
        let _until_closed = stream.read_u8().await;
    })
    .await
}

#[tokio::test]
async fn a_connection_that_is_not_ready_in_time_is_given_up() {
    let silent = silent().await;
    let address = UpstreamAddress::parse(&format!("https://{silent}")).unwrap();
    let upstream = upstream(UpstreamSettings {
        connect_timeout: SHORT,
        tls: UpstreamTls { authorities: Some(vec![tls::authority().0]), ..UpstreamTls::default() },
        ..UpstreamSettings::new("billing", vec![address])
    });
    let error = Ask::get("/").send(&upstream).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("upstream_connect_timeout", FailureClass::UpstreamTimeout));
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_given_up_and_its_connection_too() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let upstream = upstream(UpstreamSettings { protocol, ..settings(&[silent().await]) });
        let error = Ask::get("/").limits(|limits| limits.first_byte = SHORT).send(&upstream).await.unwrap_err();
        assert_eq!(error.code(), "upstream_first_byte_timeout");
        assert_eq!(upstream.stats().idle, 0);
    }
}

#[tokio::test]
async fn a_long_upload_does_not_count_as_waiting_for_the_head() {
    let (address, mut seen) = recorder().await;
    let upstream = upstream_at(address);
    let (sender, body) = channel();
    let limit = SHORT * 10;
    let asking = Ask::post("/", body).limits(|limits| limits.first_byte = limit);
    let sending = async move {
        for _ in 0..14 {
            tokio::time::sleep(SHORT).await;
            sender.send(data("x")).await.unwrap();
        }
    };
    let (answer, ()) = tokio::join!(asking.send(&upstream), sending);
    answer.unwrap();
    assert_eq!(seen.recv().await.unwrap().body, "x".repeat(14));
}

#[tokio::test]
async fn an_answer_that_falls_silent_is_cut() {
    let upstream = upstream_at(begins().await);
    let answer = Ask::get("/").limits(|limits| limits.idle = SHORT).send(&upstream).await.unwrap();
    let error = read_all(answer.response.into_body()).await.unwrap_err();
    assert_eq!(stream_error(&error).code(), "stream_idle_timeout");
    assert_eq!(upstream.stats().open, 0);
}

#[tokio::test]
async fn a_caller_that_falls_silent_is_cut() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (address, _seen) = recorder().await;
        let upstream = upstream(UpstreamSettings { protocol, ..settings(&[address]) });
        let (_sender, body) = channel();
        let error = Ask::post("/", body).limits(|limits| limits.idle = SHORT).send(&upstream).await.unwrap_err();
        assert_eq!((error.code(), error.class()), ("request_body_idle", FailureClass::CallerTimeout), "{protocol:?}");
    }
}

#[tokio::test]
async fn one_direction_may_rest_while_the_other_moves() {
    let address = raw(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..14 {
            tokio::time::sleep(SHORT).await;
            stream.write_all(b"1\r\na\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let _until_closed = stream.read_u8().await;
    })
    .await;
    let (_sender, body) = channel();
    let ask = Ask::post("/", body).limits(|limits| limits.idle = SHORT * 10);
    let answer = ask.send(&upstream_at(address)).await.unwrap();
    assert_eq!(read_all(answer.response.into_body()).await.unwrap(), "a".repeat(14));
}

#[tokio::test]
async fn the_total_time_ends_a_request_before_and_after_its_head() {
    let total = |limits: &mut RouteLimits| limits.total = Some(SHORT * 8);
    let error = Ask::get("/").limits(total).send(&upstream_at(silent().await)).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("total_timeout", FailureClass::UpstreamTimeout));

    let answer = Ask::get("/").limits(total).send(&upstream_at(begins().await)).await.unwrap();
    let error = read_all(answer.response.into_body()).await.unwrap_err();
    assert_eq!(stream_error(&error).code(), "total_timeout");
}

#[tokio::test]
async fn a_stream_ends_with_its_grant_even_while_it_moves() {
    let address = raw(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        while stream.write_all(b"1\r\na\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut ask = Ask::get("/");
    ask.expires_at = Some(Clock::system().now().plus(SHORT * 8));
    let answer = ask.send(&upstream_at(address)).await.unwrap();
    let error = read_all(answer.response.into_body()).await.unwrap_err();
    assert_eq!(stream_error(&error).code(), "grant_ended");
}

#[tokio::test]
async fn nothing_is_forwarded_on_a_grant_that_has_ended() {
    let (address, mut seen) = recorder().await;
    let mut ask = Ask::get("/");
    ask.expires_at = Some(Clock::system().now());
    let error = ask.send(&upstream_at(address)).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("grant_ended", FailureClass::GrantEnded));
    assert!(seen.try_recv().is_err());
}
