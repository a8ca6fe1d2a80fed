//! Load in which each request shows a token of its own, which h2load cannot make: a client of 32 connections.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Bytes;
use rustls::ClientConfig;
use tokio::task::LocalSet;

use crate::support::client::Connection;
use crate::support::process::used;

use super::bench::Bench;
use super::contender::Target;
use super::rounds::{Slice, interleaved};
use super::table::{Row, Table};

const CONNECTIONS: usize = 32;
/// As many as Doorward remembers, and half as many as Envoy is told to.
const WARM: usize = 10_000;
/// More than any of them remembers.
const MANY: usize = 30_000;

type Tokens = Rc<[String]>;

/// Tokens that nobody has shown before, each of another caller.
pub fn cold(bench: &Bench) -> Table {
    let mut callers = 0..;
    fresh(bench, "cold", "a new token of a new caller at every request", || {
        format!("caller-{}", callers.next().unwrap_or(0))
    })
}

/// Tokens that nobody has shown before, all of one caller.
pub fn cold_one(bench: &Bench) -> Table {
    fresh(bench, "cold-one", "a new token of the same caller at every request", || "caller-1".to_owned())
}

/// More tokens than are remembered, in turn.
pub fn beyond(bench: &Bench) -> Table {
    in_turn(bench, "beyond", MANY, 0, "30,000 tokens in turn, more than anybody remembers")
}

/// As many tokens as are remembered, in turn, all shown before.
pub fn rotating(bench: &Bench) -> Table {
    in_turn(bench, "rotating", WARM, WARM, "10,000 tokens in turn, each shown before")
}

fn fresh(bench: &Bench, name: &'static str, title: &str, mut caller: impl FnMut() -> String) -> Table {
    let mut minted = |count: usize| -> Tokens {
        (0..count).map(|_| bench.site.world.authorization_of(&caller(), &["developers", "on-call"])).collect()
    };
    measure(bench, name, title, |target, _position| {
        let tokens = minted(bench.effort.tokens);
        slice(bench, target, &tokens, 0, tokens.len())
    })
}

fn in_turn(bench: &Bench, name: &'static str, count: usize, warming: usize, title: &str) -> Table {
    let caller = |number: usize| format!("caller-{number}");
    let mint = |number| bench.site.world.authorization_of(&caller(number), &["developers", "on-call"]);
    let tokens: Tokens = (0..count).map(mint).collect();
    let targets = bench.checking();
    for target in &targets {
        slice(bench, target, &tokens, 0, warming);
    }
    let mut next = vec![0; targets.len()];
    measure(bench, name, title, |target, position| {
        let from = next.get(position).copied().unwrap_or(0);
        if let Some(next) = next.get_mut(position) {
            *next += bench.effort.tokens;
        }
        slice(bench, target, &tokens, from, bench.effort.tokens)
    })
}

fn measure(bench: &Bench, name: &'static str, title: &str, mut one: impl FnMut(&Target, usize) -> Slice) -> Table {
    let targets = bench.checking();
    let measured = interleaved(targets.len(), bench.effort.rounds, |position| {
        targets.get(position).map(|target| one(target, position)).unwrap_or_default()
    });
    let rows = targets.iter().zip(&measured).map(|(target, slices)| Row::of_slices(target, slices)).collect();
    Table {
        name,
        title: format!("HTTP/1.1, 256 bytes, {title} ({CONNECTIONS} connections)"),
        unit: "CPU µs a request",
        rows,
        note: String::new(),
    }
}

/// So many requests from the token at `from` on; whoever comes to the end of them begins again.
fn slice(bench: &Bench, target: &Target, tokens: &Tokens, from: usize, count: usize) -> Slice {
    let path: Rc<str> = target.path(256).into();
    let warm = bench.site.world.authorization();
    bench.client.block_on(LocalSet::new().run_until(async {
        let mut callers = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            callers.push(connected(target.process().address, &bench.tls, &path, &warm).await);
        }
        let next = Rc::new(Cell::new(from));
        let (before, began) = (target.process().cpu(), Instant::now());
        let tasks: Vec<_> = callers
            .into_iter()
            .map(|caller| {
                let (path, tokens, next) = (Rc::clone(&path), Rc::clone(tokens), Rc::clone(&next));
                tokio::task::spawn_local(requests(caller, path, tokens, next, from + count))
            })
            .collect();
        for task in tasks {
            task.await.expect("every request succeeds");
        }
        let wall = began.elapsed();
        Slice { used: used(&before, &target.process().cpu()), wall, answers: count as u64, failures: 0 }
    }))
}

/// A connection that has made a request, so that its handshake is over for the proxy too.
async fn connected(address: SocketAddr, tls: &Arc<ClientConfig>, path: &str, token: &str) -> Connection {
    let mut connection = Connection::open(address, Some(tls)).await;
    connection.request(path, token, Bytes::new()).await;
    connection
}

/// Requests one after the other, with the next token each, until the token before `end`.
async fn requests(mut caller: Connection, path: Rc<str>, tokens: Tokens, next: Rc<Cell<usize>>, end: usize) {
    loop {
        let position = next.get();
        if position >= end {
            return;
        }
        next.set(position + 1);
        let token = tokens.get(position % tokens.len()).expect("a remainder");
        assert_eq!(caller.request(&path, token, Bytes::new()).await, 256);
    }
}
