//! HTTP/2: what the grammar says of HTTP/1.1, where HTTP/2 can say it, over a library's client.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use super::client::Clients;
use super::journal::{Connection, Told, Turn};
use super::reader::Message;

/// One connection.
pub(crate) struct Http2 {
    pub(crate) connection: Connection,
    pub(crate) told: Told,
    sender: http2::SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

/// Fields that belong to a connection of HTTP/1.1, or that the client makes itself.
const OF_THE_CONNECTION: [&str; 8] =
    ["host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "content-length"];

impl Http2 {
    /// Sends the one request of `turn`; `false` where HTTP/2 cannot say it.
    pub(crate) async fn speak(clients: &Clients, kept: &mut Option<Self>, turn: &Turn) -> Result<bool, String> {
        let ([message], None) = (&turn.forecast.whole[..], &turn.forecast.partial) else { return Ok(false) };
        let Some(request) = request(message) else { return Ok(false) };
        let http2 = match kept {
            Some(http2) => http2,
            None => kept.insert(Self::connect(clients).await),
        };
        clients.journal.begin(http2.connection, turn.clone());
        http2.told.last_case = turn.case;
        http2.told.whole += 1;
        http2.sender.ready().await.map_err(|error| format!("HTTP/2: {error}"))?;
        let answer = http2.sender.send_request(request).await.map_err(|error| format!("HTTP/2: {error}"))?;
        let (status, id) = (answer.status().as_u16(), answer.headers().get("x-request-id").cloned());
        let id = id.and_then(|id| u64::from_str_radix(id.to_str().ok()?.get(16..)?, 16).ok()).ok_or("no request id")?;
        http2.told.answers.push((id, status));
        // An answer that came before its request's end cuts the rest off by a reset.
        let _body = answer.into_body().collect().await;
        clients.journal.count("cases", "by HTTP/2");
        Ok(true)
    }

    async fn connect(clients: &Clients) -> Self {
        let (connection, stream) = clients.connect().await;
        let (sender, driven) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ended = driven.await;
        });
        Self { connection, told: Told::default(), sender, _driver: driver }
    }
}

fn request(message: &Message) -> Option<Request<Full<Bytes>>> {
    let host = message.only("host").filter(|host| !host.is_empty())?;
    // What `Connection` names is of the connection only there.
    let names = message.values("connection").next().is_some();
    if names || !message.target.starts_with('/') || message.method == "CONNECT" {
        return None;
    }
    let uri = http::Uri::builder().scheme("http").authority(host).path_and_query(&*message.target).build().ok()?;
    // What the library would change on the way is left to HTTP/1.1.
    if uri.path_and_query()?.as_str() != message.target {
        return None;
    }
    let mut request = Request::builder().method(&*message.method).uri(uri).version(Version::HTTP_2);
    for field in &message.fields {
        let name = field.name.to_ascii_lowercase();
        if !OF_THE_CONNECTION.contains(&&*name) {
            request = request.header(name, &*field.value);
        }
    }
    request.body(Full::from(message.body.clone())).ok()
}
