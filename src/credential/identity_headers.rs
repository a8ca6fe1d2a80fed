//! Plain identity headers, for upstreams that cannot verify a JWT.
//!
//! A value is one line of printable ASCII. Everything else, and `%` and `,` themselves, is percent-encoded UTF-8, so that
//! no value can look like two and decoding gives back exactly what the issuer said.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderName, HeaderValue};

use super::caller_cache::{Caller, CallerCache};
use super::{CredentialError, SettingsError, settable};
use crate::policy::Grant;
use crate::route::IdentityHeaders;

/// Most bytes of one header's value.
pub const MOST_VALUE_BYTES: usize = 4096;

/// Headers and their values, to be set on a request.
pub type HeaderLines = Arc<[(HeaderName, HeaderValue)]>;

/// Lines in use, for every route.
pub type IdentityHeaderCache = CallerCache<HeaderLines>;

/// Builds one route's identity headers.
#[derive(Clone, Debug)]
pub struct PlainIdentity {
    names: IdentityHeaders,
    cache: IdentityHeaderCache,
    profile: [u8; 32],
}

impl PlainIdentity {
    /// Headers by these names.
    ///
    /// # Errors
    /// [`SettingsError`] for a name that frames messages, or one that stands for two things.
    pub fn new(names: IdentityHeaders, cache: IdentityHeaderCache) -> Result<Self, SettingsError> {
        let parts = format!("identity_headers {names:?}");
        let mut profile = [0; 32];
        profile.copy_from_slice(digest(&SHA256, parts.as_bytes()).as_ref());
        let identity = Self { names, cache, profile };
        let mut seen = Vec::new();
        for name in identity.headers() {
            settable(&name)?;
            if seen.contains(&name) {
                return Err(SettingsError::Twice { header: name });
            }
            seen.push(name);
        }
        Ok(identity)
    }

    /// Names of every header that it may set: removed from what the caller sent.
    #[must_use]
    pub fn headers(&self) -> Vec<HeaderName> {
        let IdentityHeaders { subject, issuer, email, groups, roles } = &self.names;
        [subject, issuer, email, groups, roles].into_iter().flatten().cloned().collect()
    }

    /// The headers about `grant`'s principal; what the principal does not have is left out.
    ///
    /// # Errors
    /// [`CredentialError`] with code `principal_too_large`.
    pub fn lines(&self, grant: &Grant) -> Result<HeaderLines, CredentialError> {
        let caller = Caller { profile: self.profile, grant };
        if let Some(lines) = self.cache.entries().get(&caller) {
            return Ok(lines);
        }
        let lines = self.build(grant)?;
        self.cache.entries().insert(caller.key(), lines.clone());
        Ok(lines)
    }

    fn build(&self, grant: &Grant) -> Result<HeaderLines, CredentialError> {
        let principal = grant.principal();
        let roles = grant.roles().iter().map(|held| &*held.role);
        let values = [
            (&self.names.subject, encoded([&*principal.subject])),
            (&self.names.issuer, encoded([&*principal.issuer])),
            (&self.names.email, encoded(principal.email.as_deref())),
            (&self.names.groups, encoded(principal.groups.iter().map(String::as_str))),
            (&self.names.roles, encoded(roles)),
        ];
        let mut lines = Vec::with_capacity(values.len());
        for (name, value) in values {
            let Some(name) = name else { continue };
            let too_large = || CredentialError {
                name: "identity_headers".into(),
                code: CredentialError::PRINCIPAL_TOO_LARGE,
                detail: format!("header `{name}` would take more than {MOST_VALUE_BYTES} bytes"),
                claims: None,
            };
            let value = value.ok_or_else(too_large)?;
            if value.is_empty() {
                continue;
            }
            let mut value = HeaderValue::try_from(value).map_err(|_| too_large())?;
            value.set_sensitive(true);
            lines.push((name.clone(), value));
        }
        Ok(lines.into())
    }
}

