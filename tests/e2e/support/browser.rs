//! Headless Chromium.

use serde_json::{Value, json};

use super::gate::HOST;
use super::process::Peer;

/// One browser with an empty profile. `https://gate.test` leads to the port that it was started with.
pub(crate) struct Browser {
    process: Peer,
    tab: String,
}

/// Where a tab is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) title: String,
    pub(crate) status: u64,
}

impl Browser {
    pub(crate) async fn start(port: u16) -> Self {
        let (process, _version) = Peer::node("browser.mjs", &json!({ "hosts": { HOST: port } })).await;
        Self { process, tab: "first".to_owned() }
    }

    /// Goes on in another tab, which is opened if there is none of this name.
    pub(crate) fn use_tab(&mut self, name: &str) {
        name.clone_into(&mut self.tab);
    }

    pub(crate) async fn goto(&mut self, url: &str) -> Place {
        self.step(json!({ "step": "goto", "url": url })).await.into()
    }

    pub(crate) async fn fill(&mut self, selector: &str, text: &str) {
        self.step(json!({ "step": "fill", "selector": selector, "text": text })).await;
    }

    /// Clicks, and waits for the page that the click leads to.
    pub(crate) async fn follow(&mut self, selector: &str) -> Place {
        self.step(json!({ "step": "follow", "selector": selector })).await.into()
    }

    pub(crate) async fn place(&mut self) -> Place {
        self.step(json!({ "step": "place" })).await.into()
    }

    /// Every address that any tab was sent to, in order.
    pub(crate) async fn visited(&mut self) -> Vec<String> {
        serde_json::from_value(self.step(json!({ "step": "visited" })).await).unwrap()
    }

    pub(crate) async fn text(&mut self) -> String {
        text(self.step(json!({ "step": "text" })).await)
    }

    pub(crate) async fn html(&mut self) -> String {
        text(self.step(json!({ "step": "html" })).await)
    }

    pub(crate) async fn cookies(&mut self) -> Vec<Value> {
        let Value::Array(cookies) = self.step(json!({ "step": "cookies" })).await else { panic!("no cookie list") };
        cookies
    }

    /// Forgets every cookie, the provider's too.
    pub(crate) async fn clear_cookies(&mut self) {
        self.step(json!({ "step": "clear_cookies" })).await;
    }

    /// A request by the script of the page that is open, with its cookies: `status`, `body`, or `failed`.
    pub(crate) async fn fetch(&mut self, url: &str, options: Value) -> Value {
        self.step(json!({ "step": "fetch", "url": url, "options": options })).await
    }

    /// Runs an expression in the page that is open.
    pub(crate) async fn evaluate(&mut self, script: &str) -> Value {
        self.step(json!({ "step": "evaluate", "script": script })).await
    }

    /// Signs in at the provider's own page, which must be open, and returns where that leads.
    pub(crate) async fn sign_in(&mut self, user: &str) -> Place {
        self.fill("input[name=login]", user).await;
        self.fill("input[name=password]", "any will do").await;
        self.follow("button[type=submit]").await
    }

    async fn step(&mut self, mut command: Value) -> Value {
        command["tab"] = json!(self.tab);
        let mut answer = self.process.ask(&command).await;
        assert!(answer["error"].is_null(), "{command} failed: {}", answer["error"]);
        answer["value"].take()
    }
}

impl From<Value> for Place {
    fn from(value: Value) -> Self {
        Self {
            url: value["url"].as_str().unwrap().to_owned(),
            title: value["title"].as_str().unwrap().to_owned(),
            status: value["status"].as_u64().unwrap(),
        }
    }
}

fn text(value: Value) -> String {
    let Value::String(text) = value else { panic!("no text: {value}") };
    text
}
