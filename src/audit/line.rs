//! Records as lines: one JSON object each, every field always there, nothing raw that could move a cursor.
//!
//! Written by hand into one buffer that is used again: this is most of what a record costs.

use std::fmt::{Display, Write};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::{AuditEvent, Decision, OtherEvent, RequestRecord};
use crate::clock::Timestamp;
use crate::identity::{Principal, PrincipalKind};
use crate::peer::push_address;

/// Writes events as lines. Remembers the last second that it printed, and the last end of a credential: most records
/// share them with the one before.
#[derive(Debug, Default)]
pub(super) struct LineWriter {
    at: LastSecond,
    credential_end: LastSecond,
}

/// A second of time and its text, up to where the fraction stands.
#[derive(Debug, Default)]
struct LastSecond(Option<(i64, String)>);

impl LineWriter {
    /// Appends `event` and a line feed.
    pub(super) fn write(&mut self, line: &mut String, event: &AuditEvent) {
        line.push_str("{\"time\":\"");
        match event {
            AuditEvent::Request(record) => {
                self.at.write(line, record.at);
                self.request(line, record);
            }
            AuditEvent::Other(event) => self.other(line, event),
            AuditEvent::Awaited(awaited) => self.other(line, &awaited.0),
        }
        line.push_str("}\n");
    }

    fn other(&mut self, line: &mut String, event: &OtherEvent) {
        self.at.write(line, event.at);
        other(line, event);
    }

    fn request(&mut self, line: &mut String, record: &RequestRecord) {
        line.push_str(",\"event\":\"request\"");
        text(line, "request_id", Some(&record.request_id));
        text(line, "trace_id", record.trace_id.as_deref());
        address(line, "peer", record.peer);
        address(line, "source", record.source);
        text(line, "listener", Some(&record.listener));
        principal(line, record.principal.as_deref());
        list(line, "roles", record.roles.iter().map(|held| &*held.role));
        text(line, "route", record.route.as_ref().map(|route| &*route.name));
        text(line, "environment", record.route.as_ref().map(|route| &*route.environment));
        text(line, "method", Some(record.method.as_str()));
        text(line, "host", Some(&record.host));
        text(line, "path", Some(&record.path));
        let decision = match record.decision {
            Decision::Allow => "allow",
            Decision::Deny => "deny",
            Decision::Own => "own",
        };
        text(line, "decision", Some(decision));
        text(line, "code", Some(record.code));
        text(line, "detail", record.detail.as_deref());
        list(line, "policy_ids", record.policy_ids.iter().map(|id| &**id));
        text(line, "snapshot", Some(&record.snapshot));
        match &record.credential_id {
            None => line.push_str(",\"credential\":null"),
            Some(id) => {
                line.push_str(",\"credential\":{\"id\":");
                quoted(line, id);
                line.push_str(",\"expires_at\":");
                match record.credential_expires_at {
                    None => line.push_str("null"),
                    Some(end) => {
                        line.push('"');
                        self.credential_end.write(line, end);
                    }
                }
                if let Some(code) = &record.credential_refusal {
                    text(line, "refused", Some(code));
                }
                line.push('}');
            }
        }
        match &record.upstream {
            None => line.push_str(",\"upstream\":null"),
            Some(name) => {
                line.push_str(",\"upstream\":{\"name\":");
                quoted(line, name);
                text(line, "address", record.upstream_address.as_deref());
                line.push('}');
            }
        }
        let RequestRecord { status, request_bytes, response_bytes, durations, .. } = record;
        let sizes =
            [("status", u64::from(*status)), ("request_bytes", *request_bytes), ("response_bytes", *response_bytes)];
        for (name, size) in sizes {
            key(line, name);
            number(line, size);
        }
        line.push_str(",\"duration_us\":{\"identify\":");
        micros(line, durations.identify);
        line.push_str(",\"authorize\":");
        micros(line, durations.authorize);
        line.push_str(",\"credential\":");
        micros(line, durations.credential);
        line.push_str(",\"upstream\":");
        micros(line, durations.upstream);
        line.push_str(",\"total\":");
        micros(line, durations.total);
        line.push('}');
    }
}

