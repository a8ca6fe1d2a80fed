//! Logins by JWT (<https://openbao.org/api-docs/auth/jwt/#jwt-login>), and the tokens that they give.
//!
//! A token is kept in memory for its subject and serves every secret of the login. Nothing renews it: a new login costs
//! one exchange, and batch tokens cannot be renewed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use serde_json::{Map, Value, json};

use super::super::bearer::public_id;
use super::super::cache::{Fetch, IssuedCache, Key, Places};
use super::super::source::{Issued, KeyDigest, SourceError};
use super::super::subject_token::{SubjectClaims, SubjectTokens};
use super::super::{Ask, CredentialError, PATIENCE, Proof, Template, is_plain};
use super::server::{Answer, Field, TOKEN, VaultServer};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// No token is believed to live longer.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Whose token says who a secret is for.
#[derive(Clone, Debug)]
pub enum VaultSubject {
    /// The caller's own, as it came.
    Caller,
    /// Doorward's.
    Doorward {
        /// Who signs it.
        tokens: SubjectTokens,
        /// Its `aud`.
        audience: Arc<str>,
        /// Its `sub`.
        subject: Template,
    },
}

/// One way to log in to one vault.
#[derive(Clone, Debug)]
pub struct VaultLogin {
    /// The vault.
    pub server: Arc<VaultServer>,
    /// Where its JWT method is mounted, below `auth/`.
    pub mount: Arc<str>,
    /// The role there.
    pub role: Arc<str>,
    /// Who logs in.
    pub subject: VaultSubject,
    /// Where tokens are kept.
    pub cache: IssuedCache,
}

/// Who logs in for one request.
pub(super) enum Who {
    Token(Secret),
    Principal { subject: Arc<str>, claims: Map<String, Value> },
}

/// A token of the vault's. Clones share its value.
#[derive(Clone)]
pub(super) struct LoginToken {
    /// `X-Vault-Token`
    pub(super) header: HeaderValue,
    /// When it ends, and all that was issued by it.
    pub(super) ends_at: Timestamp,
    id: Arc<str>,
}

impl fmt::Debug for LoginToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LoginToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Who {
    pub(super) fn digest(&self, key: &mut KeyDigest) {
        match self {
            Self::Token(token) => _ = key.part("token", digest(&SHA256, token.expose().as_bytes())),
            Self::Principal { subject, claims } => {
                key.part("subject", subject.as_bytes());
                for (name, value) in claims {
                    key.part("claim", name).part("value", value.to_string());
                }
            }
        }
    }
}

impl LoginToken {
    fn of(issued: &Issued) -> Result<Self, SourceError> {
        let headers = issued.proof.headers();
        let header = headers.first().map(|(_, value)| value.clone());
        let header = header.ok_or_else(|| SourceError::lasting(SourceError::UNREADABLE, "there is no token"))?;
        Ok(Self { header, ends_at: issued.expires_at, id: issued.id.clone() })
    }
}

/// One login, for the cache. The record tells of what is read with it.
struct LogIn {
    login: VaultLogin,
    who: Arc<Who>,
}

impl Fetch for LogIn {
    fn attempt(&self) -> BoxFuture<'static, Result<Issued, SourceError>> {
        let (login, who) = (self.login.clone(), self.who.clone());
        async move { login.log_in(&who).await }.boxed()
    }

    fn places(&self) -> &Places {
        &self.login.server.places
    }

    fn record(&self, _outcome: Result<&Issued, &SourceError>) -> Result<(), SourceError> {
        Ok(())
    }
}

impl VaultLogin {
    /// Who logs in for this request.
    pub(super) fn who(&self, ask: &Ask<'_>) -> Result<Who, CredentialError> {
        let template = match &self.subject {
            VaultSubject::Caller => return Ok(Who::Token(Secret::new(ask.caller_token()?))),
            VaultSubject::Doorward { subject, .. } => subject,
        };
        let mut claims = Map::new();
        claims.insert("environment".to_owned(), Value::from(&*ask.grant.route().environment));
        // One token for many callers says nothing of any of them.
        if template.tells_callers_apart() {
            let roles = ask.grant.roles().iter().map(|held| Value::from(&*held.role)).collect();
            claims.insert("roles".to_owned(), roles);
            if let Some(act) = ask.grant.principal().claims.get("act") {
                claims.insert("act".to_owned(), act.clone());
            }
        }
        Ok(Who::Principal { subject: template.fill(ask, is_plain)?, claims })
    }

