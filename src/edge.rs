//! The one tower stack around the line: a panic becomes a 500, and nothing generic leaks out.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use crate::body::Body;
use crate::peer::Peer;
use crate::proxy::{Proxy, panicked};
use crate::telemetry::Metrics;

/// What comes in: the request's body, and who connected.
struct Arrived {
    body: Incoming,
    peer: Arc<Peer>,
}

/// What every connection calls, once a request.
pub type Handler = Arc<dyn Fn(Request<Incoming>, Arc<Peer>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The handler of the line.
#[must_use]
pub fn handler(proxy: Arc<Proxy>) -> Handler {
    let panics = CountedPanic(proxy.metrics().clone());
    let line = service_fn(move |request: Request<Arrived>| {
        let proxy = proxy.clone();
        // Boxed before the layers move it about.
        let answer = async move {
            let (parts, Arrived { body, peer }) = request.into_parts();
            Ok::<_, Infallible>(proxy.handle(Request::from_parts(parts, body), peer).await)
        };
        answer.boxed()
    });
    let caught = ServiceBuilder::new().layer(CatchPanicLayer::custom(panics)).service(line);
    Arc::new(move |request, peer| {
        let answer = caught.clone().oneshot(request.map(|body| Arrived { body, peer }));
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
