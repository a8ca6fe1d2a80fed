//! Whether each does the work that it is measured at, before it is measured.

use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::support::client::handshake;

use super::bench::Bench;
use super::contender::Target;
use super::site::{self, CREDENTIAL_HEADER};

/// Asks every target what it must answer, and what it must refuse where it checks.
///
/// # Errors
/// What one of them did instead.
pub fn all(bench: &Bench) -> Result<(), String> {
    bench.targets.iter().try_for_each(|target| {
        bench.client.block_on(one(bench, target)).map_err(|fault| format!("{}: {fault}", target.name))
    })
}

async fn one(bench: &Bench, target: &Target) -> Result<(), String> {
    let world = &bench.site.world;
    let good = world.authorization();
    let stranger = world.authorization_of("caller-2", &["strangers"]);
    let forged = world.forged_authorization();
    let small = target.path(256);
    expect("a good token", 200, ask(bench, target, &small, Some(&good)).await.0)?;
    let (status, head) = ask(bench, target, &format!("/{}/echo", target.place), Some(&good)).await;
    expect("a good token", 200, status)?;
    if !shows_credential(&head) {
        return Err("the upstream was shown no credential".to_owned());
    }
    if !target.is_checking {
        return Ok(());
    }
    if head.contains(good.trim_start_matches("Bearer ")) {
        return Err("the upstream was shown the caller's token".to_owned());
    }
    expect("no token", 401, ask(bench, target, &small, None).await.0)?;
    expect("another's signature", 401, ask(bench, target, &small, Some(&forged)).await.0)?;
    expect("another group", 403, ask(bench, target, &small, Some(&stranger)).await.0)
}

fn expect(what: &str, wanted: u16, status: u16) -> Result<(), String> {
    if status == wanted { Ok(()) } else { Err(format!("{what} was answered {status}, not {wanted}")) }
}

/// The fixed header, or Doorward's assertion; the bare proxy's header is short.
fn shows_credential(head: &str) -> bool {
    head.lines().filter_map(|line| line.split_once(": ")).any(|(name, value)| match name {
        "authorization" => value.starts_with("Bearer ey"),
        CREDENTIAL_HEADER => value == site::credential() || value == "fixed",
        _ => false,
    })
}

/// Status and body of the answer to one request on a connection of its own.
async fn ask(bench: &Bench, target: &Target, path: &str, authorization: Option<&str>) -> (u16, String) {
    let stream = handshake(target.process().address, &bench.tls).await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let request = Request::builder().uri(path).header("host", "localhost");
    let request = authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("the body arrives").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}
