//! What of a configuration file's text nobody is shown: whatever looks like a secret, wherever it stands and however wrong
//! the rest of the file is. More may be hidden than is secret, and never less.

use std::ops::Range;

/// Words that a key of a secret holds, and keys that are one.
const HELD: [&str; 4] = ["secret", "passw", "pwd", "credential_key"];
const WHOLE: [&str; 9] =
    ["key", "token", "tokens", "api_key", "apikey", "access_key", "private_key", "session_token", "bearer"];
/// Beginnings of a reference, which says nothing of what it refers to.
const REFERENCES: [&str; 2] = ["file:", "env:"];

/// Ranges of bytes, in no order.
pub(super) fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found = users_of_urls(text);
    let mut at = 0;
    let lines: Vec<(usize, &str)> = text
        .split_inclusive('\n')
        .map(|line| {
            at += line.len();
            (at - line.len(), line.trim_end_matches(['\n', '\r']))
        })
        .collect();
    for (index, (begins, line)) in lines.iter().enumerate() {
        let Some(value) = secret_value(line) else { continue };
        found.push(begins + value..begins + line.len());
        let depth = indentation(line);
        let goes_on = |line: &str| line.trim().is_empty() || indentation(line) > depth;
        let below = lines.iter().skip(index + 1).take_while(|(_, line)| goes_on(line));
        found.extend(below.filter(|(_, line)| !is_reference(line)).map(|(begins, line)| *begins..begins + line.len()));
    }
    found
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Where the value of the line's first secret begins.
fn secret_value(line: &str) -> Option<usize> {
    line.match_indices(':').find_map(|(colon, _)| {
        let (before, after) = (line.get(..colon)?, line.get(colon + 1..)?);
        let word = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
        let key = before.trim_end_matches(['"', '\'', ' ']).rsplit(|character| !word(character)).next()?;
        (is_of_secret(key) && !is_reference(after)).then(|| colon + 1 + indentation(after))
    })
}

fn is_of_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    WHOLE.contains(&key.as_str())
        || HELD.iter().any(|word| key.contains(word))
        || key.split('_').any(|word| word.len() > 3 && strsim::damerau_levenshtein(word, "secret") <= 2)
}

fn is_reference(value: &str) -> bool {
    let value = value.trim_start_matches([' ', '\t', '"', '\'', '-']);
    REFERENCES.iter().any(|beginning| value.starts_with(beginning))
}

/// What stands between `://` and `@`.
fn users_of_urls(text: &str) -> Vec<Range<usize>> {
    let users = text.match_indices("://").filter_map(|(at, mark)| {
        let begins = at + mark.len();
        let rest = text.get(begins..)?;
        let authority = rest.split(|character: char| character.is_whitespace() || "/\"'".contains(character)).next()?;
        authority.rfind('@').map(|user| begins..begins + user)
    });
    users.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let ranges = secrets(text);
        let hidden = |at: usize| ranges.iter().any(|range| range.contains(&at));
        text.char_indices().filter(|(at, _)| !hidden(*at)).map(|(_, character)| character).collect()
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden_however_it_is_written() {
        for text in [
            "secret: hunter2",
            "  secret:   hunter2 # a note",
            "{ id: x, secret: hunter2, authentication: y }",
            "{\"secret\": \"hunter2\"}",
            "secret: |\n  hunter2\n\n  hunter2\n",
            "secret:\n  - hunter2\n",
            "secret: >-\n  hunter2",
            "secret: [hunter2]",
            "secret: &a hunter2",
            "secret: a\n   hunter2\n",
            "secrt: hunter2",
            "secrets: hunter2",
            "client-secret: hunter2",
            "Password: hunter2",
            "token: hunter2",
            "access_key: hunter2",
            "# secret: hunter2",
            "address: https://u:hunter2@host.test/x",
        ] {
            let shown = shown(text);
            assert!(!shown.contains("hunter2"), "{text} is shown as {shown}");
        }
    }

    #[test]
    fn what_is_none_is_shown() {
        for text in [
            "secret: file:api.secret",
            "key: \"file:tls.key\"",
            "secret: env:API_KEY # a note",
            "token_audience: vault",
            "sector: north",
            "keys: { discovery: {} }",
            "address: https://host.test/a@b",
        ] {
            assert_eq!(shown(text), text);
        }
        assert_eq!(shown("a: 1\nsecret: x\nb: 2\n"), "a: 1\nsecret: \nb: 2\n");
    }
}
