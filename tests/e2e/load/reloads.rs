//! Reloads under load: no request fails for one, and a broken policy changes nothing.

use std::io::{Read, Seek, SeekFrom};

use serde_json::{Value, json};

use super::{World, share};
use crate::support::{Authority, HOST, RunningGate, eventually};

/// Counts an event of the audit file, reading each line once.
struct Tail {
    event: String,
    at: u64,
    seen: usize,
}

impl Tail {
    fn of(gate: &RunningGate, event: &str) -> Self {
        let mut tail = Self { event: format!("\"event\":\"{event}\""), at: 0, seen: 0 };
        tail.read(gate);
        tail
    }

    fn read(&mut self, gate: &RunningGate) -> usize {
        let mut file = std::fs::File::open(gate.path("audit.jsonl")).unwrap();
        file.seek(SeekFrom::Start(self.at)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.at += whole as u64;
        self.seen += text[..whole].matches(&self.event).count();
        self.seen
    }

    /// Waits until there is one more than before.
    async fn grows(&mut self, gate: &RunningGate) {
        let before = self.seen;
        let tail = std::cell::RefCell::new(self);
        let one_more = || async { (tail.borrow_mut().read(gate) > before).then_some(()) };
        eventually("a load", one_more).await;
    }
}

#[tokio::test]
async fn reloads_of_rules_issuers_upstreams_and_certificates_fail_no_request() {
    let rounds = share(1000);
    // One file: the count of loads follows it.
    let file = json!({ "path": "audit.jsonl", "rotate_bytes": "64GiB" });
    let world = World::start(|gate| gate.config(json!({ "audit": { "destination": { "file": file } } }))).await;
    let authority = Authority::new();
    let config: Value = serde_json::from_str(&world.gate.read("doorward.yaml")).unwrap();
    let rules: Value = serde_json::from_str(&world.gate.read("policies/rules.yaml")).unwrap();
    let traffic = world.traffic(4);
    traffic.flows(20).await;
    let mut loads = Tail::of(&world.gate, "config.loaded");
    for round in 0..rounds {
        let (mut config, mut rules) = (config.clone(), rules.clone());
        match round % 4 {
            0 => config["issuers"]["machines"]["leeway"] = json!(format!("{}s", 10 + round % 40)),
            1 => config["upstreams"]["api"]["connections"] = json!(10 + round),
            2 => {
                let name = format!("more{round}");
                rules["routes"][&name] = rules["routes"]["things"].clone();
                rules["routes"][&name]["path"] = json!("/more/{*rest}");
            }
            _ => {
                // The key first: until its certificate is there too, the pair does not match and nothing changes.
                let pair = authority.server_pair(&[HOST]);
                world.gate.write("server.key", &pair.key);
                world.gate.write("server.pem", &pair.certificate);
            }
        }
        world.gate.write("doorward.yaml", &format!("{config}\n"));
        world.gate.write("policies/rules.yaml", &format!("{rules}\n"));
        world.gate.hang_up().await;
        loads.grows(&world.gate).await;
    }
    traffic.flows(20).await;
    let asked = traffic.stop().await;
    let failed: Vec<_> = asked.iter().filter(|asked| asked.status.is_none_or(|status| status != 200)).collect();
    assert!(failed.is_empty(), "{failed:?} of {}", asked.len());
    assert_eq!(world.upstream.asked().len(), asked.len(), "each went upstream");
    println!("{rounds} reloads: {} requests, none failed", asked.len());
}

#[tokio::test]
async fn ten_kinds_of_broken_policy_change_nothing() {
    let world = World::start(|gate| gate).await;
    let (rules, cedar) = (world.gate.read("policies/rules.yaml"), world.gate.read("policies/rules.cedar"));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut rules: Value = serde_json::from_str(&rules).unwrap();
        change(&mut rules);
        rules.to_string()
    };
    let open = r#"@id("all") permit(principal, action, resource);"#;
    let broken: [(&str, &str, String); 10] = [
        ("policies/rules.yaml", "cut off", rules[..rules.len() - 40].to_owned()),
        ("policies/rules.yaml", "an unknown key", with(&|rules| rules["routes"]["things"]["acept"] = json!({}))),
        (
            "policies/rules.yaml",
            "an unknown upstream",
            with(&|rules| rules["routes"]["things"]["upstream"] = json!("x")),
        ),
        ("policies/rules.yaml", "no guard", with(&|rules| rules["routes"]["things"]["accept"] = json!(null))),
        ("policies/rules.yaml", "an empty trust", with(&|rules| rules["roles"]["reader"]["trust"] = json!([]))),
        ("policies/rules.yaml", "no YAML", "\u{0}: [".to_owned()),
        ("policies/rules.cedar", "no Cedar", format!("{open}\npermit(")),
        (
            "policies/rules.cedar",
            "an unknown role",
            format!("{open}\n@id(\"x\") forbid(principal in Role::\"ghost\", action, resource);"),
        ),
        (
            "policies/rules.cedar",
            "an unknown attribute",
            format!("{open}\n@id(\"x\") forbid(principal, action, resource) when {{ context.nonsense == 1 }};"),
        ),
        ("policies/rules.cedar", "one id twice", format!("{open}\n{open}")),
    ];
    let stranger = world.issuer.token().groups(&["nobodies"]).mint();
    let traffic = world.traffic(2);
    let mut refusals = Tail::of(&world.gate, "config.refused");
    for (file, what, text) in broken {
        world.gate.write(file, &text);
        world.gate.hang_up().await;
        refusals.grows(&world.gate).await;
        traffic.flows(20).await;
        let refused = world.gate.get("/things/secret").bearer(&stranger).send().await;
        assert_eq!(refused.status, 403, "{what}");
        assert_eq!(world.gate.get("/things/secret").send().await.status, 401, "{what}");
        world.gate.write("policies/rules.yaml", &rules);
        world.gate.write("policies/rules.cedar", &cedar);
        world.gate.becomes_ready(200).await;
    }
    let asked = traffic.stop().await;
    let failed: Vec<_> = asked.iter().filter(|asked| asked.status.is_none_or(|status| status != 200)).collect();
    assert!(failed.is_empty(), "{failed:?} of {}", asked.len());
    assert!(!world.upstream.asked().contains_key("/things/secret"));
}
