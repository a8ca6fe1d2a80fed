//! From verified claims to a principal: which claims name it, which become attributes, which must or may not be there.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::claims::{ClaimPath, array_of_texts, malformed, matches_any, text, texts};
use super::token::missing;
use super::{Attribute, IdentityError, PrincipalKind, VerifiedIdentity};
use crate::clock::Timestamp;
use crate::route::EvidenceKind;

/// Longest subject, bytes.
const SUBJECT_LIMIT_BYTES: usize = 1024;

/// Declared type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeType {
    /// Text.
    String,
    /// Whole number.
    Long,
    /// Truth value.
    Bool,
    /// Array of texts.
    Set,
}

/// A claim that policies can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredAttribute {
    /// Name in policies.
    pub name: String,
    /// Where the claim stands.
    pub claim: ClaimPath,
    /// What it must be.
    pub attribute_type: AttributeType,
}

/// How an issuer's claims become a principal.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// Configured name of the issuer.
    pub issuer: Arc<str>,
    /// What its callers are.
    pub kind: PrincipalKind,
    /// Immutable claims that name the principal, joined by `/`.
    pub principal: Vec<ClaimPath>,
    /// Each claim holds one of the values.
    pub required_claims: Vec<(ClaimPath, Vec<Value>)>,
    /// Each claim holds none of the values; with no values it is absent.
    pub forbidden_claims: Vec<(ClaimPath, Vec<Value>)>,
    /// Where groups stand.
    pub groups: ClaimPath,
    /// Where the e-mail address stands.
    pub email: ClaimPath,
    /// Which environment a caller belongs to.
    pub environment: Option<EnvironmentClaim>,
    /// Claims that policies can read.
    pub attributes: Vec<DeclaredAttribute>,
}

/// A claim that says which environment a caller belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentClaim {
    /// Where it stands.
    pub claim: ClaimPath,
    /// Environment by value; empty where each value is an environment's own name.
    pub values: BTreeMap<String, Arc<str>>,
}

impl EnvironmentClaim {
    fn find(&self, claims: &Map<String, Value>) -> Result<Arc<str>, IdentityError> {
        let found = self.claim.find(claims).ok_or_else(|| missing(self.claim.as_str()))?;
        let value = found.as_str().ok_or_else(|| malformed(self.claim.as_str()))?;
        if self.values.is_empty() {
            return Ok(value.into());
        }
        self.values.get(value).cloned().ok_or_else(|| {
            IdentityError::invalid("claim_mismatch", format!("the claim `{}` names no known environment", self.claim))
        })
    }
}

/// What a verifier knows about the evidence besides its claims.
#[derive(Clone, Copy, Debug)]
pub struct EvidenceFacts {
    /// Kind of evidence.
    pub kind: EvidenceKind,
    /// When the caller authenticated, if the issuer says.
    pub authenticated_at: Option<Timestamp>,
    /// When role sessions begin.
    pub began_at: Timestamp,
    /// When the evidence ends.
    pub expires_at: Option<Timestamp>,
    /// What the identity is remembered by.
    pub fingerprint: [u8; 32],
}

