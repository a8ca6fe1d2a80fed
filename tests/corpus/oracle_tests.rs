//! The oracle finds what may not be there, and takes what may.

use std::sync::Arc;

use serde_json::json;

use super::dice::Dice;
use super::forecast::Forecast;
use super::grammar::Grammar;
use super::journal::{Connection, Journal, Turn};
use super::lure::Lure;
use super::oracle::{Oracle, well_formed};
use super::policy::Caller;
use super::reader::{Message, Read, read};
use super::tokens::Tokens;
use crate::support::{Authority, ORIGIN, StaticIssuer, base64url};

/// An oracle, and a request of a reader in the two forms that belong together.
struct Stage {
    oracle: Oracle,
    sent: String,
    arrived: String,
}

async fn stage() -> Stage {
    let issuer = StaticIssuer::away(&Authority::new());
    let lure = Lure::start().await.address;
    let grammar = Arc::new(Grammar { seed: 1, tokens: Tokens::mint(&issuer, lure), lure });
    let token = grammar.tokens.of(Caller::Reader, 0).unwrap();
    let sent = format!(
        "PATH HTTP/1.1\r\nHost: api.test\r\nX-Case: 1.0\r\nAuthorization: Bearer {token}\r\nCookie: a=b\r\n\
         Connection: X-Mine\r\nX-Mine: 1\r\nX-Note: plain\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nChecksum: 7\r\n\r\n"
    );
    let claims = json!({ "iss": format!("{ORIGIN}/.doorward"), "sub": "machines|reader-1", "kind": "Workload", "roles": ["reader"] });
    let assertion = format!("e30.{}.c2ln", base64url(claims.to_string()));
    let source = Connection(7).address();
    let arrived = format!(
        "PATH HTTP/1.1\r\nhost: api.test\r\nx-case: 1.0\r\nx-note: plain\r\nauthorization: Bearer {assertion}\r\n\
         x-request-id: 0123456789abcdef000000000001\r\nx-forwarded-for: {source}\r\nx-forwarded-proto: http\r\n\
         x-forwarded-host: api.test\r\nforwarded: for={source};proto=http;host=\"api.test\"\r\n\
         traceparent: 00-0123456789abcdef0123456789abcdef-0123456789abcdef-00\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nchecksum: 7\r\n\r\n"
    );
    let oracle = Oracle { grammar, journal: Arc::new(Journal::default()) };
    let path = "GET /things/caf%C3%A9?q";
    Stage { oracle, sent: sent.replace("PATH", path), arrived: arrived.replace("PATH", path) }
}

fn whole(text: &str) -> Message {
    match read(text.as_bytes()) {
        Read::Whole(message, used) if used == text.len() => message,
        other @ (Read::Whole(..) | Read::Cut(_) | Read::Broken(..)) => panic!("{other:?}"),
    }
}

impl Stage {
    fn begin(&self, sent: &str) {
        let turn = Turn { case: 0, forecast: Arc::new(Forecast::of(sent.as_bytes())), is_mutated: false };
        self.oracle.journal.begin(Connection(7), turn);
    }

    /// What the oracle says when the client sends `sent` and `arrived` arrives; nothing when it may.
    fn verdict(&self, sent: &str, arrived: &str) -> String {
        let before = self.oracle.journal.failures().len();
        self.begin(sent);
        self.oracle.arrived(&whole(arrived), true);
        let failures = self.oracle.journal.failures();
        failures.get(before).and_then(|failure| failure.lines().next()).unwrap_or_default().to_owned()
    }

    async fn finds(change: impl Fn(&Stage) -> (String, String), why: &str) {
        let stage = stage().await;
        assert_eq!(stage.verdict(&stage.sent, &stage.arrived), "", "the harmless twin");
        let (sent, arrived) = change(&stage);
        assert_ne!((&sent, &arrived), (&stage.sent, &stage.arrived), "nothing was changed");
        let verdict = stage.verdict(&sent, &arrived);
        assert!(verdict.contains(why), "{verdict:?} is not: {why}");
    }
}

