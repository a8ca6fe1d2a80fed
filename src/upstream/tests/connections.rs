//! Reuse, retry, balance, and what an aborted request leaves behind.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

async fn ok(ask: Ask, upstream: &Upstream) -> Bytes {
    read_all(ask.send(upstream).await.unwrap().response.into_body()).await.unwrap()
}

/// Answers with the path; `accepted` counts connections.
async fn echo(accepted: Arc<AtomicUsize>) -> SocketAddr {
    raw(move |_, mut stream| {
        accepted.fetch_add(1, Ordering::SeqCst);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let path = head.split(' ').nth(1).unwrap();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let upstream = upstream_at(echo(accepted.clone()).await);
    for index in 0..20 {
        assert_eq!(ok(Ask::get(&format!("/{index}")), &upstream).await, format!("/{index}"));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    assert_eq!(upstream.stats(), UpstreamStats { addresses: 1, ejected: 0, open: 1, idle: 1 });
}

#[tokio::test]
async fn no_more_connections_stay_idle_than_the_settings_say() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let address = echo(accepted.clone()).await;
    let upstream = upstream(UpstreamSettings { idle_connections: 2, ..settings(&[address]) });
    let asks = (0..5).map(|_| Ask::get("/").send(&upstream));
    let answers = futures_util::future::join_all(asks).await;
    assert_eq!(accepted.load(Ordering::SeqCst), 5);
    for answer in answers {
        read_all(answer.unwrap().response.into_body()).await.unwrap();
    }
    assert_eq!((upstream.stats().idle, upstream.stats().open), (2, 2));
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_is_not_used_again() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let counting = accepted.clone();
    let address = raw(move |_, mut stream| {
        counting.fetch_add(1, Ordering::SeqCst);
        async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await.unwrap();
        }
    })
    .await;
    let upstream = upstream_at(address);
    for count in 1..=3 {
        assert_eq!(ok(Ask::post("/", shared_body::full("x")), &upstream).await, "a");
        while upstream.stats().idle > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((accepted.load(Ordering::SeqCst), upstream.stats().open), (count, 0));
    }
}

#[tokio::test]
async fn a_request_that_was_never_written_is_sent_on_a_new_connection() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let (address, mut seen) = recorder().await;
        let upstream = upstream(UpstreamSettings { protocol, ..settings(&[address]) });
        assert_eq!(ok(Ask::get("/first"), &upstream).await, "ok");
        seen.recv().await.unwrap();
        upstream.endpoints[0].break_idle();
        assert_eq!(ok(Ask::post("/second", shared_body::full("once")), &upstream).await, "ok");
        assert_eq!(seen.recv().await.unwrap().body, "once");
        assert!(seen.try_recv().is_err(), "it arrived once");
        assert_eq!(upstream.stats().ejected, 0);
    }
}

#[tokio::test]
async fn an_http2_connection_that_the_upstream_leaves_is_replaced() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let leave = Arc::new(tokio::sync::Notify::new());
    let leaving = leave.clone();
    let address = raw(move |_, stream| {
        let (sender, leaving) = (sender.clone(), leaving.clone());
        async move {
            tokio::select! {
                () = serve(stream, sender) => {}
                () = leaving.notified() => {}
            }
        }
    })
    .await;
    let upstream = upstream(UpstreamSettings { protocol: UpstreamProtocol::Http2, ..settings(&[address]) });
    for _ in 0..3 {
        assert_eq!(ok(Ask::get("/"), &upstream).await, "ok");
        seen.recv().await.unwrap();
        leave.notify_one();
        while upstream.stats().open > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_never_sent_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let address = raw(move |_, mut stream| {
        let requests = count.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                if requests.fetch_add(1, Ordering::SeqCst) > 0 {
                    assert!(head.contains("/second"));
                    return;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await.unwrap();
            }
        }
    })
    .await;
    let upstream = upstream_at(address);
    assert_eq!(ok(Ask::get("/first"), &upstream).await, "a");
    for ask in [Ask::post("/second", shared_body::full("x")), Ask::get("/second")] {
        let before = requests.load(Ordering::SeqCst);
        let error = ask.send(&upstream).await.unwrap_err();
        assert_eq!((error.code(), requests.load(Ordering::SeqCst)), ("upstream_closed", before + 1));
    }
}

