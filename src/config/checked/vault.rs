use std::path::PathBuf;

use crate::credential::{Template, VaultSecret};

/// A secret of a vault.
#[derive(Clone, Debug)]
pub struct VaultCredential {
    /// Base URL, without a slash at its end.
    pub address: String,
    /// PEM file of the authorities that vouch for it; `None` is the system's.
    pub authorities: Option<PathBuf>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Where the JWT method is mounted, below `auth/`.
    pub mount: String,
    /// The method's role.
    pub role: String,
    /// Whose token logs in.
    pub subject: VaultSubject,
    /// What is read.
    pub secret: VaultSecret,
}

/// Whose token logs in to a vault.
#[derive(Clone, Debug)]
pub enum VaultSubject {
    /// The caller's.
    Caller,
    /// Doorward's.
    Doorward {
        /// Its `aud`.
        audience: String,
        /// Its `sub`.
        subject: Template,
    },
}