impl LastSecond {
    /// RFC 3339 in UTC with milliseconds, and the quote that ends it.
    fn write(&mut self, line: &mut String, at: Timestamp) {
        let second = at.unix_seconds();
        if self.0.as_ref().is_none_or(|(printed, _)| *printed != second) {
            let text = at.rfc3339();
            let head = text.split_once('.').map_or(text.as_str(), |(head, _)| head);
            self.0 = Some((second, head.to_owned()));
        }
        if let Some((_, head)) = &self.0 {
            line.push_str(head);
        }
        let millis = u64::try_from(at.unix_millis().rem_euclid(1000)).unwrap_or(0);
        line.push_str(match millis {
            0..10 => ".00",
            10..100 => ".0",
            _ => ".",
        });
        number(line, millis);
        line.push_str("Z\"");
    }
}

fn other(line: &mut String, event: &OtherEvent) {
    text(line, "event", Some(event.name));
    text(line, "request_id", event.request_id.as_deref());
    principal(line, event.principal.as_deref());
    for (name, field) in &event.fields {
        line.push(',');
        quoted(line, name);
        line.push(':');
        value(line, field);
    }
}

fn principal(line: &mut String, principal: Option<&Principal>) {
    let Some(principal) = principal else {
        line.push_str(",\"principal\":null");
        return;
    };
    line.push_str(",\"principal\":{\"id\":");
    quoted(line, principal.id());
    text(line, "issuer", Some(&principal.issuer));
    text(line, "subject", Some(&principal.subject));
    text(line, "kind", Some(principal.kind.as_str()));
    // Nobody in particular shows no evidence.
    let evidence = (principal.kind != PrincipalKind::Anonymous).then(|| principal.evidence.as_str());
    text(line, "evidence", evidence);
    line.push('}');
}

fn key(line: &mut String, name: &str) {
    line.push_str(",\"");
    line.push_str(name);
    line.push_str("\":");
}

fn text(line: &mut String, name: &str, content: Option<&str>) {
    key(line, name);
    match content {
        Some(content) => quoted(line, content),
        None => line.push_str("null"),
    }
}

fn list<'a>(line: &mut String, name: &str, items: impl Iterator<Item = &'a str>) {
    key(line, name);
    line.push('[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            line.push(',');
        }
        quoted(line, item);
    }
    line.push(']');
}

fn micros(line: &mut String, duration: Option<Duration>) {
    match duration {
        Some(duration) => number(line, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        None => line.push_str("null"),
    }
}

fn value(line: &mut String, content: &Value) {
    match content {
        Value::Null => line.push_str("null"),
        Value::Bool(truth) => put(line, truth),
        Value::Number(number) => put(line, number),
        Value::String(content) => quoted(line, content),
        Value::Array(items) => {
            line.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    line.push(',');
                }
                value(line, item);
            }
            line.push(']');
        }
        Value::Object(members) => {
            line.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                if index > 0 {
                    line.push(',');
                }
                quoted(line, name);
                line.push(':');
                value(line, member);
            }
            line.push('}');
        }
    }
}

fn address(line: &mut String, name: &str, address: IpAddr) {
    key(line, name);
    line.push('"');
    push_address(line, address);
    line.push('"');
}

/// Decimal digits, without the cost of `Display`.
fn number(line: &mut String, number: u64) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut first) = (number, digits.len());
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        (rest, first) = (rest / 10, place);
        if rest == 0 {
            break;
        }
    }
    line.push_str(digits.get(first..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or("0"));
}

fn put(line: &mut String, content: impl Display) {
    // Writing to a `String` cannot fail.
    let _written = write!(line, "{content}");
}

