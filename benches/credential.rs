//! What the upstream is shown: an assertion from the cache and a fresh one, what somebody else issued, a signature for
//! AWS, and identity headers.

mod support;

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion};
use doorward::body;
use doorward::clock::Clock;
use doorward::credential::{
    Ask, AwsKeys, AwsSigner, BodyMemory, CredentialError, CredentialProvider, CredentialRequest, CredentialSource,
    Events, Issued, IssuedCache, KeyDigest, PATIENCE, Proof, Remote, RemoteSettings, SourceError,
};
use doorward::policy::Grant;
use doorward::route::PathParameters;
use doorward::secret::Secret;
use doorward::target::RequestTarget;
use doorward::telemetry::Metrics;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Request};

use support::bench::{Rotating, criterion};
use support::steps::Bench;

const CALLERS: usize = 10_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let mut criterion = criterion();
    let bench = Bench::new(100);
    let grants: Vec<Grant> = (0..CALLERS).map(|_| bench.grant_of("/context/256")).collect();
    assertion(&mut criterion, &bench, &grants);
    issued(&mut criterion, &runtime, &grants);
    signature(&mut criterion, &runtime);
    identity_headers(&mut criterion, &bench, &grants);
    criterion.final_summary();
}

fn assertion(criterion: &mut Criterion, bench: &Bench, grants: &[Grant]) {
    criterion.bench_function("credential/assertion, cached", |b| b.iter(|| bench.issue(&grants[0])));
    criterion.bench_function("credential/assertion, fresh (ES256)", |b| {
        b.iter_batched(|| bench.grant_of("/context/256"), |grant| bench.issue(&grant), BatchSize::SmallInput);
    });
    grants.iter().for_each(|grant| drop(bench.issue(grant)));
    let mut turn = Rotating::over(grants);
    criterion.bench_function(&format!("credential/assertion, cached, {CALLERS} callers in turn"), |b| {
        b.iter(|| bench.issue(turn.next()));
    });
}

/// Somebody who issues one credential for each principal, for an hour.
#[derive(Debug)]
struct Issuer(Clock);

struct About(Arc<str>);

impl CredentialRequest for About {
    fn digest(&self, key: &mut KeyDigest) {
        key.part("subject", self.0.as_bytes());
    }

    fn shown(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl CredentialSource for Issuer {
    type Request = About;

    fn kind(&self) -> &'static str {
        "bench"
    }

    fn request(&self, ask: &Ask<'_>) -> Result<About, CredentialError> {
        Ok(About(ask.grant.principal().id().clone()))
    }

    fn fetch(self: Arc<Self>, _: Arc<About>) -> BoxFuture<'static, Result<Issued, SourceError>> {
        let expires_at = self.0.now().plus(Duration::from_secs(3600));
        let issued = Issued { id: "1".into(), proof: Proof::nothing(), expires_at, renew_at: None, facts: Vec::new() };
        async move { Ok(issued) }.boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        Vec::new()
    }

    fn digest(&self, _: &mut KeyDigest) {}
}

fn issued(criterion: &mut Criterion, runtime: &tokio::runtime::Runtime, grants: &[Grant]) {
    let clock = Clock::system();
    let settings = RemoteSettings { name: "bench".into(), lifetime: None, patience: PATIENCE };
    let events = Events::new(|_, _, _| Ok(()), Metrics::new().credential("bench"));
    let cache = IssuedCache::new(10_000, clock.clone());
    let remote = Remote::new(Issuer(clock.clone()), settings, cache, events, clock.clone());
    let (parameters, request_id) = (PathParameters::default(), "r".into());
    let grant = &grants[0];
    let ask = || Ask { grant, now: clock.now(), parameters: &parameters, token: None, request_id: &request_id };
    runtime.block_on(remote.issue(&ask())).expect("a credential");
    criterion.bench_function("credential/issued by another, cached", |b| {
        b.iter(|| remote.issue(&ask()).now_or_never().expect("no waiting").expect("a credential"));
    });
}

fn signature(criterion: &mut Criterion, runtime: &tokio::runtime::Runtime) {
    const MIB: usize = 1024 * 1024;
    let signer = |service: &str| AwsSigner {
        keys: AwsKeys {
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: Secret::new("for a bench only"),
            session_token: Some(Secret::new("t".repeat(800))),
        },
        services: Arc::from([Arc::from(service)]),
        regions: Arc::from([Arc::from("eu-central-1")]),
        widening_headers: false,
        signed_body_bytes: 2 * MIB,
        memory: BodyMemory::default(),
    };
    let (now, skew) = (Clock::system().now(), Arc::default());
    let asked = Request::get("/reports/red/2026.csv?list-type=2&prefix=a").header("host", "s3.example.com");
    let (asked, ()) = asked.body(()).expect("a request").into_parts();
    let target = RequestTarget::of(&asked).and_then(RequestTarget::into_opaque).expect("a target");
    for (name, service, bytes) in [
        ("credential/SigV4, S3, no body", "s3", 0),
        ("credential/SigV4, S3, 1 MiB", "s3", MIB),
        ("credential/SigV4, DynamoDB, 1 KiB hashed", "dynamodb", 1024),
        ("credential/SigV4, DynamoDB, 1 MiB hashed", "dynamodb", MIB),
    ] {
        let holder: Arc<str> = "okta|ada".into();
        let (signer, headers, content) = (signer(service), HeaderMap::new(), bytes::Bytes::from(vec![b'x'; bytes]));
        criterion.bench_function(name, |b| {
            b.iter(|| {
                let body = if content.is_empty() { body::empty() } else { body::full(content.clone()) };
                let settling = signer.settle(&headers, &target, body, &holder, PATIENCE);
                let (settled, _body) = runtime.block_on(settling).expect("it can be signed");
                let request = Request::get("/reports/red/2026.csv?list-type=2&prefix=a");
                let mut request = request.header("content-type", "text/csv").body(()).expect("a request");
                signer.signature(&settled, &skew).apply(&mut request, "s3.example.com", now).expect("a signature");
                request
            });
        });
    }
}

fn identity_headers(criterion: &mut Criterion, bench: &Bench, grants: &[Grant]) {
    let identity = bench.served(&grants[0]).plain_identity.as_ref().expect("the route has identity headers");
    let lines = |grant: &Grant| identity.lines(grant).expect("headers");
    criterion.bench_function("credential/identity headers, cached", |b| b.iter(|| lines(&grants[0])));
    criterion.bench_function("credential/identity headers, fresh", |b| {
        b.iter_batched(|| bench.grant_of("/context/256"), |grant| lines(&grant), BatchSize::SmallInput);
    });
    grants.iter().for_each(|grant| drop(lines(grant)));
    let mut turn = Rotating::over(grants);
    criterion.bench_function(&format!("credential/identity headers, cached, {CALLERS} callers in turn"), |b| {
        b.iter(|| lines(turn.next()));
    });
}
