//! What operators meet: the admin listener, metrics, exit codes, the state directory, logs, reloads under load.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, Client, HOST, World, eventually, within};

#[tokio::test]
async fn the_metrics_tell_what_happens_and_never_who() {
    let world = World::start(|gate| gate).await;
    let token = world.issuer.token().subject("machine-of-mallory").mint();
    assert_eq!(world.gate.get("/things/1").bearer(&token).send().await.status, 200);
    assert_eq!(world.gate.post("/things/1").bearer(&token).send().await.status, 403);
    assert_eq!(world.gate.get("/nowhere").bearer(&token).send().await.status, 404);
    world.gate.settled_audit().await;
    let gate = &world.gate;
    let things = r#"route="things""#;
    assert_eq!(gate.metric("doorward_requests_total", &[things, r#"outcome="allowed""#]).await, 1.0);
    assert_eq!(gate.metric("doorward_requests_total", &[things, r#"outcome="denied""#]).await, 1.0);
    assert!(gate.metric("doorward_requests_total", &[r#"route="""#, r#"outcome="rejected""#]).await >= 1.0);
    for step in ["identify", "authorize", "credential", "upstream", "total"] {
        let step = format!("step=\"{step}\"");
        assert!(gate.metric("doorward_step_duration_seconds_count", &[&step]).await >= 1.0, "{step}");
    }
    assert!(gate.metric("doorward_jwks_age_seconds", &[r#"name="machines""#]).await >= 0.0);
    assert_eq!(gate.metric("doorward_credential_cache_entries", &[]).await, 1.0);
    assert!(gate.metric("doorward_audit_queue_depth", &[]).await >= 0.0);
    assert!(gate.metric("doorward_audit_written", &[]).await >= 3.0);
    assert_eq!(gate.metric("doorward_config_healthy", &[]).await, 1.0);
    assert!(gate.metric("doorward_upstream_connections", &[r#"name="api""#]).await >= 1.0);
    let text = gate.admin().get("/metrics").send().await;
    assert!(text.header("content-type").unwrap().starts_with("application/openmetrics-text"), "{:?}", text.headers);
    let text = text.text();
    assert!(!text.contains("mallory") && !text.contains("readers"), "{text}");
    is_openmetrics(&text);
}

/// The frame of OpenMetrics 1.0: every sample belongs to a family that was announced once, and the text has an end.
fn is_openmetrics(text: &str) {
    let mut families = BTreeSet::new();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(announced) = line.strip_prefix("# TYPE ") {
            let (name, kind) = announced.split_once(' ').unwrap();
            assert!(families.insert((name.to_owned(), kind.to_owned())), "{name} twice");
        } else if !line.starts_with("# ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = sample.split('{').next().unwrap();
            let of_it = |(family, kind): &(String, String)| match kind.as_str() {
                "counter" => name == format!("{family}_total"),
                "histogram" => ["_bucket", "_count", "_sum"].iter().any(|end| name == format!("{family}{end}")),
                _ => name == family,
            };
            assert!(families.iter().any(of_it), "{line} belongs to no family");
        }
    }
}

#[tokio::test]
async fn an_admin_listener_that_others_can_reach_needs_a_guard_at_load() {
    let certificates = json!([{ "certificate": "server.pem", "key": "file:server.key" }]);
    let optional = json!({ "mode": "optional", "authorities": "ca.pem" });
    for tls in [
        json!(null),
        json!({ "certificates": certificates }),
        json!({ "certificates": certificates, "client_certificates": optional }),
    ] {
        let admin = json!({ "admin": { "address": "0.0.0.0:0", "tls": tls } });
        let (code, told) = World::refused(|gate| gate.config(admin)).await;
        assert_eq!(code, 2, "{told}");
        assert!(told.contains("the admin listener is open to others") && told.contains("doorward.yaml:"), "{told}");
    }
    let admin = json!({ "admin": { "address": "0.0.0.0:0", "token": "file:admin.token" } });
    let (code, told) = World::refused(|gate| gate.file("admin.token", "token\n").config(admin)).await;
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("in plain HTTP") && told.contains("doorward.yaml:"), "{told}");
}

#[tokio::test]
async fn a_token_guards_the_admin_listener_and_is_read_again_when_it_changes() {
    let world = World::start(|gate| {
        gate.file("admin.token", "first-token\n").config(json!({ "admin": {
                "address": "0.0.0.0:0",
                "token": "file:admin.token",
                "plain": { "reason": "this test has no network" },
            } }))
    })
    .await;
    let status = async |token: Option<&str>| {
        let draft = world.gate.admin().get("/metrics");
        let draft = if let Some(token) = token { draft.bearer(token) } else { draft };
        draft.send().await.status.as_u16()
    };
    for (token, expected) in [(None, 401), (Some("wrong"), 401), (Some("first-toke"), 401), (Some("first-token"), 200)]
    {
        assert_eq!(status(token).await, expected, "{token:?}");
    }
    world.gate.write("admin.token", "second-token\n");
    eventually("the new token", || async { (status(Some("second-token")).await == 200).then_some(()) }).await;
    assert_eq!(status(Some("first-token")).await, 401);
    world.gate.never_wrote("second-token");
}

#[tokio::test]
async fn a_client_certificate_guards_the_admin_listener() {
    let world = World::start(|gate| {
        gate.config(json!({ "admin": { "address": "0.0.0.0:0", "tls": {
            "certificates": [{ "certificate": "server.pem", "key": "file:server.key" }],
            "client_certificates": { "mode": "required", "authorities": "ca.pem" },
        } } }))
    })
    .await;
    let address = world.gate.admin().address();
    let own = world.authority.client_pair("spiffe://test/operator");
    let with = Client::tls(address, HOST, world.authority.client_config(Some(&own)));
    assert!(with.get("/readyz").send().await.json()["reasons"].is_array());
    assert!(!Client::tls(address, HOST, world.authority.client_config(None)).is_served().await);
    let stranger = crate::support::Authority::new().client_pair("spiffe://test/operator");
    assert!(!Client::tls(address, HOST, world.authority.client_config(Some(&stranger))).is_served().await);
}

#[tokio::test]
async fn the_admin_listener_answers_on_a_unix_socket() {
    let world = World::start(|gate| gate.config(json!({ "admin": { "address": "unix:admin.sock" } }))).await;
    let ready: Value = serde_json::from_str(&world.gate.read("ready.json")).unwrap();
    assert!(ready["admin"].as_str().unwrap().ends_with("admin.sock"), "{ready}");
    for (path, expected) in [("/livez", "ok\n"), ("/metrics", "# EOF\n")] {
        let mut socket = tokio::net::UnixStream::connect(world.gate.path("admin.sock")).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("the answer", socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn what_the_machine_lacks_is_told_from_what_is_written_wrong() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let environment: [(Value, &str); 3] = [
        (json!({ "listeners": { "public": { "address": taken } } }), "cannot listen on"),
        (json!({ "audit": { "destination": { "file": { "path": "server.pem/audit.jsonl" } } } }), "audit records"),
        (json!({ "state": { "dir": "server.pem" } }), "cannot be used"),
    ];
    for (settings, expected) in environment {
        let (code, told) = World::refused(|gate| gate.config(settings)).await;
        assert_eq!(code, 3, "{told}");
        assert!(told.contains(expected), "{told}");
    }
    let (code, told) = World::refused(|gate| gate.config(json!({ "listner": {} }))).await;
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("listner") && told.contains("listeners"), "{told}");
    let usage = tokio::process::Command::new(env!("CARGO_BIN_EXE_doorward")).args(["run", "--no-such"]).output();
    assert_eq!(usage.await.unwrap().status.code(), Some(2));
}

#[tokio::test]
async fn a_low_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let world = World::start(|gate| gate.limited("ulimit -Sn 256")).await;
    let (soft, hard) = world.gate.descriptor_limits();
    assert_ne!(soft, "256");
    assert_eq!(soft, hard);
}

#[tokio::test]
async fn the_process_writes_no_core_file() {
    let world = World::start(|gate| gate.limited("ulimit -c unlimited")).await;
    assert_eq!(world.gate.limits_of("Max core file size"), ("0".to_owned(), "0".to_owned()));
}

#[tokio::test]
async fn connections_that_no_limit_of_open_files_leaves_room_for_are_warned_of_with_numbers() {
    let settings = json!({ "limits": { "connections": 300, "concurrent_requests": 50 } });
    let told = "the limit of open files is too low";
    let world = World::start(|gate| gate.limited("ulimit -n 400").config(settings.clone())).await;
    assert_eq!(world.gate.descriptor_limits(), ("400".to_owned(), "400".to_owned()));
    let log = world.gate.log();
    let warning = log.lines().find(|line| line.contains(told)).expect("a warning");
    for number in ["limit=400", "needed=578", "missing=178", "callers=300", "upstreams=150"] {
        assert!(warning.contains(number), "no {number} in {warning}");
    }
    let world = World::start(|gate| gate.limited("ulimit -n 578").config(settings)).await;
    assert!(!world.gate.log().contains(told), "{}", world.gate.log());
}

#[tokio::test]
async fn check_and_schema_answer_in_json_with_their_exit_codes() {
    let world = World::start(|gate| gate).await;
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        let output = command.args(arguments).current_dir(world.gate.path("")).output().await.unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), answer)
    };
    let (code, answer) = run(&["check", "--json"]).await;
    assert_eq!((code, &answer["ok"], &answer["routes"]), (0, &json!(true), &json!(1)));
    let (code, schema) = run(&["schema"]).await;
    assert_eq!((code, schema["properties"]["listeners"].is_object()), (0, true));
    let (code, schema) = run(&["schema", "policies"]).await;
    assert_eq!((code, schema["properties"]["routes"].is_object()), (0, true));
    world.gate.write("policies/rules.cedar", "permit(principal, action, resource);\n");
    let (code, answer) = run(&["check", "--json"]).await;
    assert_eq!((code, &answer["ok"]), (2, &json!(false)));
    let fault = &answer["faults"][0];
    assert!(fault["file"].as_str().unwrap().ends_with("rules.cedar") && fault["line"] == 1, "{fault}");
    let (code, _) = run(&["check", "--config", "gone.yaml"]).await;
    assert_eq!(code, 2);
}

fn modes(directory: &Path, found: &mut Vec<(String, u32, bool)>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        found.push((entry.path().display().to_string(), metadata.permissions().mode() & 0o777, metadata.is_dir()));
        if metadata.is_dir() {
            modes(&entry.path(), found);
        }
    }
}

#[tokio::test]
async fn what_the_state_directory_holds_is_for_its_owner_alone() {
    let world = World::start(|gate| gate).await;
    assert_eq!(world.gate.get("/things/1").bearer(&world.token()).send().await.status, 200);
    let state = world.gate.path("state");
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    let mut found = Vec::new();
    modes(&state, &mut found);
    assert!(found.iter().any(|(_, _, is_directory)| !is_directory), "no key file in {found:?}");
    for (path, mode, is_directory) in found {
        assert_eq!(mode, if is_directory { 0o700 } else { 0o600 }, "{path} has mode {mode:o}");
    }
    assert_eq!(fs::metadata(world.gate.path("audit.jsonl")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn no_secret_is_in_a_log_that_holds_everything() {
    let world = World::start(|gate| {
        gate.talkative()
            .file("api.key", "fixed-secret-value\n")
            .file("admin.token", "admin-secret-value\n")
            .config(json!({
                "credentials": { "key": { "fixed": { "header": "X-Api-Key", "secret": "file:api.key" } } },
                "admin": { "token": "file:admin.token" },
            }))
            .route("keyed", json!({ "path": "/keyed/{*rest}", "credential": "key" }))
    })
    .await;
    let token = world.token();
    for path in ["/things/1?q=query-secret-value", "/keyed/1"] {
        let draft = || world.gate.get(path).bearer(&token).header("cookie", "sid=cookie-secret-value");
        assert_eq!(draft().send().await.status, 200);
        assert_eq!(draft().send_http2().await.status, 200);
    }
    let bad = world.issuer.token().claim("aud", "somebody else").mint();
    assert_eq!(world.gate.get("/things/1").bearer(&bad).send().await.status, 401);
    world.gate.admin().get("/readyz").bearer("admin-secret-value").send().await;
    world.gate.write("api.key", "fixed-second-value\n");
    world.gate.hang_up().await;
    let assertion = world.upstream.received()[0].header("authorization").unwrap().to_owned();
    world.gate.settled_audit().await;
    assert!(world.gate.log().contains("TRACE") || world.gate.log().contains("DEBUG"), "the log is quiet");
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let key = world.gate.read("server.key");
    for secret in [
        "fixed-secret-value",
        "fixed-second-value",
        "admin-secret-value",
        "query-secret-value",
        "cookie-secret-value",
        &signature(&token),
        &signature(&bad),
        &signature(&assertion),
        key.lines().nth(1).unwrap(),
    ] {
        world.gate.never_wrote(secret);
    }
}

#[tokio::test]
async fn a_reload_of_routes_issuers_and_upstreams_loses_no_request() {
    let world = Arc::new(World::start(|gate| gate).await);
    world.gate.becomes_ready(200).await;
    let going = Arc::new(AtomicBool::new(true));
    let mut callers = Vec::new();
    for caller in 0..4 {
        let (world, going) = (world.clone(), going.clone());
        callers.push(tokio::spawn(async move {
            let token = world.token();
            let (mut http1, mut http2) = (world.gate.http1().await, world.gate.http2().await);
            let mut answered = 0;
            while going.load(Ordering::Relaxed) {
                let draft = || world.gate.get(&format!("/things/{caller}")).bearer(&token);
                http1.ready().await.unwrap();
                let one = http1.send_request(draft().into_http1()).await.unwrap();
                let two = http2.send_request(draft().into_http2()).await.unwrap();
                for answer in [one, two] {
                    assert_eq!(answer.status(), 200, "after {answered} answers");
                    Answer::read(answer).await;
                    answered += 1;
                }
            }
            answered
        }));
    }
    let loads = || world.gate.audit().iter().filter(|record| record.event() == "config.loaded").count();
    let config: Value = serde_json::from_str(&world.gate.read("doorward.yaml")).unwrap();
    let rules: Value = serde_json::from_str(&world.gate.read("policies/rules.yaml")).unwrap();
    for round in 0..6 {
        let (mut config, mut rules) = (config.clone(), rules.clone());
        match round % 3 {
            0 => config["issuers"]["machines"]["leeway"] = json!(format!("{}s", 10 + round)),
            1 => config["upstreams"]["api"]["connections"] = json!(10 + round),
            _ => rules["routes"][format!("more{round}")] = rules["routes"]["things"].clone(),
        }
        if round % 3 == 2 {
            rules["routes"][format!("more{round}")]["path"] = json!("/more/{*rest}");
        }
        let before = loads();
        world.gate.write("doorward.yaml", &format!("{config}\n"));
        world.gate.write("policies/rules.yaml", &format!("{rules}\n"));
        eventually("a load", || async { (loads() > before).then_some(()) }).await;
    }
    going.store(false, Ordering::Relaxed);
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.unwrap();
    }
    assert!(answered > 50, "only {answered} requests were made");
    assert_eq!(world.upstream.received().len(), answered);
    assert!(!world.gate.audit().iter().any(|record| record.event() == "config.refused"));
}
