//! `mtls: files`: one client certificate for every caller, read again when its files change.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::HeaderName;
use zeroize::Zeroizing;

use super::super::reread::Reread;
use super::super::{Ask, ClientIdentity, Credential, CredentialError, CredentialProvider, Proof, SettingsError};
use super::KIND;
use crate::clock::Timestamp;

/// Largest file of a certificate chain or a key.
const LARGEST_FILE_BYTES: u64 = 256 * 1024;

/// Where a client certificate comes from.
#[derive(Clone, Debug)]
pub struct CertificateFilesSettings {
    /// Configured name of the credential.
    pub name: Arc<str>,
    /// PEM file of the certificate and its chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// Opens connections with the same certificate for every caller.
#[derive(Debug)]
pub struct CertificateFiles {
    settings: CertificateFilesSettings,
    identity: Reread<ClientIdentity>,
}

impl CertificateFiles {
    /// Reads certificate and key for the first time. Blocks on the disk.
    ///
    /// # Errors
    /// [`SettingsError::Certificate`] when they are no pair that is valid at `now`.
    pub fn load(settings: CertificateFilesSettings, now: Timestamp) -> Result<Self, SettingsError> {
        let (certificate, key) = (settings.certificate.clone(), settings.key.clone());
        let identity = Reread::load(move |now| read(&certificate, &key, now), now)
            .map_err(|detail| SettingsError::Certificate { path: settings.certificate.clone(), detail })?;
        Ok(Self { settings, identity })
    }

    /// Whether these files hold a certificate that can be shown at `now`. Blocks on the disk.
    ///
    /// # Errors
    /// [`SettingsError::Certificate`], which shows nothing of the key.
    pub fn check(certificate: &Path, key: &Path, now: Timestamp) -> Result<(), SettingsError> {
        read(certificate, key, now)
            .map(drop)
            .map_err(|detail| SettingsError::Certificate { path: certificate.into(), detail })
    }

    fn credential(
        &self,
        read: Result<Arc<ClientIdentity>, String>,
        ask: &Ask<'_>,
    ) -> Result<Credential, CredentialError> {
        let failed = |code, detail: String| {
            let detail = format!("`{}`: {detail}", self.settings.certificate.display());
            CredentialError { name: self.settings.name.clone(), code, detail, claims: None }
        };
        let identity = read.map_err(|detail| failed("certificate_unreadable", detail))?;
        if !identity.serves(ask.now) {
            return Err(failed("certificate_not_valid", not_valid(&identity)));
        }
        let ends = [Some(identity.expires_at()), ask.grant.expires_at()];
        Ok(Credential {
            id: identity.serial().clone(),
            name: self.settings.name.clone(),
            kind: KIND,
            expires_at: ends.into_iter().flatten().min(),
            fresh: false,
            proof: Proof::Certificate(identity),
            key: None,
        })
    }
}

impl CredentialProvider for CertificateFiles {
    fn issue<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        if !self.identity.is_due(ask.now) {
            return ready(self.credential(self.identity.current(ask.now), ask)).boxed();
        }
        async move { self.credential(self.identity.refreshed(ask.now).await, ask) }.boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        Vec::new()
    }

    fn shown(&self, ask: &Ask<'_>) -> Result<serde_json::Value, CredentialError> {
        let credential = self.credential(self.identity.current(ask.now), ask)?;
        Ok(serde_json::json!({
            "certificate": self.settings.certificate.display().to_string(),
            "serial": &*credential.id,
            "expires_at": credential.expires_at.map(Timestamp::rfc3339),
        }))
    }
}

fn not_valid(identity: &ClientIdentity) -> String {
    format!("the certificate is not valid now: it ends at {}", identity.expires_at().rfc3339())
}

/// Reads a pair that is valid at `now`. Says nothing of what stands in the files.
fn read(certificate: &Path, key: &Path, now: Timestamp) -> Result<ClientIdentity, String> {
    let (chain, key) = (bytes_of(certificate)?, bytes_of(key)?);
    let identity = ClientIdentity::from_pem(&chain, &key).map_err(|error| error.to_string())?;
    if identity.serves(now) { Ok(identity) } else { Err(not_valid(&identity)) }
}

