//! Client certificates that a PKI engine issues: `MOUNT/issue/ROLE`
//! (<https://openbao.org/api-docs/secret/pki/#generate-certificate-and-key>).
//!
//! The key is made by the vault and held in memory only; the vault's role says which names it may certify.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::super::source::{Issued, KeyDigest, SourceError};
use super::super::{Ask, ClientIdentity, CredentialError, LONGEST_COMMON_NAME, Proof, Template, UriTemplate, is_plain};
use super::login::LoginToken;
use super::server::{Answer, Refusal, VaultServer};
use super::unfit;
use crate::hex::hex;
use crate::secret::Secret;

/// A certificate that a PKI engine issues.
#[derive(Clone, Debug)]
pub struct PkiSecret {
    /// Where the engine is mounted.
    pub mount: Arc<str>,
    /// Its role.
    pub role: Arc<str>,
    /// The URI that names the holder.
    pub uri: UriTemplate,
    /// The subject's common name.
    pub common_name: Option<Template>,
    /// How long a certificate is to live; the role may allow less.
    pub lifetime: Duration,
}

/// The names of one certificate.
#[derive(Debug)]
pub(super) struct Names {
    uri: Arc<str>,
    common_name: Option<Arc<str>>,
}

impl Names {
    pub(super) fn digest(&self, key: &mut KeyDigest) {
        key.part("uri", self.uri.as_bytes());
        key.optional("common_name", self.common_name.as_deref());
    }

    pub(super) fn shown(&self) -> Value {
        json!({ "uri": &*self.uri, "common_name": self.common_name.as_deref() })
    }
}

#[derive(Deserialize)]
struct Pair {
    certificate: String,
    #[serde(default)]
    ca_chain: Vec<String>,
    private_key: Secret,
}

impl PkiSecret {
    /// Where the API issues certificates.
    pub(super) fn api_path(&self) -> Arc<str> {
        format!("{}/issue/{}", self.mount, self.role).into()
    }

    pub(super) fn names(&self, ask: &Ask<'_>) -> Result<Names, CredentialError> {
        let common_name = self.common_name.as_ref().map(|name| name.fill(ask, is_plain)).transpose()?;
        if common_name.as_ref().is_some_and(|name| name.chars().count() > LONGEST_COMMON_NAME) {
            let detail = format!("the common name is longer than {LONGEST_COMMON_NAME} characters");
            return Err(CredentialError::unfit(detail));
        }
        Ok(Names { uri: self.uri.fill(ask)?, common_name })
    }

    pub(super) async fn issue(
        &self,
        server: &VaultServer,
        path: &str,
        names: &Names,
        token: &LoginToken,
    ) -> Result<Issued, Refusal> {
        let body = json!({
            "uri_sans": &*names.uri,
            "common_name": names.common_name.as_deref().unwrap_or_default(),
            "exclude_cn_from_sans": true,
            "ttl": format!("{}s", self.lifetime.as_secs()),
            "format": "pem",
        });
        let answer: Answer<Pair> = server.write(path, Some(&token.header), &body).await?;
        let pair = answer.data.ok_or_else(|| unfit(path, "gives no certificate"))?;
        let chain = std::iter::once(&pair.certificate).chain(&pair.ca_chain).fold(String::new(), |mut pem, one| {
            pem.push_str(one.trim());
            pem.push('\n');
            pem
        });
        let key = Zeroizing::new(pair.private_key.expose().to_owned());
        let identity = ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes())
            .map_err(|error| unfit(path, &format!("gives no client certificate: {error}")))?;
        // A role that leaves the name out, or puts another in, would let one caller pass for another.
        if !is_named(&identity, &names.uri) {
            return Err(unfit(path, "gives a certificate of another name than was asked"));
        }
        if !identity.serves(server.clock.now()) {
            return Err(Refusal::Other(SourceError::ended_at_once()));
        }
        Ok(Issued {
            id: identity.serial().clone(),
            expires_at: identity.expires_at(),
            renew_at: None,
            facts: vec![
                ("path", Value::from(path)),
                ("serial", Value::from(&**identity.serial())),
                ("uri", Value::from(&*names.uri)),
                ("fingerprint", Value::from(hex(identity.fingerprint()))),
            ],
            proof: Proof::Certificate(Arc::new(identity)),
        })
    }
}

/// Whether `uri`, and no other URI, names the certificate's holder.
fn is_named(identity: &ClientIdentity, uri: &str) -> bool {
    let Some(leaf) = identity.chain().first() else { return false };
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return false };
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::DNSName(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::IPAddress(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    });
    uris.next() == Some(uri) && uris.next().is_none()
}
