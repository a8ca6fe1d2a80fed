//! `fixed`: a secret from a file, read again while the proxy runs, so that replacing the file replaces the secret.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::{HeaderName, HeaderValue};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::{Ask, Credential, CredentialError, CredentialProvider, Proof, SettingsError, settable};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// How long the last good secret is used while its file cannot be read.
pub const KEPT_WITHOUT_FILE: Duration = Duration::from_secs(60);
/// Largest secret.
pub const LARGEST_SECRET_BYTES: u64 = 8 * 1024;
const READ_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the disk on a request's way.
const DEADLINE: Duration = Duration::from_secs(2);

/// Where a secret comes from and where it goes.
#[derive(Clone, Debug)]
pub struct FixedSecretSettings {
    /// Configured name of the credential.
    pub name: Arc<str>,
    /// Header that it is put in.
    pub header: HeaderName,
    /// Text before the secret, such as `Token `.
    pub prefix: String,
    /// File that holds it, on one line.
    pub file: PathBuf,
}

/// Shows the upstream the same secret for every caller.
#[derive(Debug)]
pub struct FixedSecret {
    settings: FixedSecretSettings,
    state: ArcSwap<State>,
    read_at_millis: AtomicI64,
    /// The read under way: held, so that a disk that hangs holds one thread and not one a second.
    reading: Mutex<Option<JoinHandle<Result<Secret, ReadError>>>>,
}

#[derive(Debug)]
struct State {
    credential: Credential,
    failing: Option<(Timestamp, String)>,
}

/// Why a file is no secret.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is no regular file")]
    NoFile,
    #[error("it is empty")]
    Empty,
    #[error("it is larger than {LARGEST_SECRET_BYTES} bytes")]
    TooLarge,
    #[error("it is not one line of printable ASCII")]
    NotOneLine,
}

impl FixedSecret {
    /// Reads the secret for the first time. Blocks on the disk.
    ///
    /// # Errors
    /// [`SettingsError`] when the file is missing or holds no secret, or the header frames messages.
    pub fn load(settings: FixedSecretSettings, now: Timestamp) -> Result<Self, SettingsError> {
        settable(&settings.header)?;
        let secret = read(&settings.file)
            .map_err(|error| SettingsError::Secret { path: settings.file.clone(), detail: error.to_string() })?;
        let credential = credential(&settings, &secret, now).ok_or(SettingsError::Prefix)?;
        let state = ArcSwap::from_pointee(State { credential, failing: None });
        let read_at_millis = AtomicI64::new(now.unix_millis());
        Ok(Self { settings, state, read_at_millis, reading: Mutex::new(None) })
    }

    /// Whether a file holds a secret that can be used. Blocks on the disk.
    ///
    /// # Errors
    /// [`SettingsError::Secret`], which shows nothing of the file.
    pub fn check(file: &Path) -> Result<(), SettingsError> {
        read(file).map(drop).map_err(|error| SettingsError::Secret { path: file.into(), detail: error.to_string() })
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let read_at = Timestamp::from_unix_millis(self.read_at_millis.load(Ordering::Relaxed));
        now < read_at || now.since(read_at) >= READ_AT_MOST_EVERY
    }

    /// What is known at `now` without looking.
    fn current(&self, now: Timestamp) -> Result<Credential, CredentialError> {
        let state = self.state.load();
        match &state.failing {
            Some((since, detail)) if now.since(*since) >= KEPT_WITHOUT_FILE => Err(CredentialError {
                name: self.settings.name.clone(),
                code: "secret_unreadable",
                detail: format!("`{}`: {detail}", self.settings.file.display()),
                claims: None,
            }),
            Some(_) | None => Ok(state.credential.clone()),
        }
    }

