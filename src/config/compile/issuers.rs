//! Issuers: key sets, verifiers and browser login.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Note;
use super::runtime::Runtime;
use crate::clock::{Clock, Timestamp};
use crate::config::checked::{self, AttributeKind, Checked, Keys};
use crate::config::faults::Declared;
use crate::identity::bearer::{BearerIssuer, BearerVerifier, REMEMBERED_TOKENS, TokenType};
use crate::identity::certificate::{CertificateSettings, CertificateVerifier};
use crate::identity::claims::{ClaimPath, numeric_date};
use crate::identity::keys::{KeySource, KeyStore, KeyStoreSettings};
use crate::identity::projection::{AttributeType, DeclaredAttribute, EnvironmentClaim, EvidenceFacts, Projection};
use crate::identity::token::TimeRules;
use crate::identity::{IdentityError, IdentityVerifier, VerifiedIdentity};
use crate::login::{ClaimsToIdentity, Login, LoginIssuerSettings, LoginSettings, SessionVerifier};
use crate::outbound::{OutboundClient, OutboundSettings};
use crate::route::EvidenceKind;

/// Everything that recognises callers.
pub(super) struct Recognition {
    pub(super) verifiers: Vec<Arc<dyn IdentityVerifier>>,
    pub(super) sessions: Option<Arc<SessionVerifier>>,
    pub(super) login: Option<Arc<Login>>,
}

/// Makes every verifier; `None` when one could not be made, and that is noted.
pub(super) fn recognition(checked: &Checked, runtime: &Runtime, note: Note<'_>) -> Option<Recognition> {
    let mut verifiers: Vec<Arc<dyn IdentityVerifier>> = Vec::new();
    let mut bearers = Vec::new();
    let mut logins = Vec::new();
    let mut complete = true;
    for issuer in &checked.issuers {
        let made = bearer(issuer, runtime).and_then(|made| {
            let login = login(issuer, made.keys.clone(), runtime.clock())?;
            Ok((made, login))
        });
        match made {
            Ok((made, login)) => {
                bearers.push(made);
                logins.extend(login);
            }
            Err(error) => {
                complete = false;
                note(fault_place(issuer), "issuer", format!("issuer `{}`: {error}", issuer.name));
            }
        }
    }
    match BearerVerifier::new(bearers, REMEMBERED_TOKENS, runtime.first_sights().clone()) {
        Ok(verifier) => verifiers.push(Arc::new(verifier)),
        Err(error) => {
            complete = false;
            note(&checked.main, "issuer", error.to_string());
        }
    }
    for issuer in &checked.certificate_issuers {
        verifiers.push(Arc::new(CertificateVerifier::new(certificate_settings(issuer))));
    }
    let login = match browser_login(checked, logins, runtime) {
        Ok(login) => login,
        Err(error) => {
            complete = false;
            let with_login = checked.issuers.iter().find(|issuer| issuer.login.is_some());
            note(with_login.map_or(&checked.main, |issuer| &issuer.declared), "login", error);
            None
        }
    };
    let sessions = login.as_ref().map(|login| Arc::new(SessionVerifier::new(login.clone())));
    verifiers.extend(sessions.clone().map(|sessions| sessions as Arc<dyn IdentityVerifier>));
    complete.then_some(Recognition { verifiers, sessions, login })
}

/// Where an issuer's fault most likely is: what was checked before leaves the authorities of its server.
pub(super) fn fault_place(issuer: &checked::Issuer) -> &Declared {
    issuer.authorities_at.as_ref().unwrap_or(&issuer.declared)
}

fn browser_login(
    checked: &Checked,
    issuers: Vec<LoginIssuerSettings>,
    runtime: &Runtime,
) -> Result<Option<Arc<Login>>, String> {
    if issuers.is_empty() {
        return Ok(None);
    }
    let (Some(state), Some(origin)) = (runtime.login_state(), &checked.external_origin) else {
        return Err("login needs `state.dir`, which is read at the start only: start again to add it".to_owned());
    };
    let settings = LoginSettings { external_origin: origin.clone(), issuers };
    Login::new(settings, state.clone()).map(|login| Some(Arc::new(login))).map_err(|error| error.to_string())
}

fn bearer(issuer: &checked::Issuer, runtime: &Runtime) -> Result<BearerIssuer, String> {
    let mut settings = KeyStoreSettings::new(
        issuer.name.as_str(),
        match &issuer.keys {
            Keys::Discovery { .. } => KeySource::Discovery { issuer: issuer.issuer.clone() },
            Keys::JwksUri { uri, .. } => KeySource::JwksUri(uri.clone()),
            Keys::File(path) => KeySource::File(path.clone()),
        },
    );
    settings.outbound = outbound(issuer)?;
    let algorithms: Result<Vec<_>, _> = issuer.algorithms.iter().map(|name| name.parse()).collect();
    Ok(BearerIssuer {
        issuer: issuer.issuer.clone(),
        audiences: issuer.audience.clone(),
        algorithms: algorithms.map_err(|_| "an algorithm is unknown".to_owned())?,
        keys: runtime.key_store(settings).map_err(|error| error.to_string())?,
        token_type: token_type(issuer),
        times: times(issuer),
        projection: projection(issuer)?,
    })
}

