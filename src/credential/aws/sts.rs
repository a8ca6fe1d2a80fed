//! AWS Security Token Service: its two ways of assuming a role (AWS STS API reference, version 2011-06-15).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::{Clock, Timestamp};
use crate::credential::exchange::{said, send};
use crate::credential::sigv4::{AwsKeys, ClockSkew, Payload, RequestSignature, SigningScope};
use crate::credential::{Form, SourceError};
use crate::hex::hex;
use crate::outbound::OutboundClient;
use crate::secret::Secret;

/// An STS endpoint.
#[derive(Clone, Debug)]
pub struct Sts {
    /// Its URL.
    pub url: Arc<str>,
    /// Region that requests to it are signed for.
    pub region: Arc<str>,
    /// How to reach it.
    pub client: OutboundClient,
    /// Time.
    pub clock: Clock,
}

/// A role session, as STS gave it.
#[derive(Clone, Debug)]
pub struct AssumedRole {
    /// Its keys.
    pub keys: AwsKeys,
    /// When they end.
    pub expires_at: Timestamp,
    /// Share of the allowed size that the session policy and tags take, in percent.
    pub packed_policy_size: Option<u32>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "AssumeRoleWithWebIdentityResult", alias = "AssumeRoleResult")]
    result: AnswerResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AnswerResult {
    credentials: AnswerCredentials,
    packed_policy_size: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AnswerCredentials {
    access_key_id: String,
    secret_access_key: Secret,
    session_token: Secret,
    expiration: String,
}

/// `ErrorResponse` around `Error`, or `Error` alone: not all servers wrap it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Refusal {
    error: Option<Box<Self>>,
    code: Option<String>,
    message: Option<String>,
}

impl Sts {
    /// Sends one form, signed where `keys` are given, by the clock of the service as far as `skew` knows it.
    ///
    /// # Errors
    /// [`SourceError`], with the code and the message of the service.
    pub async fn assume(
        &self,
        form: Form,
        keys: Option<&AwsKeys>,
        skew: &Arc<ClockSkew>,
    ) -> Result<AssumedRole, SourceError> {
        let refused = |detail: String| SourceError::lasting(SourceError::REFUSED, detail);
        let body = form.bytes();
        let request = Request::post(&*self.url)
            .header(ACCEPT, HeaderValue::from_static("application/xml"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"))
            .body(body);
        let mut request = request.map_err(|_| refused("the endpoint of STS is no URL".to_owned()))?;
        if let Some(keys) = keys {
            self.sign(&mut request, keys, skew.clone())?;
        }
        let asked_at = self.clock.now();
        let answer = send(&self.client, request).await?;
        if answer.status() != StatusCode::OK {
            let (code, refusal) = refusal(answer.status(), answer.body());
            let corrected = keys.is_some() && skew.is_corrected(Some(&code), answer.headers(), self.clock.now());
            return Err(if corrected { SourceError::passing(refusal.code, refusal.detail) } else { refusal });
        }
        read(answer.body(), asked_at)
    }

    fn sign(&self, request: &mut Request<Bytes>, keys: &AwsKeys, skew: Arc<ClockSkew>) -> Result<(), SourceError> {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, request.body());
        let signature = RequestSignature {
            keys: keys.clone(),
            scope: SigningScope { service: "sts".into(), region: self.region.clone() },
            payload: Payload::Hash(hex(hash.as_ref()).into()),
            skew,
        };
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let signed = signature.apply(request, &authority, self.clock.now());
        signed.map_err(|error| SourceError::lasting(SourceError::REFUSED, error.to_string()))
    }
}

fn read(body: &[u8], asked_at: Timestamp) -> Result<AssumedRole, SourceError> {
    let unreadable = |detail: &str| SourceError::lasting(SourceError::UNREADABLE, detail);
    let text = std::str::from_utf8(body).map_err(|_| unreadable("the answer of STS is no text"))?;
    // The parser's own message would quote the answer, keys and all.
    let answer: Answer = quick_xml::de::from_str(text).map_err(|_| unreadable("the answer of STS holds no keys"))?;
    let credentials = answer.result.credentials;
    let expires_at = OffsetDateTime::parse(credentials.expiration.trim(), &Rfc3339);
    let expires_at = expires_at.map_err(|_| unreadable("the answer of STS does not say when its keys end"))?;
    let expires_at = Timestamp::from_unix_seconds(expires_at.unix_timestamp());
    let unprintable = |text: &str| text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic());
    let texts =
        [&*credentials.access_key_id, credentials.secret_access_key.expose(), credentials.session_token.expose()];
    if texts.into_iter().any(unprintable) {
        return Err(unreadable("the keys that STS gave are no keys"));
    }
    if expires_at <= asked_at {
        return Err(SourceError::ended_at_once());
    }
    Ok(AssumedRole {
        keys: AwsKeys {
            access_key_id: credentials.access_key_id.into(),
            secret_access_key: credentials.secret_access_key,
            session_token: Some(credentials.session_token),
        },
        expires_at,
        packed_policy_size: answer.result.packed_policy_size,
    })
}

