//! Bodies cross as they come, whole or with an error.

use super::*;

#[tokio::test]
async fn the_first_event_arrives_before_the_second_is_produced() {
    let (produce, producing) = mpsc::channel::<()>(1);
    let producing = Arc::new(tokio::sync::Mutex::new(producing));
    let address = raw(move |_, mut stream| {
        let producing = producing.clone();
        async move {
            read_head(&mut stream).await.unwrap();
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head).await.unwrap();
            for event in ["9\r\ndata: 1\n\n\r\n", "9\r\ndata: 2\n\n\r\n", "0\r\n\r\n"] {
                producing.lock().await.recv().await;
                stream.write_all(event.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let mut body = Ask::get("/").send(&upstream_at(address)).await.unwrap().response.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        produce.send(()).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), event);
    }
    produce.send(()).await.unwrap();
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_upload_flows_while_it_is_produced_and_waits_for_its_reader() {
    const PIECE: usize = 1024 * 1024;
    const PIECES: usize = 100;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let read_on = Arc::new(tokio::sync::Notify::new());
    let reading = read_on.clone();
    let address = raw(move |_, mut stream| {
        let (arrived, reading) = (arrived.clone(), reading.clone());
        async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.to_lowercase().contains("transfer-encoding: chunked"), "no length was announced");
            stream.read_u8().await.unwrap();
            arrived.send(0).unwrap();
            reading.notified().await;
            let mut total = 1;
            let mut buffer = vec![0; 64 * 1024];
            while total < PIECE * PIECES {
                total += stream.read(&mut buffer).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        }
    })
    .await;
    let (sender, body) = channel();
    let asking = tokio::spawn(async move { Ask::post("/", body).send(&upstream_at(address)).await });
    let piece = || Ok(Frame::data(Bytes::from(vec![b'x'; PIECE])));
    sender.send(piece()).await.unwrap();
    arrivals.recv().await.unwrap();
    let mut sent = 1;
    while tokio::time::timeout(SHORT, sender.send(piece())).await.is_ok() {
        sent += 1;
        assert!(sent < PIECES, "everything was taken although nobody reads");
    }
    read_on.notify_one();
    // The piece whose sending was given up is sent again.
    for _ in sent..PIECES {
        sender.send(piece()).await.unwrap();
    }
    drop(sender);
    assert_eq!(asking.await.unwrap().unwrap().response.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn the_announced_length_goes_on_and_must_hold() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (address, mut seen) = recorder().await;
        let upstream = upstream(UpstreamSettings { protocol, ..settings(&[address]) });
        Ask::post("/", shared_body::full("four")).send(&upstream).await.unwrap();
        let whole = seen.recv().await.unwrap();
        assert_eq!((whole.all("content-length"), &whole.body[..]), (vec!["4"], &b"four"[..]));
        Ask::post("/", shared_body::empty()).send(&upstream).await.unwrap();
        assert_eq!(seen.recv().await.unwrap().all("content-length"), ["0"]);

        for (length, text) in [("5", "four"), ("3", "four")] {
            let (sender, body) = channel();
            sender.send(data(text)).await.unwrap();
            drop(sender);
            let error = Ask::post("/", body).header("Content-Length", length).send(&upstream).await.unwrap_err();
            assert_eq!((error.code(), error.class()), ("request_body_broken", FailureClass::Caller), "{length}");
        }
        let ask = Ask::post("/", shared_body::full("four")).header("Content-Length", "3");
        assert_eq!(ask.send(&upstream).await.unwrap_err().code(), "request_malformed");
        let ask = Ask::post("/", shared_body::full("four")).header("Content-Length", "+4");
        assert_eq!(ask.send(&upstream).await.unwrap_err().code(), "request_malformed");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_at_the_caller_is_told_as_such() {
    #[derive(Debug, thiserror::Error)]
    #[error("larger than the route allows")]
    struct TooLarge;

    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (address, mut seen) = recorder().await;
        let upstream = upstream(UpstreamSettings { protocol, ..settings(&[address]) });
        let (sender, body) = channel();
        sender.send(data("some")).await.unwrap();
        let failing = async move { sender.send(Err(TooLarge.into())).await.unwrap() };
        let (answer, ()) = tokio::join!(Ask::post("/", body).send(&upstream), failing);
        let UpstreamError::RequestBody(cause) = answer.unwrap_err() else { panic!() };
        assert!(cause.is::<TooLarge>(), "whoever refused the body finds its own error again");
        assert!(seen.try_recv().is_err(), "the upstream never saw it end");
        assert_eq!(upstream.stats().idle, 0);
    }
}

#[tokio::test]
async fn a_truncated_answer_is_an_error_and_never_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nshort\r\n0\r\n\r\n",
    ] {
        let address = raw(move |_, mut stream| async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let upstream = upstream_at(address);
        let body = Ask::get("/").send(&upstream).await.unwrap().response.into_body();
        assert_eq!(stream_error(&read_all(body).await.unwrap_err()).code(), "upstream_body_broken");
        assert_eq!(upstream.stats().open, 0);
    }
}

#[tokio::test]
async fn trailers_cross_save_those_that_speak_for_somebody_else() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (address, mut seen) = recorder().await;
        let upstream = upstream(UpstreamSettings { protocol, ..settings(&[address]) });
        let (sender, body) = channel();
        let mut trailers = HeaderMap::new();
        for name in ["checksum", "x-forwarded-for", "x_user", "authorization", "content-length", "x-api_key"] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        let mut ask =
            Ask::post("/", body).header("Trailer", "checksum, x_user, X-Forwarded-For").header("TE", "trailers");
        ask.protected = ProtectedHeaders::new(&[HeaderName::from_static("x-user")]);
        ask.credential = vec![(HeaderName::from_static("x-api-key"), HeaderValue::from_static("k"))];
        let sending = async move {
            sender.send(data("x")).await.unwrap();
            sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask.send(&upstream), sending);
        answer.unwrap();
        let seen = seen.recv().await.unwrap();
        let names: Vec<_> = seen.trailers.as_ref().unwrap().keys().map(HeaderName::as_str).collect();
        assert_eq!(
            (names, seen.all("trailer"), seen.all("te")),
            (vec!["checksum"], vec!["checksum"], vec!["trailers"])
        );
    }
}

