//! Mutations of bytes: what an attacker, a fuzzer or a broken client makes of a request.

use std::net::SocketAddr;

use super::dice::Dice;
use super::grammar::spelled;
use super::vocabulary::{FORGED, FRAMINGS, IDENTITY_NAMES, IN_TARGETS, ODD_HOSTS, PLAIN_LINES, TELLING_BYTES};

const MUTATIONS: [&str; 24] = [
    "insert a byte",
    "delete bytes",
    "replace a byte",
    "duplicate bytes",
    "swap bytes",
    "duplicate a line",
    "delete a line",
    "swap lines",
    "change case",
    "break a line end",
    "text in the target",
    "text in the target",
    "form of the target",
    "framing line",
    "other digits",
    "splice",
    "cut",
    "request behind",
    "identity line",
    "fold a line",
    "name of a line",
    "plain line",
    "space around a value",
    "large head",
];

/// `bytes` changed in one way, and how.
pub(crate) fn mutate(
    mut bytes: Vec<u8>,
    dice: &mut Dice,
    lure: SocketAddr,
    other: impl Fn() -> Vec<u8>,
) -> (Vec<u8>, &'static str) {
    let mut name = dice.word(&MUTATIONS);
    if name == "large head" && !dice.percent(5) {
        name = "plain line";
    }
    match name {
        "insert a byte" => {
            let byte = if dice.percent(70) { *dice.pick(&TELLING_BYTES) } else { dice.byte() };
            let at = place(&bytes, dice);
            bytes.insert(at, byte);
        }
        "delete bytes" => {
            let at = place(&bytes, dice);
            let end = (at + 1 + dice.below(3)).min(bytes.len());
            bytes.drain(at..end);
        }
        "replace a byte" => {
            let at = place(&bytes, dice);
            let byte = if dice.percent(50) { *dice.pick(&TELLING_BYTES) } else { dice.byte() };
            if let Some(found) = bytes.get_mut(at) {
                *found = byte;
            }
        }
        "duplicate bytes" => {
            let range = dice.range(bytes.len(), 40);
            let copy = bytes[range.clone()].to_vec();
            bytes.splice(range.end..range.end, copy);
        }
        "swap bytes" => {
            let (one, next) = (place(&bytes, dice), place(&bytes, dice));
            if one < bytes.len() && next < bytes.len() {
                bytes.swap(one, next);
            }
        }
        "duplicate a line" | "delete a line" | "swap lines" => on_lines(&mut bytes, name, dice),
        "change case" => {
            let at = place(&bytes, dice);
            let end = (at + 1 + dice.below(12)).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| {
                *byte = if byte.is_ascii_lowercase() { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
            });
        }
        "break a line end" => {
            let ends = line_ends(&bytes);
            let end = *dice.pick(&ends);
            let instead = dice.word(&["\n", "\r", "\r\r\n", "\n\r", "\r\n\r\n", "", " \r\n", "\0\r\n"]);
            bytes.splice(end..(end + 2).min(bytes.len()), instead.bytes());
        }
        "text in the target" => {
            let target = target(&bytes);
            let at = target.start + dice.below(target.len() + 1);
            bytes.splice(at..at, dice.word(&IN_TARGETS).bytes());
        }
        "form of the target" => form_of_target(&mut bytes, dice, lure),
        "framing line" => insert_line(&mut bytes, dice.word(&FRAMINGS), dice),
        "plain line" => insert_line(&mut bytes, dice.word(&PLAIN_LINES), dice),
        "identity line" => {
            let name = spelled(dice.word(&IDENTITY_NAMES), dice);
            let colon = dice.word(&[": ", ":", ":\t", ": ", " : ", ";"]);
            insert_line(&mut bytes, &format!("{name}{colon}{FORGED}"), dice);
        }
        "other digits" => {
            let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
            if let Some(at) = digits.get(dice.below(digits.len())) {
                bytes[*at] = *dice.pick(b"0123456789afx+-");
            }
        }
        "splice" => {
            let (other, here) = (other(), dice.below(bytes.len()));
            bytes.truncate(here);
            bytes.extend_from_slice(&other[dice.below(other.len())..]);
        }
        "cut" => bytes.truncate(1 + dice.below(bytes.len())),
        "request behind" => bytes.extend(other()),
        "fold a line" => {
            let at = place(&bytes, dice);
            bytes.splice(at..at, dice.word(&["\r\n ", "\r\n\t", "\n ", "\r\n"]).bytes());
        }
        "name of a line" => {
            let colons: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b':').collect();
            if let Some(at) = colons.get(dice.below(colons.len().min(8))) {
                bytes.splice(*at..*at, dice.word(&[" ", "\t", "\0", "_", "-x", ":", "\u{e9}", ".", "\u{b}"]).bytes());
            }
        }
        "space around a value" => {
            let ends = line_ends(&bytes);
            let end = *dice.pick(&ends);
            bytes.splice(end..end, dice.word(&[" ", "\t", " \t ", "   "]).bytes());
        }
        _ => {
            let large = if dice.percent(50) {
                format!("X-Large: {}", "x".repeat(60_000 + dice.below(9000)))
            } else {
                (0..80 + dice.below(40)).map(|number| format!("X-Many-{number}: x\r\n")).collect::<String>()
                    + "X-Last: x"
            };
            insert_line(&mut bytes, &large, dice);
        }
    }
    (bytes, name)
}

