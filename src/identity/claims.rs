//! Claims: paths into nested ones, comparison, and reading them with the type that they must have.
//!
//! A claim of another type than expected is an error everywhere, never "absent".

use std::fmt;

use serde_json::{Map, Value};

use super::IdentityError;
use crate::clock::Timestamp;

/// Deepest claim path.
const SEGMENTS: usize = 16;

/// The last second of the year 9999: nothing later prints as RFC 3339, and no honest issuer writes it.
const LAST_SECOND: i64 = 253_402_300_799;

/// Where a claim stands: `a.b` is `b` within `a`; `\.` is a dot and `\\` a backslash of a name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimPath {
    text: String,
    segments: Vec<String>,
}

/// Why a claim path is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimPathError {
    /// Nothing before, between or after the dots.
    #[error("a name in the claim path is empty")]
    EmptyName,
    /// A backslash before anything but a dot or a backslash.
    #[error("a backslash in a claim path stands before `.` or `\\` only")]
    Escape,
    /// Too many names.
    #[error("a claim path has at most {SEGMENTS} names")]
    TooDeep,
}

impl ClaimPath {
    /// Reads a path.
    ///
    /// # Errors
    /// [`ClaimPathError`].
    pub fn parse(text: &str) -> Result<Self, ClaimPathError> {
        let mut segments = Vec::new();
        let mut segment = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some(escaped @ ('.' | '\\')) => segment.push(escaped),
                    _ => return Err(ClaimPathError::Escape),
                },
                '.' => segments.push(std::mem::take(&mut segment)),
                other => segment.push(other),
            }
        }
        segments.push(segment);
        if segments.iter().any(String::is_empty) {
            return Err(ClaimPathError::EmptyName);
        }
        if segments.len() > SEGMENTS {
            return Err(ClaimPathError::TooDeep);
        }
        Ok(Self { text: text.to_owned(), segments })
    }

    /// The claim in `claims`, if it is there. A path never looks into an array.
    #[must_use]
    pub fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (last, parents) = self.segments.split_last()?;
        let mut object = claims;
        for parent in parents {
            object = object.get(parent)?.as_object()?;
        }
        object.get(last)
    }

    /// The outermost claim's name.
    #[must_use]
    pub fn first(&self) -> &str {
        self.segments.first().map_or("", String::as_str)
    }

    /// The names, outermost first.
    #[must_use]
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClaimPath({})", self.text)
    }
}

/// Whether a claim holds one of `wanted`: itself, or one of its elements when it is an array. Types count: the text
/// `"123"` is not the number `123`.
#[must_use]
pub fn matches_any(claim: &Value, wanted: &[Value]) -> bool {
    wanted.contains(claim) || claim.as_array().is_some_and(|elements| elements.iter().any(|one| wanted.contains(one)))
}

/// A `NumericDate` (RFC 7519 section 2), rounded down to the second; `None` when absent.
///
/// # Errors
/// `claim_malformed` for anything but a number from 1970 to 9999.
pub fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, IdentityError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().or_else(|| value.as_f64().filter(|_| value.is_f64()).and_then(whole_seconds));
    match seconds {
        Some(seconds) if (0..=LAST_SECOND).contains(&seconds) => Ok(Some(Timestamp::from_unix_seconds(seconds))),
        _ => Err(malformed(name)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn whole_seconds(seconds: f64) -> Option<i64> {
    // As a float the bound is exact: it is below 2^53. NaN is in no range.
    (0.0..=LAST_SECOND as f64).contains(&seconds).then(|| seconds.floor() as i64)
}

/// A text claim; `None` when absent or null.
///
/// # Errors
/// `claim_malformed`.
pub fn text<'a>(claims: &'a Map<String, Value>, path: &ClaimPath) -> Result<Option<&'a str>, IdentityError> {
    match path.find(claims) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(|| malformed(path.as_str())),
    }
}

/// A claim that is an array of texts, or one text, which is one element however it reads; empty when absent or null.
///
/// # Errors
/// `claim_malformed`.
pub fn texts(claims: &Map<String, Value>, path: &ClaimPath) -> Result<Vec<String>, IdentityError> {
    match path.find(claims) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(value) => array_of_texts(value).ok_or_else(|| malformed(path.as_str())),
    }
}

/// The elements, when `value` is an array of texts.
pub(super) fn array_of_texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|element| element.as_str().map(str::to_owned)).collect()
}