    /// Reads the file again; whoever comes meanwhile waits for the same read.
    async fn refresh(&self, now: Timestamp) {
        let mut reading = self.reading.lock().await;
        if !self.is_due(now) {
            return;
        }
        let outcome = match reading.take() {
            // The last wait was in vain: nobody waits again for the same read.
            Some(handle) if !handle.is_finished() => {
                *reading = Some(handle);
                Err("reading takes too long".to_owned())
            }
            handle => {
                let file = self.settings.file.clone();
                let start = || tokio::task::spawn_blocking(move || read(&file));
                let handle = reading.insert(handle.unwrap_or_else(start));
                let outcome = tokio::time::timeout(DEADLINE, handle).await;
                if outcome.is_ok() {
                    *reading = None;
                }
                match outcome {
                    Ok(Ok(outcome)) => outcome.map_err(|error| error.to_string()),
                    Ok(Err(_)) => Err("reading was aborted".to_owned()),
                    Err(_) => Err("reading takes too long".to_owned()),
                }
            }
        };
        let before = self.state.load();
        let state = match outcome.and_then(|secret| self.replaced(&before.credential, &secret, now)) {
            Ok(credential) => State { credential, failing: None },
            Err(detail) => {
                let since = before.failing.as_ref().map_or(now, |(since, _)| *since);
                State { credential: before.credential.clone(), failing: Some((since, detail)) }
            }
        };
        self.state.store(Arc::new(state));
        self.read_at_millis.store(now.unix_millis(), Ordering::Relaxed);
    }

    /// The credential with `secret` in it; the one before, identifier and all, where nothing changed.
    fn replaced(&self, before: &Credential, secret: &Secret, now: Timestamp) -> Result<Credential, String> {
        let made = credential(&self.settings, secret, now).ok_or("it does not fit a header")?;
        Ok(if made.proof.headers() == before.proof.headers() { before.clone() } else { made })
    }
}

impl CredentialProvider for FixedSecret {
    fn issue<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        let now = ask.now;
        if !self.is_due(now) {
            return ready(self.current(now)).boxed();
        }
        async move {
            // A wait that outlasts the deadline leaves the old state, which has its own end.
            let _in_time = tokio::time::timeout(DEADLINE * 2, self.refresh(now)).await;
            self.current(now)
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        vec![self.settings.header.clone()]
    }
}

fn credential(settings: &FixedSecretSettings, secret: &Secret, now: Timestamp) -> Option<Credential> {
    let text = Zeroizing::new(format!("{}{}", settings.prefix, secret.expose()));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(Credential {
        id: format!("{}@{}", settings.name, now.rfc3339()).into(),
        name: settings.name.clone(),
        kind: "fixed",
        expires_at: None,
        fresh: false,
        proof: Proof::Headers(Arc::from([(settings.header.clone(), value)])),
        key: None,
    })
}

