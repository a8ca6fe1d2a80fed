//! How deep a policy goes. Cedar's parser and validator call themselves for each parenthesis and operator, and a text that
//! goes deep enough ends the whole process by its stack: so it is measured before they see it.

/// Most brackets of any kind that stand in one another.
const MOST_NESTED: usize = 64;

/// Most operators of one policy: each can be a level of its expression.
const MOST_OPERATORS: usize = 1000;

/// Where a policy of `text` goes too deep, and by what.
pub(super) fn too_deep(text: &str) -> Option<(usize, String)> {
    let bytes = text.as_bytes();
    let (mut nested, mut operators, mut at) = (0_usize, 0_usize, 0_usize);
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => at = past_text(bytes, at),
            b'/' if bytes.get(at) == Some(&b'/') => {
                at = memchr::memchr(b'\n', bytes.get(at..).unwrap_or_default()).map_or(bytes.len(), |end| at + end);
            }
            b'(' | b'[' | b'{' => {
                nested += 1;
                if nested > MOST_NESTED {
                    return Some((start, format!("more than {MOST_NESTED} brackets stand in one another")));
                }
            }
            b')' | b']' | b'}' => nested = nested.saturating_sub(1),
            b';' => operators = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                while bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
                    at += 1;
                }
                operators +=
                    usize::from(matches!(bytes.get(start..at), Some(b"if" | b"in" | b"has" | b"like" | b"is")));
            }
            b'|' | b'&' | b'=' | b'<' | b'>' => {
                // Of two bytes; each `!` and `-` is one by itself.
                at += usize::from(bytes.get(at).is_some_and(|next| matches!(next, b'|' | b'&' | b'=')));
                operators += 1;
            }
            b'!' | b'-' | b'+' | b'*' | b'.' => operators += 1,
            _ => {}
        }
        if operators > MOST_OPERATORS {
            return Some((start, format!("a policy has more than {MOST_OPERATORS} operators")));
        }
    }
    None
}

/// The place past a text that began before `at`.
fn past_text(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'\\' => 2,
            b'"' => return at + 1,
            _ => 1,
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(condition: &str) -> String {
        format!("@id(\"a\") permit(principal, action, resource) when {{ {condition} }};\n")
    }

    #[test]
    fn what_nests_or_chains_without_end_is_told_by_its_place() {
        for (what, condition) in [
            ("parentheses", format!("{}true{}", "(".repeat(100), ")".repeat(100))),
            ("sets", format!("{}{} == []", "[".repeat(100), "]".repeat(100))),
            ("ors", "true || ".repeat(1001) + "true"),
            ("ands", "true && ".repeat(1001) + "true"),
            ("ifs", "if true then true else ".repeat(1001) + "true"),
            ("nots", "!".repeat(1001) + "true"),
            ("minuses", format!("{}1 == 1", "-".repeat(1001))),
            ("members", format!("principal{}", ".x".repeat(1001))),
            ("has", "principal has x && ".repeat(501) + "true"),
        ] {
            let text = when(&condition);
            let (at, _) = too_deep(&text).unwrap_or_else(|| panic!("{what} pass"));
            assert!(text.is_char_boundary(at) && at > 40, "{what}: {at}");
        }
    }

    #[test]
    fn what_is_long_and_flat_passes() {
        let names = (0..5000).map(|number| format!("\"((((!!!! {number}\"")).collect::<Vec<_>>().join(", ");
        for text in [
            when(&format!("context.path in [{names}]")),
            when("true || ".repeat(900).as_str()) + &when("true || ".repeat(900).as_str()),
            format!("// {}\n{}", "(".repeat(1000), when(&format!("{}true{}", "(".repeat(50), ")".repeat(50)))),
            when("\"\\\"((((\" == \"\""),
        ] {
            assert_eq!(too_deep(&text), None, "{text}");
        }
    }
}