#[tokio::test]
async fn an_address_that_refuses_connections_is_passed_over_and_comes_back() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let alive = echo(accepted.clone()).await;
    let placeholder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = placeholder.local_addr().unwrap();
    drop(placeholder);
    let ejection = Ejection { consecutive_failures: 2, base: SHORT };
    let upstream = upstream(UpstreamSettings { ejection, ..settings(&[dead, alive]) });
    while upstream.stats().ejected == 0 {
        let (answer, asked) = Ask::post("/", shared_body::full("x")).send_asking(&upstream).await;
        answer.unwrap();
        assert_eq!(*asked.unwrap(), format!("http://{alive}"), "never sent at all, so sent to the other");
    }

    let listener = TcpListener::bind(dead).await.unwrap();
    let back = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    });
    while !back.is_finished() {
        Ask::get("/").send(&upstream).await.unwrap();
    }
    assert_eq!(upstream.stats().ejected, 0);
}

#[tokio::test]
async fn second_tries_have_a_budget() {
    const REQUESTS: usize = 400;
    let alive = echo(Arc::default()).await;
    let placeholder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = placeholder.local_addr().unwrap();
    drop(placeholder);
    // Never set aside: at least every other request begins at the dead address.
    let ejection = Ejection { consecutive_failures: u32::MAX, base: SHORT };
    let upstream = upstream(UpstreamSettings { ejection, ..settings(&[dead, alive]) });
    let mut failed = 0;
    for _ in 0..REQUESTS {
        failed += usize::from(Ask::get("/").send(&upstream).await.is_err());
    }
    // Saved are a hundred tries, and one in five requests earns another: some 180 are had, and more are wanted.
    assert!((20..220).contains(&failed), "{failed} of {REQUESTS}");
}

#[tokio::test]
async fn a_lone_address_that_refuses_connections_is_an_error_of_the_upstream() {
    let placeholder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream_at(placeholder.local_addr().unwrap());
    drop(placeholder);
    for _ in 0..10 {
        let (answer, asked) = Ask::get("/").send_asking(&upstream).await;
        let error = answer.unwrap_err();
        assert_eq!((error.code(), error.class()), ("upstream_connect_failed", FailureClass::Upstream));
        assert!(asked.is_some(), "the address that failed is told");
    }
    assert_eq!((upstream.stats().ejected, upstream.stats().open), (1, 0));
}

#[tokio::test]
async fn addresses_take_turns() {
    let addresses = [echo(Arc::default()).await, echo(Arc::default()).await];
    let upstream = upstream(settings(&addresses));
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (answer, asked) = Ask::get("/").send_asking(&upstream).await;
        seen.push(asked.unwrap().to_string());
        read_all(answer.unwrap().response.into_body()).await.unwrap();
    }
    let [first, second] = addresses.map(|address| format!("http://{address}"));
    assert_eq!(seen, [first.clone(), second.clone(), first, second]);
}

