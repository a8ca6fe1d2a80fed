//! The upstream: a plain socket, the strict reader, and an answer.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::oracle::Oracle;
use super::reader::{Read, read};

/// Accepts until it is dropped.
pub(crate) struct Upstream {
    _tasks: JoinSet<()>,
}

/// An address for it, before it accepts.
pub(crate) async fn reserve() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Upstream {
    pub(crate) fn start(listener: TcpListener, oracle: Arc<Oracle>) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, oracle.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { _tasks: tasks }
    }
}

async fn serve(mut stream: TcpStream, oracle: Arc<Oracle>) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    loop {
        match read(&bytes) {
            Read::Whole(message, used) => {
                oracle.arrived(&message, true);
                bytes.drain(..used);
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
                let answer = if message.method == "HEAD" { head.to_owned() } else { format!("{head}ok") };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Read::Broken(fault, _) => return oracle.ill_formed(fault, &bytes),
            Read::Cut(head) => {
                if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                    match head {
                        Some(head) => oracle.arrived(&head, false),
                        None if bytes.is_empty() => {}
                        None => oracle.ill_formed("a head that never ends", &bytes),
                    }
                    return;
                }
            }
        }
    }
}
