//! `doorward creds`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use http::{Method, Uri};
use serde_json::{Value, json};

use super::explain::{claims, read};
use super::{CONFIGURATION, ConfigArguments, ENVIRONMENT, NO, OK, complain, print, show_faults};
use crate::clock::{Clock, Timestamp};
use crate::config::checked::{Checked, RouteSettings};
use crate::config::{self, Judged};
use crate::route::HostPattern;
use crate::secret::Secret;
use crate::workbench::{self, Caller, Question};

const EXAMPLES: &str = "Examples:
  What upstreams are shown, on which routes:
      doorward creds list
  What would be asked of whom, for a caller with these claims:
      echo '{\"uid\":\"00u1\",\"groups\":[\"analysts\"],\"team\":\"red\"}' |
      doorward creds mint --dry-run --route reports --path /reports/red/2026.csv --issuer okta --as -
  In ~/.aws/config, for SDKs and the command line of AWS, which renew it by themselves:
      [profile reports]
      region = eu-central-1
      endpoint_url = https://s3.internal.example.com
      credential_process = doorward creds process --token /run/secrets/token.jwt

`process` prints keys that are worth nothing, and the token where a session token
stands: Doorward takes it from there, on routes with an `aws` credential.

Exit codes: 0 ok, 1 the request would be refused, 2 usage or configuration,
3 environment.";

/// What to do about credentials.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Creds {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the credentials and the routes that use them
    List(List),
    /// Say what would be asked of whom for a request, without asking
    Mint(Box<Mint>),
    /// Print a token in the form of AWS's `credential_process`
    Process(Process),
}

#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Mint {
    #[command(flatten)]
    config: ConfigArguments,
    /// Ask nobody, and show what would be asked; nothing else is offered
    #[arg(long, required = true)]
    dry_run: bool,
    /// Name of the route
    #[arg(long, value_name = "NAME")]
    route: String,
    /// Path of the request [default: the route's own, with the names in it]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Claims of the caller's token as a JSON object; `-` is standard input
    #[arg(long = "as", value_name = "FILE", requires = "issuer")]
    claims: Option<PathBuf>,
    /// Configured name of the caller's issuer
    #[arg(long, value_name = "NAME", requires = "claims")]
    issuer: Option<String>,
    /// Request method
    #[arg(short = 'X', long, default_value = "GET", value_name = "METHOD")]
    method: Method,
}

#[derive(clap::Args)]
struct Process {
    /// File of the token; `-` is standard input
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
}

impl Creds {
    pub(super) fn run(self) -> u8 {
        match self.verb {
            Verb::List(verb) => verb.run(),
            Verb::Mint(verb) => verb.run(),
            Verb::Process(verb) => verb.run(),
        }
    }
}

