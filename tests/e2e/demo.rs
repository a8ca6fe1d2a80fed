//! `doorward demo`, as a newcomer meets it.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::support::{Browser, Client, signal, within};

struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    _log: Lines<BufReader<ChildStderr>>,
    port: u16,
    issuer: String,
    folder: tempfile::TempDir,
}

impl Demo {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_doorward"))
            .args(["demo", "--port", "0", "--json", "--directory", "certs"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut port, mut issuer) = (None, None);
        while let Some(line) = within("the demo's introduction", log.next_line()).await.unwrap() {
            if let Some((_, rest)) = line.split_once("https://localhost:") {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                port = port.or(digits.parse().ok());
            }
            if let Some((url, _)) = line.split_once("/dev/token/") {
                issuer = issuer.or(url.rsplit_once("curl -s ").map(|(_, url)| url.to_owned()));
            }
            if line.trim() == "Audit" {
                break;
            }
        }
        Self { child, lines, _log: log, port: port.unwrap(), issuer: issuer.unwrap(), folder }
    }

    fn client(&self) -> Client {
        let pem = std::fs::read(self.folder.path().join("certs/demo-authority.pem")).unwrap();
        Client::trusting(([127, 0, 0, 1], self.port).into(), "localhost", &pem)
    }

    async fn token(&self, who: &str) -> String {
        let address = self.issuer.strip_prefix("http://").unwrap().parse().unwrap();
        Client::plain(address).get(&format!("/dev/token/{who}")).send().await.text()
    }

    /// The next record of a request to `path`.
    async fn record(&mut self, path: &str) -> Value {
        loop {
            let line = within("a record", self.lines.next_line()).await.unwrap().expect("the demo goes on");
            let record: Value = serde_json::from_str(&line).unwrap();
            if record["path"] == path {
                return record;
            }
        }
    }

    /// Ends it; every line that is left is a record, as those before were.
    async fn stop(mut self) {
        signal(&self.child, "TERM").await;
        while let Some(line) = within("the last records", self.lines.next_line()).await.unwrap() {
            assert!(serde_json::from_str::<Value>(&line).unwrap().is_object(), "{line}");
        }
        assert!(within("the end", self.child.wait()).await.unwrap().success());
    }
}

#[tokio::test]
async fn the_printed_lines_show_an_allow_a_deny_a_401_and_the_injected_credential() {
    let mut demo = Demo::start().await;
    let client = demo.client();
    let (alice, bob) = (demo.token("alice").await, demo.token("bob").await);

    assert_eq!(client.get("/billing/invoices").bearer(&alice).send().await.status, 200);
    let record = demo.record("/billing/invoices").await;
    assert_eq!((&record["decision"], &record["principal"]["id"]), (&json!("allow"), &json!("dev|alice")));

    let denied = client.get("/billing/invoices").bearer(&bob).send().await;
    assert_eq!((denied.status.as_u16(), &denied.json()["code"]), (403, &json!("not_permitted")));
    assert_eq!(client.get("/billing/invoices").send().await.status, 401);

    let seen = client.get("/whoami").bearer(&alice).send().await.json();
    assert_eq!(seen["assertion"]["sub"], "dev|alice");
    assert!(!seen.to_string().contains(&alice), "the caller's own token reached the API");

    let job = demo.token("nightly-report").await;
    assert_eq!(client.get("/billing/invoices").bearer(&job).send().await.status, 200);
    assert_eq!(client.get("/health").send().await.status, 200);
    demo.stop().await;
}

#[tokio::test]
async fn a_person_signs_in_at_the_development_issuer_by_a_click() {
    let demo = Demo::start().await;
    let origin = format!("https://localhost:{}", demo.port);
    let mut browser = Browser::start(demo.port).await;
    let place = browser.goto(&format!("{origin}/")).await;
    assert!(place.url.starts_with(&demo.issuer), "{place:?}");
    let place = browser.follow("button[value=alice]").await;
    assert_eq!((place.url.as_str(), place.status), (format!("{origin}/").as_str(), 200));
    assert!(browser.text().await.contains("dev|alice"));
    demo.stop().await;
}

#[tokio::test]
async fn a_second_demo_in_the_same_place_is_refused_and_takes_nothing_from_the_first() {
    let demo = Demo::start().await;
    let second = Command::new(env!("CARGO_BIN_EXE_doorward"))
        .args(["demo", "--port", "0", "--directory", "certs"])
        .current_dir(demo.folder.path())
        .kill_on_drop(true)
        .output();
    let second = within("the second demo's end", second).await.unwrap();
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(3), "{told}");
    assert!(told.contains("another demo") && told.contains("--directory"), "{told}");
    let token = demo.token("alice").await;
    assert_eq!(demo.client().get("/billing/invoices").bearer(&token).send().await.status, 200);
}
