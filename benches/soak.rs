//! Figures that no test may depend on: how soon the first event of a stream arrives, and the memory of bodies of 1 GiB.
//!
//! `cargo bench --bench soak` prints them and fails past their limits.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod support;

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use support::client::{handshake, tls};
use support::process::Process;
use support::world::World;

type Body = BoxBody<Bytes, Infallible>;

const STREAMS: usize = 500;
const MOST_TO_FIRST_EVENT: Duration = Duration::from_millis(50);

const PIECE: usize = 256 * 1024;
const PIECES: usize = 4096;
const MOST_GROWTH_KIB: u64 = 16 * 1024;

/// What each call of `/api/events` sends as its first event: when that was.
type Sent = mpsc::UnboundedSender<Instant>;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(measure())
}

async fn measure() -> ExitCode {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream = listener.local_addr().expect("an address");
    let (sent, mut sending) = mpsc::unbounded_channel();
    tokio::spawn(serve(listener, sent));
    let world = World::new(upstream, 100);
    let gate = Process::doorward(&world, None);
    let trusted = tls(world.certificate(), Version::HTTP_11);
    let authorization: Arc<str> = world.authorization().into();

    let mut waits = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let stream = handshake(gate.address, &trusted).await;
        let mut answer = ask(stream, Method::GET, "/api/events", &authorization, Empty::new().boxed()).await;
        let event = answer.body_mut().frame().await.expect("an event").expect("an event");
        assert!(event.is_data());
        waits.push(sending.recv().await.expect("it was sent").elapsed());
    }
    waits.sort_unstable();
    let at = |share: usize| waits.get(waits.len() * share / 1000).copied().unwrap_or_default();
    let slowest = waits.last().copied().unwrap_or_default();
    println!(
        "first event, upstream to client, {STREAMS} streams: p50 {:?}, p99 {:?}, max {slowest:?}",
        at(500),
        at(990)
    );

    let before = gate.resident_kib();
    let stream = handshake(gate.address, &trusted).await;
    let pieces = stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![0; PIECE])))).take(PIECES);
    let upload = BodyExt::boxed(StreamBody::new(pieces));
    let answer = ask(stream, Method::POST, "/api/upload", &authorization, upload).await;
    let told = answer.into_body().collect().await.expect("an answer").to_bytes();
    assert_eq!(told, (PIECE * PIECES).to_string(), "all of it arrived");
    let grown = gate.resident_kib().saturating_sub(before);
    println!("an upload of {} MiB grew the process by {grown} KiB", (PIECE * PIECES) >> 20);

    let good = slowest <= MOST_TO_FIRST_EVENT && grown <= MOST_GROWTH_KIB;
    println!(
        "limits: first event {MOST_TO_FIRST_EVENT:?}, growth {MOST_GROWTH_KIB} KiB: {}",
        if good { "held" } else { "missed" }
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One request on a connection of its own; panics unless the answer is 200.
async fn ask(
    stream: TlsStream<TcpStream>,
    method: Method,
    path: &str,
    authorization: &str,
    body: Body,
) -> Response<Incoming> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("authorization", authorization).body(body).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200, "{:?}", response.headers());
    response
}

async fn serve(listener: TcpListener, sent: Sent) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _best_effort = stream.set_nodelay(true);
        let sent = sent.clone();
        let service = service_fn(move |request| answer(request, sent.clone()));
        tokio::spawn(async move {
            let server = hyper::server::conn::http1::Builder::new();
            let _closed = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// `/api/events` sends one event and keeps the stream open; everything else counts what it is sent.
async fn answer(request: Request<Incoming>, sent: Sent) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/api/events" {
        let first = stream::once(async move {
            // The head is on its way: what is measured is the event alone.
            tokio::task::yield_now().await;
            let _nobody_counts = sent.send(Instant::now());
            Ok(Frame::data(Bytes::from_static(b"data: 1\n\n")))
        });
        let body = BodyExt::boxed(StreamBody::new(first.chain(stream::pending())));
        let response = Response::builder().header("content-type", "text/event-stream").body(body);
        return Ok(response.expect("a response"));
    }
    let mut body = request.into_body();
    let mut received = 0;
    while let Some(Ok(frame)) = body.frame().await {
        received += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(Response::new(Full::from(received.to_string()).boxed()))
}
