//! Service and region of a signature: what the caller's own, worthless signature names, where that is allowed.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::payload::SigningError;

/// What a signature holds for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningScope {
    /// Service, as signatures name it: `s3`, `dynamodb`.
    pub service: Arc<str>,
    /// Region, such as `eu-central-1`.
    pub region: Arc<str>,
}

impl SigningScope {
    /// Whether the S3 rules hold: paths are encoded once, and a body need not be hashed.
    #[must_use]
    pub fn is_s3(&self) -> bool {
        matches!(&*self.service, "s3" | "s3-object-lambda" | "s3express" | "s3-outposts")
    }

    /// What a request is to be signed for: as an SDK with placeholder keys signed it, and else the first of each.
    ///
    /// # Errors
    /// [`SigningError::Scope`] when the caller's signature names a service or a region that is not allowed, or cannot
    /// be read.
    pub fn of(headers: &HeaderMap, services: &[Arc<str>], regions: &[Arc<str>]) -> Result<Self, SigningError> {
        let signature = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).filter(|text| is_signature(text));
        let stated = match signature {
            Some(text) => Some(stated(text).ok_or(SigningError::Scope)?),
            None => None,
        };
        let choose = |stated: Option<&str>, allowed: &[Arc<str>]| {
            let mut allowed = allowed.iter();
            let found = match stated {
                Some(stated) => allowed.find(|allowed| ***allowed == *stated),
                None => allowed.next(),
            };
            found.cloned().ok_or(SigningError::Scope)
        };
        Ok(Self {
            service: choose(stated.map(|(_, service)| service), services)?,
            region: choose(stated.map(|(region, _)| region), regions)?,
        })
    }
}

/// Whether it is a signature of AWS, of whatever version.
fn is_signature(authorization: &[u8]) -> bool {
    authorization.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"AWS4"))
}

/// Region and service of a signature's `Credential=KEY/DATE/REGION/SERVICE/aws4_request`.
fn stated(authorization: &[u8]) -> Option<(&str, &str)> {
    let rest = std::str::from_utf8(authorization).ok()?.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let credential = rest.split(',').find_map(|part| part.trim().strip_prefix("Credential="))?;
    let mut parts = credential.rsplit('/');
    let (_, service, region) = (parts.next().filter(|end| *end == "aws4_request")?, parts.next()?, parts.next()?);
    Some((region, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(authorization: Option<&str>) -> Result<SigningScope, SigningError> {
        let mut headers = HeaderMap::new();
        if let Some(text) = authorization {
            headers.insert(AUTHORIZATION, text.parse().unwrap());
        }
        SigningScope::of(&headers, &["s3".into(), "sqs".into()], &["eu-central-1".into(), "us-east-1".into()])
    }

    #[test]
    fn an_sdk_chooses_among_what_is_allowed_and_nobody_else_has_to() {
        let found = |text: Option<&str>| scope(text).map(|scope| (scope.service.to_string(), scope.region.to_string()));
        let first = ("s3".to_owned(), "eu-central-1".to_owned());
        assert_eq!(found(None).unwrap(), first);
        assert_eq!(found(Some("Bearer eyJ")).unwrap(), first);
        let by_sdk = |scope: &str| {
            let names = "SignedHeaders=host, Signature=00";
            found(Some(&format!("AWS4-HMAC-SHA256 Credential=AK/20261125/{scope}/aws4_request, {names}")))
        };
        assert_eq!(by_sdk("us-east-1/sqs").unwrap(), ("sqs".to_owned(), "us-east-1".to_owned()));
        assert!(matches!(by_sdk("us-east-1/iam"), Err(SigningError::Scope)));
        assert!(matches!(by_sdk("us-west-2/s3"), Err(SigningError::Scope)));
        for unread in [
            "AWS4-HMAC-SHA256 Credential=AK/20261125/us-east-1/sqs",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 Signature=00",
            "AWS4-ECDSA-P256-SHA256 Credential=AK/20261125/sqs/aws4_request",
            "aws4-hmac-sha256 Credential=AK/20261125/us-east-1/sqs/aws4_request",
        ] {
            assert!(matches!(found(Some(unread)), Err(SigningError::Scope)), "{unread}");
        }
    }
}