/// A place in a line, each line as likely as another, so that a token is not most of them.
fn place(bytes: &[u8], dice: &mut Dice) -> usize {
    let ends = line_ends(bytes);
    let which = dice.below(ends.len());
    let start = if which == 0 { 0 } else { (ends[which - 1] + 2).min(bytes.len()) };
    let end = ends[which].max(start);
    (start + dice.below(end - start + 1)).min(bytes.len().saturating_sub(1))
}

/// Where CR LF stand, and the end.
fn line_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends: Vec<usize> = (1..bytes.len()).filter(|at| bytes[at - 1..=*at] == *b"\r\n").map(|at| at - 1).collect();
    if ends.is_empty() {
        ends.push(bytes.len());
    }
    ends
}

/// Where the first line's second word stands.
fn target(bytes: &[u8]) -> std::ops::Range<usize> {
    let space = |from: usize| bytes[from..].iter().position(|byte| *byte == b' ').map(|at| from + at);
    let start = space(0).map_or(0, |at| at + 1);
    start..space(start).unwrap_or(bytes.len())
}

fn insert_line(bytes: &mut Vec<u8>, line: &str, dice: &mut Dice) {
    // Within the first head, so that it is one of its fields.
    let ends = line_ends(bytes);
    let head = ends.windows(2).position(|pair| pair[1] == pair[0] + 2).unwrap_or(ends.len() - 1);
    let end = (ends[dice.below(head + 1)] + 2).min(bytes.len());
    bytes.splice(end..end, format!("{line}\r\n").into_bytes());
}

fn on_lines(bytes: &mut Vec<u8>, how: &str, dice: &mut Dice) {
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (one, other) = (dice.below(lines.len()), dice.below(lines.len()));
    match how {
        "duplicate a line" => {
            if let Some(line) = lines.get(one).cloned() {
                lines.insert(one, line);
            }
        }
        "delete a line" if lines.len() > 1 => drop(lines.remove(one)),
        "swap lines" if !lines.is_empty() => lines.swap(one, other),
        _ => {}
    }
    *bytes = lines.concat();
}

/// Absolute form, authority form, asterisk form, user information, ports, a last dot.
fn form_of_target(bytes: &mut Vec<u8>, dice: &mut Dice, lure: SocketAddr) {
    let range = target(bytes);
    let path = String::from_utf8_lossy(&bytes[range.clone()]).into_owned();
    let host = match dice.below(8) {
        0..=3 => "api.test",
        4 => "files.test",
        5 => "API.test.:80",
        6 => "user:secret@api.test",
        _ => dice.word(&ODD_HOSTS),
    }
    .replace("LURE", &lure.to_string());
    let scheme = dice.word(&["http://", "http://", "https://", "HTTP://", "//", "file://", "http:/", ""]);
    let instead = match dice.below(10) {
        0 => "*".to_owned(),
        1 => host,
        _ => format!("{scheme}{host}{path}"),
    };
    bytes.splice(range, instead.into_bytes());
}
