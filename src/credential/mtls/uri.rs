//! The URI that names a certificate's holder: a template in which no two principals have the same.

use std::sync::Arc;

use crate::credential::{Ask, CredentialError, Template, Variable};

/// Longest URI, bytes (SPIFFE ID section 2.3).
pub const LONGEST_URI: usize = 2048;

/// Stands for a variable where only the text around it counts: no URI holds it.
const MARK: char = '\u{1}';

/// A URI with values of the request in it, each percent-encoded within a path segment of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriTemplate(Template);

/// Why a template names no holders of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriTemplateError {
    /// Not `SCHEME://AUTHORITY/PATH` with fixed scheme and authority.
    #[error("it must be a URI whose scheme and domain are fixed, with a path")]
    Form,
    /// Two variables in one segment could say the same in two ways.
    #[error("a segment of its path holds two variables, so that two callers could have the same URI")]
    Segment,
    /// Two principals would have the same.
    #[error("it does not name the principal, so that two callers could have the same URI")]
    Shared,
}

impl UriTemplate {
    /// Takes a template if every principal has a URI of its own by it.
    ///
    /// # Errors
    /// [`UriTemplateError`].
    pub fn new(template: Template) -> Result<Self, UriTemplateError> {
        let marked = template.with(|_| MARK.to_string());
        let (scheme, rest) = marked.split_once("://").ok_or(UriTemplateError::Form)?;
        let (authority, path) = rest.split_once('/').ok_or(UriTemplateError::Form)?;
        let in_path = |byte: u8| byte == 1 || byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte);
        let in_authority = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:".contains(&byte);
        let in_scheme = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
        let begins = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let segments = || path.split('/');
        let sound = begins && scheme.bytes().all(in_scheme) && !authority.is_empty() && authority.bytes().all(in_authority)
            // An empty segment or one of dots is read away by some.
            && segments().all(|segment| !matches!(segment, "" | "." | ".."))
            && path.bytes().all(in_path)
            && marked.len() <= LONGEST_URI;
        if !sound {
            return Err(UriTemplateError::Form);
        }
        if segments().any(|segment| segment.chars().filter(|character| *character == MARK).count() > 1) {
            return Err(UriTemplateError::Segment);
        }
        let names = |wanted: &Variable| template.variables().any(|variable| variable == wanted);
        let names_principal = names(&Variable::PrincipalId) || (names(&Variable::Issuer) && names(&Variable::Subject));
        if !names_principal {
            return Err(UriTemplateError::Shared);
        }
        Ok(Self(template))
    }

    /// The URI for a request.
    ///
    /// # Errors
    /// [`CredentialError`] for a value that is absent or too long.
    pub fn fill(&self, ask: &Ask<'_>) -> Result<Arc<str>, CredentialError> {
        let uri = self.0.fill_with(ask, |_| true, |value| segment(&value))?;
        if uri.len() > LONGEST_URI {
            return Err(CredentialError::unfit(format!("the certificate's URI is longer than {LONGEST_URI} bytes")));
        }
        Ok(uri)
    }

    /// What it is made of.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.0
    }

    /// What it may look like, for trying an authority out.
    #[must_use]
    pub fn sample(&self) -> String {
        self.0.with(|_| "x".to_owned())
    }
}

/// A value as part of a path segment: letters, digits, `-`, `_` and inner dots as they are, every other byte as `%XX`.
/// Two values are never written alike, and none is a segment that is read away.
fn segment(value: &str) -> String {
    let dots = value.bytes().all(|byte| byte == b'.');
    let mut written = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && !dots) {
            written.push(char::from(byte));
        } else {
            written.push_str(&format!("%{byte:02X}"));
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<UriTemplate, UriTemplateError> {
        UriTemplate::new(Template::parse(text).unwrap())
    }

    #[test]
    fn a_uri_has_a_fixed_domain_and_names_the_principal_in_segments_of_its_own() {
        for good in [
            "spiffe://acme.example/{{environment}}/{{principal.issuer}}/{{principal.subject}}",
            "spiffe://acme.example/u/{{principal.id}}",
            "https://acme.example:8443/team-{{claim.team}}/{{principal.issuer}}/u:{{principal.subject}}",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, fault) in [
            ("{{principal.id}}", UriTemplateError::Form),
            ("spiffe://{{principal.issuer}}/{{principal.subject}}", UriTemplateError::Form),
            ("spiffe://acme.example", UriTemplateError::Form),
            ("spiffe:///{{principal.id}}", UriTemplateError::Form),
            ("spiffe://acme.example//{{principal.id}}", UriTemplateError::Form),
            ("spiffe://acme.example/../{{principal.id}}", UriTemplateError::Form),
            ("spiffe://acme.example/{{principal.id}}/", UriTemplateError::Form),
            ("spiffe://acme.example/{{principal.id}}?a", UriTemplateError::Form),
            ("spiffe://acme.example/a%2fb/{{principal.id}}", UriTemplateError::Form),
            ("spiffe://acme.example/{{principal.issuer}}-{{principal.subject}}", UriTemplateError::Segment),
            ("spiffe://acme.example/{{environment}}", UriTemplateError::Shared),
            ("spiffe://acme.example/{{principal.subject}}", UriTemplateError::Shared),
            ("spiffe://acme.example/{{principal.email}}", UriTemplateError::Shared),
        ] {
            assert_eq!(parse(bad), Err(fault), "{bad}");
        }
    }

    #[test]
    fn a_value_stays_within_its_segment() {
        for (value, written) in [
            ("ada", "ada"),
            ("a/b", "a%2Fb"),
            ("..", "%2E%2E"),
            (".", "%2E"),
            ("a.b", "a.b"),
            ("auth0|7", "auth0%7C7"),
            ("a%2Fb", "a%252Fb"),
            ("é", "%C3%A9"),
            ("a\0?#", "a%00%3F%23"),
        ] {
            assert_eq!(segment(value), written);
        }
    }

    proptest! {
        #[test]
        fn no_two_values_are_written_alike(values in proptest::collection::vec("[a-b./%|]{1,3}", 2..50)) {
            let mut seen = HashMap::new();
            for value in values {
                let before = seen.insert(segment(&value), value.clone());
                prop_assert!(before.is_none_or(|before| before == value));
            }
        }
    }
}
