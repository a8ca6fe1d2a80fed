//! The form of one YAML file: syntax, keys twice, keys without a value, unknown keys, wrong types.

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Error;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};

use super::faults::{Fault, Faults};
use super::placed::{Place, Placed};
use super::source_file::SourceFile;

/// What a file whose form is not good still declares: names by section, or nothing that can be relied on.
#[derive(Debug, Default)]
pub(super) struct Salvage(Option<Vec<(String, Placed<String>)>>);

impl Salvage {
    /// The names declared under `section`; `None` when there may be any.
    pub(super) fn names(&self, section: &str) -> Option<impl Iterator<Item = &Placed<String>>> {
        let names = self.0.as_ref()?;
        Some(names.iter().filter(move |(of, _)| of == section).map(|(_, name)| name))
    }
}

/// Reads `file` as a `T`; a file without content is `T::default()`.
///
/// # Errors
/// What is left of a file whose form is not good; its faults were added.
pub(super) fn read<T>(file: &Arc<SourceFile>, faults: &mut Faults) -> Result<T, Salvage>
where
    T: DeserializeOwned + Default + JsonSchema,
{
    if file.text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(T::default());
    }
    // A line that ends in the middle could be a shorter, weaker rule: `production` cut to `prod`.
    if !file.text.ends_with('\n') {
        let end = file.place(file.text.len().saturating_sub(1), 1);
        let fault = Fault::new("cut_off", file, end, "the file does not end with a line break, so it may be cut off");
        faults.push(fault.help("complete the file and end its last line with a line break"));
        return Err(Salvage::default());
    }
    let tree = match parse::<Placed<Node>>(file) {
        Ok(tree) => tree,
        Err(error) => {
            faults.push(fault_of(file, &error));
            return Err(Salvage::default());
        }
    };
    let before = faults.len();
    tree.value.lint(file, faults);
    if faults.len() > before {
        return Err(tree.value.salvage::<T>());
    }
    parse(file).map_err(|error| {
        faults.push(fault_of(file, &error));
        tree.value.salvage::<T>()
    })
}

fn parse<T: DeserializeOwned>(file: &SourceFile) -> Result<T, Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_aliases: 1000, max_anchors: 1000 },
        // Keys that stand twice are found in the tree, with both places.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(&file.text, options)
}

/// A YAML node without its values: all that is needed to find what serde cannot report with both places.
enum Node {
    Null,
    Scalar,
    List(Vec<Placed<Node>>),
    Map(Vec<(Placed<String>, Placed<Node>)>),
}

impl Node {
    /// The names under each section. A section of an unknown name may be any, so then nothing is relied on.
    fn salvage<T: JsonSchema>(&self) -> Salvage {
        let Self::Map(sections) = self else { return Salvage::default() };
        let schema = schemars::schema_for!(T).to_value();
        let known = |section: &str| schema.pointer(&format!("/properties/{section}")).is_some();
        let mut names = Vec::new();
        for (section, value) in sections {
            match &value.value {
                Self::Map(entries) if known(section) => {
                    names.extend(entries.iter().map(|(name, _)| (section.value.clone(), name.clone())));
                }
                Self::Scalar | Self::List(_) if known(section) => {}
                Self::Null | Self::Scalar | Self::List(_) | Self::Map(_) => return Salvage::default(),
            }
        }
        Salvage(Some(names))
    }

    fn lint(&self, file: &Arc<SourceFile>, faults: &mut Faults) {
        match self {
            Self::Null | Self::Scalar => {}
            Self::List(items) => {
                for item in items {
                    if matches!(item.value, Self::Null) {
                        faults.push(Fault::new("empty_value", file, item.place, "an entry of the list is empty"));
                    }
                    item.value.lint(file, faults);
                }
            }
            Self::Map(entries) => {
                let mut first: HashMap<&str, Place> = HashMap::new();
                for (key, value) in entries {
                    if let Some(place) = first.get(key.as_str()) {
                        let fault = Fault::new("key_twice", file, key.place, format!("`{}` stands twice", key.value));
                        let fault = fault.label("again here").also(file, *place, "first here");
                        faults.push(fault.help(format!("it first stands on line {}; keep one of them", place.line)));
                    } else {
                        first.insert(&key.value, key.place);
                    }
                    // A file that was cut after `login:` must not mean a route without login.
                    if matches!(value.value, Self::Null) {
                        let message = format!("`{}` has no value", key.value);
                        let help = "give it a value, or remove the key; an empty mapping is `{}`";
                        faults.push(Fault::new("empty_value", file, key.place, message).help(help));
                    }
                    value.value.lint(file, faults);
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;

        macro_rules! scalar {
            ($($visit:ident: $type:ty),*) => {
                $(fn $visit<E>(self, _: $type) -> Result<Node, E> { Ok(Node::Scalar) })*
            };
        }

        impl<'de> Visitor<'de> for Shape {
            type Value = Node;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("YAML")
            }

            scalar!(
                visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128,
                visit_f64: f64, visit_str: &str, visit_bytes: &[u8]
            );

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                Node::deserialize(deserializer)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Map(entries))
            }
        }

        deserializer.deserialize_any(Shape)
    }
}

