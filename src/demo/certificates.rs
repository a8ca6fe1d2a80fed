//! The demo's local certificate authority and the certificate it gives `localhost`.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be written.
    #[error("`{path}` cannot be written")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key or certificate could not be made.
    #[error("no certificate could be made")]
    Make(#[from] rcgen::Error),
}

/// Files of the demo's certificates.
#[derive(Clone, Debug)]
pub struct DemoCertificates {
    /// The authority's certificate: what a client has to trust.
    pub authority: PathBuf,
    /// Certificate of `localhost`, followed by the authority's.
    pub certificate: PathBuf,
    /// Its key, mode 0600.
    pub key: PathBuf,
}

impl DemoCertificates {
    /// Makes a new authority and a certificate for `localhost`, `127.0.0.1` and `::1` under `directory`.
    ///
    /// The authority's own key is never written: it can sign nothing after this call.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn make(directory: &Path) -> Result<Self, CertificateError> {
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "Doorward demo authority");
        lasts_a_month(&mut authority);
        let authority_certificate = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate()?;
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        lasts_a_month(&mut leaf);
        let certificate = leaf.signed_by(&key, &issuer)?;

        let files = Self {
            authority: directory.join("demo-authority.pem"),
            certificate: directory.join("localhost.pem"),
            key: directory.join("localhost.key"),
        };
        fs::create_dir_all(directory)
            .map_err(|source| CertificateError::Write { path: directory.to_owned(), source })?;
        write(&files.authority, &authority_certificate.pem(), 0o644)?;
        write(&files.certificate, &format!("{}{}", certificate.pem(), authority_certificate.pem()), 0o644)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        Ok(files)
    }
}

fn lasts_a_month(params: &mut CertificateParams) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + time::Duration::days(30);
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let fault = |source| CertificateError::Write { path: path.to_owned(), source };
    let _absent = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(fault)?;
    file.write_all(text.as_bytes()).map_err(fault)
}
