//! The one tower stack around the line: a panic becomes a 500, and nothing generic leaks out.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use crate::body::Body;
use crate::peer::{Admission, Peer};
use crate::proxy::{Proxy, panicked};
use crate::telemetry::Metrics;

/// What comes in: the request's body, who connected, and what the server found.
struct Arrived {
    body: Body,
    peer: Arc<Peer>,
    admission: Admission,
}

/// What every connection calls, once a request.
pub type Handler = Arc<dyn Fn(Request<Body>, Arc<Peer>, Admission) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The handler of the line.
#[must_use]
pub fn handler(proxy: Arc<Proxy>) -> Handler {
    let metrics = proxy.metrics().clone();
    layered(metrics, move |request: Request<Arrived>| {
        let proxy = proxy.clone();
        // Boxed before the layers move it about.
        let answer = async move {
            let (parts, Arrived { body, peer, admission }) = request.into_parts();
            Ok::<_, Infallible>(proxy.handle(Request::from_parts(parts, body), peer, admission).await)
        };
        answer.boxed()
    })
}

/// `line`, with the layers around it.
fn layered<L>(metrics: Arc<Metrics>, line: L) -> Handler
where
    L: Fn(Request<Arrived>) -> BoxFuture<'static, Result<Response<Body>, Infallible>> + Clone + Send + Sync + 'static,
{
    let (panics, line) = (CountedPanic(metrics), service_fn(line));
    let caught = ServiceBuilder::new().layer(CatchPanicLayer::custom(panics)).service(line);
    Arc::new(move |request, peer, admission| {
        let answer = caught.clone().oneshot(request.map(|body| Arrived { body, peer, admission }));
        let answered = answer.map(|answered| match answered {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        });
        answered.boxed()
    })
}

#[derive(Clone, Debug)]
struct CountedPanic(Arc<Metrics>);

impl ResponseForPanic for CountedPanic {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, _cause: Box<dyn Any + Send + 'static>) -> Response<Body> {
        self.0.panics.inc();
        panicked()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::body;
    use crate::peer::Transport;

    #[tokio::test]
    async fn a_panic_of_the_line_is_a_500_is_counted_and_takes_nothing_else_with_it() {
        let metrics = Arc::new(Metrics::new());
        let handler = layered(metrics.clone(), |request: Request<Arrived>| {
            let answer = async move {
                assert_eq!(request.uri().path(), "/good", "a fault of ours");
                Ok(Response::new(body::full("well")))
            };
            answer.boxed()
        });
        let address = "192.0.2.7:1".parse().unwrap();
        let (listener, transport) = ("public".into(), Transport::Plain);
        let peer = Peer { address, socket_address: address, listener, transport, tls: None, certificate: None };
        let peer = Arc::new(peer);
        for (path, status, text) in [("/bad", 500, "internal_error"), ("/good", 200, "well")] {
            let request = Request::get(path).body(body::empty()).unwrap();
            let answer = handler(request, peer.clone(), Admission::Admitted).await;
            assert_eq!(answer.status(), status);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&body).contains(text));
        }
        assert_eq!(metrics.panics.get(), 1);
    }
}
