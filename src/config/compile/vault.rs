//! Credentials of HashiCorp Vault or OpenBao.

use std::sync::Arc;

use super::oauth::{client, own_tokens};
use super::runtime::Runtime;
use crate::config::checked::{self, Checked, VaultCredential};
use crate::credential::{Places, Remote, VaultLogin, VaultServer, VaultSettings, VaultSource, VaultSubject};

/// The provider of one such credential.
///
/// # Errors
/// What is wrong with it, for whoever mends it.
pub(super) fn provider(
    checked: &Checked,
    name: &Arc<str>,
    configured: &VaultCredential,
    runtime: &Runtime,
) -> Result<Remote<VaultSource>, String> {
    let subject = match &configured.subject {
        checked::VaultSubject::Caller => VaultSubject::Caller,
        checked::VaultSubject::Doorward { audience, subject } => VaultSubject::Doorward {
            tokens: own_tokens(checked, runtime)?,
            audience: audience.as_str().into(),
            subject: subject.clone(),
        },
    };
    let server = VaultServer {
        address: configured.address.as_str().into(),
        namespace: configured.namespace.as_deref().map(Into::into),
        client: client(configured.authorities.as_deref())?,
        clock: runtime.clock().clone(),
        places: Places::default(),
    };
    let login = VaultLogin {
        server: Arc::new(server),
        mount: configured.mount.as_str().into(),
        role: configured.role.as_str().into(),
        subject,
        cache: runtime.issued(),
    };
    let (secret, leases) = (configured.secret.clone(), runtime.vault_leases());
    let source = VaultSource::new(VaultSettings { name: name.clone(), login, secret, leases });
    Ok(runtime.remote(name, source, None))
}
