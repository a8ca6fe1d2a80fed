//! `none`: an upstream that is shown nothing, for a reason that stands in the configuration.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::HeaderName;

use super::{Ask, Credential, CredentialError, CredentialProvider, Proof, SettingsError};

/// Shows the upstream nothing.
#[derive(Clone, Debug)]
pub struct NoCredential {
    reason: Arc<str>,
    credential: Credential,
}

impl NoCredential {
    /// A provider of nothing, because of `reason`.
    ///
    /// # Errors
    /// [`SettingsError::NoReason`]
    pub fn new(name: Arc<str>, reason: Arc<str>) -> Result<Self, SettingsError> {
        if reason.trim().is_empty() {
            return Err(SettingsError::NoReason);
        }
        let credential = Credential {
            id: "none".into(),
            name,
            kind: "none",
            expires_at: None,
            fresh: false,
            proof: Proof::nothing(),
            key: None,
        };
        Ok(Self { reason, credential })
    }

    /// Why the upstream is shown nothing.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl CredentialProvider for NoCredential {
    fn issue<'a>(&'a self, _ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Credential, CredentialError>> {
        ready(Ok(self.credential.clone())).boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_needs_a_reason() {
        assert_eq!(NoCredential::new("open".into(), "  ".into()).unwrap_err(), SettingsError::NoReason);
        let open = NoCredential::new("open".into(), "static site".into()).unwrap();
        assert_eq!((open.reason(), open.headers().len()), ("static site", 0));
    }
}
