//! `client_credentials`, `token_exchange` and `jwt_bearer`: three grants of one token endpoint.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderName;
use serde_json::{Map, Value, json};

use super::bearer::{public_id, stated_end};
use super::source::{CredentialRequest, CredentialSource, Issued, KeyDigest, SourceError, token_header};
use super::subject_token::{SubjectClaims, SubjectTokens};
use super::token_endpoint::{Form, TokenEndpoint};
use super::{Ask, CredentialError};
use crate::secret::Secret;

pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub(super) const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(super) const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Whose token says who a credential is for.
#[derive(Clone, Debug)]
pub enum Subject {
    /// The caller's own, as it came.
    Caller,
    /// Doorward's, about the principal.
    Doorward {
        /// Who signs it.
        tokens: SubjectTokens,
        /// Its `aud`: whoever reads it.
        audience: Arc<str>,
    },
}

/// Which grant is asked for.
#[derive(Clone, Debug)]
pub enum OauthGrant {
    /// RFC 6749 section 4.4: the client for itself.
    ClientCredentials,
    /// RFC 8693: a token for another.
    TokenExchange {
        /// Whom the new token is about.
        subject: Subject,
        /// `subject_token_type`, where the caller's token is no access token.
        subject_token_type: Option<String>,
        /// Who acts for the subject, by a token of Doorward's about itself.
        actor: Option<Actor>,
        /// `requested_token_type`
        requested_token_type: Option<String>,
    },
    /// RFC 7523 section 2.1: an assertion for a token.
    JwtBearer {
        /// Whom the new token is about.
        subject: Subject,
    },
}

/// Doorward as the one who acts (RFC 8693 section 4.1).
#[derive(Clone, Debug)]
pub struct Actor {
    /// Who signs its token.
    pub tokens: SubjectTokens,
    /// `sub` of its token.
    pub subject: Arc<str>,
    /// `aud` of its token.
    pub audience: Arc<str>,
}

/// Everything configured about one OAuth credential.
#[derive(Clone, Debug)]
pub struct OauthSettings {
    /// Whom to ask, and as whom.
    pub endpoint: TokenEndpoint,
    /// What for.
    pub grant: OauthGrant,
    /// `scope`, `audience`, `resource` and whatever else the server wants, in the order of the configuration.
    pub parameters: Vec<(String, String)>,
    /// The header that carries the token.
    pub header: HeaderName,
}

/// Asks one token endpoint for tokens.
#[derive(Debug)]
pub struct OauthSource(OauthSettings);

impl OauthSource {
    /// A source of these tokens.
    #[must_use]
    pub fn new(settings: OauthSettings) -> Self {
        Self(settings)
    }

    fn subject(&self) -> Option<&Subject> {
        match &self.0.grant {
            OauthGrant::ClientCredentials => None,
            OauthGrant::TokenExchange { subject, .. } | OauthGrant::JwtBearer { subject } => Some(subject),
        }
    }

    async fn subject_token(&self, about: &About) -> Result<Secret, SourceError> {
        match (about, self.subject()) {
            (About::Token(token), _) => Ok(token.clone()),
            (About::Principal { subject, claims }, Some(Subject::Doorward { tokens, audience })) => {
                let (subject, further) = (subject.clone(), claims.clone());
                tokens.mint(SubjectClaims { subject, audience: audience.clone(), further }).await
            }
            (About::Nobody | About::Principal { .. }, _) => {
                Err(SourceError::lasting(SourceError::REFUSED, "there is nobody to ask for"))
            }
        }
    }

    async fn form(&self, request: &OauthRequest) -> Result<Form, SourceError> {
        let mut form = Form::new(&[]);
        match &self.0.grant {
            OauthGrant::ClientCredentials => form.push("grant_type", "client_credentials"),
            OauthGrant::JwtBearer { .. } => {
                form.push("grant_type", JWT_BEARER);
                form.push("assertion", self.subject_token(&request.about).await?.expose());
            }
            OauthGrant::TokenExchange { subject, subject_token_type, actor, requested_token_type } => {
                form.push("grant_type", TOKEN_EXCHANGE);
                form.push("subject_token", self.subject_token(&request.about).await?.expose());
                let usual = if matches!(subject, Subject::Caller) { ACCESS_TOKEN_TYPE } else { JWT_TYPE };
                form.push("subject_token_type", subject_token_type.as_deref().unwrap_or(usual));
                if let Some(actor) = actor {
                    let claims = SubjectClaims {
                        subject: actor.subject.clone(),
                        audience: actor.audience.clone(),
                        ..Default::default()
                    };
                    form.push("actor_token", actor.tokens.mint(claims).await?.expose());
                    form.push("actor_token_type", JWT_TYPE);
                }
                if let Some(requested) = requested_token_type {
                    form.push("requested_token_type", requested);
                }
            }
        }
        for (name, value) in &self.0.parameters {
            form.push(name, value);
        }
        Ok(form)
    }
}

