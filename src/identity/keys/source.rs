//! Where an issuer's keys come from: its discovery document, a fixed address, or a file.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::clock::Timestamp;
use crate::identity::json::parse_object;
use crate::outbound::{OutboundClient, PlainHttp, check_address, in_one_line};

const SHORTEST_LIFETIME: Duration = Duration::from_secs(5 * 60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// For an issuer that says nothing about caching.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Largest file of keys, bytes.
const FILE_LIMIT_BYTES: u64 = 512 * 1024;

/// Longest read of a file. One on a mount that hangs never ends.
const FILE_DEADLINE: Duration = Duration::from_secs(5);

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The `jwks_uri` of the issuer's discovery document (OpenID Connect Discovery 1.0).
    Discovery {
        /// The issuer, exactly as in its tokens and in the document.
        issuer: String,
    },
    /// This address.
    JwksUri(String),
    /// This file, read again when it changes.
    File(PathBuf),
}

/// A key set as it was published, and how long it may be taken for current.
pub(super) struct Published {
    pub(super) body: Bytes,
    pub(super) lifetime: Duration,
}

impl KeySource {
    /// Whether its addresses can be called at all.
    pub(super) fn check(&self, plain_http: PlainHttp) -> Result<(), &'static str> {
        match self {
            Self::Discovery { issuer: address } | Self::JwksUri(address) => check_url(address, plain_http),
            Self::File(_) => Ok(()),
        }
    }

    /// Fetches the key set. `plain_http` is the client's own rule, for the address in a discovery document.
    pub(super) async fn fetch(
        &self,
        client: &OutboundClient,
        plain_http: PlainHttp,
        files: &mut FileReader,
        now: Timestamp,
    ) -> Result<Published, String> {
        match self {
            Self::Discovery { issuer } => {
                let address = discovered_address(client, issuer, plain_http).await?;
                fetch_set(client, &address, now).await
            }
            Self::JwksUri(address) => fetch_set(client, address, now).await,
            Self::File(path) => {
                let body = files.read(path).await?;
                Ok(Published { body, lifetime: Duration::ZERO })
            }
        }
    }
}

fn check_url(address: &str, plain_http: PlainHttp) -> Result<(), &'static str> {
    let address: Uri = address.parse().map_err(|_| "it is no URL")?;
    check_address(&address, plain_http)
}

async fn discovered_address(client: &OutboundClient, issuer: &str, plain_http: PlainHttp) -> Result<String, String> {
    // Section 4.1: a terminating slash of the issuer is removed before the well-known path is appended.
    let address = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    let answer = get(client, &address).await?;
    let document = parse_object(answer.body()).map_err(|fault| format!("`{address}` is refused: {fault}"))?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(format!("the document at `{address}` speaks for another issuer than `{issuer}`"));
    }
    let keys = document.get("jwks_uri").and_then(Value::as_str);
    let keys = keys.ok_or_else(|| format!("the document at `{address}` names no `jwks_uri`"))?;
    check_discovered(keys, issuer, plain_http)
        .map_err(|reason| format!("the document at `{address}` names a `jwks_uri` that cannot be called: {reason}"))?;
    Ok(keys.to_owned())
}

/// Keys are asked for no less safely than the document that names them: whoever could change them could sign.
fn check_discovered(keys: &str, issuer: &str, plain_http: PlainHttp) -> Result<(), &'static str> {
    let is_plain = |address: &str| address.parse().is_ok_and(|address: Uri| address.scheme_str() == Some("http"));
    if is_plain(keys) && !is_plain(issuer) {
        return Err("it is plain http, and the issuer is not");
    }
    check_url(keys, plain_http)
}

async fn fetch_set(client: &OutboundClient, address: &str, now: Timestamp) -> Result<Published, String> {
    let answer = get(client, address).await?;
    let lifetime = lifetime(answer.headers(), now);
    Ok(Published { body: answer.into_body(), lifetime })
}