#[tokio::test]
async fn an_answers_trailers_cross_as_grpc_needs_them() {
    async fn answer(_: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (sender, body) = channel();
        tokio::spawn(async move {
            sender.send(data("message")).await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("set-cookie", HeaderValue::from_static("__Host-doorward=x"));
            sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        });
        Ok(Response::builder().header("trailer", "grpc-status, set-cookie").body(body).unwrap())
    }
    let address = raw(|_, stream| async move {
        let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        let _closed = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
    })
    .await;
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let upstream = upstream(UpstreamSettings { protocol, ..settings(&[address]) });
        let ask = Ask::post("/pkg.Service/Method", shared_body::full("m")).header("TE", "gzip, Trailers");
        let response = ask.send(&upstream).await.unwrap().response;
        assert_eq!(response.headers()["trailer"], "grpc-status", "{protocol:?}");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap().keys().collect::<Vec<_>>(), ["grpc-status"]);
        assert_eq!(body.to_bytes(), "message");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_a_requests_end_is_read_although_nothing_more_can_be_written() {
    let address = raw(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge").await.unwrap();
        // Closed with the rest unread: the kernel resets the connection.
    })
    .await;
    let ejection = Ejection { consecutive_failures: 1, base: LONG };
    let upstream = upstream(UpstreamSettings { ejection, ..settings(&[address]) });
    for _ in 0..20 {
        let pieces = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![b'x'; 256 * 1024]))));
        let body = StreamBody::new(futures_util::StreamExt::take(pieces, 64)).boxed_unsync();
        let response = Ask::post("/", body).send(&upstream).await.unwrap().response;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read_all(response.into_body()).await.unwrap(), "large");
    }
    assert_eq!(upstream.stats().ejected, 0, "an address that answers is well");
}