/// Says in the product's words what serde or the parser found. The text of scalars stays out: it may be a secret.
fn fault_of(file: &Arc<SourceFile>, error: &Error) -> Fault {
    let error = error.without_snippet();
    if let Error::AliasError { error, .. } = error {
        return fault_of(file, error);
    }
    let place = error.location().map(Place::from).unwrap_or_default();
    let fault = |code: &'static str, message: String| Fault::new(code, file, place, message);
    if let Error::SerdeUnknownField { field, expected, .. } = error {
        return fault("unknown_key", format!("unknown key `{field}`")).nearest(field, expected.iter().copied());
    }
    if let Error::SerdeUnknownVariant { variant, expected, .. } = error {
        return fault("unknown_value", format!("unknown value `{variant}`")).nearest(variant, expected.iter().copied());
    }
    if let Error::SerdeMissingField { field, .. } = error {
        return fault("missing_key", format!("`{field}` is missing here"));
    }
    if let Error::ExpectedMappingEndAfterEnumVariantValue { .. } = error {
        return fault("two_kinds", "a second kind is named".to_owned()).help("name exactly one");
    }
    if let Error::MultipleDocuments { .. } = error {
        return fault("two_documents", "the file holds a second document".to_owned()).help("one document a file");
    }
    if let Error::MergeKeyNotAllowed { .. } = error {
        let help = "write the keys out: what a merge leaves unsaid is easily overlooked";
        return fault("merge_key", "merge keys are not taken".to_owned()).help(help);
    }
    if let Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } = error {
        let message = "the file is nested too deeply, or repeats too much".to_owned();
        return fault("too_much", message).help("write it out plainly");
    }
    if let Error::UnsupportedTag { .. } = error {
        return fault("tag", "tags are not taken".to_owned()).help("a kind is its key: `file: keys.json`");
    }
    if let Some(expected) = expected(error) {
        return fault("wrong_type", format!("{expected} is expected here"));
    }
    if let Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } = error {
        return fault("wrong_type", format!("{expected} is expected here"));
    }
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    let message = if error.location().is_some() { message } else { "the file cannot be read as YAML" };
    fault("yaml", message.to_owned())
}

