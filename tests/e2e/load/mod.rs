//! What is counted under load: kills, reloads, signals, faults of upstreams. The suite runs a tenth of each;
//! `DOORWARD_SOAK=1`, as `make soak` sets it, runs all.

#![expect(clippy::print_stdout, reason = "what was counted, for whoever runs all of it")]

mod crowds;
mod faults;
mod floods;
mod kills;
mod reloads;
mod resets;
mod terminations;

use std::collections::BTreeMap;
use std::env;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, Authority, Body, Client, Gate, RecordingUpstream, RunningGate, Server, StaticIssuer};

/// All of `full` under `make soak`, a tenth of it in the suite.
pub(crate) fn share(full: usize) -> usize {
    #[expect(clippy::disallowed_methods, reason = "a test is told how much to do by whoever runs it")]
    let whole = env::var_os("DOORWARD_SOAK").is_some();
    if whole { full } else { full.div_ceil(10) }
}

/// An upstream that answers at once, and knows how often each path was asked for.
struct CountingUpstream {
    server: Server,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl CountingUpstream {
    async fn start() -> Self {
        let asked = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let counted = asked.clone();
        let handler = move |_connection, request: Request<Incoming>| -> BoxFuture<'static, Response<Body>> {
            let path = request.uri().path().to_owned();
            *counted.lock().unwrap().entry(path.clone()).or_default() += 1;
            Box::pin(async move {
                let _unread = request.into_body().collect().await;
                Response::new(Full::from(path).map_err(|never| match never {}).boxed_unsync())
            })
        };
        let server = Server::reserve(None, |_| Arc::new(handler));
        server.come_up().await;
        Self { server, asked }
    }

    fn asked(&self) -> BTreeMap<String, usize> {
        self.asked.lock().unwrap().clone()
    }
}

/// The standard gate before a [`CountingUpstream`].
struct World {
    issuer: StaticIssuer,
    upstream: CountingUpstream,
    gate: RunningGate,
}

impl World {
    async fn start(change: impl FnOnce(Gate) -> Gate) -> Self {
        let authority = Authority::new();
        let issuer = StaticIssuer::start(&authority).await;
        let (upstream, unused) = (CountingUpstream::start().await, RecordingUpstream::start().await);
        let addresses: Value = json!([format!("http://{}", upstream.server.address())]);
        let gate = Gate::standard(&authority, &issuer, &unused)
            .config(json!({ "upstreams": { "api": { "addresses": addresses } } }));
        let gate = change(gate).start().await;
        gate.becomes_ready(200).await;
        Self { issuer, upstream, gate }
    }

    fn traffic(&self, callers: usize) -> Traffic {
        let token = self.issuer.token().groups(&["readers", "writers"]).mint();
        Traffic::start(&self.gate, &token, callers)
    }
}

/// Callers that ask one thing after another, each under a path of its own, over kept connections.
struct Traffic {
    going: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: JoinSet<Vec<Asked>>,
}

/// What became of one request.
#[derive(Debug)]
struct Asked {
    path: String,
    /// `None` when the connection ended instead of a whole answer.
    status: Option<StatusCode>,
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Traffic {
    fn start(client: &Client, token: &str, callers: usize) -> Self {
        let (going, answered) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicUsize>::default());
        let caller = |_| ask_on(client.clone(), token.to_owned(), going.clone(), answered.clone());
        let callers = (0..callers).map(caller).collect();
        Self { going, answered, callers }
    }

    /// How many answers came so far.
    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until `more` further answers came.
    async fn flows(&self, more: usize) {
        let wanted = self.answered() + more;
        crate::support::eventually("answers", || async { (self.answered() >= wanted).then_some(()) }).await;
    }

    /// Ends it after the requests under way, and says what became of each.
    async fn stop(self) -> Vec<Asked> {
        self.going.store(false, Ordering::Relaxed);
        self.callers.join_all().await.into_iter().flatten().collect()
    }
}

async fn ask_on(client: Client, token: String, going: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Vec<Asked> {
    let mut asked = Vec::new();
    while going.load(Ordering::Relaxed) {
        let Some(mut connection) = client.try_http1().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        while going.load(Ordering::Relaxed) && connection.ready().await.is_ok() {
            let path = format!("/things/{}", NEXT.fetch_add(1, Ordering::Relaxed));
            let draft = if path.ends_with('7') { client.post(&path).body("pay") } else { client.get(&path) };
            let status = match connection.send_request(draft.bearer(&token).into_http1()).await {
                Ok(answer) => Answer::try_read(answer).await.map(|answer| {
                    let is_own = answer.status != 200 || answer.body == path;
                    assert!(is_own, "{path} was answered {}", answer.text());
                    answer.status
                }),
                Err(_) => None,
            };
            if status.is_some() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            asked.push(Asked { path, status });
        }
    }
    asked
}