fn quoted(line: &mut String, content: &str) {
    line.push('"');
    // Without an early end, so that it is done many bytes at a time.
    let plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    if content.bytes().fold(true, |all, byte| all & plain(byte)) {
        line.push_str(content);
    } else {
        for character in content.chars() {
            match character {
                '"' => line.push_str("\\\""),
                '\\' => line.push_str("\\\\"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                _ if acts_on_a_terminal(character) => put(line, format_args!("\\u{:04x}", u32::from(character))),
                _ => line.push(character),
            }
        }
    }
    line.push('"');
}

/// Control characters, line and paragraph separators, and marks that reorder or hide the text around them.
/// All of them are in the basic plane, so that one `\uXXXX` names each.
pub(crate) const fn acts_on_a_terminal(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::audit::testing::record;

    fn line(event: AuditEvent) -> String {
        let mut line = String::new();
        LineWriter::default().write(&mut line, &event);
        line
    }

    fn parsed(record: RequestRecord) -> Value {
        serde_json::from_str(&line(AuditEvent::Request(Box::new(record)))).unwrap()
    }

    fn names(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_denial_carries_every_field_that_an_allow_carries() {
        let denied = parsed(record("/"));
        let mut allowed = record("/");
        allowed.decision = Decision::Allow;
        allowed.principal = Some(Arc::new(Principal::anonymous(Timestamp::default())));
        allowed.credential_id = Some("j1".into());
        allowed.credential_expires_at = Some(Timestamp::from_unix_seconds(1_800_000_000));
        allowed.upstream = Some("billing".into());
        allowed.upstream_address = Some("http://10.0.0.7:8080".into());
        allowed.trace_id = Some("0af7651916cd43dd8448eb211c80319c".to_owned());
        let allowed = parsed(allowed);
        assert_eq!(names(&denied), names(&allowed));
        assert_eq!(allowed["credential"], json!({ "id": "j1", "expires_at": "2027-01-15T08:00:00.000Z" }));
        assert_eq!(allowed["upstream"], json!({ "name": "billing", "address": "http://10.0.0.7:8080" }));
        assert_eq!(allowed["principal"]["kind"], "Anonymous");
        assert_eq!(allowed["principal"]["evidence"], Value::Null);
        assert_eq!((&denied["decision"], &denied["code"]), (&json!("deny"), &json!("aborted")));
    }

    #[test]
    fn the_time_is_right_within_a_second_and_over_its_end() {
        let mut writer = LineWriter::default();
        for (millis, expected) in [
            (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
            (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
            (1_700_000_001_000, "2023-11-14T22:13:21.000Z"),
            (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
        ] {
            let mut record = record("/");
            record.at = Timestamp::from_unix_millis(millis);
            let mut line = String::new();
            writer.write(&mut line, &AuditEvent::Request(Box::new(record)));
            assert!(line.starts_with(&format!("{{\"time\":\"{expected}\",")), "{line}");
        }
    }

    #[test]
    fn another_event_keeps_its_fields_and_their_order() {
        let event = OtherEvent {
            at: Timestamp::from_unix_millis(0),
            name: "role.assumed",
            request_id: Some("r1".into()),
            principal: None,
            fields: vec![
                ("role", json!("admin")),
                ("nested", json!({ "a\u{1b}": [1, -2.5, true, null, "\u{9b}31m"] })),
            ],
        };
        assert_eq!(
            line(AuditEvent::Other(Box::new(event))),
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000Z","event":"role.assumed","request_id":"r1","principal":null,"#,
                r#""role":"admin","nested":{"a\u001b":[1,-2.5,true,null,"\u009b31m"]}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn control_characters_cannot_break_a_line_or_a_terminal() {
        let hostile =
            "a\r\n{\"event\":\"request\"}\u{1b}[2J\u{7f}\u{85}\u{9b}31m\u{2028}\u{2029}\u{202e}\u{2066}\u{200f}\"\\";
        let mut record = record(hostile);
        record.host = hostile.to_owned();
        record.detail = Some(hostile.to_owned());
        record.trace_id = Some(hostile.to_owned());
        let line = line(AuditEvent::Request(Box::new(record)));
        let body = line.strip_suffix('\n').unwrap();
        assert!(!body.chars().any(acts_on_a_terminal), "{body:?}");
        let read: Value = serde_json::from_str(body).unwrap();
        assert_eq!(read["path"], hostile);
        assert_eq!(read["event"], "request");
    }

    proptest! {
        #[test]
        fn a_number_reads_as_it_always_does(number: u64) {
            let mut line = String::new();
            super::number(&mut line, number);
            prop_assert_eq!(&line, &number.to_string());
        }

        #[test]
        fn any_text_comes_back_as_it_was(path in "\\PC*|(?s).*", detail in proptest::option::of("(?s).*")) {
            let mut record = record(&path);
            record.detail.clone_from(&detail);
            let line = line(AuditEvent::Request(Box::new(record)));
            let body = line.strip_suffix('\n').unwrap();
            prop_assert!(!body.chars().any(|character| character.is_control()));
            let read: Value = serde_json::from_str(body).unwrap();
            prop_assert_eq!(&read["path"], &json!(path));
            prop_assert_eq!(&read["detail"], &json!(detail));
        }
    }
}
