//! The session cookie without a login around it: sealed by keys that nobody else has, and opened as requests are.

use std::sync::Arc;

use http::HeaderMap;

use super::cookies::CookieNames;
use super::origin::Origin;
use super::seal::{SealError, Sealer};
use super::session::{SessionCookie, opened_with, sealed_with};
use crate::clock::Timestamp;

/// Names and keys of one origin.
pub(crate) struct CookieProbe {
    names: CookieNames,
    sealer: Sealer,
}

impl CookieProbe {
    /// An origin with keys of its own.
    pub(crate) fn new() -> Result<Self, SealError> {
        let sealer = Sealer::in_memory(Timestamp::default())?;
        let origin = Origin::parse("https://api.example.com").map_err(|_| SealError::Cipher)?;
        Ok(Self { names: CookieNames::of(&origin), sealer })
    }

    /// The cookie of a session with this identifier, as a request has it: names and values.
    pub(crate) fn sealed(&self, id: &str) -> Option<Vec<(String, String)>> {
        let now = Timestamp::default();
        let cookie = SessionCookie {
            id: id.to_owned(),
            issuer: Arc::from("okta"),
            generation: 1,
            sealed_at: now,
            idle_ends_at: now,
            facts: None,
        };
        let text = sealed_with(&self.sealer, &self.names, &cookie)?;
        Some(vec![(format!("{}.0", self.names.session()), text)])
    }

    /// The identifier of the session that these headers open.
    pub(crate) fn opened(&self, headers: &HeaderMap) -> Option<String> {
        let joined = self.names.session_value(headers).ok()??;
        opened_with(&self.sealer, &self.names, &joined).map(|cookie| cookie.id)
    }

    /// Whether sealed bytes open for this purpose.
    pub(crate) fn opens(&self, purpose: &str, sealed: &[u8]) -> bool {
        self.sealer.open(purpose, sealed).is_ok()
    }
}
