//! WebSocket upgrades and their tunnels.

use hyper_util::rt::TokioIo as Io;
use tokio::sync::oneshot;

use super::*;

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, x-hop\r\nUpgrade: WebSocket\r\n\
                      X-Hop: 1\r\nSec-WebSocket-Accept: abc\r\n\r\n";

/// Switches protocols, then echoes; sends on what the request looked like.
async fn echo(heads: mpsc::UnboundedSender<String>) -> SocketAddr {
    raw(move |_, mut stream| {
        let heads = heads.clone();
        async move {
            heads.send(read_head(&mut stream).await.unwrap()).unwrap();
            stream.write_all(SWITCH.as_bytes()).await.unwrap();
            let (mut from, mut to) = stream.split();
            let _until_closed = tokio::io::copy(&mut from, &mut to).await;
        }
    })
    .await
}

fn ask() -> Ask {
    let mut ask = Ask::get("/socket").header("Sec-WebSocket-Key", "k").header("Connection", "Upgrade");
    ask = ask.header("Upgrade", "websocket");
    ask.upgrade = true;
    ask.route.websocket = true;
    ask
}

/// Doorward's own side of the caller's connection: what the caller holds, and the switched connection.
async fn caller() -> (TcpStream, hyper::upgrade::OnUpgrade) {
    let (sender, receiver) = oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    let address = raw(move |_, stream| {
        let sender = sender.clone();
        async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                let upgrade = hyper::upgrade::on(&mut request);
                sender.lock().unwrap().take().unwrap().send(upgrade).unwrap();
                let answer =
                    Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
                async move { Ok::<_, Infallible>(answer.body(shared_body::empty()).unwrap()) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _closed = server.serve_connection(Io::new(stream), service).with_upgrades().await;
        }
    })
    .await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await.unwrap();
    read_head(&mut stream).await.unwrap();
    (stream, receiver.await.unwrap())
}

async fn opened(ask: Ask) -> (TcpStream, hyper::upgrade::OnUpgrade, Upgrade, Arc<Upstream>) {
    let (heads, _kept) = mpsc::unbounded_channel();
    let upstream = upstream_at(echo(heads).await);
    let upgrade = ask.send(&upstream).await.unwrap().upgrade.unwrap();
    let (stream, downstream) = caller().await;
    (stream, downstream, upgrade, upstream)
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways_and_counted() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let upstream = upstream_at(echo(heads).await);
    let answer = ask().send(&upstream).await.unwrap();
    assert_eq!(answer.response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.response.headers();
    assert_eq!((headers["connection"].as_bytes(), headers["upgrade"].as_bytes()), (&b"upgrade"[..], &b"websocket"[..]));
    assert!(headers.contains_key("sec-websocket-accept") && !headers.contains_key("x-hop"));
    let head = seen.recv().await.unwrap().to_lowercase();
    assert!(head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");

    let (mut stream, downstream) = caller().await;
    let carried = tokio::spawn(tunnel(downstream, answer.upgrade.unwrap(), std::future::pending()));
    let mut echoed = [0; 5];
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
    drop(stream);
    let carried = carried.await.unwrap();
    assert_eq!(carried, Tunnelled { bytes_up: 5, bytes_down: 5, end: TunnelEnd::Closed });
    assert_eq!(upstream.stats().open, 0);
}

#[tokio::test]
async fn a_route_without_websockets_forwards_no_upgrade() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let upstream = upstream_at(echo(heads).await);
    let mut ask = ask();
    ask.route.websocket = false;
    let error = ask.send(&upstream).await.unwrap_err();
    assert_eq!(error.code(), "upstream_protocol", "the upstream switched all the same, and is not followed");
    let head = seen.recv().await.unwrap().to_lowercase();
    assert!(!head.contains("upgrade"), "{head}");
}

#[tokio::test]
async fn an_upstream_that_declines_an_upgrade_is_heard() {
    let upstream = upstream_at(says("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno").await);
    let answer = ask().send(&upstream).await.unwrap();
    assert!(answer.upgrade.is_none());
    assert_eq!(read_all(answer.response.into_body()).await.unwrap(), "no");
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let (mut stream, downstream, upgrade, _upstream) = opened(ask().limits(|limits| limits.idle = SHORT)).await;
    let carried = tunnel(downstream, upgrade, std::future::pending()).await;
    assert_eq!((carried.end, carried.end.code()), (TunnelEnd::Idle, "stream_idle_timeout"));
    assert!(stream.read_u8().await.is_err(), "the caller's side is closed too");
}

#[tokio::test]
async fn a_tunnel_ends_with_its_grant() {
    let mut ask = ask();
    ask.expires_at = Some(Clock::system().now().plus(SHORT * 8));
    let (_stream, downstream, upgrade, _upstream) = opened(ask).await;
    assert_eq!(tunnel(downstream, upgrade, std::future::pending()).await.end, TunnelEnd::GrantEnded);
}

#[tokio::test]
async fn a_tunnel_is_cut_from_outside() {
    let (mut stream, downstream, upgrade, upstream) = opened(ask()).await;
    let (cut, cutting) = oneshot::channel::<()>();
    let carried = tokio::spawn(tunnel(downstream, upgrade, async move {
        cutting.await.unwrap();
        TunnelEnd::Cut
    }));
    stream.write_all(b"x").await.unwrap();
    stream.read_u8().await.unwrap();
    cut.send(()).unwrap();
    assert_eq!(carried.await.unwrap(), Tunnelled { bytes_up: 1, bytes_down: 1, end: TunnelEnd::Cut });
    assert!(stream.read_u8().await.is_err());
    assert_eq!(upstream.stats().open, 0);
}
