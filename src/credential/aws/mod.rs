//! `aws`: keys of a role session, assumed for the caller and narrowed to the request, with which requests are signed.

mod ambient;
mod policy;
mod session;
mod sts;
#[cfg(test)]
mod tests;

pub use ambient::{AmbientKeys, ContainerToken, INSTANCE_METADATA};
pub use policy::{LARGEST_POLICY, PolicyStatement, SessionPolicy};
pub use sts::{AssumedRole, Sts};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderName;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value, json};

use super::sigv4::{AwsSigner, BodyMemory, ClockSkew};
use super::source::{CredentialRequest, CredentialSource, Issued, KeyDigest, SourceError};
use super::subject_token::{SubjectClaims, SubjectTokens};
use super::{Ask, CredentialError, Form, Proof, Template, is_plain};
use crate::secret::Secret;

const VERSION: &str = "2011-06-15";
/// What AWS reads in a web identity token ("Passing session tags using AssumeRoleWithWebIdentity").
const TAGS_CLAIM: &str = "https://aws.amazon.com/tags";
const SOURCE_IDENTITY_CLAIM: &str = "https://aws.amazon.com/source_identity";
const LONGEST_TAG: usize = 256;

/// By what a role is assumed.
#[derive(Clone, Debug)]
pub enum RoleProof {
    /// A token of Doorward's.
    Doorward {
        /// Who signs it.
        tokens: SubjectTokens,
        /// Its `aud`.
        audience: Arc<str>,
        /// Its `sub`: what trust policies can ask about.
        subject: Template,
    },
    /// The caller's own token.
    Caller,
    /// Keys of the place where Doorward runs.
    Ambient {
        /// The keys.
        keys: Box<AmbientKeys>,
        /// `ExternalId`
        external_id: Option<String>,
    },
}

/// Everything configured about one AWS credential.
#[derive(Clone, Debug)]
pub struct AwsSettings {
    /// Whom to ask.
    pub sts: Sts,
    /// The role.
    pub role: Arc<str>,
    /// By what it is assumed.
    pub proof: RoleProof,
    /// How long a session lives.
    pub duration: Duration,
    /// `RoleSessionName`, made to fit.
    pub session_name: Template,
    /// `SourceIdentity`, made to fit.
    pub source_identity: Option<Template>,
    /// Session tags.
    pub tags: BTreeMap<String, Template>,
    /// Those of them that stay when the session assumes another role.
    pub transitive_tags: Vec<String>,
    /// What the session is narrowed to.
    pub policy: Option<SessionPolicy>,
    /// Managed policies that it is narrowed to.
    pub policy_arns: Vec<String>,
    /// Services that requests may be signed for; the first unless the caller says.
    pub services: Arc<[Arc<str>]>,
    /// Regions that requests may be signed for; the first unless the caller says.
    pub regions: Arc<[Arc<str>]>,
    /// Whether callers may copy from other objects, set access rights and lift retention by headers.
    pub widening_headers: bool,
    /// Longest body that is held until it is hashed.
    pub signed_body_bytes: usize,
    /// Memory for such bodies.
    pub memory: BodyMemory,
}

/// Assumes roles.
#[derive(Debug)]
pub struct AwsSource {
    settings: AwsSettings,
    /// Of STS; those of the services are their upstreams'.
    skew: Arc<ClockSkew>,
}

impl AwsSource {
    /// A source of these sessions.
    #[must_use]
    pub fn new(settings: AwsSettings) -> Self {
        Self { settings, skew: Arc::default() }
    }

    async fn form(&self, request: &AwsRequest) -> Result<Form, SourceError> {
        let settings = &self.settings;
        let action = match settings.proof {
            RoleProof::Ambient { .. } => "AssumeRole",
            RoleProof::Doorward { .. } | RoleProof::Caller => "AssumeRoleWithWebIdentity",
        };
        let duration = settings.duration.as_secs().to_string();
        let mut form = Form::new(&[
            ("Action", action),
            ("Version", VERSION),
            ("RoleArn", &settings.role),
            ("RoleSessionName", &request.session_name),
            ("DurationSeconds", &duration),
        ]);
        if let Some(policy) = &request.policy {
            form.push("Policy", policy);
        }
        for (place, arn) in (1..).zip(&settings.policy_arns) {
            form.push(&format!("PolicyArns.member.{place}.arn"), arn);
        }
        match (&settings.proof, &request.token) {
            (RoleProof::Doorward { tokens, audience, .. }, _) => {
                let claims = SubjectClaims {
                    subject: request.subject.clone(),
                    audience: audience.clone(),
                    further: self.claims(request),
                };
                form.push("WebIdentityToken", tokens.mint(claims).await?.expose());
            }
            (RoleProof::Caller, Some(token)) => form.push("WebIdentityToken", token.expose()),
            (RoleProof::Caller, None) => {
                return Err(SourceError::lasting(SourceError::REFUSED, "there is no token of the caller's"));
            }
            (RoleProof::Ambient { external_id, .. }, _) => {
                for (name, value) in
                    [("ExternalId", external_id.as_deref()), ("SourceIdentity", request.source_identity())]
                {
                    if let Some(value) = value {
                        form.push(name, value);
                    }
                }
                for (place, (key, value)) in (1..).zip(&request.tags) {
                    form.push(&format!("Tags.member.{place}.Key"), key);
                    form.push(&format!("Tags.member.{place}.Value"), value);
                }
                for (place, key) in (1..).zip(&settings.transitive_tags) {
                    form.push(&format!("TransitiveTagKeys.member.{place}"), key);
                }
            }
        }
        Ok(form)
    }