/// The service's code, and what it is for whoever asked.
fn refusal(status: StatusCode, body: &[u8]) -> (String, SourceError) {
    let parsed: Option<Refusal> = std::str::from_utf8(body).ok().and_then(|text| quick_xml::de::from_str(text).ok());
    let refusal = parsed.map(|refusal| match refusal.error {
        Some(inner) => *inner,
        None => refusal,
    });
    let (code, message) = refusal.map(|refusal| (refusal.code, refusal.message)).unwrap_or_default();
    let code = code.unwrap_or_default();
    let detail = match (&*code, message.unwrap_or_default()) {
        ("", _) => "it does not say why".to_owned(),
        (code, message) if message.is_empty() => said(code),
        (code, message) => said(format!("{code}: {message}")),
    };
    let detail = format!("STS answered {}: {detail}", status.as_u16());
    let error = match &*code {
        // The issuer's documents could not be fetched just now; and what throttles says so with 400.
        "IDPCommunicationError" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" => {
            SourceError::passing(SourceError::UNAVAILABLE, detail)
        }
        _ => SourceError::lasting(SourceError::REFUSED, detail),
    };
    (code, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000)
    }

    fn answer(of: &str, expiration: &str) -> String {
        format!(
            r#"<{of}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{of}Result><Credentials>
            <AccessKeyId>ASIAX</AccessKeyId><SecretAccessKey>s/+=</SecretAccessKey><SessionToken>t&amp;==</SessionToken>
            <Expiration>{expiration}</Expiration></Credentials><PackedPolicySize>6</PackedPolicySize>
            <AssumedRoleUser><Arn>arn</Arn></AssumedRoleUser></{of}Result><ResponseMetadata/></{of}Response>"#
        )
    }

    #[test]
    fn keys_are_read_from_either_answer() {
        for of in ["AssumeRoleWithWebIdentity", "AssumeRole"] {
            let role = read(answer(of, "2027-01-15T08:15:00Z").as_bytes(), now()).unwrap();
            assert_eq!(&*role.keys.access_key_id, "ASIAX");
            assert_eq!(role.keys.secret_access_key.expose(), "s/+=");
            assert_eq!(role.keys.session_token.unwrap().expose(), "t&==");
            assert_eq!(role.expires_at.since(now()).as_secs(), 900);
            assert_eq!(role.packed_policy_size, Some(6));
        }
        let ended = read(answer("AssumeRole", "2027-01-15T08:00:00Z").as_bytes(), now());
        assert!(ended.is_err_and(|error| error.code == SourceError::UNREADABLE));
        for bad in ["", "<a/>", "<html>", &answer("AssumeRole", "soon"), &answer("Other", "2027-01-15T08:15:00Z")] {
            let error = read(bad.as_bytes(), now()).unwrap_err();
            assert!(error.code == SourceError::UNREADABLE && !error.to_string().contains("s/+="), "{error}");
        }
    }

    #[test]
    fn a_refusal_is_told_as_the_service_says_it() {
        let wrapped = r#"<ErrorResponse xmlns="x"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized</Message></Error><RequestId>1</RequestId></ErrorResponse>"#;
        let (code, error) = refusal(StatusCode::FORBIDDEN, wrapped.as_bytes());
        assert_eq!(code, "AccessDenied");
        assert_eq!(
            (error.to_string(), error.may_pass()),
            ("STS answered 403: AccessDenied: Not authorized".to_owned(), false)
        );
        let bare = b"<?xml version=\"1.0\"?><Error><Code>IDPCommunicationError</Code></Error>";
        let (_, error) = refusal(StatusCode::BAD_REQUEST, bare);
        assert_eq!((error.to_string(), error.may_pass()), ("STS answered 400: IDPCommunicationError".to_owned(), true));
        assert!(refusal(StatusCode::FORBIDDEN, b"no").1.to_string().ends_with("it does not say why"));
    }
}
