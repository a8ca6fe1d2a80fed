//! Durations and sizes: numbers with a unit, never bare ones.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

/// Why a text is no duration or size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Digits without a unit.
    #[error("`{0}` has no unit")]
    Missing(String),
    /// A unit that is not known.
    #[error("`{0}` has an unknown unit")]
    Unknown(String),
    /// No whole number stands before the unit.
    #[error("`{0}` does not begin with a whole number")]
    Number(String),
    /// More than can be counted.
    #[error("`{0}` is too large")]
    TooLarge(String),
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];

const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// The longest duration that a configuration may speak of, in days.
const LONGEST_DAYS: u64 = 3660;

/// A duration as written: `250ms`, `30s`, `5m`, `12h`, `30d`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DurationText(pub String);

impl DurationText {
    /// Its meaning.
    ///
    /// # Errors
    /// [`UnitError`] when it has no unit, an unknown one, or no whole number.
    pub fn duration(&self) -> Result<Duration, UnitError> {
        let millis = counted(&self.0, &DURATION_UNITS)?;
        if millis > LONGEST_DAYS * 24 * 3_600_000 {
            return Err(UnitError::TooLarge(self.0.clone()));
        }
        Ok(Duration::from_millis(millis))
    }
}

/// A size as written: `512B`, `64KiB`, `10MiB`, `1GB`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SizeText(pub String);

impl SizeText {
    /// Its meaning in bytes.
    ///
    /// # Errors
    /// [`UnitError`] when it has no unit, an unknown one, or no whole number.
    pub fn bytes(&self) -> Result<u64, UnitError> {
        counted(&self.0, &SIZE_UNITS)
    }
}

fn counted(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    if number.is_empty() {
        return Err(UnitError::Number(text.to_owned()));
    }
    if unit.is_empty() {
        return Err(UnitError::Missing(text.to_owned()));
    }
    let (_, factor) =
        units.iter().find(|(name, _)| *name == unit).ok_or_else(|| UnitError::Unknown(text.to_owned()))?;
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge(text.to_owned()))?;
    number.checked_mul(*factor).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "examples": ["30s", "5m", "12h"] })
    }
}

impl JsonSchema for SizeText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "string", "pattern": "^[0-9]+(B|kB|MB|GB|KiB|MiB|GiB)$", "examples": ["64KiB", "10MiB"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duration(text: &str) -> Result<Duration, UnitError> {
        DurationText(text.to_owned()).duration()
    }

    #[test]
    fn a_duration_carries_its_unit() {
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("30d").unwrap(), Duration::from_secs(30 * 86_400));
        assert_eq!(duration("30").unwrap_err().to_string(), "`30` has no unit");
        assert_eq!(duration("5min").unwrap_err().to_string(), "`5min` has an unknown unit");
        for text in ["", "s", "-5s", "1.5h", " 5s"] {
            assert!(matches!(duration(text), Err(UnitError::Number(_) | UnitError::Unknown(_))), "{text}");
        }
        assert!(matches!(duration("99999999999999999999s"), Err(UnitError::TooLarge(_))));
        assert!(matches!(duration("9999999d"), Err(UnitError::TooLarge(_))));
    }

    #[test]
    fn a_size_carries_its_unit() {
        assert_eq!(SizeText("64KiB".to_owned()).bytes().unwrap(), 65_536);
        assert_eq!(SizeText("1GB".to_owned()).bytes().unwrap(), 1_000_000_000);
        assert!(matches!(SizeText("10M".to_owned()).bytes(), Err(UnitError::Unknown(_))));
        assert!(matches!(SizeText("99999999999GiB".to_owned()).bytes(), Err(UnitError::TooLarge(_))));
    }
}