impl Projection {
    /// Judges required and forbidden claims and reads everything else. `claims` are verified before.
    ///
    /// # Errors
    /// `claim_missing`, `claim_mismatch`, `claim_forbidden`, `claim_malformed`, `subject_refused`, `groups_overage`.
    pub fn identity(
        &self,
        claims: Map<String, Value>,
        facts: EvidenceFacts,
    ) -> Result<VerifiedIdentity, IdentityError> {
        self.check_claims(&claims)?;
        Ok(VerifiedIdentity {
            kind: self.kind,
            issuer: self.issuer.clone(),
            subject: self.subject(&claims)?.into(),
            evidence: facts.kind,
            email: self.email(&claims)?,
            groups: self.groups(&claims)?,
            scopes: scopes(&claims)?,
            acr: plain_text(&claims, "acr")?.map(str::to_owned),
            amr: plain_texts(&claims, "amr")?,
            authenticated_at: facts.authenticated_at,
            began_at: facts.began_at,
            expires_at: facts.expires_at,
            environment: self.environment.as_ref().map(|claim| claim.find(&claims)).transpose()?,
            attributes: self.attributes(&claims)?,
            claims,
            fingerprint: facts.fingerprint,
        })
    }

    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), IdentityError> {
        for (path, values) in &self.required_claims {
            let claim = path.find(claims).ok_or_else(|| missing(path.as_str()))?;
            if !matches_any(claim, values) {
                let detail = format!("the claim `{path}` holds none of the required values");
                return Err(IdentityError::invalid("claim_mismatch", detail));
            }
        }
        for (path, values) in &self.forbidden_claims {
            if path.find(claims).is_some_and(|claim| values.is_empty() || matches_any(claim, values)) {
                let detail = format!("the claim `{path}` is, or holds, what is forbidden");
                return Err(IdentityError::invalid("claim_forbidden", detail));
            }
        }
        Ok(())
    }

    /// One claim names the principal as it is. Of several, each `/` and `%` is escaped, so that two callers never join
    /// to one text.
    fn subject(&self, claims: &Map<String, Value>) -> Result<String, IdentityError> {
        let escape = self.principal.len() > 1;
        let mut subject = String::new();
        for path in &self.principal {
            let part = match path.find(claims) {
                None => return Err(missing(path.as_str())),
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
                Some(_) => return Err(malformed(path.as_str())),
            };
            if part.is_empty() || part.chars().any(char::is_control) {
                let detail = format!("the claim `{path}` is empty or holds what no subject may hold");
                return Err(IdentityError::invalid("subject_refused", detail));
            }
            if !subject.is_empty() {
                subject.push('/');
            }
            subject.push_str(&if escape { part.replace('%', "%25").replace('/', "%2F") } else { part });
        }
        if subject.is_empty() || subject.len() > SUBJECT_LIMIT_BYTES {
            return Err(IdentityError::invalid("subject_refused", "the subject is empty or too long"));
        }
        Ok(subject)
    }

    fn groups(&self, claims: &Map<String, Value>) -> Result<Vec<String>, IdentityError> {
        // Entra leaves groups out when there are many, and says where to ask. To go on without them could pass by a
        // rule that forbids one.
        let elsewhere = claims.get("_claim_names").is_some_and(|names| {
            names
                .as_object()
                .is_none_or(|names| names.contains_key("groups") || names.contains_key(self.groups.first()))
        });
        if elsewhere || claims.get("hasgroups").is_some_and(|has| has != &Value::Bool(false)) {
            let detail = "the caller has more groups than its token holds";
            return Err(IdentityError::invalid("groups_overage", detail));
        }
        texts(claims, &self.groups)
    }

    /// An address that the issuer says it did not verify is anybody's, and is left out.
    fn email(&self, claims: &Map<String, Value>) -> Result<Option<String>, IdentityError> {
        let email = text(claims, &self.email)?;
        let unverified = claims.get("email_verified").is_some_and(|verified| verified == false || verified == "false");
        Ok(email.filter(|_| !unverified).map(str::to_owned))
    }

    fn attributes(&self, claims: &Map<String, Value>) -> Result<BTreeMap<String, Attribute>, IdentityError> {
        let mut attributes = BTreeMap::new();
        for DeclaredAttribute { name, claim, attribute_type } in &self.attributes {
            let value = match claim.find(claims) {
                None | Some(Value::Null) => continue,
                Some(value) => value,
            };
            let attribute = match attribute_type {
                AttributeType::String => value.as_str().map(|text| Attribute::String(text.to_owned())),
                AttributeType::Long => value.as_i64().map(Attribute::Long),
                AttributeType::Bool => value.as_bool().map(Attribute::Bool),
                AttributeType::Set => array_of_texts(value).map(Attribute::Set),
            };
            attributes.insert(name.clone(), attribute.ok_or_else(|| malformed(claim.as_str()))?);
        }
        Ok(attributes)
    }
}

/// `scope` (RFC 9068: one text, blanks between) or `scp` (Okta: an array; Entra: one text).
fn scopes(claims: &Map<String, Value>) -> Result<Vec<String>, IdentityError> {
    let name = if claims.contains_key("scope") { "scope" } else { "scp" };
    match claims.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(scopes)) => {
            Ok(scopes.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect())
        }
        Some(value) => array_of_texts(value).ok_or_else(|| malformed(name)),
    }
}

fn plain_text<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, IdentityError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(|| malformed(name)),
    }
}

