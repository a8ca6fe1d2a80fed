//! JSON as this step reads it: one object, no name twice at any depth, bounded depth.
//!
//! A name that stands twice is read differently by different parsers, and so could say one thing to the issuer and
//! another to us.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting of objects and arrays.
const DEPTH: usize = 32;

/// Reads `bytes` as one JSON object.
///
/// # Errors
/// What is wrong with it, without any of its bytes.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: DEPTH }.deserialize(&mut deserializer).map_err(|error| {
        let message = error.to_string();
        // The visitor's own messages are constants; serde_json's could quote the input.
        [TWICE, DEEP].into_iter().find(|own| message.starts_with(own)).unwrap_or("it is no JSON")
    })?;
    deserializer.end().map_err(|_| "something follows the JSON")?;
    match value {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err("it is no JSON object")
        }
    }
}

const TWICE: &str = "a name stands twice in one object";
const DEEP: &str = "it is nested too deeply";

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        self.depth.checked_sub(1).map(|depth| Self { depth }).ok_or_else(|| E::custom(DEEP))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(TWICE));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_as_serde_json_reads_it() {
        let text = r#"{"a":[1,-2,2.5,true,null,"x\u0041"],"b":{"c":{}},"d":18446744073709551615}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(parse_object(text.as_bytes()).unwrap()), expected);
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_at_every_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":{"a":1,"b":2,"a":3}}"#, r#"{"x":[{"a":1,"\u0061":2}]}"#] {
            assert_eq!(parse_object(text.as_bytes()), Err(TWICE), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse_object(nested(DEPTH - 1).as_bytes()).is_ok());
        assert_eq!(parse_object(nested(DEPTH).as_bytes()), Err(DEEP));
        assert!(parse_object(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_single_object_is_refused_without_being_quoted() {
        for text in [
            "",
            "[]",
            "1",
            "null",
            "\"s3cret\"",
            "{} {}",
            "{}x",
            "{'a':1}",
            "{\"a\":1e999}",
            "{\"a\":NaN}",
            "{\"s3cret",
        ] {
            let refusal = parse_object(text.as_bytes()).unwrap_err();
            assert!(!refusal.contains("s3cret"), "{refusal}");
        }
        assert!(parse_object(b"{\"a\":\"\xff\"}").is_err());
    }
}