/// Whom a token is asked for.
enum About {
    Nobody,
    Token(Secret),
    Principal { subject: Arc<str>, claims: Map<String, Value> },
}

/// One token to ask for.
pub struct OauthRequest {
    about: About,
    shown: Value,
}

impl fmt::Debug for OauthRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OauthRequest").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl CredentialRequest for OauthRequest {
    fn digest(&self, key: &mut KeyDigest) {
        match &self.about {
            About::Nobody => {}
            About::Token(token) => _ = key.part("token", digest(&SHA256, token.expose().as_bytes())),
            About::Principal { subject, claims } => {
                key.part("subject", subject.as_bytes());
                for (name, value) in claims {
                    key.part("claim", name).part("value", value.to_string());
                }
            }
        }
    }

    fn shown(&self) -> Value {
        self.shown.clone()
    }
}

impl CredentialSource for OauthSource {
    type Request = OauthRequest;

    fn kind(&self) -> &'static str {
        match self.0.grant {
            OauthGrant::ClientCredentials => "client_credentials",
            OauthGrant::TokenExchange { .. } => "token_exchange",
            OauthGrant::JwtBearer { .. } => "jwt_bearer",
        }
    }

    fn request(&self, ask: &Ask<'_>) -> Result<OauthRequest, CredentialError> {
        let principal = ask.grant.principal();
        let about = match self.subject() {
            None => About::Nobody,
            Some(Subject::Caller) => About::Token(Secret::new(ask.caller_token()?)),
            Some(Subject::Doorward { .. }) => {
                let mut claims = Map::new();
                // Who acts for whom stays known, however often the token changes.
                if let Some(act) = principal.claims.get("act") {
                    claims.insert("act".to_owned(), act.clone());
                }
                About::Principal { subject: principal.id().clone(), claims }
            }
        };
        let subject = match &about {
            About::Nobody => Value::Null,
            About::Token(_) => "the caller's token".into(),
            About::Principal { subject, .. } => Value::from(&**subject),
        };
        let parameters: Map<String, Value> =
            self.0.parameters.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        let shown = json!({
            "endpoint": &*self.0.endpoint.url,
            "client": self.0.endpoint.authentication.client_id(),
            "client_authentication": self.0.endpoint.authentication.method(),
            "grant": self.kind(),
            "subject": subject,
            "parameters": parameters,
        });
        Ok(OauthRequest { about, shown })
    }

    fn fetch(self: Arc<Self>, request: Arc<OauthRequest>) -> BoxFuture<'static, Result<Issued, SourceError>> {
        async move {
            let form = self.form(&request).await?;
            let issued = self.0.endpoint.token(form).await?;
            let token = issued.token.expose();
            let proof = token_header(&self.0.header, token)
                .ok_or_else(|| SourceError::lasting(SourceError::UNREADABLE, "the token is no header value"))?;
            let mut facts = Vec::new();
            if let Some(issued_token_type) = issued.issued_token_type {
                facts.push(("issued_token_type", Value::from(issued_token_type)));
            }
            if let Some(scope) = issued.scope {
                facts.push(("scope", Value::from(scope)));
            }
            Ok(Issued {
                id: public_id(token),
                proof,
                expires_at: stated_end(token).map_or(issued.expires_at, |end| end.min(issued.expires_at)),
                renew_at: issued.renew_at,
                facts,
            })
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        vec![self.0.header.clone()]
    }

    fn digest(&self, key: &mut KeyDigest) {
        self.0.endpoint.digest(key);
        key.part("header", self.0.header.as_str());
        for (name, value) in &self.0.parameters {
            key.part("parameter", name).part("value", value);
        }
        match &self.0.grant {
            OauthGrant::ClientCredentials => {}
            OauthGrant::JwtBearer { subject } => subject.digest(key),
            OauthGrant::TokenExchange { subject, subject_token_type, actor, requested_token_type } => {
                subject.digest(key);
                key.optional("subject_token_type", subject_token_type.as_deref());
                key.optional("requested_token_type", requested_token_type.as_deref());
                if let Some(actor) = actor {
                    key.part("actor", actor.subject.as_bytes()).part("audience", actor.audience.as_bytes());
                }
            }
        }
    }
}

