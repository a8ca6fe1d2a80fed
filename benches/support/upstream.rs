//! The API behind: answers as many bytes as the path says, over HTTP/1.1 without TLS.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Serves until dropped: `/api/256` answers 256 bytes, after reading the request's body.
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
    let size = request.uri().path().rsplit('/').next().and_then(|size| size.parse().ok()).unwrap_or(0);
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    Ok(Response::new(Full::new(zeros.slice(..size.min(zeros.len())))))
}