fn read(path: &Path) -> Result<Secret, ReadError> {
    // Asked before opening: a named pipe would hold the thread for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(ReadError::NoFile);
    }
    let mut text = Zeroizing::new(Vec::with_capacity(1024));
    File::open(path)?.take(LARGEST_SECRET_BYTES + 3).read_to_end(&mut text)?;
    let line = text.strip_suffix(b"\n").map_or(text.as_slice(), |line| line.strip_suffix(b"\r").unwrap_or(line));
    if u64::try_from(line.len()).is_ok_and(|length| length > LARGEST_SECRET_BYTES) {
        return Err(ReadError::TooLarge);
    }
    match std::str::from_utf8(line) {
        Ok("") => Err(ReadError::Empty),
        Ok(line) if line.bytes().all(|byte| matches!(byte, b' '..=b'~')) && line.trim() == line => {
            Ok(Secret::new(line))
        }
        Ok(_) | Err(_) => Err(ReadError::NotOneLine),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::credential::testing::{Asked, Caller, now};

    fn settings(directory: &TempDir) -> FixedSecretSettings {
        FixedSecretSettings {
            name: "billing-key".into(),
            header: HeaderName::from_static("x-api-key"),
            prefix: "Token ".to_owned(),
            file: directory.path().join("billing.key"),
        }
    }

    async fn shown(secret: &FixedSecret, now: Timestamp) -> Result<String, &'static str> {
        let credential =
            secret.issue(&Asked::of(Caller::default().grant()).at(now)).await.map_err(|error| error.code)?;
        let [(name, value)] = &credential.proof.headers()[..] else { panic!("one header") };
        assert!(name == "x-api-key" && value.is_sensitive());
        Ok(value.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn a_secret_is_read_again_when_its_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory);
        fs::write(&settings.file, "first\n").unwrap();
        let start = now();
        let secret = FixedSecret::load(settings.clone(), start).unwrap();
        assert_eq!(shown(&secret, start).await, Ok("Token first".to_owned()));
        // The same length, written at the same moment.
        fs::write(&settings.file, "other\n").unwrap();
        assert_eq!(shown(&secret, start.plus(READ_AT_MOST_EVERY / 2)).await, Ok("Token first".to_owned()));
        assert_eq!(shown(&secret, start.plus(READ_AT_MOST_EVERY)).await, Ok("Token other".to_owned()));
    }

    #[tokio::test]
    async fn a_vanished_file_is_missed_for_a_minute_and_then_refused_until_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory);
        fs::write(&settings.file, "first").unwrap();
        let start = now();
        let secret = FixedSecret::load(settings.clone(), start).unwrap();
        fs::remove_file(&settings.file).unwrap();
        let missed = start.plus(Duration::from_secs(3600));
        assert!(shown(&secret, missed).await.is_ok());
        assert!(shown(&secret, missed.plus(KEPT_WITHOUT_FILE - Duration::from_secs(1))).await.is_ok());
        assert_eq!(shown(&secret, missed.plus(KEPT_WITHOUT_FILE)).await, Err("secret_unreadable"));
        fs::write(&settings.file, "second").unwrap();
        let back = missed.plus(KEPT_WITHOUT_FILE * 2);
        assert_eq!(shown(&secret, back).await, Ok("Token second".to_owned()));
    }

    #[tokio::test]
    async fn a_file_that_turns_into_nonsense_is_treated_like_a_vanished_one() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory);
        fs::write(&settings.file, "first").unwrap();
        let start = now();
        let secret = FixedSecret::load(settings.clone(), start).unwrap();
        fs::write(&settings.file, "two\nlines").unwrap();
        let seen = start.plus(READ_AT_MOST_EVERY);
        assert_eq!(shown(&secret, seen).await, Ok("Token first".to_owned()));
        assert_eq!(shown(&secret, seen.plus(KEPT_WITHOUT_FILE)).await, Err("secret_unreadable"));
    }

    #[test]
    fn what_is_no_secret_is_refused_at_load_without_being_shown() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory);
        let load = || FixedSecret::load(settings.clone(), now()).unwrap_err().to_string();
        assert!(load().contains("billing.key"));
        let large = "x".repeat(8193);
        for content in ["", "\n", "two\nlines", "two\n\n", "tab\there", "sécret", " padded", &large] {
            fs::write(&settings.file, content).unwrap();
            let error = load();
            assert!(error.contains("no secret in") && error.contains("billing.key"), "{error}");
            assert!(content.trim().is_empty() || !error.contains(content), "{error}");
        }
        fs::remove_file(&settings.file).unwrap();
        fs::create_dir(&settings.file).unwrap();
        assert!(load().contains("no regular file"));
    }

    #[test]
    fn a_secret_of_the_largest_size_with_a_line_ending_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory);
        fs::write(&settings.file, "x".repeat(8192) + "\r\n").unwrap();
        let secret = FixedSecret::load(settings, now()).unwrap();
        assert!(!format!("{secret:?}").contains("xxx"));
    }

    #[tokio::test]
    async fn a_read_that_hangs_is_waited_for_by_nobody_else_and_counts_as_a_missing_file() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory);
        fs::write(&settings.file, "first").unwrap();
        let start = now();
        let secret = FixedSecret::load(settings.clone(), start).unwrap();
        fs::write(&settings.file, "second").unwrap();
        // What a wait that ran into its deadline leaves behind.
        let hanging = tokio::spawn(std::future::pending());
        let end = hanging.abort_handle();
        *secret.reading.lock().await = Some(hanging);
        let seen = start.plus(READ_AT_MOST_EVERY);
        assert_eq!(shown(&secret, seen).await, Ok("Token first".to_owned()));
        assert_eq!(shown(&secret, seen.plus(KEPT_WITHOUT_FILE)).await, Err("secret_unreadable"));
        end.abort();
        let reading = secret.reading.lock().await.take().unwrap();
        assert!(reading.await.is_err());
        assert_eq!(shown(&secret, seen.plus(KEPT_WITHOUT_FILE * 2)).await, Ok("Token second".to_owned()));
    }
}