impl Subject {
    fn digest(&self, key: &mut KeyDigest) {
        match self {
            Self::Caller => _ = key.part("subject", "caller"),
            Self::Doorward { tokens, audience } => {
                key.part("subject_issuer", tokens.issuer().as_bytes()).part("audience", audience.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::credential::ClientAuthentication;
    use crate::credential::testing::{Asked, Caller, Change, assert_all_differ, key};
    use crate::outbound::{OutboundClient, OutboundSettings};

    fn tokens(issuer: &str) -> SubjectTokens {
        SubjectTokens::unsigned(issuer.into(), Clock::system())
    }

    fn about_principal(issuer: &str, audience: &str) -> Subject {
        Subject::Doorward { tokens: tokens(issuer), audience: audience.into() }
    }

    fn exchange(subject: Subject) -> OauthGrant {
        OauthGrant::TokenExchange { subject, subject_token_type: None, actor: None, requested_token_type: None }
    }

    fn by_secret(id: &str, secret: &str) -> ClientAuthentication {
        ClientAuthentication::Basic { id: id.to_owned(), secret: Secret::new(secret.to_owned()) }
    }

    fn settings() -> OauthSettings {
        OauthSettings {
            endpoint: TokenEndpoint {
                url: "https://as.test/token".into(),
                client: OutboundClient::new(&OutboundSettings::default()).unwrap(),
                authentication: by_secret("gate", "none"),
                clock: Clock::system(),
            },
            grant: exchange(about_principal("https://gate.test", "as")),
            parameters: vec![("audience".to_owned(), "ledger".to_owned())],
            header: http::header::AUTHORIZATION,
        }
    }

    #[test]
    fn whatever_a_token_is_asked_for_by_makes_it_another() {
        let asked = |caller: Caller| Asked::of(caller.grant());
        let usual = asked(Caller::default());
        let mut keys = vec![
            ("nothing", key(&OauthSource::new(settings()), &usual)),
            ("caller", key(&OauthSource::new(settings()), &asked(Caller { subject: "bob", ..Caller::default() }))),
        ];
        let actor = |subject: &str, audience: &str| {
            let (tokens, subject, audience) = (tokens("https://gate.test"), subject.into(), audience.into());
            OauthGrant::TokenExchange {
                subject: about_principal("https://gate.test", "as"),
                subject_token_type: None,
                actor: Some(Actor { tokens, subject, audience }),
                requested_token_type: None,
            }
        };
        let typed = |of_subject: Option<&str>, requested: Option<&str>| OauthGrant::TokenExchange {
            subject: about_principal("https://gate.test", "as"),
            subject_token_type: of_subject.map(str::to_owned),
            actor: None,
            requested_token_type: requested.map(str::to_owned),
        };
        let parameter = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let changes: Vec<(&str, Change<OauthSettings>)> = vec![
            ("endpoint", Box::new(|with| with.endpoint.url = "https://other.test/token".into())),
            ("client", Box::new(|with| with.endpoint.authentication = by_secret("other", "none"))),
            ("client secret", Box::new(|with| with.endpoint.authentication = by_secret("gate", "other"))),
            (
                "public client",
                Box::new(|with| {
                    with.endpoint.authentication = ClientAuthentication::Public { id: "gate".to_owned() };
                }),
            ),
            ("no client", Box::new(|with| with.endpoint.authentication = ClientAuthentication::None)),
            ("issuer", Box::new(|with| with.grant = exchange(about_principal("https://other.test", "as")))),
            ("audience", Box::new(|with| with.grant = exchange(about_principal("https://gate.test", "other")))),
            ("actor", Box::new(move |with| with.grant = actor("gate", "as"))),
            ("another actor", Box::new(move |with| with.grant = actor("other", "as"))),
            ("an actor's audience", Box::new(move |with| with.grant = actor("gate", "other"))),
            ("subject token type", Box::new(move |with| with.grant = typed(Some("t"), None))),
            ("requested token type", Box::new(move |with| with.grant = typed(None, Some("t")))),
            ("parameter", Box::new(move |with| with.parameters = parameter("resource", "ledger"))),
            ("a parameter's value", Box::new(move |with| with.parameters = parameter("audience", "payroll"))),
            ("header", Box::new(|with| with.header = HeaderName::from_static("x-token"))),
        ];
        for (what, change) in changes {
            let mut changed = settings();
            change(&mut changed);
            keys.push((what, key(&OauthSource::new(changed), &usual)));
        }
        for token in ["a.b.c", "a.b.d"] {
            let source = OauthSource::new(OauthSettings { grant: exchange(Subject::Caller), ..settings() });
            let mut asked = asked(Caller::default());
            asked.token = Some(token.to_owned());
            keys.push((token, key(&source, &asked)));
        }
        assert_all_differ(&keys);
    }

    #[test]
    fn what_is_for_nobody_is_for_all_alike() {
        let source = OauthSource::new(OauthSettings { grant: OauthGrant::ClientCredentials, ..settings() });
        let asked = |subject| Asked::of(Caller { subject, ..Caller::default() }.grant());
        assert_eq!(key(&source, &asked("ada")), key(&source, &asked("bob")));
    }
}
