//! Upstreams that are slow, broken or gone, and what is done about it.

use std::net::SocketAddr;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::{Authority, Gate, RecordingUpstream, RunningGate, Script, StaticIssuer, eventually, within};

struct World {
    gate: RunningGate,
    token: String,
    _issuer: StaticIssuer,
}

/// A gate before these addresses, changed by `change`.
async fn world(addresses: &[String], change: impl FnOnce(Gate) -> Gate) -> World {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let unused = RecordingUpstream::start().await;
    let addresses = json!({ "upstreams": { "api": { "addresses": addresses } } });
    let gate = Gate::standard(&authority, &issuer, &unused).config(addresses);
    let gate = change(gate).start().await;
    gate.becomes_ready(200).await;
    let token = issuer.token().groups(&["readers", "writers"]).mint();
    World { gate, token, _issuer: issuer }
}

fn limits(settings: Value) -> impl FnOnce(Gate) -> Gate {
    move |gate| gate.route("things", json!({ "path": "/things/{*rest}", "limits": settings }))
}

impl World {
    /// Status and code of a GET, and that its record says the same.
    async fn fault(&self, path: &str) -> (u16, String) {
        let answer = self.gate.get(path).bearer(&self.token).send().await;
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        let record = self.gate.only_record_of(path).await;
        assert_eq!(record.verdict(), ("allow", code.as_str()), "what was permitted stays so on record");
        assert_eq!(record.number("status"), i64::from(answer.status.as_u16()));
        (answer.status.as_u16(), code)
    }
}

/// A server that does with each connection as it is told, and tells how many there were.
struct RawUpstream {
    address: SocketAddr,
    heard: mpsc::UnboundedReceiver<String>,
    _serving: JoinHandle<()>,
}

/// What a raw upstream does with a connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Takes it and says nothing, not even a handshake.
    Silent,
    /// Reads a request and hangs up without a word.
    HangsUp,
    /// Answers with these bytes and hangs up.
    Says(&'static str),
}

