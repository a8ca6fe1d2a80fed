//! Commands as a POSIX shell reads them: whatever stands in a configuration is one word.

/// One word.
pub(super) fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@,+=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A command line of words, and its flags, one a line.
pub(super) fn command(words: &[&str], flags: &[(&str, &str)]) -> String {
    let flags = flags.iter().map(|(flag, value)| format!(" \\\n  --{flag}={}", word(value)));
    line(words) + &flags.collect::<String>() + "\n"
}

/// The same, which reads `body` from its standard input.
pub(super) fn fed(words: &[&str], body: &str) -> String {
    // No line of it is the last one but the last one.
    let mut end = "END".to_owned();
    while body.lines().any(|line| line == end) {
        end.push('_');
    }
    format!("{} - <<'{end}'\n{}\n{end}\n", line(words), body.trim_end())
}

fn line(words: &[&str]) -> String {
    words.iter().map(|text| word(text)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_configuration_is_a_command() {
        assert_eq!(word("x; echo $(id) `id` |\n'c'"), r"'x; echo $(id) `id` |#'\''c'\'''".replace('#', "\n"));
        assert_eq!(word(""), "''");
        assert_eq!(fed(&["a", "b c"], "x\nEND\ny"), "a 'b c' - <<'END_'\nx\nEND\ny\nEND_\n");
        assert_eq!(command(&["a"], &[("b", "c d")]), "a \\\n  --b='c d'\n");
    }
}