#[tokio::test]
async fn what_the_policy_does_not_allow_is_found() {
    for (target, why) in [
        ("POST /things/caf%C3%A9?q", "does not allow Reader to POST"),
        ("GET /tree/admin/users", "does not allow Reader to GET at Forbidden"),
        ("GET /tree/%61dmin", "does not allow Reader to GET at Forbidden"),
        ("GET /tree/a%2fb", "escaped slash"),
        ("GET /elsewhere", "no route"),
    ] {
        let other = |text: &str| text.replace("GET /things/caf%C3%A9?q", target);
        Stage::finds(|stage| (other(&stage.sent), other(&stage.arrived)), why).await;
    }
    let changed = |from: &'static str, to: &'static str| {
        move |stage: &Stage| (stage.sent.replace(from, to), stage.arrived.clone())
    };
    Stage::finds(changed("Authorization: Bearer", "Authorization: Basic"), "does not allow Nobody").await;
    Stage::finds(changed("Cookie: a=b", "Authorization: Bearer x"), "does not allow Nobody").await;
    Stage::finds(
        |stage| {
            let tokens = &stage.oracle.grammar.tokens;
            let (good, (_, bad)) = (tokens.of(Caller::Reader, 0).unwrap(), &tokens.bad()[0]);
            (stage.sent.replace(good, bad), stage.arrived.clone())
        },
        "does not allow Nobody",
    )
    .await;
}

#[tokio::test]
async fn a_request_that_the_client_did_not_send_is_found() {
    let arrives = |from: &'static str, to: &'static str| {
        move |stage: &Stage| (stage.sent.clone(), stage.arrived.replace(from, to))
    };
    let why = "the client sent no such request";
    Stage::finds(arrives("GET", "HEAD"), why).await;
    Stage::finds(arrives("?q", ""), why).await;
    Stage::finds(arrives("caf%C3%A9", "cafe"), why).await;
    Stage::finds(arrives("1.0\r\n", "1.1\r\n"), why).await;
    Stage::finds(arrives("hello", "hallo"), why).await;
    Stage::finds(arrives("x-note: plain", "x-note: other"), "the client sent no x-note").await;
    Stage::finds(arrives("checksum: 7", "checksum: 8"), "the client sent no checksum").await;
    let behind = |stage: &Stage| {
        let inner = stage.sent.replace("/things/caf%C3%A9?q", "/things/smuggled");
        let sent = stage.sent.replace("5\r\nhello\r\n", &format!("{:x}\r\n{inner}\r\n", inner.len()));
        (sent, stage.arrived.replace("/things/caf%C3%A9?q", "/things/smuggled"))
    };
    Stage::finds(behind, why).await;
    let broken = |stage: &Stage| (stage.sent.replace("\r\nX-Note", "\nX-Note"), stage.arrived.clone());
    Stage::finds(broken, why).await;
    let endless = |stage: &Stage| (stage.sent.replace("\r\n0\r\nChecksum: 7\r\n\r\n", ""), stage.arrived.clone());
    Stage::finds(endless, "the client's body never ended").await;
    let stage = stage().await;
    stage.begin(&stage.sent);
    stage.oracle.arrived(&whole(&stage.arrived), true);
    assert!(stage.oracle.journal.failures().is_empty());
    stage.oracle.arrived(&whole(&stage.arrived), true);
    assert!(stage.oracle.journal.failures()[0].contains(why), "it arrived twice");
}