    /// What AWS reads in Doorward's token besides its subject.
    fn claims(&self, request: &AwsRequest) -> Map<String, Value> {
        let mut claims = Map::new();
        if !request.tags.is_empty() {
            let tags: Map<String, Value> =
                request.tags.iter().map(|(key, value)| (key.clone(), json!([&**value]))).collect();
            let transitive = &self.settings.transitive_tags;
            claims.insert(TAGS_CLAIM.to_owned(), json!({ "principal_tags": tags, "transitive_tag_keys": transitive }));
        }
        if let Some(identity) = request.source_identity() {
            claims.insert(SOURCE_IDENTITY_CLAIM.to_owned(), Value::from(identity));
        }
        claims
    }
}

/// One role session to ask for.
pub struct AwsRequest {
    role: Arc<str>,
    session_name: Arc<str>,
    /// The session's name before it was made to fit.
    named: Arc<str>,
    source_identity: Option<Arc<str>>,
    subject: Arc<str>,
    token: Option<Secret>,
    tags: BTreeMap<String, Arc<str>>,
    policy: Option<Arc<str>>,
    shown: Value,
}

impl AwsRequest {
    fn source_identity(&self) -> Option<&str> {
        self.source_identity.as_deref()
    }

    /// What the audit record says of it.
    fn facts(&self, packed_policy_size: Option<u32>) -> Vec<(&'static str, Value)> {
        let mut facts = vec![("role", Value::from(&*self.role)), ("session_name", Value::from(&*self.session_name))];
        if let Some(identity) = self.source_identity() {
            facts.push(("source_identity", identity.into()));
        }
        if !self.tags.is_empty() {
            let tags: Map<String, Value> =
                self.tags.iter().map(|(key, value)| (key.clone(), Value::from(&**value))).collect();
            facts.push(("tags", tags.into()));
        }
        if let Some(percent) = packed_policy_size {
            facts.push(("packed_policy_percent", percent.into()));
        }
        facts
    }
}

impl fmt::Debug for AwsRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AwsRequest").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl CredentialRequest for AwsRequest {
    fn digest(&self, key: &mut KeyDigest) {
        key.part("session_name", self.named.as_bytes()).part("subject", self.subject.as_bytes());
        key.optional("source_identity", self.source_identity());
        key.optional("policy", self.policy.as_deref());
        key.optional("token", self.token.as_ref().map(|token| digest(&SHA256, token.expose().as_bytes())));
        for (name, value) in &self.tags {
            key.part("tag", name).part("value", value.as_bytes());
        }
    }

    fn shown(&self) -> Value {
        self.shown.clone()
    }
}

impl CredentialSource for AwsSource {
    type Request = AwsRequest;