    /// What an explanation shows of it.
    pub(super) fn shown(&self, who: &Who) -> Value {
        let by = match (who, &self.subject) {
            (Who::Principal { subject, claims }, VaultSubject::Doorward { tokens, audience, .. }) => {
                json!({ "iss": &**tokens.issuer(), "sub": &**subject, "aud": &**audience, "claims": claims })
            }
            (Who::Token(_) | Who::Principal { .. }, _) => Value::from("the caller's token"),
        };
        json!({ "path": self.path(), "role": &*self.role, "by": by })
    }

    pub(super) fn digest(&self, key: &mut KeyDigest) {
        self.server.digest(key);
        key.part("mount", self.mount.as_bytes()).part("role", self.role.as_bytes());
        match &self.subject {
            VaultSubject::Caller => _ = key.part("by", "caller"),
            VaultSubject::Doorward { tokens, audience, .. } => {
                key.part("issuer", tokens.issuer().as_bytes()).part("audience", audience.as_bytes());
            }
        }
    }

    /// A token that holds now.
    ///
    /// # Errors
    /// The vault's refusal, or why it gave no answer.
    pub(super) async fn token(&self, who: &Arc<Who>) -> Result<LoginToken, SourceError> {
        let fetch = Arc::new(LogIn { login: self.clone(), who: who.clone() });
        let key = self.key(who);
        let mut issued = self.cache.obtain(key, PATIENCE, &fetch).await?.issued;
        if issued.renew_at.is_some_and(|due| due <= self.server.clock.now()) {
            // What it reads would end with it, too soon. Its successor is on the way, and nobody minds to wait: this is
            // a fetch beside requests, or the first.
            issued = self.cache.replace(key, &issued.id, PATIENCE, &fetch).await?;
        }
        LoginToken::of(&issued)
    }

    /// A token in place of one that the vault refused, which may have ended there. `None` where it was issued a moment
    /// ago: then it is the vault's policies that refuse.
    pub(super) async fn token_after(
        &self,
        refused: &LoginToken,
        who: &Arc<Who>,
    ) -> Result<Option<LoginToken>, SourceError> {
        let fetch = Arc::new(LogIn { login: self.clone(), who: who.clone() });
        // The refused one may well be good, and others use it: it stays until there is another.
        let token = LoginToken::of(&*self.cache.replace(self.key(who), &refused.id, PATIENCE, &fetch).await?)?;
        Ok((token.id != refused.id).then_some(token))
    }

    fn key(&self, who: &Who) -> Key {
        let mut key = KeyDigest::default();
        key.part("kind", "vault_login");
        self.digest(&mut key);
        who.digest(&mut key);
        key.finish()
    }

    fn path(&self) -> String {
        format!("auth/{}/login", self.mount)
    }

    async fn log_in(&self, who: &Who) -> Result<Issued, SourceError> {
        let jwt = match (who, &self.subject) {
            (Who::Token(token), _) => token.clone(),
            (Who::Principal { subject, claims }, VaultSubject::Doorward { tokens, audience, .. }) => {
                let (subject, further) = (subject.clone(), claims.clone());
                tokens.mint(SubjectClaims { subject, audience: audience.clone(), further }).await?
            }
            (Who::Principal { .. }, VaultSubject::Caller) => {
                return Err(SourceError::lasting(SourceError::REFUSED, "there is no token to log in with"));
            }
        };
        let asked_at = self.server.clock.now();
        let body = json!({ "role": &*self.role, "jwt": jwt.expose() });
        let answer: Answer<Field> = self.server.write(&self.path(), None, &body).await?;
        let unfit = |detail: &str| SourceError::lasting(SourceError::UNREADABLE, detail);
        let auth = answer.auth.ok_or_else(|| unfit("the vault's login gave no token"))?;
        let token = auth.client_token.expose();
        if token.is_empty() {
            return Err(unfit("the vault's login gave no token: does it ask for a second factor?"));
        }
        if auth.num_uses > 0 {
            return Err(unfit("the role's tokens hold for a number of requests: set its `token_num_uses` to 0"));
        }
        if auth.lease_duration == 0 {
            return Err(unfit("the role's tokens never end: give it a `token_ttl`"));
        }
        let mut header = HeaderValue::from_str(token).map_err(|_| unfit("the vault's token is no header value"))?;
        header.set_sensitive(true);
        let life = Duration::from_secs(auth.lease_duration).min(LONGEST_LIFE);
        Ok(Issued {
            id: public_id(token),
            proof: Proof::Headers(Arc::from([(TOKEN, header)])),
            expires_at: asked_at.plus(life),
            renew_at: Some(asked_at.plus(life * 2 / 3)),
            facts: Vec::new(),
        })
    }
}
