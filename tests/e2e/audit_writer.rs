//! Where records go, and what happens when they cannot.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Answer, AuditRecord, World, eventually, within};

async fn ask(world: &World, token: &str, path: &str) -> Answer {
    world.gate.get(path).bearer(token).send().await
}

#[tokio::test]
async fn a_rotated_file_loses_and_doubles_nothing() {
    let file = json!({ "path": "audit.jsonl", "rotate_bytes": "8KiB", "keep": 100 });
    let world = World::start(|gate| gate.config(json!({ "audit": { "destination": { "file": file } } }))).await;
    let token = world.token();
    for number in 0..60 {
        assert_eq!(ask(&world, &token, &format!("/things/{number}")).await.status, 200);
    }
    let read = || {
        let mut names: Vec<_> = fs::read_dir(world.gate.path("")).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("audit.jsonl"));
        let texts: Vec<_> = names.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect();
        (names.len(), texts.iter().flat_map(|text| AuditRecord::lines(text)).collect::<Vec<_>>())
    };
    let is_last = |record: &AuditRecord| record.is_request_to("/things/59");
    eventually("the last record", || async { read().1.iter().any(is_last).then_some(()) }).await;
    let (files, records) = read();
    assert!(files > 2, "{files} files");
    for number in 0..60 {
        let path = format!("/things/{number}");
        assert_eq!(records.iter().filter(|record| record.is_request_to(&path)).count(), 1, "{path}");
    }
}

#[tokio::test]
async fn a_standard_output_that_nobody_reads_stalls_no_request_until_the_queue_is_full() {
    let mut world = World::start(|gate| {
        gate.audit_to_pipe().config(json!({ "limits": { "concurrent_requests": 20 }, "audit": { "queue": 300 } }))
    })
    .await;
    let token = world.token();
    let mut connection = world.gate.http1().await;
    let mut served = 0;
    // More than the queue holds beside what the pipe and the writer take.
    let refused = loop {
        let request = world.gate.get(&format!("/things/{served}")).bearer(&token).into_http1();
        let answer = within("an answer", connection.send_request(request)).await.unwrap();
        let answer = Answer::read(answer).await;
        if answer.status != 200 {
            break answer;
        }
        served += 1;
        assert!(served < 20_000, "a queue of 300 never fills");
    };
    assert!(served >= 300, "refused after {served}");
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["code"], "audit_queue_full");
    assert!(world.gate.metric("doorward_audit_lost", &[]).await >= 1.0);
    assert_eq!(world.upstream.received().len(), served, "nothing goes on that nobody records");
    let reasons = world.gate.becomes_ready(503).await;
    assert!(reasons.contains("audit"), "{reasons}");

    let mut lines = BufReader::new(world.gate.take_stdout()).lines();
    let reading = tokio::spawn(async move {
        let mut paths = Vec::new();
        while let Ok(Some(line)) = lines.next_line().await {
            let record = AuditRecord(serde_json::from_str(&line).unwrap());
            if record.event() == "request" {
                paths.push(record.text("path").to_owned());
            }
            if record.is_request_to("/things/last") {
                break;
            }
        }
        paths
    });
    let served_again = || async { (ask(&world, &token, "/things/again").await.status == 200).then_some(()) };
    eventually("room in the queue", served_again).await;
    world.gate.becomes_ready(200).await;
    assert_eq!(ask(&world, &token, "/things/last").await.status, 200);
    let paths = within("the last record", reading).await.unwrap();
    let numbered = paths.iter().filter(|path| path.rsplit('/').next().unwrap().parse::<usize>().is_ok());
    let distinct: BTreeSet<_> = numbered.clone().collect();
    assert_eq!((numbered.count(), distinct.len()), (served, served));
}

#[tokio::test]
async fn a_full_disk_shows_and_refuses_once_the_queue_is_full() {
    let file = json!({ "path": "/dev/full", "rotate_bytes": "4KiB" });
    let world = World::start(|gate| {
        gate.config(json!({
            "limits": { "concurrent_requests": 20 },
            "audit": { "destination": { "file": file }, "queue": 30 },
        }))
    })
    .await;
    let reasons = world.gate.becomes_ready(503).await;
    assert!(reasons.contains("audit") && reasons.contains("records cannot be written"), "{reasons}");
    assert_eq!(world.gate.admin().get("/livez").send().await.status, 200);
    let token = world.token();
    let refused = || async { Some(ask(&world, &token, "/things/1").await).filter(|answer| answer.status == 503) };
    assert_eq!(eventually("a refusal", refused).await.json()["code"], "audit_queue_full");
}

#[tokio::test]
async fn a_full_queue_that_counts_serves_on_and_says_how_many_are_lost() {
    let file = json!({ "path": "/dev/full", "rotate_bytes": "4KiB" });
    let world = World::start(|gate| {
        gate.config(json!({ "audit": { "destination": { "file": file }, "queue": 5, "when_full": "count" } }))
    })
    .await;
    let token = world.token();
    for number in 0..40 {
        assert_eq!(ask(&world, &token, &format!("/things/{number}")).await.status, 200);
    }
    assert!(world.gate.metric("doorward_audit_lost", &[]).await >= 1.0);
}