/// A claim of the wrong type or range. `name` comes from the configuration or a standard, never from the token.
pub(super) fn malformed(name: &str) -> IdentityError {
    IdentityError::invalid("claim_malformed", format!("the claim `{name}` has a type or a value that it may not have"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn find(path: &str, claims: Value) -> Option<Value> {
        ClaimPath::parse(path).unwrap().find(&object(claims)).cloned()
    }

    #[test]
    fn a_dot_nests_and_an_escaped_dot_is_part_of_a_name() {
        let claims = json!({
            "kubernetes.io": { "serviceaccount": { "uid": "u1" } },
            "https://sts.amazonaws.com/": { "org_id": "o1" },
            "a.b": "flat", "a": { "b": "nested", "list": [{ "b": 1 }] }, "back\\slash": 7,
        });
        assert_eq!(find(r"kubernetes\.io.serviceaccount.uid", claims.clone()), Some(json!("u1")));
        assert_eq!(find(r"https://sts\.amazonaws\.com/.org_id", claims.clone()), Some(json!("o1")));
        assert_eq!(find(r"a\.b", claims.clone()), Some(json!("flat")));
        assert_eq!(find("a.b", claims.clone()), Some(json!("nested")));
        assert_eq!(find(r"back\\slash", claims.clone()), Some(json!(7)));
        for absent in ["kubernetes.io", "a.b.c", "a.list.b", "a.list.0", "A"] {
            assert_eq!(find(absent, claims.clone()), None, "{absent}");
        }
    }

    #[test]
    fn a_malformed_claim_path_is_refused() {
        for empty in ["", ".", "a.", ".a", "a..b"] {
            assert_eq!(ClaimPath::parse(empty), Err(ClaimPathError::EmptyName), "{empty}");
        }
        for escape in ["a\\", r"a\b", r"\n"] {
            assert_eq!(ClaimPath::parse(escape), Err(ClaimPathError::Escape), "{escape}");
        }
        assert_eq!(ClaimPath::parse(&["a"; 17].join(".")), Err(ClaimPathError::TooDeep));
    }

    #[test]
    fn a_claim_matches_by_value_and_type_and_an_array_by_any_element() {
        assert!(matches_any(&json!("a"), &[json!("b"), json!("a")]));
        assert!(matches_any(&json!(["x", "a"]), &[json!("a")]));
        assert!(matches_any(&json!(["x", "a"]), &[json!(["x", "a"])]));
        assert!(!matches_any(&json!("123"), &[json!(123)]));
        assert!(!matches_any(&json!(123), &[json!("123")]));
        assert!(!matches_any(&json!("ab"), &[json!("a")]));
        assert!(!matches_any(&json!([["a"]]), &[json!("a")]));
        assert!(!matches_any(&json!({ "a": 1 }), &[json!("a")]));
        assert!(!matches_any(&json!([]), &[]));
    }

    #[test]
    fn a_numeric_date_may_have_a_fraction_and_nothing_else() {
        let date = |value: Value| numeric_date(&object(json!({ "exp": value })), "exp");
        assert_eq!(date(json!(1_700_000_000)).unwrap(), Some(Timestamp::from_unix_seconds(1_700_000_000)));
        assert_eq!(date(json!(1_700_000_000.9)).unwrap(), Some(Timestamp::from_unix_seconds(1_700_000_000)));
        assert_eq!(date(json!(1.7e9)).unwrap(), Some(Timestamp::from_unix_seconds(1_700_000_000)));
        assert_eq!(numeric_date(&Map::new(), "exp").unwrap(), None);
        for wrong in [
            json!("1700000000"),
            json!(-1),
            json!(-0.5),
            json!(1e300),
            json!(u64::MAX),
            json!(i64::MAX),
            json!(253_402_300_800_i64),
            json!(null),
            json!(true),
            json!([1_700_000_000]),
            json!({}),
        ] {
            assert_eq!(date(wrong.clone()).unwrap_err().code(), "claim_malformed", "{wrong}");
        }
    }

    #[test]
    fn a_text_where_a_list_may_stand_is_one_element() {
        let path = ClaimPath::parse("groups").unwrap();
        assert_eq!(texts(&object(json!({ "groups": "a b,c" })), &path).unwrap(), ["a b,c"]);
        assert_eq!(texts(&object(json!({ "groups": ["a", "b"] })), &path).unwrap(), ["a", "b"]);
        assert!(texts(&object(json!({ "groups": null })), &path).unwrap().is_empty());
        for wrong in [json!(1), json!({ "a": 1 }), json!(["a", 1]), json!([["a"]]), json!(true)] {
            assert!(texts(&object(json!({ "groups": wrong })), &path).is_err());
        }
    }

    proptest! {
        #[test]
        fn escaping_any_names_and_parsing_them_finds_the_claim(names in prop::collection::vec(".{1,8}", 1..5)) {
            let path = names.iter().map(|name| name.replace('\\', r"\\").replace('.', r"\."));
            let path = ClaimPath::parse(&path.collect::<Vec<_>>().join(".")).unwrap();
            let nested = names.iter().rev().fold(json!("found"), |inner, name| json!({ (name): inner }));
            let nested = object(nested);
            prop_assert_eq!(path.find(&nested), Some(&json!("found")));
        }
    }
}