/// Answers `/slow` only when told, and every other path at once, on one connection in the order of requests.
#[tokio::test]
async fn a_request_given_up_before_its_answer_never_shifts_answers() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let release = Arc::new(tokio::sync::Notify::new());
    let (counting, releasing) = (accepted.clone(), release.clone());
    let address = raw(move |_, mut stream| {
        counting.fetch_add(1, Ordering::SeqCst);
        let (arrived, release) = (arrived.clone(), releasing.clone());
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let path = head.split(' ').nth(1).unwrap().to_owned();
                if path == "/slow" {
                    arrived.send(()).unwrap();
                    release.notified().await;
                }
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let upstream = upstream_at(address);
    assert_eq!(ok(Ask::get("/warm"), &upstream).await, "/warm");
    let slow = tokio::spawn({
        let upstream = upstream.clone();
        async move { Ask::get("/slow").send(&upstream).await.map(|_| ()) }
    });
    arrivals.recv().await.unwrap();
    slow.abort();
    slow.await.unwrap_err();
    release.notify_one();
    for index in 0..5 {
        assert_eq!(ok(Ask::get(&format!("/{index}")), &upstream).await, format!("/{index}"));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 2, "the given-up connection is not used again");
    assert_eq!(upstream.stats().open, 1);
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_takes_its_connection_along() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let counting = accepted.clone();
    let address = raw(move |_, mut stream| {
        counting.fetch_add(1, Ordering::SeqCst);
        async move {
            while let Some(head) = read_head(&mut stream).await {
                let cut = head.contains("/cut");
                let answer: &[u8] = if cut {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsec"
                } else {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                };
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    let upstream = upstream_at(address);
    let mut body = Ask::get("/cut").send(&upstream).await.unwrap().response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "sec");
    drop(body);
    assert_eq!(ok(Ask::get("/"), &upstream).await, "ok");
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_on_which_the_request_is_still_written_is_not_kept() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let upstream = upstream_at(echo(accepted.clone()).await);
    let (sender, body) = channel();
    sender.send(data("first")).await.unwrap();
    assert_eq!(ok(Ask::post("/early", body), &upstream).await, "/early", "an answer may come before the body's end");
    assert_eq!(upstream.stats().idle, 0);
    assert_eq!(ok(Ask::get("/next"), &upstream).await, "/next");
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
    drop(sender);
}

#[tokio::test]
async fn an_answer_to_head_has_a_length_and_no_body() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let address = raw(move |_, mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n").await.unwrap();
            }
        }
    })
    .await;
    let upstream = upstream_at(address);
    for _ in 0..3 {
        let answer = Ask::new(Method::HEAD, "/", shared_body::empty()).send(&upstream).await.unwrap().response;
        assert_eq!(answer.headers()["content-length"], "500");
        assert_eq!(read_all(answer.into_body()).await.unwrap(), "");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_serves_on_after_trailers_either_way() {
    let (address, mut seen) = counting_trailers().await;
    let upstream = upstream_at(address);
    for _ in 0..3 {
        let (sender, body) = channel();
        let mut trailers = HeaderMap::new();
        trailers.insert("checksum", HeaderValue::from_static("1"));
        let sending = async move {
            sender.send(data("x")).await.unwrap();
            sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        };
        let (answer, ()) = tokio::join!(Ask::post("/", body).header("TE", "trailers").send(&upstream), sending);
        let mut body = answer.unwrap().response.into_body();
        // As hyper's servers do: the frame of trailers is the last one that they ask for.
        while !within_long(body.frame()).await.unwrap().unwrap().is_trailers() {}
        drop(body);
        assert_eq!(seen.recv().await.unwrap(), 0, "all on the first connection");
    }
}

/// Answers with trailers, and tells on which of its connections.
async fn counting_trailers() -> (SocketAddr, mpsc::UnboundedReceiver<usize>) {
    let (tell, seen) = mpsc::unbounded_channel();
    let address = raw(move |number, mut stream| {
        let tell = tell.clone();
        async move {
            while read_head(&mut stream).await.is_some() {
                let mut body = Vec::new();
                while !body.ends_with(b"\r\n\r\n") {
                    body.push(stream.read_u8().await.unwrap());
                }
                tell.send(number).unwrap();
                let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: checksum\r\n\r\n\
                              1\r\na\r\n0\r\nchecksum: 2\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (address, seen)
}

async fn within_long<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.unwrap()
}
