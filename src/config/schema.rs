//! JSON Schemas for editors, made from the same structs that serde reads.

use serde_json::Value;

use super::raw;

/// Schema of `doorward.yaml`.
#[must_use]
pub fn config() -> Value {
    let mut schema = schemars::schema_for!(raw::Config).to_value();
    without_null(&mut schema);
    schema
}

/// Schema of `policies/*.yaml`.
#[must_use]
pub fn policies() -> Value {
    let mut schema = schemars::schema_for!(raw::Policies).to_value();
    without_null(&mut schema);
    schema
}

/// A key without a value is a fault, so the schema takes no null where a key may be left out.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|key, value| key != "default" || !value.is_null());
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    fields.remove("anyOf");
                    fields.extend(only);
                }
            }
            fields.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::world::{DOORWARD, RULES};

    #[test]
    fn the_schema_beside_the_shipped_policies_is_this_one() {
        let shipped: Value = serde_json::from_str(include_str!("../../policies/policies.schema.json")).unwrap();
        assert_eq!(shipped, policies(), "write it again: `doorward schema policies > policies/policies.schema.json`");
    }

    /// What the schemas use of JSON Schema. Any other keyword fails the test, so that none goes unheeded.
    fn faults(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut say = |text: String| found.push(format!("{at}: {text}"));
        let all = |schemas: &Value| schemas.as_array().unwrap().clone();
        let fits = |choice: &Value| faults(root, choice, value, at).is_empty();
        let mut deeper = Vec::new();
        for (keyword, rule) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "examples" | "default" => {}
                "format" | "minimum" | "pattern" => {}
                "$ref" => {
                    let target = root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
                    deeper.extend(faults(root, target, value, at));
                }
                "type" => {
                    let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                    let kind = match value {
                        Value::Null => "null",
                        Value::Bool(_) => "boolean",
                        Value::Number(_) => "integer",
                        Value::String(_) => "string",
                        Value::Array(_) => "array",
                        Value::Object(_) => "object",
                    };
                    if !kinds.iter().any(|allowed| allowed == kind) {
                        say(format!("{kind} is not {rule}"));
                    }
                }
                "const" if rule != value => say(format!("it is not {rule}")),
                "enum" if !all(rule).contains(value) => say(format!("it is none of {rule}")),
                "const" | "enum" => {}
                "required" => {
                    for key in all(rule).iter().filter(|key| value.get(key.as_str().unwrap()).is_none()) {
                        say(format!("it lacks {key}"));
                    }
                }
                "properties" => {
                    for (key, below) in value.as_object().into_iter().flatten() {
                        match rule.get(key) {
                            Some(rule) => deeper.extend(faults(root, rule, below, &format!("{at}/{key}"))),
                            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                                say(format!("unknown key {key}"));
                            }
                            None => {}
                        }
                    }
                }
                "additionalProperties" => {
                    for (key, below) in value.as_object().into_iter().flatten().filter(|_| rule.is_object()) {
                        deeper.extend(faults(root, rule, below, &format!("{at}/{key}")));
                    }
                }
                "items" => {
                    for (index, below) in value.as_array().into_iter().flatten().enumerate() {
                        deeper.extend(faults(root, rule, below, &format!("{at}/{index}")));
                    }
                }
                "anyOf" if !all(rule).iter().any(fits) => say("no choice fits".to_owned()),
                "oneOf" if all(rule).iter().filter(|choice| fits(choice)).count() != 1 => {
                    say("not exactly one choice fits".to_owned());
                }
                "anyOf" | "oneOf" => {}
                "minProperties" | "maxProperties" => {
                    if value.as_object().is_some_and(|fields| fields.len() != 1) {
                        say("it has not exactly one key".to_owned());
                    }
                }
                other => panic!("the schema uses `{other}`, which this test does not know"),
            }
        }
        found.extend(deeper);
        found
    }

    pub(crate) fn schema_faults(schema: &Value, yaml: &str) -> Vec<String> {
        faults(schema, schema, &serde_saphyr::from_str(yaml).unwrap(), "")
    }

    #[test]
    fn the_schemas_accept_a_whole_configuration() {
        assert_eq!(schema_faults(&config(), DOORWARD), [""; 0]);
        assert_eq!(schema_faults(&policies(), RULES), [""; 0]);
    }

    #[test]
    fn the_schemas_accept_the_examples() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
        let mut seen = 0;
        for example in std::fs::read_dir(&root).unwrap() {
            let example = example.unwrap().path();
            let text = |file: &str| std::fs::read_to_string(example.join(file)).unwrap();
            assert_eq!(schema_faults(&config(), &text("doorward.yaml")), [""; 0], "{}", example.display());
            assert_eq!(schema_faults(&policies(), &text("policies/routes.yaml")), [""; 0], "{}", example.display());
            seen += 1;
        }
        assert!(seen >= 3);
    }

    #[test]
    fn the_schemas_refuse_what_the_loader_refuses() {
        for (from, to) in [
            ("upstream: billing", "upstrem: billing"),
            ("evidence: [bearer,", "evidence: [beerer,"),
            ("tags: [finance]", "tags:"),
        ] {
            assert!(!schema_faults(&policies(), &RULES.replace(from, to)).is_empty(), "{to}");
        }
        let both = RULES.replace("identity_headers: {}", "public: { reason: everybody may read }");
        assert!(!schema_faults(&policies(), &both).is_empty());
        let missing = DOORWARD.replace("audience: [api://acme]\n", "\n");
        assert!(!schema_faults(&config(), &missing).is_empty());
    }

    #[test]
    fn every_key_has_its_help_and_stands_in_the_reference() {
        let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        let mut reference = std::fs::read_to_string(docs.join("configuration.md")).unwrap();
        for page in std::fs::read_dir(docs.join("credentials")).unwrap() {
            reference.push_str(&std::fs::read_to_string(page.unwrap().path()).unwrap());
        }
        for schema in [config(), policies()] {
            let below = schema["$defs"].as_object().unwrap().values();
            for object in below.chain([&schema]) {
                for (key, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
                    let described = property.get("description").is_some() || object["oneOf"].is_array();
                    assert!(described, "`{key}` has no help");
                    assert!(
                        reference.contains(&format!("`{key}`")),
                        "`{key}` is neither in docs/configuration.md nor in docs/credentials"
                    );
                }
            }
        }
    }
}