async fn get(client: &OutboundClient, address: &str) -> Result<Response<Bytes>, String> {
    let answer = client.get_json(address).await.map_err(|error| in_one_line(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("`{address}` answered with {}", answer.status()));
    }
    Ok(answer)
}

/// How long an answer is fresh (RFC 9111), within bounds that neither hammer the issuer nor keep a withdrawn key.
fn lifetime(headers: &HeaderMap, now: Timestamp) -> Duration {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let stated = directives.iter().filter_map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => Some(Duration::ZERO),
            "max-age" => value.trim().trim_matches('"').parse().ok().map(Duration::from_secs),
            _ => None,
        }
    });
    let age = headers.get(header::AGE).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let age = Duration::from_secs(age.unwrap_or_default());
    let stated = stated.min().or_else(|| until_expiry(headers, now)).map(|lifetime| lifetime.saturating_sub(age));
    stated.unwrap_or(DEFAULT_LIFETIME).clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME)
}

/// From `Date`, which defaults to now, to `Expires`. What is no date, `0` above all, has passed (section 5.3).
fn until_expiry(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let date = |value: &HeaderValue| Timestamp::from_http_date(value.to_str().ok()?);
    let from = headers.get(header::DATE).and_then(date).unwrap_or(now);
    headers.get(header::EXPIRES).map(|value| date(value).map_or(Duration::ZERO, |until| until.since(from)))
}

/// Reads one file at a time, and waits for none without end.
///
/// A read that hangs holds its thread and cannot be called off. So the next attempt waits for the same one: to begin
/// another each time would use up every thread there is.
#[derive(Debug, Default)]
pub(super) struct FileReader {
    under_way: Option<JoinHandle<Result<Bytes, String>>>,
}

impl FileReader {
    async fn read(&mut self, path: &Path) -> Result<Bytes, String> {
        let owned = path.to_owned();
        self.in_time(path, move || read_file(&owned)).await
    }

    async fn in_time(
        &mut self,
        path: &Path,
        read: impl FnOnce() -> Result<Bytes, String> + Send + 'static,
    ) -> Result<Bytes, String> {
        let mut reading = self.under_way.take().unwrap_or_else(|| tokio::task::spawn_blocking(read));
        let failed = |why: &str| format!("the key file `{}` cannot be read: {why}", path.display());
        match tokio::time::timeout(FILE_DEADLINE, &mut reading).await {
            Ok(read) => read.unwrap_or_else(|_| Err(failed("the attempt broke off"))),
            Err(_) => {
                self.under_way = Some(reading);
                Err(failed("it takes too long"))
            }
        }
    }
}

