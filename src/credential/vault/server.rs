//! A vault's API: how it is asked, and what its answers mean (<https://openbao.org/api-docs/>,
//! <https://developer.hashicorp.com/vault/api-docs>).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::super::cache::Places;
use super::super::exchange::{said, send};
use super::super::source::{KeyDigest, SourceError};
use super::path::encoded;
use crate::clock::Clock;
use crate::outbound::OutboundClient;
use crate::secret::Secret;

pub(super) const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Without it, agents and proxies of the vault's refuse: a browser cannot be made to send it.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// One vault, and one namespace of it.
#[derive(Clone, Debug)]
pub struct VaultServer {
    /// Base URL, without a slash at its end.
    pub address: Arc<str>,
    /// Namespace; `None` is the root's.
    pub namespace: Option<Arc<str>>,
    /// How to reach it.
    pub client: OutboundClient,
    /// Time.
    pub clock: Clock,
    /// For logins that are under way.
    pub places: Places,
}

/// Why the vault gave nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 403: no policy allows it, or the token has ended. The vault does not say which.
    Denied(SourceError),
    /// Whatever another token would not mend.
    Other(SourceError),
}

impl From<Refusal> for SourceError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(error) | Refusal::Other(error) => error,
        }
    }
}

/// What a vault answers.
#[derive(Deserialize)]
pub(super) struct Answer<D> {
    #[serde(default)]
    pub(super) request_id: String,
    #[serde(default)]
    pub(super) lease_id: String,
    #[serde(default)]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
    pub(super) data: Option<D>,
    pub(super) auth: Option<Auth>,
}

/// What a login gives.
#[derive(Deserialize)]
pub(super) struct Auth {
    pub(super) client_token: Secret,
    #[serde(default)]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) num_uses: u64,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// A field of a secret: its text, wiped when it is dropped, or something else, which nobody keeps.
pub(super) enum Field {
    Text(Secret),
    Other,
}

impl VaultServer {
    /// Writes whom to ask.
    pub(super) fn digest(&self, key: &mut KeyDigest) {
        key.part("vault", self.address.as_bytes()).optional("namespace", self.namespace.as_deref());
    }

    /// Reads what is at `path`.
    pub(super) async fn read<D: DeserializeOwned>(
        &self,
        path: &str,
        token: &HeaderValue,
    ) -> Result<Answer<D>, Refusal> {
        let answer = self.exchange(Method::GET, path, Some(token), Bytes::new()).await?;
        parsed(&answer, path)
    }

    /// Writes to `path` what answers something.
    pub(super) async fn write<D: DeserializeOwned>(
        &self,
        path: &str,
        token: Option<&HeaderValue>,
        body: &Value,
    ) -> Result<Answer<D>, Refusal> {
        let answer = self.exchange(Method::POST, path, token, body.to_string().into()).await?;
        parsed(&answer, path)
    }

    /// Writes to `path`, and does not care what it answers if it does so well.
    pub(super) async fn order(&self, path: &str, token: &HeaderValue, body: &Value) -> Result<(), Refusal> {
        self.exchange(Method::POST, path, Some(token), body.to_string().into()).await.map(drop)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        token: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Bytes, Refusal> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{}", self.address, encoded(path)))
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(REQUEST, HeaderValue::from_static("true"));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, &**namespace);
        }
        if let Some(token) = token {
            request = request.header(TOKEN, token);
        }
        let no_request = |_| SourceError::lasting(SourceError::REFUSED, format!("`{path}` cannot be asked for"));
        let request = request.body(body).map_err(|error| Refusal::Other(no_request(error)))?;
        let answer = send(&self.client, request).await.map_err(Refusal::Other)?;
        match answer.status() {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(answer.into_body()),
            status => Err(refusal(status, path, answer.body())),
        }
    }
}

fn parsed<D: DeserializeOwned>(body: &[u8], path: &str) -> Result<Answer<D>, Refusal> {
    // The parser's own message would quote the answer, secrets and all.
    serde_json::from_slice(body).map_err(|_| {
        let detail = format!("what the vault answers at `{path}` cannot be read");
        Refusal::Other(SourceError::lasting(SourceError::UNREADABLE, detail))
    })
}

fn refusal(status: StatusCode, path: &str, body: &[u8]) -> Refusal {
    let told = serde_json::from_slice::<Errors>(body).map(|told| said(told.errors.join("; "))).unwrap_or_default();
    let why = match (status, told.as_str()) {
        (StatusCode::NOT_FOUND, "") => "there is nothing",
        (_, "") => "it does not say why",
        (_, told) => told,
    };
    let detail = format!("the vault answered {} at `{path}`: {why}", status.as_u16());
    match status.as_u16() {
        403 => Refusal::Denied(SourceError::lasting(SourceError::REFUSED, detail)),
        // A replica that lags behind, and those that stand by.
        412 | 472 | 473 => Refusal::Other(SourceError::passing(SourceError::UNAVAILABLE, detail)),
        _ => Refusal::Other(SourceError::lasting(SourceError::REFUSED, detail)),
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a field of a secret")
    }

    fn visit_str<E>(self, text: &str) -> Result<Field, E> {
        Ok(Field::Text(Secret::new(text)))
    }

    fn visit_string<E>(self, text: String) -> Result<Field, E> {
        Ok(Field::Text(Secret::new(text)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Field, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn told(status: u16, body: &str) -> (bool, bool, String) {
        let refusal = refusal(StatusCode::from_u16(status).unwrap(), "secret/data/app", body.as_bytes());
        let denied = matches!(refusal, Refusal::Denied(_));
        let error = SourceError::from(refusal);
        (denied, error.may_pass(), error.detail)
    }

    #[test]
    fn a_refusal_says_what_the_vault_says_and_whether_it_may_pass() {
        let role = told(400, r#"{"errors":["role \"x\" could not be found"]}"#);
        assert_eq!(
            role,
            (false, false, r#"the vault answered 400 at `secret/data/app`: role "x" could not be found"#.to_owned())
        );
        let denied = told(403, "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}");
        assert!(denied.0 && !denied.1 && denied.2.ends_with("1 error occurred: * permission denied"), "{denied:?}");
        assert!(told(404, r#"{"errors":[]}"#).2.ends_with("there is nothing"));
        assert!(told(404, r#"{"data":{"data":null}}"#).2.ends_with("there is nothing"));
        for passing in [412, 472, 473] {
            assert!(told(passing, "").1, "{passing}");
        }
        assert!(told(400, "<html>").2.ends_with("it does not say why"));
        assert!(!told(400, r#"{"errors":["bad token eyJh.eyJi.c"]}"#).2.contains("eyJ"));
    }

    #[test]
    fn a_field_is_a_text_or_nothing_that_is_kept() {
        let body = r#"{"a":"text","b":1,"c":-1,"d":1.5,"e":true,"f":null,"g":["x"],"h":{"i":"y"}}"#;
        let fields: BTreeMap<String, Field> = serde_json::from_str(body).unwrap();
        assert!(matches!(&fields["a"], Field::Text(text) if text.expose() == "text"));
        assert_eq!(fields.values().filter(|field| matches!(field, Field::Other)).count(), 7);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_not_quoted() {
        let error = SourceError::from(parsed::<Field>(br#"{"data": hunter2"#, "secret/data/app").err().unwrap());
        assert_eq!((error.code, error.may_pass()), (SourceError::UNREADABLE, false));
        assert!(!error.detail.contains("hunter2"));
    }
}
