//! `fixed`: a secret from a file, read again while the proxy runs, so that replacing the file replaces the secret.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::reread::Reread;
use super::{Ask, Credential, CredentialError, CredentialProvider, Proof, SettingsError, settable};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// Largest secret.
pub const LARGEST_SECRET_BYTES: u64 = 8 * 1024;

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
    made: Reread<Made>,
}

/// The credential with a secret in it. One with the same secret is the same, identifier and all.
#[derive(Debug)]
struct Made(Credential);

impl PartialEq for Made {
    fn eq(&self, other: &Self) -> bool {
        self.0.proof.headers() == other.0.proof.headers()
    }
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
    #[error("it does not fit a header")]
    Unfit,
}

impl FixedSecret {
    /// Reads the secret for the first time. Blocks on the disk.
    ///
    /// # Errors
    /// [`SettingsError`] when the file is missing or holds no secret, or the header frames messages.
    pub fn load(settings: FixedSecretSettings, now: Timestamp) -> Result<Self, SettingsError> {
        settable(&settings.header)?;
        if HeaderValue::from_str(&settings.prefix).is_err() {
            return Err(SettingsError::Prefix);
        }
        let made = settings.clone();
        let made = Reread::load(move |now| made.read(now).map_err(|error| error.to_string()), now)
            .map_err(|detail| SettingsError::Secret { path: settings.file.clone(), detail })?;
        Ok(Self { settings, made })
    }

    /// Whether a file holds a secret that can be used. Blocks on the disk.
    ///
    /// # Errors
    /// [`SettingsError::Secret`], which shows nothing of the file.
    pub fn check(file: &Path) -> Result<(), SettingsError> {
        read(file).map(drop).map_err(|error| SettingsError::Secret { path: file.into(), detail: error.to_string() })
    }

    fn credential(&self, made: Result<Arc<Made>, String>) -> Result<Credential, CredentialError> {
        made.map(|made| made.0.clone()).map_err(|detail| CredentialError {
            name: self.settings.name.clone(),
            code: "secret_unreadable",
            detail: format!("`{}`: {detail}", self.settings.file.display()),
            claims: None,
        })
    }
}

impl CredentialProvider for FixedSecret {
    fn issue<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        if !self.made.is_due(ask.now) {
            return ready(self.credential(self.made.current(ask.now))).boxed();
        }
        async move { self.credential(self.made.refreshed(ask.now).await) }.boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        vec![self.settings.header.clone()]
    }
}

impl FixedSecretSettings {
    fn read(&self, now: Timestamp) -> Result<Made, ReadError> {
        let secret = read(&self.file)?;
        let text = Zeroizing::new(format!("{}{}", self.prefix, secret.expose()));
        let mut value = HeaderValue::from_str(&text).map_err(|_| ReadError::Unfit)?;
        value.set_sensitive(true);
        Ok(Made(Credential {
            id: format!("{}@{}", self.name, now.rfc3339()).into(),
            name: self.name.clone(),
            kind: "fixed",
            expires_at: None,
            fresh: false,
            proof: Proof::Headers(Arc::from([(self.header.clone(), value)])),
            key: None,
        }))
    }
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
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::credential::reread::{KEPT_WITHOUT_FILE, READ_AT_MOST_EVERY};
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
        *secret.made.reading.lock().await = Some(hanging);
        let seen = start.plus(READ_AT_MOST_EVERY);
        assert_eq!(shown(&secret, seen).await, Ok("Token first".to_owned()));
        assert_eq!(shown(&secret, seen.plus(KEPT_WITHOUT_FILE)).await, Err("secret_unreadable"));
        end.abort();
        let reading = secret.made.reading.lock().await.take().unwrap();
        assert!(reading.await.is_err());
        assert_eq!(shown(&secret, seen.plus(KEPT_WITHOUT_FILE * 2)).await, Ok("Token second".to_owned()));
    }
}