impl RawUpstream {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Manner::Silent = manner {
                    kept.push(stream);
                    continue;
                }
                let mut buffer = vec![0; 64 * 1024];
                let count = stream.read(&mut buffer).await.unwrap_or(0);
                let _test_over = tell.send(String::from_utf8_lossy(&buffer[..count]).into_owned());
                if let Manner::Says(answer) = manner {
                    let _hung_up = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        Self { address, heard, _serving: serving }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// How many requests came so far.
    fn requests(&mut self) -> usize {
        std::iter::from_fn(|| self.heard.try_recv().ok()).filter(|heard| !heard.is_empty()).count()
    }
}

#[tokio::test]
async fn a_connection_that_is_not_ready_in_time_is_a_connect_timeout() {
    let silent = RawUpstream::start(Manner::Silent).await;
    let timeouts = json!({ "upstreams": { "api": {
        "timeouts": { "connect": "300ms" }, "tls": { "authorities": "ca.pem" },
    } } });
    let world = world(&[silent.url("https")], |gate| gate.config(timeouts)).await;
    assert_eq!(world.fault("/things/1").await, (504, "upstream_connect_timeout".to_owned()));
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_a_first_byte_timeout() {
    let silent = RawUpstream::start(Manner::Silent).await;
    let world = world(&[silent.url("http")], limits(json!({ "first_byte": "300ms" }))).await;
    assert_eq!(world.fault("/things/1").await, (504, "upstream_first_byte_timeout".to_owned()));
}

#[tokio::test]
async fn the_total_time_ends_a_request_before_its_head_and_after_it() {
    let upstream = RecordingUpstream::start().await;
    let world = world(&[upstream.url()], limits(json!({ "total": "3s" }))).await;
    upstream.script("/things/silent", Script::Silence);
    assert_eq!(world.fault("/things/silent").await, (504, "total_timeout".to_owned()));
    let (pieces, script) = Script::pieces("text/plain");
    upstream.script("/things/slow", script);
    let answer = world.gate.get("/things/slow").bearer(&world.token).begin().await;
    assert_eq!(answer.status(), 200);
    let reading = http_body_util::BodyExt::collect(answer.into_body());
    within("the end", reading).await.expect_err("what was cut must not look whole");
    assert_eq!(world.gate.only_record_of("/things/slow").await.verdict(), ("allow", "total_timeout"));
    drop(pieces);
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_cut_after_the_routes_idle_time() {
    let upstream = RecordingUpstream::start().await;
    let world = world(&[upstream.url()], limits(json!({ "idle": "500ms" }))).await;
    let (pieces, script) = Script::pieces("text/event-stream");
    upstream.script("/things/events", script);
    let answer = world.gate.get("/things/events").bearer(&world.token).begin().await;
    // A machine that stalls here has the stream cut before it began.
    let _cut_already = pieces.send("data: 1\n\n".into()).await;
    let reading = http_body_util::BodyExt::collect(answer.into_body());
    within("the end", reading).await.expect_err("what was cut must not look whole");
    within("the upstream to be let go", pieces.closed()).await;
    assert_eq!(world.gate.only_record_of("/things/events").await.text("code"), "stream_idle_timeout");
}

#[tokio::test]
async fn an_absent_or_malformed_upstream_is_a_bad_gateway_and_says_nothing_of_its_address() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let absent = world(&[format!("http://{gone}")], |gate| gate).await;
    assert_eq!(absent.fault("/things/1").await, (502, "upstream_connect_failed".to_owned()));
    let answer = absent.gate.get("/things/2").bearer(&absent.token).send().await;
    assert!(!answer.text().contains("127.0.0.1") && !answer.text().contains(&gone.port().to_string()));

    for (what, bytes, code) in [
        ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", "upstream_protocol"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "upstream_protocol"),
        (
            "a protocol that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "upstream_protocol",
        ),
    ] {
        let upstream = RawUpstream::start(Manner::Says(bytes)).await;
        let world = world(&[upstream.url("http")], |gate| gate).await;
        assert_eq!(world.fault("/things/1").await, (502, code.to_owned()), "{what}");
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_never_sent_twice() {
    let mut upstream = RawUpstream::start(Manner::HangsUp).await;
    let mut second = RawUpstream::start(Manner::HangsUp).await;
    let world = world(&[upstream.url("http"), second.url("http")], |gate| gate).await;
    for number in 0..4 {
        let answer = world.gate.post(&format!("/things/{number}")).bearer(&world.token).body("pay").send().await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (502, &json!("upstream_closed")));
    }
    for number in 4..6 {
        let answer = world.gate.get(&format!("/things/{number}")).bearer(&world.token).send().await;
        assert_eq!(answer.status, 502);
    }
    assert_eq!(upstream.requests() + second.requests(), 6, "each was sent exactly once");
}

#[tokio::test]
async fn a_request_that_found_no_connection_goes_to_the_next_address_with_its_body() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = RecordingUpstream::start().await;
    let world = world(&[format!("http://{gone}"), upstream.url()], |gate| gate).await;
    for number in 0..6 {
        let answer = world.gate.post(&format!("/things/{number}")).bearer(&world.token).body("pay").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let received = upstream.received();
    assert_eq!(received.len(), 6, "each came exactly once");
    assert!(received.iter().all(|received| received.body_bytes == 3 && received.complete));
}

#[tokio::test]
async fn a_kept_connection_that_the_upstream_closed_costs_no_request() {
    let upstream = RecordingUpstream::start().await;
    let world = world(&[upstream.url()], |gate| gate).await;
    for round in 0..3 {
        for path in ["get", "post"] {
            let path = format!("/things/{path}-{round}");
            let request =
                if path.contains("post") { world.gate.post(&path).body("pay") } else { world.gate.get(&path) };
            assert_eq!(request.bearer(&world.token).send().await.status, 200);
        }
        upstream.go_away().await;
        upstream.come_up().await;
    }
    assert_eq!(upstream.received().len(), 6);
}

#[tokio::test]
async fn addresses_take_turns_a_failing_one_is_set_aside_and_comes_back() {
    let (one, two) = (RecordingUpstream::start().await, RecordingUpstream::start().await);
    let ejection = json!({ "upstreams": { "api": { "ejection": { "consecutive_failures": 2, "base": "500ms" } } } });
    let world = world(&[one.url(), two.url()], |gate| gate.config(ejection)).await;
    let ask = async |path: &str| world.gate.get(path).bearer(&world.token).send().await.status;
    for number in 0..6 {
        assert_eq!(ask(&format!("/things/{number}")).await, StatusCode::OK);
    }
    assert_eq!((one.received().len(), two.received().len()), (3, 3), "they take turns");

    one.go_away().await;
    let ejected = || async {
        let metrics = world.gate.admin().get("/metrics").send().await.text();
        let line = metrics.lines().find(|line| line.starts_with("doorward_upstream_ejected{")).unwrap().to_owned();
        line.ends_with(" 1.0") || line.ends_with(" 1")
    };
    let set_aside = async {
        loop {
            assert_eq!(ask("/things/during").await, StatusCode::OK, "the other one serves");
            if ejected().await {
                return;
            }
        }
    };
    within("the failing address to be set aside", set_aside).await;
    one.come_up().await;
    let before = one.received().len();
    eventually("the address to be used again", || async {
        assert_eq!(ask("/things/after").await, StatusCode::OK);
        (one.received().len() > before).then_some(())
    })
    .await;
}
