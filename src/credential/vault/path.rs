//! Paths below a vault, and what of a request may stand in them.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::{Ask, CredentialError, Template};

/// Longest path, bytes.
const LONGEST_PATH: usize = 1024;
/// Unreserved characters (RFC 3986 section 2.3) and the slash stay as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Whether a value of a request may hold `character`: nothing that parts, escapes or globs.
pub(super) fn fits_segment(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '@' | ':' | '|')
}

/// Whether `path` is one or more plain segments between slashes, and none leads elsewhere.
#[must_use]
pub fn is_vault_path(path: &str) -> bool {
    let segment = |segment: &str| {
        !segment.is_empty() && segment != "." && !segment.contains("..") && segment.chars().all(fits_segment)
    };
    path.len() <= LONGEST_PATH && path.split('/').all(segment)
}

/// The path for a request.
///
/// # Errors
/// [`CredentialError`] when a value of the request is absent, or would lead elsewhere.
pub(super) fn filled(template: &Template, ask: &Ask<'_>) -> Result<Arc<str>, CredentialError> {
    let path = template.fill(ask, fits_segment)?;
    if !is_vault_path(&path) {
        return Err(CredentialError::unfit("a value of the request leads to another path of the vault, or to none"));
    }
    Ok(path)
}

/// The path as a URL has it.
pub(super) fn encoded(path: &str) -> String {
    utf8_percent_encode(path, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::credential::testing::{Asked, Caller};

    #[test]
    fn a_path_is_plain_segments_and_none_leads_elsewhere() {
        for good in ["app", "apps/billing-1/db_key.v2", "users/okta|ada@example.com", "a.b"] {
            assert!(is_vault_path(good), "{good}");
        }
        let long = "x".repeat(LONGEST_PATH + 1);
        let bad = ["", "/", "/app", "app/", "a//b", ".", "..", "a/../b", "a/./b", "a..b", "a b", "a%2Fb", "a?b", "a#b"];
        for bad in bad.into_iter().chain(["a\\b", "a*", "a+", "ä", "a\n", &long]) {
            assert!(!is_vault_path(bad), "{bad}");
        }
    }

    #[test]
    fn a_url_holds_no_character_that_means_something_there() {
        assert_eq!(encoded("users/okta|ada@a.b:c-d_e"), "users/okta%7Cada%40a.b%3Ac-d_e");
    }

    proptest! {
        #[test]
        fn no_value_of_a_request_leaves_its_segment(value in r"[a-z./%\\0-9:|]{0,12}") {
            let mut asked = Asked::of(Caller::default().grant());
            asked.parameters = [("app", value.as_str())].into_iter().collect();
            for text in ["apps/{{path.app}}/key", "apps/{{path.app}}", "a{{path.app}}b/c"] {
                let template = Template::parse(text).unwrap();
                if let Ok(path) = filled(&template, &asked.at(Timestamp::default())) {
                    let segments = |path: &str| path.split('/').count();
                    prop_assert_eq!(segments(&path), segments(text));
                    prop_assert!(path.split('/').all(|segment| !segment.is_empty() && segment != "." && segment != ".."));
                    prop_assert!(!encoded(&path).to_lowercase().contains("%2f"));
                }
            }
        }
    }
}
