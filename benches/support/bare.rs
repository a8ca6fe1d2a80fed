//! The yardstick: a TLS proxy that checks nothing, of hyper-util's client and tokio-rustls.
//!
//! No limits, no timeouts, no header hygiene, no records. What Doorward costs beyond this is what it does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Upstream = Client<HttpConnector, Incoming>;
type Answer = Response<Either<Incoming, Empty<Bytes>>>;

/// Serves until dropped.
pub async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, upstream: SocketAddr) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    let authority: http::uri::Authority = upstream.to_string().parse().expect("an address is an authority");
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (client, authority, acceptor) = (client.clone(), authority.clone(), acceptor.clone());
        tokio::spawn(async move { connection(stream, acceptor, client, authority).await });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, client: Upstream, authority: http::uri::Authority) {
    let _best_effort = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| forward(request, client.clone(), authority.clone()));
    let io = TokioIo::new(stream);
    let _closed = if is_h2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    };
}

async fn forward(
    mut request: Request<Incoming>,
    client: Upstream,
    authority: http::uri::Authority,
) -> Result<Answer, Infallible> {
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path).build();
    *request.uri_mut() = uri.expect("parts of a URI make a URI");
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert("x-upstream-credential", HeaderValue::from_static("fixed"));
    Ok(match client.request(request).await {
        Ok(mut response) => {
            response.headers_mut().remove(header::CONNECTION);
            *response.version_mut() = Version::HTTP_11;
            response.map(Either::Left)
        }
        Err(_) => {
            let mut response = Response::new(Either::Right(Empty::new()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    })
}