pub(super) fn token_type(issuer: &checked::Issuer) -> TokenType {
    if issuer.access_tokens_only { TokenType::AccessToken } else { TokenType::Any }
}

pub(super) fn times(issuer: &checked::Issuer) -> TimeRules {
    TimeRules { leeway: issuer.leeway, longest_token: issuer.longest_token }
}

pub(super) fn certificate_settings(issuer: &checked::CertificateIssuer) -> CertificateSettings {
    CertificateSettings {
        issuer: issuer.name.as_str().into(),
        listeners: issuer.listeners.iter().map(|name| name.as_str().into()).collect(),
        dns: issuer.dns,
        uri: issuer.uri,
    }
}

pub(super) fn outbound(issuer: &checked::Issuer) -> Result<OutboundSettings, String> {
    let mut settings = OutboundSettings::default();
    if let Keys::Discovery { authorities: Some(path) } | Keys::JwksUri { authorities: Some(path), .. } = &issuer.keys {
        let text = fs::read(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
        settings.authorities_pem = Some(text);
    }
    Ok(settings)
}

pub(super) fn projection(issuer: &checked::Issuer) -> Result<Projection, String> {
    let path = |text: &String| ClaimPath::parse(text).map_err(|error| format!("claim path `{text}`: {error}"));
    let rules = |rules: &[checked::ClaimRule]| {
        rules.iter().map(|(claim, values)| Ok((path(claim)?, values.clone()))).collect::<Result<Vec<_>, String>>()
    };
    let attribute = |attribute: &checked::AttributeRule| {
        Ok(DeclaredAttribute {
            name: attribute.name.clone(),
            claim: path(&attribute.claim)?,
            attribute_type: match attribute.kind {
                AttributeKind::String => AttributeType::String,
                AttributeKind::Long => AttributeType::Long,
                AttributeKind::Bool => AttributeType::Bool,
                AttributeKind::Set => AttributeType::Set,
            },
        })
    };
    Ok(Projection {
        issuer: issuer.name.as_str().into(),
        kind: issuer.kind,
        principal: issuer.principal.iter().map(path).collect::<Result<_, _>>()?,
        required_claims: rules(&issuer.required_claims)?,
        forbidden_claims: rules(&issuer.forbidden_claims)?,
        groups: path(&issuer.groups)?,
        email: path(&issuer.email)?,
        environment: match &issuer.environment_claim {
            None => None,
            Some((claim, values)) => Some(EnvironmentClaim {
                claim: path(claim)?,
                values: values.iter().map(|(value, name)| (value.clone(), name.as_str().into())).collect(),
            }),
        },
        attributes: issuer.attributes.iter().map(attribute).collect::<Result<_, String>>()?,
    })
}

fn login(issuer: &checked::Issuer, keys: Arc<KeyStore>, clock: &Clock) -> Result<Option<LoginIssuerSettings>, String> {
    let Some(login) = &issuer.login else { return Ok(None) };
    Ok(Some(LoginIssuerSettings {
        name: issuer.name.as_str().into(),
        issuer_url: issuer.issuer.clone(),
        client_id: login.client_id.clone(),
        client_secret: login.client_secret.as_ref().map(|secret| secret.value.clone()),
        scopes: login.scopes.clone(),
        parameters: login.parameters.clone(),
        algorithms: issuer.algorithms.clone(),
        keys,
        leeway: issuer.leeway,
        idle: login.idle,
        longest: login.longest,
        project: claims_to_identity(projection(issuer)?, issuer.leeway, clock.clone()),
        outbound: OutboundClient::new(&outbound(issuer)?).map_err(|error| error.to_string())?,
    }))
}

/// What a verified ID token says about its user. Login itself sets what belongs to the session.
fn claims_to_identity(projection: Projection, leeway: Duration, clock: Clock) -> ClaimsToIdentity {
    Arc::new(move |claims: &Map<String, Value>| -> Result<VerifiedIdentity, IdentityError> {
        identity_of_user(&projection, leeway, claims, clock.now())
    })
}

pub(super) fn identity_of_user(
    projection: &Projection,
    leeway: Duration,
    claims: &Map<String, Value>,
    now: Timestamp,
) -> Result<VerifiedIdentity, IdentityError> {
    let authenticated_at = numeric_date(claims, "auth_time")?.filter(|at| *at <= now.plus(leeway));
    let began_at = authenticated_at.or(numeric_date(claims, "iat")?).unwrap_or(now);
    let expires_at = numeric_date(claims, "exp")?;
    let facts =
        EvidenceFacts { kind: EvidenceKind::Session, authenticated_at, began_at, expires_at, fingerprint: [0; 32] };
    projection.identity(claims.clone(), facts)
}
