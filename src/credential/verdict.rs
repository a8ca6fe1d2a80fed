//! What an upstream's refusal says of the credential that it was shown.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};

use super::Proof;
use super::sigv4::ClockSkew;
use crate::body::{Body, BoxError};
use crate::clock::Timestamp;

/// As much of a refusal's body is read as tells why: the services' own are shorter.
const LONGEST_REFUSAL: usize = 16 * 1024;

/// And as many pieces of it: empty ones count too.
const MOST_FRAMES: usize = 256;

/// What an answer says of the credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Good,
    /// It has expired: another may do.
    Expired,
    /// The clocks disagree, and now it is known by how much: signed again, it may do.
    ClockSkew,
    /// Keys or signature are not taken, whoever the caller is: a fault between Doorward and the service.
    Broken(Arc<str>),
    /// It is refused, for what the service calls so.
    Refused(Option<Arc<str>>),
}

impl Verdict {
    /// Whether the request, sent again, may do.
    #[must_use]
    pub fn asks_for_another(&self) -> bool {
        matches!(self, Self::Expired | Self::ClockSkew)
    }

    /// Whether it is about the credential itself rather than about what its holder may do.
    #[must_use]
    pub fn is_of_the_credential(&self) -> bool {
        self.asks_for_another() || matches!(self, Self::Broken(_))
    }

    /// What goes on record, where something was refused.
    #[must_use]
    pub fn into_refusal(self) -> Option<Arc<str>> {
        match self {
            Self::Good => None,
            Self::Expired => Some("expired".into()),
            Self::ClockSkew => Some("clock_skew".into()),
            Self::Broken(code) => Some(code),
            Self::Refused(code) => Some(code.unwrap_or_else(|| "refused".into())),
        }
    }
}

/// Reads what `answer` says, and gives it back whole. `skew` is that of whoever answered.
pub async fn judge(
    proof: &Proof,
    answer: Response<Body>,
    skew: &ClockSkew,
    now: Timestamp,
) -> (Verdict, Response<Body>) {
    match proof {
        Proof::Headers(_) => (of_token(answer.status(), answer.headers()), answer),
        // The handshake took it; what remains is whether its holder may do this.
        Proof::Certificate(_) => match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (Verdict::Refused(None), answer),
            _ => (Verdict::Good, answer),
        },
        Proof::AwsKeys(_) => {
            let refused = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
            if refused.contains(&answer.status()) {
                of_signature(answer, skew, now).await
            } else {
                (Verdict::Good, answer)
            }
        }
    }
}

