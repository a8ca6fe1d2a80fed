//! The API behind: answers as many bytes as the path says, or what it was asked, over HTTP/1.1 without TLS.

use std::convert::Infallible;
use std::fmt::Write as _;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves until dropped: `/api/256` answers 256 bytes, after reading the request's body; `/api/echo` the head that came.
pub async fn serve(listener: TcpListener) {
    let zeros = Bytes::from(vec![b'x'; 1 << 20]);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _best_effort = stream.set_nodelay(true);
        let zeros = zeros.clone();
        let service = service_fn(move |request| answer(request, zeros.clone()));
        tokio::spawn(async move {
            let _closed =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, zeros: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let last = request.uri().path().rsplit('/').next().unwrap_or_default();
    if last == "echo" {
        return Ok(Response::new(Full::new(head(&request).into())));
    }
    let size = last.parse().unwrap_or(0);
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    Ok(Response::new(Full::new(zeros.slice(..size.min(zeros.len())))))
}

/// The headers of a request, one a line.
fn head(request: &Request<Incoming>) -> String {
    let mut text = String::new();
    for (name, value) in request.headers() {
        writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes())).expect("writing to a string succeeds");
    }
    text
}