impl List {
    fn run(self) -> u8 {
        let checked = match config::judge(&self.config.config) {
            Ok(judged) => judged.checked,
            Err(faults) => return show_faults(&faults, self.json),
        };
        let rows: Vec<(String, &'static str, Vec<String>)> = checked
            .credentials
            .iter()
            .map(|credential| {
                let uses = checked.routes.iter().filter(|settings| settings.credential == credential.name);
                let kind = credential.kind.as_str();
                let routes = uses.map(|settings| format!("{} ({})", settings.route.name, settings.route.environment));
                (credential.name.clone(), kind, routes.collect())
            })
            .collect();
        if self.json {
            let rows: Vec<Value> = rows
                .iter()
                .map(|(name, kind, routes)| json!({ "name": name, "kind": kind, "routes": routes }))
                .collect();
            return print(&format!("{}\n", json!({ "credentials": rows })), OK);
        }
        let width = |of: fn(&(String, &'static str, Vec<String>)) -> usize| rows.iter().map(of).max().unwrap_or(0);
        let (names, kinds) = (width(|row| row.0.len()), width(|row| row.1.len()));
        let mut text = String::new();
        for (name, kind, routes) in &rows {
            let routes = if routes.is_empty() { "no route".to_owned() } else { routes.join(", ") };
            text.push_str(&format!("{name:names$}  {kind:kinds$}  {routes}\n"));
        }
        print(&text, OK)
    }
}

impl Mint {
    fn run(self) -> u8 {
        let judged = match config::judge(&self.config.config) {
            Ok(judged) => judged,
            Err(faults) => return show_faults(&faults, true),
        };
        let question = match self.question(&judged.checked) {
            Ok(question) => question,
            Err((code, message)) => {
                complain(false, &message);
                return code;
            }
        };
        self.answered(&judged, &question)
    }

    fn answered(&self, judged: &Judged, question: &Question) -> u8 {
        let minting = match workbench::mint(judged, question) {
            Ok(minting) => minting,
            Err(error) => {
                complain(false, &error.to_string());
                return CONFIGURATION;
            }
        };
        let answer = &minting.answer;
        let allowed = answer.decision == "allow" && minting.refused.is_none();
        let (code, detail) = match &minting.refused {
            Some((code, detail)) => (code.as_str(), Some(detail.clone())),
            None => (answer.code, answer.detail.clone()),
        };
        let forwarded = answer.forwarded.as_ref();
        let document = json!({
            "decision": if allowed { "allow" } else { "deny" },
            "code": code,
            "detail": detail,
            "route": self.route,
            "path": answer.path,
            "principal": answer.caller.principal,
            "credential": forwarded.map(|forwarded| &forwarded.credential),
            "kind": forwarded.map(|forwarded| forwarded.credential_kind),
            "request": minting.request,
        });
        match serde_json::to_string_pretty(&document) {
            Ok(text) => print(&(text + "\n"), if allowed { OK } else { NO }),
            Err(error) => {
                complain(false, &format!("the answer could not be printed: {error}"));
                ENVIRONMENT
            }
        }
    }

    fn question(&self, checked: &Checked) -> Result<Question, (u8, String)> {
        let settings = checked.routes.iter().find(|settings| *settings.route.name == *self.route);
        let settings = settings.ok_or_else(|| {
            let names: Vec<&str> = checked.routes.iter().map(|settings| &*settings.route.name).collect();
            (CONFIGURATION, format!("no route is named `{}`; there are {}", self.route, names.join(", ")))
        })?;
        let path = self.path.clone().unwrap_or_else(|| settings.route.path.replace(['{', '}', '*'], ""));
        let url: Uri = format!("https://{}{path}", host(settings))
            .parse()
            .map_err(|_| (CONFIGURATION, format!("`{path}` is no path")))?;
        let caller = match &self.claims {
            Some(file) => {
                let claims = claims(file).map_err(|unasked| (unasked.0, unasked.1))?;
                Caller::Claims { issuer: self.issuer.clone().unwrap_or_default(), claims }
            }
            None => Caller::Nobody,
        };
        let source_ip = std::net::Ipv4Addr::LOCALHOST.into();
        Ok(Question { caller, method: self.method.clone(), url, source_ip, at: Clock::system().now() })
    }
}

/// A host that the route takes.
fn host(settings: &RouteSettings) -> String {
    match &settings.route.host {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Below(parent) => format!("host.{parent}"),
        HostPattern::Any => "host.invalid".to_owned(),
    }
}

impl Process {
    fn run(self) -> u8 {
        let token = match read(&self.token) {
            Ok(text) => Secret::new(text.trim()),
            Err(unasked) => {
                complain(false, &unasked.1);
                return unasked.0;
            }
        };
        let Some(ends) = end_of(&token) else {
            complain(false, &format!("`{}` holds no JWT with an `exp`", self.token.display()));
            return CONFIGURATION;
        };
        if ends <= Clock::system().now() {
            complain(false, &format!("the token in `{}` ended at {}", self.token.display(), ends.rfc3339()));
            return ENVIRONMENT;
        }
        let document = json!({
            "Version": 1,
            "AccessKeyId": "doorward",
            "SecretAccessKey": "placeholder",
            "SessionToken": token.expose(),
            "Expiration": ends.rfc3339(),
        });
        print(&format!("{document}\n"), OK)
    }
}

/// When a token says that it ends.
fn end_of(token: &Secret) -> Option<Timestamp> {
    let mut parts = token.expose().split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims.get("exp")?.as_i64().map(Timestamp::from_unix_seconds)
}