fn plain_texts(claims: &Map<String, Value>, name: &str) -> Result<Vec<String>, IdentityError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(value) => array_of_texts(value).ok_or_else(|| malformed(name)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> ClaimPath {
        ClaimPath::parse(text).unwrap()
    }

    fn projection(principal: &[&str]) -> Projection {
        Projection {
            issuer: "okta".into(),
            kind: PrincipalKind::User,
            principal: principal.iter().map(|claim| path(claim)).collect(),
            required_claims: Vec::new(),
            forbidden_claims: Vec::new(),
            groups: path("groups"),
            email: path("email"),
            environment: None,
            attributes: Vec::new(),
        }
    }

    fn project(projection: &Projection, claims: Value) -> Result<VerifiedIdentity, &'static str> {
        let at = Timestamp::from_unix_seconds(1_700_000_000);
        let facts = EvidenceFacts {
            kind: EvidenceKind::Bearer,
            authenticated_at: None,
            began_at: at,
            expires_at: None,
            fingerprint: [1; 32],
        };
        projection.identity(claims.as_object().unwrap().clone(), facts).map_err(|error| error.code())
    }

    fn of(claims: Value) -> Result<VerifiedIdentity, &'static str> {
        let mut claims = claims;
        claims["sub"] = json!("u1");
        project(&projection(&["sub"]), claims)
    }

    fn subject(principal: &[&str], claims: Value) -> Result<String, &'static str> {
        project(&projection(principal), claims).map(|identity| identity.subject.to_string())
    }

    #[test]
    fn one_claim_or_several_name_the_principal() {
        assert_eq!(subject(&["sub"], json!({ "sub": "repo:a/b%2" })).unwrap(), "repo:a/b%2");
        assert_eq!(subject(&["owner", "repo"], json!({ "owner": 7, "repo": "9" })).unwrap(), "7/9");
        assert_eq!(subject(&["a.b"], json!({ "a": { "b": "deep" } })).unwrap(), "deep");
    }

    #[test]
    fn a_subject_may_hold_a_bar_since_no_issuers_name_does() {
        assert_eq!(subject(&["sub"], json!({ "sub": "auth0|5f7c" })).unwrap(), "auth0|5f7c");
    }

    #[test]
    fn joined_names_cannot_be_shifted_into_each_other() {
        let joined = |a: &str, b: &str| subject(&["a", "b"], json!({ "a": a, "b": b })).unwrap();
        assert_eq!(joined("x/y", "z"), "x%2Fy/z");
        assert_ne!(joined("x/y", "z"), joined("x", "y/z"));
        assert_ne!(joined("x%2Fy", "z"), joined("x/y", "z"));
    }

    #[test]
    fn a_name_that_is_missing_empty_or_of_another_type_is_refused() {
        assert_eq!(subject(&["uid"], json!({ "sub": "u1" })), Err("claim_missing"));
        for value in [json!(""), json!("a\nb"), json!("a\u{0}"), json!("a\u{85}"), json!("x".repeat(1025))] {
            assert_eq!(subject(&["sub"], json!({ "sub": value })), Err("subject_refused"));
        }
        for value in [json!(null), json!(true), json!(1.5), json!(["u1"]), json!({ "id": "u1" })] {
            assert_eq!(subject(&["sub"], json!({ "sub": value })), Err("claim_malformed"));
        }
    }

    #[test]
    fn required_claims_are_there_with_one_of_their_values() {
        let mut strict = projection(&["sub"]);
        strict.required_claims = vec![(path("env.name"), vec![json!("production"), json!("staging")])];
        let judged = |claims| project(&strict, claims).map(drop);
        assert_eq!(judged(json!({ "sub": "u", "env": { "name": "staging" } })), Ok(()));
        assert_eq!(judged(json!({ "sub": "u", "env": { "name": ["x", "production"] } })), Ok(()));
        assert_eq!(judged(json!({ "sub": "u", "env": { "name": "preview" } })), Err("claim_mismatch"));
        assert_eq!(judged(json!({ "sub": "u", "env": {} })), Err("claim_missing"));
        assert_eq!(judged(json!({ "sub": "u" })), Err("claim_missing"));
    }

    #[test]
    fn forbidden_claims_are_absent_or_hold_none_of_their_values() {
        let mut strict = projection(&["sub"]);
        strict.forbidden_claims = vec![(path("env"), vec![json!("development")]), (path("act"), Vec::new())];
        let judged = |claims| project(&strict, claims).map(drop);
        assert_eq!(judged(json!({ "sub": "u", "env": "production" })), Ok(()));
        for claims in [
            json!({ "sub": "u", "env": "development" }),
            json!({ "sub": "u", "env": ["production", "development"] }),
            json!({ "sub": "u", "act": null }),
            json!({ "sub": "u", "act": {} }),
        ] {
            assert_eq!(judged(claims), Err("claim_forbidden"));
        }
    }

    #[test]
    fn groups_that_the_token_leaves_out_refuse_it() {
        for overage in [
            json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": {} }),
            json!({ "_claim_names": { "groups": "src1" }, "groups": ["a"] }),
            json!({ "_claim_names": "src1" }),
            json!({ "hasgroups": true }),
            json!({ "hasgroups": "true" }),
        ] {
            assert_eq!(of(overage).map(drop), Err("groups_overage"));
        }
        assert_eq!(of(json!({ "_claim_names": { "photo": "src1" }, "groups": "a" })).unwrap().groups, ["a"]);
        assert_eq!(of(json!({ "groups": { "a": true } })).map(drop), Err("claim_malformed"));
    }

    #[test]
    fn an_address_that_its_issuer_did_not_verify_is_left_out() {
        assert_eq!(of(json!({ "email": "a@example.com" })).unwrap().email.as_deref(), Some("a@example.com"));
        for unverified in [json!(false), json!("false")] {
            assert_eq!(of(json!({ "email": "a@example.com", "email_verified": unverified })).unwrap().email, None);
        }
        assert_eq!(of(json!({ "email": ["a@example.com"] })).map(drop), Err("claim_malformed"));
    }

    #[test]
    fn scopes_come_as_one_text_or_as_an_array() {
        assert_eq!(of(json!({ "scope": "read  write" })).unwrap().scopes, ["read", "write"]);
        assert_eq!(of(json!({ "scp": ["read", "write"] })).unwrap().scopes, ["read", "write"]);
        assert_eq!(of(json!({ "scp": "read write" })).unwrap().scopes, ["read", "write"]);
        assert_eq!(of(json!({ "scope": "", "scp": ["admin"] })).unwrap().scopes, Vec::<String>::new());
        assert_eq!(of(json!({ "scope": 1 })).map(drop), Err("claim_malformed"));
        assert_eq!(of(json!({ "scp": ["read", 1] })).map(drop), Err("claim_malformed"));
    }

    #[test]
    fn how_the_caller_authenticated_is_read_with_its_type() {
        let identity = of(json!({ "acr": "urn:mfa", "amr": ["pwd", "otp"] })).unwrap();
        assert_eq!((identity.acr.as_deref(), identity.amr.len()), (Some("urn:mfa"), 2));
        assert_eq!(of(json!({ "acr": 1 })).map(drop), Err("claim_malformed"));
        assert_eq!(of(json!({ "amr": [1] })).map(drop), Err("claim_malformed"));
    }

    #[test]
    fn a_declared_attribute_is_absent_or_of_its_type() {
        let mut typed = projection(&["sub"]);
        let declared =
            |name: &str, attribute_type| DeclaredAttribute { name: name.to_owned(), claim: path(name), attribute_type };
        typed.attributes = vec![
            declared("department", AttributeType::String),
            declared("level", AttributeType::Long),
            declared("manager", AttributeType::Bool),
            declared("teams", AttributeType::Set),
        ];
        let all =
            json!({ "sub": "u", "department": "finance", "level": 3, "manager": true, "teams": ["a"], "other": 1 });
        let attributes = project(&typed, all).unwrap().attributes;
        assert_eq!(attributes.len(), 4);
        assert_eq!(attributes["level"], Attribute::Long(3));
        assert_eq!(attributes["teams"], Attribute::Set(vec!["a".to_owned()]));
        assert!(project(&typed, json!({ "sub": "u", "department": null })).unwrap().attributes.is_empty());
        for wrong in [
            json!({ "department": 1 }),
            json!({ "level": "3" }),
            json!({ "level": 3.0 }),
            json!({ "level": u64::MAX }),
            json!({ "manager": "true" }),
            json!({ "teams": "a" }),
            json!({ "teams": [1] }),
            json!({ "department": ["finance"] }),
        ] {
            let mut claims = wrong.clone();
            claims["sub"] = json!("u");
            assert_eq!(project(&typed, claims).map(drop), Err("claim_malformed"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn different_names_never_join_to_one_subject(
            left in prop::collection::vec("[a-c/%2F5]{1,6}", 2),
            right in prop::collection::vec("[a-c/%2F5]{1,6}", 2),
        ) {
            let joined = |parts: &[String]| subject(&["a", "b"], json!({ "a": parts[0], "b": parts[1] })).unwrap();
            prop_assert_eq!(joined(&left) == joined(&right), left == right);
        }
    }
}