/// Blocks on the disk.
fn read_file(path: &Path) -> Result<Bytes, String> {
    let failed = |error: std::io::Error| format!("the key file `{}` cannot be read: {error}", path.display());
    // Asked before opening: to open a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("the key file `{}` is no regular file", path.display()));
    }
    let mut body = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let read = file.take(FILE_LIMIT_BYTES + 1).read_to_end(&mut body).map_err(failed)?;
    if read as u64 > FILE_LIMIT_BYTES {
        return Err(format!("the key file `{}` is larger than 512 KiB", path.display()));
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime_of(lines: &[(&'static str, &str)]) -> u64 {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let now = Timestamp::from_unix_seconds(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        lifetime(&headers, now).as_secs()
    }

    #[test]
    fn cache_headers_are_honoured_within_five_minutes_and_a_day() {
        assert_eq!(lifetime_of(&[("cache-control", "public, max-age=3600, must-revalidate")]), 3600);
        assert_eq!(lifetime_of(&[("cache-control", "MAX-AGE=\"7200\"")]), 7200);
        assert_eq!(lifetime_of(&[("cache-control", "max-age=3600"), ("age", "600")]), 3000);
        assert_eq!(lifetime_of(&[("cache-control", "max-age=1")]), 300);
        assert_eq!(lifetime_of(&[("cache-control", "max-age=3600"), ("cache-control", "no-cache")]), 300);
        assert_eq!(lifetime_of(&[("cache-control", "max-age=31536000")]), 86400);
        assert_eq!(lifetime_of(&[("cache-control", "max-age=99999999999999999999")]), 900);
        assert_eq!(lifetime_of(&[]), 900);
    }

    #[test]
    fn an_expiry_date_counts_where_nothing_else_is_said() {
        let (date, expires) = (("date", "Sun, 06 Nov 1994 08:00:00 GMT"), ("expires", "Sun, 06 Nov 1994 09:49:37 GMT"));
        assert_eq!(lifetime_of(&[expires]), 3600);
        assert_eq!(lifetime_of(&[expires, date]), 3600 + 49 * 60 + 37);
        assert_eq!(lifetime_of(&[expires, ("age", "600")]), 3000);
        assert_eq!(lifetime_of(&[expires, ("cache-control", "public")]), 3600);
        assert_eq!(lifetime_of(&[expires, ("cache-control", "max-age=7200")]), 7200);
        assert_eq!(lifetime_of(&[expires, ("cache-control", "no-cache")]), 300);
        assert_eq!(lifetime_of(&[("expires", "Tue, 06 Nov 2001 08:49:37 GMT")]), 86400);
        for passed in ["0", "-1", "soon", "Sun, 06 Nov 1994 08:49:37 GMT", "Sat, 05 Nov 1994 08:49:37 GMT"] {
            assert_eq!(lifetime_of(&[("expires", passed)]), 300, "{passed}");
        }
    }

    #[test]
    fn keys_are_asked_for_in_plain_text_only_of_an_issuer_in_plain_text() {
        let check = |keys, issuer| check_discovered(keys, issuer, PlainHttp::LoopbackOnly).is_ok();
        assert!(check("http://127.0.0.1:1/keys", "http://127.0.0.1:1"));
        assert!(check("https://issuer.example/keys", "http://127.0.0.1:1"));
        assert!(check("https://keys.example/keys", "https://issuer.example"));
        assert!(!check("http://127.0.0.1:1/keys", "https://issuer.example"));
        assert!(!check("HTTP://127.0.0.1:1/keys", "https://issuer.example"));
        assert!(!check("http://keys.example/keys", "http://127.0.0.1:1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_to_its_end_holds_one_thread_and_nobody_up() {
        let (mut files, path) = (FileReader::default(), Path::new("keys.json"));
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let mut hanging = Some(move || {
            let _ = hang.recv();
            Ok(Bytes::from_static(b"late"))
        });
        for _ in 0..3 {
            let begun = hanging.take();
            let attempt = files.in_time(path, move || begun.map_or(Ok(Bytes::from_static(b"second")), |read| read()));
            let (attempt, ()) = tokio::join!(attempt, tokio::time::advance(FILE_DEADLINE));
            assert!(attempt.unwrap_err().contains("takes too long"));
        }
        drop(release);
        tokio::time::resume();
        let never = || Ok(Bytes::from_static(b"second"));
        assert_eq!(files.in_time(path, never).await.unwrap().as_ref(), b"late", "no second read was begun");
        assert_eq!(files.in_time(path, never).await.unwrap().as_ref(), b"second");
    }

    #[test]
    fn an_address_that_would_be_called_in_plain_text_is_no_source() {
        for address in ["http://issuer.example/", "ftp://issuer.example", "issuer.example", ""] {
            assert!(KeySource::JwksUri(address.to_owned()).check(PlainHttp::LoopbackOnly).is_err(), "{address}");
            let discovery = KeySource::Discovery { issuer: address.to_owned() };
            assert!(discovery.check(PlainHttp::LoopbackOnly).is_err(), "{address}");
        }
        assert!(KeySource::JwksUri("https://issuer.example/keys".to_owned()).check(PlainHttp::LoopbackOnly).is_ok());
    }
}
