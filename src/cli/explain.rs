//! `doorward explain`.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use http::{Method, Uri};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{CONFIGURATION, ConfigArguments, ENVIRONMENT, NO, OK, explanation, print, show_faults};
use crate::clock::{Clock, Timestamp};
use crate::config;
use crate::workbench::{self, Caller, Question};

/// Largest file of claims or of a token, bytes.
const INPUT_LIMIT_BYTES: u64 = 1024 * 1024;

const EXAMPLES: &str = "Examples:
  Nobody in particular, on a route that may be public:
      doorward explain https://billing.example.com/health
  A caller whose token holds these claims; `-` reads standard input:
      echo '{\"uid\":\"00u1\",\"groups\":[\"billing-admins\"]}' |
      doorward explain --issuer okta --claims - \\
          https://billing.example.com/invoices/7
  The same user with a browser session, at another time, deleting:
      doorward explain --issuer okta --claims id.json --session \\
          --at 2030-01-31T08:00:00Z -X DELETE https://billing.example.com/invoices/7
  A token that is only read, for its signature is not verified:
      doorward explain --token token.jwt https://billing.example.com/invoices/7
  A workload with a client certificate:
      doorward explain --certificate-san spiffe://example.com/reports \\
          https://billing.example.com/reports

Says the decision, the route, the roles that the caller holds and why not the
others, the rule that decides with its file and line, and what the API behind
would be shown. Nothing is sent, and no grant comes of it. Claims that are not
stated (`exp`, `aud` and the like) are taken as good, and the answer says which.

Exit codes: 0 the request would pass, 1 it would be refused, 2 usage or
configuration, 3 environment.";

/// What to explain.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Explain {
    #[command(flatten)]
    config: ConfigArguments,
    /// Configured name of the caller's issuer
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Claims of the caller's token as a JSON object; `-` is standard input
    #[arg(long, value_name = "FILE", requires = "issuer", conflicts_with_all = ["token", "certificate_san"])]
    claims: Option<PathBuf>,
    /// The claims are an ID token's, and the caller has the browser session that it began
    #[arg(long, requires = "claims")]
    session: bool,
    /// A token, which is only read: its signature is not verified; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "certificate_san")]
    token: Option<PathBuf>,
    /// The one name of the caller's client certificate: a URI or a DNS name
    #[arg(long, value_name = "NAME")]
    certificate_san: Option<String>,
    /// Request method
    #[arg(short = 'X', long, default_value = "GET", value_name = "METHOD")]
    method: Method,
    /// Address of the caller
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS")]
    source_ip: IpAddr,
    /// Time of the request, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    at: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The whole URL of the request
    url: Uri,
}

/// Why what was typed makes no question; with its exit code.
pub(super) struct Unasked(pub(super) u8, pub(super) String);

impl Explain {
    pub(super) fn run(self) -> u8 {
        let (path, json) = (self.config.config.clone(), self.json);
        let question = match self.question() {
            Ok(question) => question,
            Err(Unasked(code, message)) => return refuse(json, code, &message),
        };
        let judged = match config::judge(&path) {
            Ok(judged) => judged,
            Err(faults) => {
                return show_faults(&faults, json);
            }
        };
        let answer = match workbench::explain(&judged, &question) {
            Ok(answer) => answer,
            Err(error) => return refuse(json, CONFIGURATION, &error.to_string()),
        };
        let text = match json {
            true => serde_json::to_string_pretty(&answer).map(|text| text + "\n"),
            false => Ok(explanation::readable(&answer)),
        };
        match text {
            Ok(text) => print(&text, if answer.decision == "deny" { NO } else { OK }),
            Err(error) => refuse(json, ENVIRONMENT, &format!("the answer could not be printed: {error}")),
        }
    }

    fn question(self) -> Result<Question, Unasked> {
        let caller = match (self.claims, self.token, self.certificate_san) {
            (Some(file), _, _) => {
                let claims = claims(&file)?;
                let issuer = self.issuer.unwrap_or_default();
                if self.session { Caller::Session { issuer, claims } } else { Caller::Claims { issuer, claims } }
            }
            (None, Some(file), _) => {
                let token = read(&file)?.trim().to_owned();
                Caller::Token { issuer: self.issuer, token }
            }
            (None, None, Some(name)) => Caller::Certificate { issuer: self.issuer, name },
            (None, None, None) if self.issuer.is_some() => {
                let message = "`--issuer` alone names no caller: add `--claims`, `--token` or `--certificate-san`";
                return Err(Unasked(CONFIGURATION, message.to_owned()));
            }
            (None, None, None) => Caller::Nobody,
        };
        let at = self.at.unwrap_or_else(|| Clock::system().now());
        Ok(Question { caller, method: self.method, url: self.url, source_ip: self.source_ip, at })
    }
}

pub(super) fn claims(file: &Path) -> Result<Map<String, Value>, Unasked> {
    // What the parser says could quote a claim, so only its place is said.
    serde_json::from_str(&read(file)?).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Unasked(CONFIGURATION, format!("`{}` is no JSON object of claims ({place})", file.display()))
    })
}

pub(super) fn read(file: &Path) -> Result<String, Unasked> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(INPUT_LIMIT_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(INPUT_LIMIT_BYTES).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(Unasked(ENVIRONMENT, format!("`{}` cannot be read: {error}", file.display()))),
    }
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "no time such as `2030-01-31T08:00:00Z`".to_owned())?;
    let millis = at.unix_timestamp_nanos() / 1_000_000;
    i64::try_from(millis).map(Timestamp::from_unix_millis).map_err(|_| "out of range".to_owned())
}

fn refuse(json: bool, code: u8, message: &str) -> u8 {
    if json {
        print(&format!("{}\n", serde_json::json!({ "ok": false, "error": message })), code)
    } else {
        eprintln!("{message}");
        code
    }
}