#[tokio::test]
async fn an_audit_file_that_cannot_be_written_for_a_while_gets_every_record_afterwards() {
    let file = json!({ "path": "records/audit.jsonl" });
    let world = World::start(|gate| {
        gate.file("records/keep", "").config(json!({ "audit": { "destination": { "file": file } } }))
    })
    .await;
    let token = world.token();
    assert_eq!(ask(&world, &token, "/things/before").await.status, 200);
    let written = |path: &'static str| {
        let text = fs::read_to_string(world.gate.path("records/audit.jsonl")).unwrap_or_default();
        AuditRecord::lines(&text).iter().filter(|record| record.is_request_to(path)).count()
    };
    eventually("the first record", || async { (written("/things/before") == 1).then_some(()) }).await;
    fs::rename(world.gate.path("records"), world.gate.path("elsewhere")).unwrap();
    assert_eq!(ask(&world, &token, "/things/meanwhile").await.status, 200);
    let reasons = world.gate.becomes_ready(503).await;
    assert!(reasons.contains("audit"), "{reasons}");
    fs::rename(world.gate.path("elsewhere"), world.gate.path("records")).unwrap();
    world.gate.becomes_ready(200).await;
    eventually("the late record", || async { (written("/things/meanwhile") == 1).then_some(()) }).await;
    assert_eq!(written("/things/before"), 1);
}

#[tokio::test]
async fn a_strict_audit_that_cannot_be_written_lets_nothing_go_upstream_and_recovers() {
    let file = json!({ "path": "records/audit.jsonl" });
    let strict = json!({ "audit": { "mode": "strict", "destination": { "file": file } } });
    let world = World::start(|gate| gate.file("records/keep", "").config(strict)).await;
    world.gate.becomes_ready(200).await;
    let token = world.token();
    assert_eq!(ask(&world, &token, "/things/before").await.status, 200);
    fs::rename(world.gate.path("records"), world.gate.path("elsewhere")).unwrap();
    for path in ["/things/first", "/things/second"] {
        let refused = ask(&world, &token, path).await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("1")));
        assert_eq!(refused.json()["code"], "audit_unavailable");
    }
    assert_eq!(world.upstream.only().target, "/things/before");
    fs::rename(world.gate.path("elsewhere"), world.gate.path("records")).unwrap();
    let served = || async { (ask(&world, &token, "/things/after").await.status == 200).then_some(()) };
    eventually("records to be written again", served).await;
    let read = || AuditRecord::lines(&fs::read_to_string(world.gate.path("records/audit.jsonl")).unwrap());
    let late = || async { read().iter().any(|record| record.is_request_to("/things/second")).then_some(()) };
    eventually("the late record", late).await;
    let records = read();
    for (path, verdict) in [("/things/before", ("allow", "ok")), ("/things/second", ("deny", "audit_unavailable"))] {
        let of_it: Vec<_> = records.iter().filter(|record| record.is_request_to(path)).collect();
        assert_eq!((of_it.len(), of_it[0].verdict()), (1, verdict), "{path}");
    }
    let granted = records.iter().find(|record| record.event() == "request.granted").unwrap();
    assert_eq!((granted.text("path"), granted.text("method")), ("/things/before", "GET"));
    assert_eq!((granted.text("route"), granted.text("upstream")), ("things", "api"));
    assert_eq!(granted.value("policy_ids"), &json!(["readers-read"]));
}

#[tokio::test]
async fn a_file_that_takes_no_more_and_is_removed_makes_way_for_a_new_one() {
    let strict = json!({ "audit": { "mode": "strict" } });
    // Every file of the process ends at 128 KiB: the write that comes to it is a part, the next one fails.
    let world = World::start(|gate| gate.config(strict).limited("trap '' XFSZ && ulimit -f 256")).await;
    world.gate.becomes_ready(200).await;
    let token = world.token();
    let mut served = 0;
    while ask(&world, &token, &format!("/things/{served}")).await.status == 200 {
        served += 1;
        assert!(served < 1000, "128 KiB hold it all");
    }
    let full = world.gate.read("audit.jsonl");
    assert!(!full.ends_with('\n'), "no line was cut");
    fs::rename(world.gate.path("audit.jsonl"), world.gate.path("moved.jsonl")).unwrap();
    world.gate.becomes_ready(200).await;
    assert_eq!(ask(&world, &token, "/things/after").await.status, 200);
    let recorded = || async { world.gate.read("audit.jsonl").contains("/things/after").then_some(()) };
    eventually("its record", recorded).await;
    let records = [AuditRecord::lines(&full), world.gate.audit()].concat();
    let granted =
        |path: &str| records.iter().any(|record| record.event() == "request.granted" && record.text("path") == path);
    for received in world.upstream.received() {
        assert!(granted(&received.target), "{} went upstream without a record", received.target);
    }
    let first = world.gate.read("audit.jsonl");
    let first = first.lines().next().unwrap();
    let cut = full.rsplit('\n').next().unwrap();
    assert!(first.starts_with(cut), "the line that was cut stands whole in the new file");
}