/// What a wrong type should have been.
#[expect(clippy::wildcard_enum_match_arm, reason = "the parser's own list of errors grows")]
fn expected(error: &Error) -> Option<&'static str> {
    match error {
        Error::InvalidScalar { ty, .. } if ty.starts_with(['u', 'i']) => Some("a whole number"),
        Error::InvalidScalar { ty: "bool", .. } | Error::InvalidBooleanStrict { .. } => Some("`true` or `false`"),
        Error::Unexpected { expected, .. } => Some(match *expected {
            "mapping start" => "a mapping",
            "sequence start" => "a list",
            "string scalar" => "a text",
            other => other,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::{Config, Policies};

    fn faults<T: DeserializeOwned + Default + JsonSchema>(text: &str) -> Vec<(String, String)> {
        let mut faults = Faults::default();
        let read: Result<T, Salvage> = read(&SourceFile::new("f.yaml", text), &mut faults);
        assert_eq!(read.is_err(), !faults.is_empty());
        let told = |fault: &Fault| {
            let help = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            (fault.at(), format!("{}{help}", fault.message))
        };
        faults.iter().map(told).collect()
    }

    fn only<T: DeserializeOwned + Default + JsonSchema>(text: &str) -> (String, String) {
        let mut faults = faults::<T>(text);
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.remove(0)
    }

    fn says(at: &str, message: &str) -> (String, String) {
        (at.to_owned(), message.to_owned())
    }

    #[test]
    fn a_misspelt_key_is_told_its_nearest_name() {
        let text = "routes:\n  invoices:\n    path: /a\n    upstrem: billing\n";
        let expected = says("f.yaml:4:5", "unknown key `upstrem` (did you mean `upstream`?)");
        assert_eq!(only::<Policies>(text), expected);
        let text = "trusted-proxies: []\n";
        let expected = says("f.yaml:1:1", "unknown key `trusted-proxies` (did you mean `trusted_proxies`?)");
        assert_eq!(only::<Config>(text), expected);
    }

    #[test]
    fn a_misspelt_kind_is_told_its_nearest_name() {
        let text = "audit: { destination: stdou }\n";
        assert_eq!(only::<Config>(text), says("f.yaml:1:23", "unknown value `stdou` (did you mean `stdout`?)"));
    }

    #[test]
    fn keys_that_stand_twice_are_all_told_with_both_places() {
        let text = "routes:\n  a: { path: /a, path: /b }\n  b: { path: /b }\n  a: { path: /c }\n";
        let help = "it first stands on line 2; keep one of them";
        assert_eq!(
            faults::<Policies>(text),
            [
                says("f.yaml:2:18", &format!("`path` stands twice ({help})")),
                says("f.yaml:4:3", &format!("`a` stands twice ({help})"))
            ]
        );
    }

    #[test]
    fn a_key_without_a_value_is_a_fault() {
        let help = "give it a value, or remove the key; an empty mapping is `{}`";
        let text = "routes:\n  a:\n    login:\n    tags: [a, ~]\n";
        assert_eq!(
            faults::<Policies>(text),
            [
                says("f.yaml:3:5", &format!("`login` has no value ({help})")),
                says("f.yaml:4:15", "an entry of the list is empty")
            ]
        );
    }

    #[test]
    fn a_file_without_its_last_line_break_is_taken_for_cut_off() {
        let help = "complete the file and end its last line with a line break";
        let message = format!("the file does not end with a line break, so it may be cut off ({help})");
        assert_eq!(only::<Config>("policies: rul"), says("f.yaml:1:13", &message));
    }

    #[test]
    fn a_fault_points_at_whole_characters() {
        let mut faults = Faults::default();
        assert!(read::<Config>(&SourceFile::new("f.yaml", "policies: r\u{e9}"), &mut faults).is_err());
        let place = faults.iter().next().unwrap().place;
        assert_eq!((place.column, place.offset, place.length), (12, 11, 2));
    }

    #[test]
    fn a_file_of_comments_alone_is_empty() {
        assert_eq!(faults::<Policies>("# nothing\n\n  # yet"), []);
        assert_eq!(faults::<Policies>(""), []);
    }

    #[test]
    fn yaml_that_is_no_yaml_is_told_with_its_place() {
        assert_eq!(only::<Policies>("routes:\n  a: { path: /a\n  b: {}\n").0, "f.yaml:3:4");
        assert_eq!(only::<Policies>("routes:\n\ta: {}\n").0, "f.yaml:2:2");
        assert_eq!(
            only::<Policies>("routes: {}\n---\nroutes: {}\n").1,
            "the file holds a second document (one document a file)"
        );
    }

    #[test]
    fn wrong_types_are_told_without_the_text_that_stood_there() {
        assert_eq!(only::<Config>("issuers: hunter2\n"), says("f.yaml:1:10", "a mapping is expected here"));
        assert_eq!(
            only::<Config>("limits: { connections: hunter2 }\n"),
            says("f.yaml:1:24", "a whole number is expected here")
        );
        assert_eq!(
            only::<Policies>("routes: { a: { websocket: yes } }\n"),
            says("f.yaml:1:27", "`true` or `false` is expected here")
        );
        assert_eq!(only::<Config>("state: { dir: [a] }\n"), says("f.yaml:1:15", "a text is expected here"));
    }

    #[test]
    fn merges_tags_and_bombs_are_refused() {
        let merge = "routes:\n  a: &a { path: /a }\n  b: { <<: *a }\n";
        assert!(only::<Policies>(merge).1.starts_with("merge keys are not taken"));
        assert!(only::<Policies>("routes: !evil { }\n").1.starts_with("tags are not taken"));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert_eq!(faults::<Policies>(&bomb).len(), 1);
        let deep = format!("routes: {}{}\n", "[".repeat(200), "]".repeat(200));
        assert_eq!(faults::<Policies>(&deep).len(), 1);
    }
}
