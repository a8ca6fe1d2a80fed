//! Workload identity federation: a token for one of ours or the caller's (RFC 8693, as Google's Security Token Service
//! speaks it), and a service account's for that one.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{GcpRequest, Obtained, ServiceAccount};
use crate::credential::oauth::{ACCESS_TOKEN_TYPE, JWT_TYPE, TOKEN_EXCHANGE};
use crate::credential::source::{KeyDigest, SourceError};
use crate::credential::{Form, SubjectClaims, SubjectTokens, Template, TokenEndpoint};

/// By what Google knows who asks.
#[derive(Clone, Debug)]
pub enum GcpProof {
    /// A token of Doorward's.
    Doorward {
        /// Who signs it.
        tokens: SubjectTokens,
        /// Its `aud`.
        audience: Arc<str>,
        /// Its `sub`, by default `google.subject` there.
        subject: Template,
    },
    /// The caller's own token.
    Caller,
}

/// One provider of a workload identity pool.
#[derive(Clone, Debug)]
pub struct Federation {
    /// Resource name of the provider, `//iam.googleapis.com/projects/…`.
    pub audience: Arc<str>,
    /// By what Google knows who asks.
    pub proof: GcpProof,
    /// Security Token Service.
    pub sts: TokenEndpoint,
    /// Scopes of the federated token.
    pub scopes: Vec<String>,
    /// Whose token is asked for in the end; without one the federated token itself goes upstream.
    pub service_account: Option<ServiceAccount>,
}

impl Federation {
    pub(super) async fn obtain(&self, request: &GcpRequest) -> Result<Obtained, SourceError> {
        let mut form = Form::new(&[
            ("grant_type", TOKEN_EXCHANGE),
            ("audience", &self.audience),
            ("scope", &self.scopes.join(" ")),
            ("requested_token_type", ACCESS_TOKEN_TYPE),
            ("subject_token_type", JWT_TYPE),
        ]);
        match (&self.proof, &request.subject, &request.token) {
            (GcpProof::Doorward { tokens, audience, .. }, Some(subject), _) => {
                let claims = SubjectClaims {
                    subject: subject.clone(),
                    audience: audience.clone(),
                    further: serde_json::Map::new(),
                };
                form.push("subject_token", tokens.mint(claims).await?.expose());
            }
            (GcpProof::Caller, _, Some(token)) => form.push("subject_token", token.expose()),
            (GcpProof::Doorward { .. }, None, _) | (GcpProof::Caller, _, None) => {
                return Err(SourceError::lasting(SourceError::REFUSED, "there is nobody to ask for"));
            }
        }
        let federated = self.sts.token(form).await?;
        match &self.service_account {
            None => {
                Ok(Obtained { token: federated.token, expires_at: federated.expires_at, renew_at: federated.renew_at })
            }
            Some(account) => account.obtain(&federated.token).await,
        }
    }

    pub(super) fn digest(&self, key: &mut KeyDigest) {
        self.sts.digest(key);
        key.part("provider", self.audience.as_bytes());
        match &self.proof {
            GcpProof::Caller => _ = key.part("proof", "caller"),
            GcpProof::Doorward { tokens, audience, .. } => {
                key.part("issuer", tokens.issuer().as_bytes()).part("audience", audience.as_bytes());
            }
        }
        for scope in &self.scopes {
            key.part("federated_scope", scope);
        }
        if let Some(account) = &self.service_account {
            account.digest(key);
        }
    }

    pub(super) fn shown(&self, subject: Option<&str>) -> Value {
        let by = match &self.proof {
            GcpProof::Caller => Value::from("the caller's token"),
            GcpProof::Doorward { tokens, audience, .. } => {
                json!({ "iss": &**tokens.issuer(), "sub": subject, "aud": &**audience })
            }
        };
        json!({
            "endpoint": &*self.sts.url,
            "provider": &*self.audience,
            "by": by,
            "scopes": self.scopes,
            "service_account": self.service_account.as_ref().map(ServiceAccount::shown),
        })
    }
}