#[tokio::test]
async fn the_callers_word_about_itself_is_found() {
    for (line, why) in [
        ("remote_user: forged-by-the-caller", "an identity header of the caller's"),
        ("x-real-ip: 127.0.0.1", "an identity header of the caller's"),
        ("x-note: forged-by-the-caller", "the caller's word"),
        ("x-doorward-subject: reader-1", "x-doorward-subject is"),
        ("x-api-key: the-key-of-the-upstream", "x-api-key is"),
        ("x-forwarded-for: 127.0.0.1", "x-forwarded-for twice"),
        ("x-mine: 1", "of the connection"),
        ("cookie: a=b", "cookie arrived"),
        ("expect: 100-continue", "expect arrived"),
        ("connection: close", "a connection field"),
        ("upgrade: websocket", "an upgrade"),
        ("x-other: 1", "the client sent no x-other"),
    ] {
        let arrives = |stage: &Stage| {
            let name = line.split(':').next().unwrap();
            let sent = stage.sent.replace("\r\nX-Note", &format!("\r\n{line}\r\nX-Note"));
            let sent = if name == "x-other" || name == "x-mine" { stage.sent.clone() } else { sent };
            (sent, stage.arrived.replace("\r\nx-note", &format!("\r\n{line}\r\nx-note")))
        };
        Stage::finds(arrives, why).await;
    }
    let trailer = |stage: &Stage| {
        let add = |text: &str, name: &str| text.replace(name, &format!("{name}Remote-User: forged-by-the-caller\r\n"));
        (add(&stage.sent, "Checksum: 7\r\n"), add(&stage.arrived, "checksum: 7\r\n"))
    };
    Stage::finds(trailer, "an identity header of the caller's").await;
    let others = |stage: &Stage| {
        let claims = json!({ "iss": format!("{ORIGIN}/.doorward"), "sub": "machines|both-1", "kind": "Workload", "roles": ["reader", "writer"] });
        let start = stage.arrived.find("e30.").unwrap();
        let end = start + stage.arrived[start..].find("\r\n").unwrap();
        let mut arrived = stage.arrived.clone();
        arrived.replace_range(start..end, &format!("e30.{}.c2ln", base64url(claims.to_string())));
        (stage.sent.clone(), arrived)
    };
    Stage::finds(others, "and Reader called").await;
    let own = |stage: &Stage| {
        let token = stage.oracle.grammar.tokens.of(Caller::Reader, 0).unwrap();
        let line = format!("\r\nproxy_authorization: {token}\r\nx-note");
        (stage.sent.replace("\r\nX-Note", &line), stage.arrived.replace("\r\nx-note", &line))
    };
    Stage::finds(own, "the caller's token arrived").await;
}

#[tokio::test]
async fn a_message_that_is_ill_formed_past_its_framing_is_found() {
    let sound = stage().await.arrived;
    assert_eq!(well_formed(&whole(&sound)), Ok(()));
    for (from, to) in [
        ("HTTP/1.1", "HTTP/1.0"),
        ("GET /", "GET http://api.test/"),
        ("/caf%C3%A9", "/caf\\"),
        ("/caf%C3%A9", "/caf|"),
        ("/caf%C3%A9", "/caf%C3%"),
        ("?q", "?q#x"),
        ("?q", "?\"q\""),
        ("host: api.test\r\nx-case", "x-case"),
        ("x-case", "Host: api.test\r\nx-case"),
        ("host: api.test\r\nx-case", "host: evil.test\r\nx-case"),
        ("x-case", "keep-alive: timeout=5\r\nx-case"),
        ("\r\nhello", ";extension\r\nhello"),
    ] {
        let text = sound.replacen(from, to, 1);
        let text = if to.contains("1.0") {
            text.replace("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nchecksum: 7\r\n", "\r\n")
                .replace("\r\n\r\n\r\n", "\r\n\r\n")
        } else {
            text
        };
        assert!(well_formed(&whole(&text)).is_err(), "{to:?}");
    }
}

#[tokio::test]
async fn a_seed_and_a_number_make_the_same_case_again() {
    let stage = stage().await;
    let grammar = &stage.oracle.grammar;
    for number in 0..500 {
        let (once, again) = (grammar.case(number), grammar.case(number));
        assert_eq!((once.bytes, once.mutations), (again.bytes, again.mutations));
    }
    assert_ne!(Dice::of(1, 2).below(1 << 30), Dice::of(2, 2).below(1 << 30));
}
