//! The TLS of listeners while the process runs: replaced where its settings changed, and only there. A replaced TLS
//! voids every ticket and judges the certificates of open connections anew, which an edited policy is no reason for.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256, digest};

use crate::config::Faults;
use crate::config::checked::Checked;
use crate::config::compile::{admin_listener, listeners, tls_fault};
use crate::server::{ListenerSettings, MinimumVersion, Pem, TlsAcceptorHandle, TlsSettings};

/// Hash over everything that a listener's TLS is made of.
type Digest = [u8; 32];

/// The TLS of every listener that has it. The admin listener's has no name.
#[derive(Debug)]
pub(super) struct Certificates {
    handles: BTreeMap<Option<String>, TlsAcceptorHandle>,
    in_force: Mutex<BTreeMap<Option<String>, Digest>>,
}

/// TLS that was made and is not in force yet.
#[derive(Debug)]
pub(super) struct Prepared(Vec<(Option<String>, TlsAcceptorHandle, Digest)>);

/// What the TLS of these settings is known by.
pub(super) fn digests<'a>(
    listeners: impl IntoIterator<Item = &'a ListenerSettings>,
    admin: Option<&ListenerSettings>,
) -> BTreeMap<Option<String>, Digest> {
    let public = listeners.into_iter().map(|settings| (Some(settings.name.clone()), settings));
    let all = public.chain(admin.map(|settings| (None, settings)));
    all.filter_map(|(name, settings)| Some((name, digest_of(settings.tls.as_ref()?)))).collect()
}

impl Certificates {
    /// Of listeners that run: their handles, and what they were made of.
    pub(super) fn new(
        public: BTreeMap<String, TlsAcceptorHandle>,
        admin: Option<TlsAcceptorHandle>,
        in_force: BTreeMap<Option<String>, Digest>,
    ) -> Self {
        let public = public.into_iter().map(|(name, handle)| (Some(name), handle));
        let handles = public.chain(admin.map(|handle| (None, handle))).collect();
        Self { handles, in_force: Mutex::new(in_force) }
    }

    /// Makes the TLS that `checked` changes. Reads files and parses keys, so it blocks.
    ///
    /// # Errors
    /// What cannot be used; nothing is changed.
    pub(super) fn prepare(&self, checked: &Checked) -> Result<Prepared, Faults> {
        let public = listeners(checked)?;
        let admin = checked.admin.as_ref().map(admin_listener).transpose()?;
        let public = public.iter().map(|settings| (Some(settings.name.clone()), settings));
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut prepared = Vec::new();
        for (name, settings) in public.chain(admin.iter().map(|settings| (None, settings))) {
            let Some(tls) = settings.tls.as_ref().filter(|_| self.handles.contains_key(&name)) else { continue };
            let digest = digest_of(tls);
            if in_force.get(&name) != Some(&digest) {
                let made = TlsAcceptorHandle::new(tls);
                let made = made.map_err(|error| tls_fault(&settings.name, checked, &error))?;
                prepared.push((name, made, digest));
            }
        }
        Ok(Prepared(prepared))
    }

    /// Puts it in force: all of it, and it cannot fail.
    pub(super) fn install(&self, Prepared(prepared): Prepared) {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, made, digest) in prepared {
            if let Some(handle) = self.handles.get(&name) {
                handle.adopt(&made);
                in_force.insert(name, digest);
            }
        }
    }
}

fn digest_of(tls: &TlsSettings) -> Digest {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| context.update(digest(&SHA256, bytes).as_ref());
    let pem = |pem: &Pem, part: &mut dyn FnMut(&[u8])| {
        part(pem.name.as_bytes());
        part(pem.text.as_bytes());
    };
    let TlsSettings { certificates, minimum_version, client_certificates } = tls;
    part(&[u8::from(*minimum_version == MinimumVersion::Tls13), u8::from(client_certificates.is_some())]);
    for certificate in certificates {
        pem(&certificate.certificate, &mut part);
        part(certificate.key_name.as_bytes());
        part(certificate.key.expose().as_bytes());
    }
    if let Some(clients) = client_certificates {
        part(format!("{:?}", clients.mode).as_bytes());
        pem(&clients.authorities, &mut part);
        if let Some(revocations) = &clients.revocations {
            pem(revocations, &mut part);
        }
    }
    let mut whole = [0; 32];
    whole.copy_from_slice(context.finish().as_ref());
    whole
}