/// The items, each encoded, with `,` between; `None` past [`MOST_VALUE_BYTES`].
fn encoded<'a>(items: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut value = String::new();
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            value.push(',');
        }
        let last = item.len().saturating_sub(1);
        for (position, byte) in item.bytes().enumerate() {
            match byte {
                // A space at either end would be lost on the way.
                b' ' if position != 0 && position != last => value.push(' '),
                b'!'..=b'~' if byte != b'%' && byte != b',' => value.push(char::from(byte)),
                _ => {
                    value.push('%');
                    for nibble in [byte >> 4, byte & 15] {
                        value.push(char::from_digit(nibble.into(), 16)?.to_ascii_uppercase());
                    }
                }
            }
            if value.len() > MOST_VALUE_BYTES {
                return None;
            }
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;
    use crate::credential::testing::Caller;

    fn names() -> IdentityHeaders {
        IdentityHeaders {
            subject: Some(HeaderName::from_static("x-doorward-subject")),
            issuer: Some(HeaderName::from_static("x-doorward-issuer")),
            email: Some(HeaderName::from_static("x-doorward-email")),
            groups: Some(HeaderName::from_static("x-doorward-groups")),
            roles: Some(HeaderName::from_static("x-doorward-roles")),
        }
    }

    fn lines(caller: &Caller) -> Result<Vec<(String, String)>, CredentialError> {
        let identity = PlainIdentity::new(names(), IdentityHeaderCache::new(1 << 20)).unwrap();
        let lines = identity.lines(&caller.grant())?;
        assert!(lines.iter().all(|(_, value)| value.is_sensitive()));
        Ok(lines.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect())
    }

    #[test]
    fn an_upstream_reads_who_is_calling() {
        let expected = [
            ("x-doorward-subject", "ada"),
            ("x-doorward-issuer", "okta"),
            ("x-doorward-email", "ada@example.com"),
            ("x-doorward-groups", "finance,Staff%2C all"),
            ("x-doorward-roles", "billing-admin,reader"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(lines(&Caller::default()).unwrap(), expected);
    }

    #[test]
    fn what_the_caller_does_not_have_is_left_out() {
        let caller = Caller { email: None, groups: Vec::new(), roles: Vec::new(), ..Caller::default() };
        let names: Vec<_> = lines(&caller).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["x-doorward-subject", "x-doorward-issuer"]);
    }

    #[test]
    fn a_value_cannot_break_its_line_or_pass_for_two() {
        let hostile = "a\r\nX-Admin: 1\0,b%2C\u{85}é ";
        let caller = Caller { groups: vec![hostile.to_owned()], ..Caller::default() };
        let lines = lines(&caller).unwrap();
        let (_, value) = lines.iter().find(|(name, _)| name == "x-doorward-groups").unwrap();
        assert_eq!(value, "a%0D%0AX-Admin: 1%00%2Cb%252C%C2%85%C3%A9%20");
    }

    #[test]
    fn a_value_that_is_too_large_is_refused_rather_than_cut() {
        let caller =
            Caller { groups: (0..1000).map(|number| format!("group-{number}")).collect(), ..Caller::default() };
        assert_eq!(lines(&caller).unwrap_err().code, "principal_too_large");
    }

    #[test]
    fn other_roles_get_other_lines_from_the_same_cache() {
        let identity = PlainIdentity::new(names(), IdentityHeaderCache::new(1 << 20)).unwrap();
        let caller = Caller::default();
        let first = identity.lines(&caller.grant()).unwrap();
        assert!(Arc::ptr_eq(&first, &identity.lines(&caller.grant()).unwrap()));
        let fewer = Caller { roles: vec!["reader"], ..caller };
        let lines = identity.lines(&fewer.grant()).unwrap();
        assert_eq!(lines.last().unwrap().1, "reader");
    }

    #[test]
    fn the_same_evidence_read_by_another_configuration_gets_other_lines() {
        let identity = PlainIdentity::new(names(), IdentityHeaderCache::new(1 << 20)).unwrap();
        let caller = Caller::default();
        let before = identity.lines(&caller.grant()).unwrap();
        for read_anew in
            [Caller { groups: vec!["staff".to_owned()], ..caller.clone() }, Caller { email: None, ..caller.clone() }]
        {
            assert_ne!(before, identity.lines(&read_anew.grant()).unwrap());
        }
        assert!(Arc::ptr_eq(&before, &identity.lines(&caller.grant()).unwrap()));
    }

    #[test]
    fn one_name_cannot_stand_for_two_things_or_frame_a_message() {
        let double = IdentityHeaders { email: names().subject, ..names() };
        let new = |names| PlainIdentity::new(names, IdentityHeaderCache::new(1 << 20)).unwrap_err();
        assert!(matches!(new(double), SettingsError::Twice { .. }));
        let framing = IdentityHeaders { email: Some(http::header::TRANSFER_ENCODING), ..names() };
        assert!(matches!(new(framing), SettingsError::Header { .. }));
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_the_issuer_said(items in proptest::collection::vec("(?s).{1,20}", 1..6)) {
            let value = encoded(items.iter().map(String::as_str)).unwrap();
            prop_assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert_eq!(value.trim(), &value);
            let decoded: Vec<_> =
                value.split(',').map(|item| percent_decode_str(item).decode_utf8().unwrap().into_owned()).collect();
            prop_assert_eq!(decoded, items);
        }
    }
}