fn bytes_of(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let unreadable = |error: std::io::Error| format!("`{}` cannot be read: {error}", path.display());
    // Asked before opening: a named pipe would hold the thread for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("`{}` is no regular file", path.display()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST_FILE_BYTES) {
        return Err(format!("`{}` is larger than {LARGEST_FILE_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;
    use crate::credential::KEPT_WITHOUT_FILE;
    use crate::credential::reread::READ_AT_MOST_EVERY;
    use crate::credential::testing::{Asked, Caller, now};

    struct World {
        directory: TempDir,
        settings: CertificateFilesSettings,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let (certificate, key) = (directory.path().join("client.pem"), directory.path().join("client.key"));
            Self { directory, settings: CertificateFilesSettings { name: "mesh".into(), certificate, key } }
        }

        /// Writes a pair by this serial number that ends a while after now.
        fn write(&self, serial: u64, life: Duration) {
            let (certificate, key) = pair(serial, life);
            fs::write(&self.settings.certificate, certificate).unwrap();
            fs::write(&self.settings.key, key).unwrap();
        }

        fn load(&self) -> CertificateFiles {
            CertificateFiles::load(self.settings.clone(), now()).unwrap()
        }
    }

    fn pair(serial: u64, life: Duration) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["doorward".to_owned()]).unwrap();
        parameters.serial_number = Some(serial.into());
        parameters.not_after = time::OffsetDateTime::from_unix_timestamp(now().plus(life).unix_seconds()).unwrap();
        (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    const HOUR: Duration = Duration::from_secs(3600);

    async fn shown(files: &CertificateFiles, now: Timestamp) -> Result<String, &'static str> {
        let asked = Asked::of(Caller::default().grant());
        let credential = files.issue(&asked.at(now)).await.map_err(|error| error.code)?;
        assert_eq!(credential.proof.identity().unwrap().serial(), &credential.id);
        assert!(credential.proof.headers().is_empty() && files.headers().is_empty());
        Ok(credential.id.to_string())
    }

    #[tokio::test]
    async fn replaced_files_are_shown_within_a_second() {
        let world = World::new();
        world.write(0x11, HOUR);
        let (files, start) = (world.load(), now());
        assert_eq!(shown(&files, start).await, Ok("11".to_owned()));
        world.write(0x22, HOUR);
        assert_eq!(shown(&files, start.plus(READ_AT_MOST_EVERY * 2)).await, Ok("22".to_owned()));
    }

    #[tokio::test]
    async fn a_pair_that_turns_bad_is_missed_for_a_minute_and_then_refused_until_it_is_good() {
        let world = World::new();
        world.write(0x11, HOUR);
        let (files, start) = (world.load(), now());
        // Half of a replacement.
        let (certificate, key) = pair(0x22, HOUR);
        fs::write(&world.settings.certificate, certificate).unwrap();
        let seen = start.plus(READ_AT_MOST_EVERY * 2);
        assert_eq!(shown(&files, seen).await, Ok("11".to_owned()));
        let error = files.issue(&Asked::of(Caller::default().grant()).at(seen.plus(KEPT_WITHOUT_FILE))).await;
        let error = error.unwrap_err();
        assert_eq!((error.code, error.refuses_caller()), ("certificate_unreadable", false));
        assert!(error.detail.contains("client.pem`: the private key is not the certificate's"), "{}", error.detail);
        fs::write(&world.settings.key, key).unwrap();
        assert_eq!(shown(&files, seen.plus(KEPT_WITHOUT_FILE * 2)).await, Ok("22".to_owned()));
    }

    #[tokio::test]
    async fn a_certificate_is_not_shown_after_its_end_and_caps_its_credential() {
        let world = World::new();
        world.write(0x11, HOUR);
        let (files, start) = (world.load(), now());
        let ends = start.plus(HOUR).unix_seconds();
        let asked = Asked::of(Caller::default().grant());
        let expires_at = files.issue(&asked.at(start)).await.unwrap().expires_at.unwrap();
        assert!(expires_at.unix_seconds().abs_diff(ends) <= 5, "{expires_at:?}");
        let caller = Caller { expires_at: Some(start.plus(READ_AT_MOST_EVERY)), ..Caller::default() };
        let sooner = Asked::of(caller.grant());
        assert_eq!(files.issue(&sooner.at(start)).await.unwrap().expires_at, caller.expires_at);
        let late = files.issue(&asked.at(start.plus(HOUR * 2))).await.unwrap_err();
        assert_eq!(late.code, "certificate_not_valid");
    }

    #[test]
    fn what_is_no_pair_is_refused_at_load_without_being_shown() {
        let world = World::new();
        let check = || {
            let settings = &world.settings;
            CertificateFiles::check(&settings.certificate, &settings.key, now()).unwrap_err().to_string()
        };
        assert!(check().contains("client.pem") && check().contains("cannot be read"));
        let (certificate, key) = pair(1, HOUR);
        for (chain, private, complaint) in [
            (certificate.as_str(), "", "no private key"),
            (&certificate, "s3cr3t", "no private key"),
            ("", &key, "no certificate"),
            (&pair(2, HOUR).0, &key, "not the certificate's"),
        ] {
            fs::write(&world.settings.certificate, chain).unwrap();
            fs::write(&world.settings.key, private).unwrap();
            assert!(check().contains(complaint) && !check().contains("s3cr3t"), "{}", check());
        }
        fs::remove_file(&world.settings.key).unwrap();
        fs::create_dir(&world.settings.key).unwrap();
        assert!(check().contains("no regular file"));
        assert!(world.directory.path().exists());
    }
}
