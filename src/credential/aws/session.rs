//! How a role session is named, so that a CloudTrail record leads back to a person.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::hex::hex;

/// Longest `RoleSessionName` and `SourceIdentity`.
const LONGEST: usize = 64;
const SHORTEST: usize = 2;
/// Hexadecimal digits of the digest behind a name that had to be changed.
const TAIL: usize = 16;

/// What AWS takes in both names: `[\w+=,.@-]`.
fn fits(character: char) -> bool {
    character.is_ascii_alphanumeric() || "_+=,.@-".contains(character)
}

/// `text` as a session's name: as it is where it fits, and else with `-` for what does not and a digest of the whole
/// behind it, so that two texts never have one name.
pub(super) fn session_name(text: &str) -> Arc<str> {
    let sound = text.len() <= LONGEST && text.len() >= SHORTEST && text.chars().all(fits);
    // A text that looks like a changed one is changed itself, or somebody could be named as another.
    let looks_changed = text.rsplit_once('-').is_some_and(|(_, tail)| {
        tail.len() == TAIL && tail.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    if sound && !looks_changed {
        return text.into();
    }
    let mut name: String =
        text.chars().take(LONGEST - TAIL - 1).map(|character| if fits(character) { character } else { '-' }).collect();
    let digest = hex(digest(&SHA256, text.as_bytes()).as_ref());
    name.push('-');
    name.push_str(digest.get(..TAIL).unwrap_or_default());
    name.into()
}

/// Whether a session tag takes the character (AWS STS API reference, `Tag`): letters, digits, spaces and `_.:/=+-@`.
pub(super) fn fits_tag(character: char) -> bool {
    character.is_alphanumeric() || character == ' ' || "_.:/=+-@".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_fits_stays_and_every_other_is_told_apart() {
        assert_eq!(&*session_name("alice@example.com"), "alice@example.com");
        let changed = session_name("okta|alice@example.com");
        assert!(changed.starts_with("okta-alice@example.com-") && changed.len() == 39, "{changed}");
        let names: Vec<Arc<str>> =
            ["okta|a b", "okta|a-b", "okta-a-b", "okta/a/b", "", "x", &"a".repeat(65), &"é".repeat(80)]
                .iter()
                .map(|text| session_name(text))
                .collect();
        for (place, name) in names.iter().enumerate() {
            assert!((SHORTEST..=LONGEST).contains(&name.len()) && name.chars().all(fits), "{name}");
            assert!(!names[..place].contains(name), "{name}");
        }
        assert_ne!(session_name(&changed), changed, "nobody takes the name that another was given");
    }
}
