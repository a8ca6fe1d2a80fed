//! Audit records, as the file holds them.

use serde_json::Value;

/// One line of the audit file.
#[derive(Clone, Debug)]
pub(crate) struct AuditRecord(pub(crate) Value);

impl AuditRecord {
    /// Reads the lines of an audit file. Every one must be one JSON object.
    pub(crate) fn lines(text: &str) -> Vec<Self> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        // The last line may still be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| Self(parse(line))).collect()
    }

    /// What happened: `request`, `role.assumed`, …
    pub(crate) fn event(&self) -> &str {
        self.text("event")
    }

    pub(crate) fn is_request_to(&self, path: &str) -> bool {
        self.event() == "request" && self.0["path"] == path
    }

    /// A text field; a dot goes into an object. Empty when there is none.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.value(field).as_str().unwrap_or_default()
    }

    pub(crate) fn number(&self, field: &str) -> i64 {
        self.value(field).as_i64().unwrap_or_else(|| panic!("no number {field} in {}", self.0))
    }

    pub(crate) fn value(&self, field: &str) -> &Value {
        field.split('.').fold(&self.0, |value, name| &value[name])
    }

    /// Decision and code: what nearly every test asks.
    pub(crate) fn verdict(&self) -> (&str, &str) {
        (self.text("decision"), self.text("code"))
    }
}