    fn kind(&self) -> &'static str {
        "aws"
    }

    fn request(&self, ask: &Ask<'_>) -> Result<AwsRequest, CredentialError> {
        let settings = &self.settings;
        let any = |template: &Template| template.fill(ask, |character| !character.is_control());
        let named = any(&settings.session_name)?;
        let source_identity = settings.source_identity.as_ref().map(any).transpose()?;
        let (subject, token) = match &settings.proof {
            RoleProof::Doorward { subject, .. } => (subject.fill(ask, is_plain)?, None),
            RoleProof::Caller => ("".into(), Some(Secret::new(ask.caller_token()?))),
            RoleProof::Ambient { .. } => ("".into(), None),
        };
        let mut tags = BTreeMap::new();
        for (key, value) in &settings.tags {
            let value = value.fill(ask, session::fits_tag)?;
            if value.chars().count() > LONGEST_TAG {
                return Err(CredentialError::unfit(format!("the session tag `{key}` is longer than {LONGEST_TAG}")));
            }
            tags.insert(key.clone(), value);
        }
        let policy = settings.policy.as_ref().map(|policy| policy.fill(ask)).transpose()?;
        if policy.as_ref().is_some_and(|policy| policy.chars().count() > LARGEST_POLICY) {
            return Err(CredentialError::unfit(format!(
                "the session policy is longer than {LARGEST_POLICY} characters"
            )));
        }
        let mut request = AwsRequest {
            role: settings.role.clone(),
            session_name: session::session_name(&named),
            named,
            source_identity: source_identity.as_deref().map(session::session_name),
            subject,
            token,
            tags,
            policy,
            shown: Value::Null,
        };
        request.shown = self.shown_request(&request);
        Ok(request)
    }

    fn fetch(self: Arc<Self>, request: Arc<AwsRequest>) -> BoxFuture<'static, Result<Issued, SourceError>> {
        async move {
            let ambient = match &self.settings.proof {
                RoleProof::Ambient { keys, .. } => Some(keys.keys().await?),
                RoleProof::Doorward { .. } | RoleProof::Caller => None,
            };
            let form = self.form(&request).await?;
            let role = self.settings.sts.assume(form, ambient.as_ref(), &self.skew).await?;
            Ok(Issued {
                id: role.keys.access_key_id.clone(),
                proof: Proof::AwsKeys(Arc::new(AwsSigner {
                    keys: role.keys,
                    services: self.settings.services.clone(),
                    regions: self.settings.regions.clone(),
                    widening_headers: self.settings.widening_headers,
                    signed_body_bytes: self.settings.signed_body_bytes,
                    memory: self.settings.memory.clone(),
                })),
                expires_at: role.expires_at,
                renew_at: None,
                facts: request.facts(role.packed_policy_size),
            })
        }
        .boxed()
    }

    fn headers(&self) -> Vec<HeaderName> {
        // The rest of a signature's headers is the upstream's own matter: signing replaces them.
        vec![AUTHORIZATION]
    }

    fn digest(&self, key: &mut KeyDigest) {
        let settings = &self.settings;
        key.part("sts", settings.sts.url.as_bytes()).part("role", settings.role.as_bytes());
        key.part("duration", settings.duration.as_secs().to_be_bytes());
        for arn in &settings.policy_arns {
            key.part("policy_arn", arn);
        }
        for service in settings.services.iter() {
            key.part("service", service.as_bytes());
        }
        for region in settings.regions.iter() {
            key.part("region", region.as_bytes());
        }
        for name in &settings.transitive_tags {
            key.part("transitive", name);
        }
        key.part("signed_body", settings.signed_body_bytes.to_be_bytes());
        key.part("widening_headers", [u8::from(settings.widening_headers)]);
        match &settings.proof {
            RoleProof::Doorward { tokens, audience, .. } => {
                key.part("issuer", tokens.issuer().as_bytes()).part("audience", audience.as_bytes());
            }
            RoleProof::Caller => _ = key.part("proof", "caller"),
            RoleProof::Ambient { keys, external_id } => {
                key.part("ambient", keys.name()).optional("external_id", external_id.as_deref());
            }
        }
    }
}

impl AwsSource {
    fn shown_request(&self, request: &AwsRequest) -> Value {
        let settings = &self.settings;
        let (action, proof) = match &settings.proof {
            RoleProof::Doorward { tokens, audience, .. } => (
                "AssumeRoleWithWebIdentity",
                json!({ "iss": &**tokens.issuer(), "sub": &*request.subject, "aud": &**audience }),
            ),
            RoleProof::Caller => ("AssumeRoleWithWebIdentity", Value::from("the caller's token")),
            RoleProof::Ambient { keys, .. } => ("AssumeRole", Value::from(format!("keys of the {}", keys.name()))),
        };
        let policy = request.policy.as_deref().and_then(|policy| serde_json::from_str(policy).ok());
        let names = |names: &[Arc<str>]| names.iter().map(|name| Value::from(&**name)).collect::<Value>();
        json!({
            "endpoint": &*settings.sts.url,
            "action": action,
            "by": proof,
            "role": &*settings.role,
            "session_name": &*request.session_name,
            "source_identity": request.source_identity(),
            "tags": request.tags.iter().map(|(key, value)| (key.clone(), Value::from(&**value))).collect::<Map<_, _>>(),
            "duration_seconds": settings.duration.as_secs(),
            "policy": policy.unwrap_or(Value::Null),
            "policy_arns": settings.policy_arns,
            "services": names(&settings.services),
            "regions": names(&settings.regions),
        })
    }
}