/// RFC 6750 section 3.1.
fn of_token(status: StatusCode, headers: &HeaderMap) -> Verdict {
    let mut challenges = headers.get_all(WWW_AUTHENTICATE).iter();
    match status {
        StatusCode::UNAUTHORIZED
            if challenges.any(|value| value.to_str().is_ok_and(|text| text.contains("invalid_token"))) =>
        {
            Verdict::Expired
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Verdict::Refused(None),
        _ => Verdict::Good,
    }
}

async fn of_signature(answer: Response<Body>, skew: &ClockSkew, now: Timestamp) -> (Verdict, Response<Body>) {
    let (head, mut body) = answer.into_parts();
    let mut read = BytesMut::new();
    let mut frames: Vec<Result<http_body::Frame<Bytes>, BoxError>> = Vec::new();
    while read.len() < LONGEST_REFUSAL && frames.len() < MOST_FRAMES {
        let Some(frame) = body.frame().await else { break };
        if let Some(data) = frame.as_ref().ok().and_then(http_body::Frame::data_ref) {
            read.extend_from_slice(data);
        }
        frames.push(frame);
    }
    let code = error_code(&head.headers, &read);
    let skewed = skew.is_corrected(code.as_deref(), &head.headers, now);
    let verdict = match code.as_deref() {
        Some("ExpiredToken" | "ExpiredTokenException") => Verdict::Expired,
        _ if skewed => Verdict::ClockSkew,
        Some(code) if ABOUT_THE_CREDENTIAL.contains(&code) => Verdict::Broken(code.into()),
        // Much else is answered with 400 that has nothing to do with who asks.
        _ if head.status == StatusCode::BAD_REQUEST => Verdict::Good,
        code => Verdict::Refused(code.map(Arc::from)),
    };
    let rest =
        futures_util::stream::unfold(body, |mut body| async move { body.frame().await.map(|frame| (frame, body)) });
    let whole = StreamBody::new(futures_util::StreamExt::chain(futures_util::stream::iter(frames), rest));
    (verdict, Response::from_parts(head, whole.boxed_unsync()))
}

/// Codes that speak of the signature or the keys, whatever the caller's rights: what stands beside them may quote the
/// session token and all that was signed.
const ABOUT_THE_CREDENTIAL: [&str; 9] = [
    "InvalidToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "UnrecognizedClientException",
    "IncompleteSignatureException",
    "RequestTimeTooSkewed",
    "RequestExpired",
];

/// The service's code: of a JSON protocol in a header or in `__type`, of an XML one in `Code`.
fn error_code(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let code = header.or_else(|| {
        let text = std::str::from_utf8(body).ok()?;
        let between = |text: &str, before: &str, after: char| {
            let (_, rest) = text.split_once(before)?;
            rest.split(after).next().map(str::to_owned)
        };
        between(text, "<Code>", '<').or_else(|| {
            let value: serde_json::Value = serde_json::from_str(text).ok()?;
            Some(value.get("__type").or_else(|| value.get("code"))?.as_str()?.to_owned())
        })
    })?;
    // `com.amazonaws.dynamodb.v20120810#ExpiredTokenException`, `ExpiredTokenException:http://…`.
    let code = code.rsplit('#').next()?.split(':').next()?.trim();
    let sound =
        !code.is_empty() && code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    sound.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;
    use crate::credential::{AwsKeys, AwsSigner, BodyMemory};
    use crate::secret::Secret;

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000)
    }

    fn signer() -> Proof {
        Proof::AwsKeys(Arc::new(AwsSigner {
            keys: AwsKeys { access_key_id: "AK".into(), secret_access_key: Secret::new("s"), session_token: None },
            services: Arc::from([]),
            regions: Arc::from([]),
            widening_headers: false,
            signed_body_bytes: 0,
            memory: BodyMemory::default(),
        }))
    }

    async fn verdict(proof: &Proof, status: u16, headers: &[(&'static str, &str)], text: &str) -> Verdict {
        judged(proof, &ClockSkew::default(), (status, headers, text)).await
    }

    async fn judged(
        proof: &Proof,
        skew: &ClockSkew,
        (status, headers, text): (u16, &[(&'static str, &str)], &str),
    ) -> Verdict {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let (verdict, answer) = judge(proof, answer.body(body::full(text.to_owned())).unwrap(), skew, now()).await;
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), text, "the answer stays whole");
        verdict
    }

    fn refused(code: &str) -> Verdict {
        Verdict::Refused(Some(code.into()))
    }

    #[tokio::test]
    async fn a_tokens_refusal_is_read_from_its_challenge() {
        let token = Proof::nothing();
        let challenge = [("www-authenticate", r#"Bearer error="invalid_token""#)];
        assert_eq!(verdict(&token, 401, &challenge, "").await, Verdict::Expired);
        assert_eq!(verdict(&token, 403, &challenge, "").await, Verdict::Refused(None));
        assert_eq!(verdict(&token, 401, &[], "").await, Verdict::Refused(None));
        assert_eq!(verdict(&token, 200, &challenge, "").await, Verdict::Good);
    }

    #[tokio::test]
    async fn a_signatures_refusal_is_read_in_each_protocol() {
        let xml = |code: &str| format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>");
        let json = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ExpiredTokenException","message":"m"}"#;
        assert_eq!(verdict(&signer(), 400, &[], &xml("ExpiredToken")).await, Verdict::Expired);
        assert_eq!(verdict(&signer(), 400, &[], json).await, Verdict::Expired);
        let header = [("x-amzn-errortype", "ExpiredTokenException:http://internal")];
        assert_eq!(verdict(&signer(), 403, &header, "").await, Verdict::Expired);
        assert_eq!(verdict(&signer(), 403, &[], &xml("AccessDenied")).await, refused("AccessDenied"));
        assert_eq!(verdict(&signer(), 400, &[], &xml("InvalidToken")).await, Verdict::Broken("InvalidToken".into()));
        assert_eq!(
            verdict(&signer(), 403, &[], &xml("SignatureDoesNotMatch")).await,
            Verdict::Broken("SignatureDoesNotMatch".into())
        );
        assert_eq!(
            verdict(&signer(), 403, &[], &xml("RequestExpired")).await,
            Verdict::Broken("RequestExpired".into()),
            "no clock explains it"
        );
        assert_eq!(verdict(&signer(), 403, &[], "").await, Verdict::Refused(None));
        assert_eq!(verdict(&signer(), 403, &[], &"<Code>".repeat(10_000)).await, Verdict::Refused(None));
        assert_eq!(verdict(&signer(), 400, &[], &xml("NoSuchUpload")).await, Verdict::Good);
        assert_eq!(verdict(&signer(), 404, &[], &xml("ExpiredToken")).await, Verdict::Good);
    }

    #[tokio::test]
    async fn clocks_that_disagree_are_followed_once() {
        let (proof, skew) = (signer(), ClockSkew::default());
        let date = [("date", "Fri, 15 Jan 2027 08:20:00 GMT")];
        let late = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
        let other = "<Error><Code>AccessDenied</Code></Error>";
        let of = async |text| judged(&proof, &skew, (403, &date, text)).await;
        assert_eq!(of(other).await, refused("AccessDenied"), "no reason to look at a clock");
        assert_eq!(of(late).await, Verdict::ClockSkew);
        assert_eq!(skew.applied(now()).since(now()).as_secs(), 1200);
        assert_eq!(of(late).await, Verdict::Broken("RequestTimeTooSkewed".into()), "known already");
    }
}
