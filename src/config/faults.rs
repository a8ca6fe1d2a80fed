//! What is wrong with a configuration: every fault of every file, each with its place and its mend.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde_json::{Value, json};

use super::checked::Referenced;
use super::masked::secrets;
use super::placed::Place;
use super::source_file::SourceFile;

/// Where something stands in a file, for faults that only show once the thing is made.
#[derive(Clone, PartialEq, Eq)]
pub struct Declared {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Where in it; the default place means the whole file.
    pub place: Place,
}

impl Declared {
    /// A fault at this place.
    #[must_use]
    pub fn fault(&self, code: &'static str, message: impl Into<String>) -> Fault {
        Fault::new(code, &self.file, self.place, message)
    }
}

/// `file:line:column`.
impl fmt::Display for Declared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&at(&self.file.path, self.place))
    }
}

impl fmt::Debug for Declared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// Another place that a fault speaks of.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Where in it.
    pub place: Place,
    /// What stands there.
    pub label: String,
}

/// One thing that is wrong, with its place and its mend. Never holds a secret.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Stable code, such as `unknown_upstream`.
    pub code: &'static str,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// The file.
    pub file: Arc<SourceFile>,
    /// Where in it; the default place means the whole file.
    pub place: Place,
    /// What the pointer says.
    pub label: Option<String>,
    /// How to mend it.
    pub help: Option<String>,
    /// The other places that it speaks of, such as a name's first declaration.
    pub elsewhere: Vec<Elsewhere>,
    /// What no excerpt of the file may show, beside all that looks like a secret.
    hidden: Vec<Range<usize>>,
    named: NamedSource<Arc<str>>,
}

impl Fault {
    /// A fault at a place; `Place::default()` means the whole file.
    #[must_use]
    pub fn new(code: &'static str, file: &Arc<SourceFile>, place: Place, message: impl Into<String>) -> Self {
        let named = NamedSource::new(file.path.display().to_string(), file.text.clone());
        let (message, place) = (message.into(), file.pointed(place));
        Self {
            code,
            message,
            file: file.clone(),
            place,
            label: None,
            help: None,
            elsewhere: Vec::new(),
            hidden: Vec::new(),
            named,
        }
    }

    /// Keeps `value`, which begins at its place, out of every excerpt of the file.
    #[must_use]
    pub fn hiding(mut self, value: &str) -> Self {
        self.hidden = vec![self.file.around(self.place.offset, value)];
        // A shorter one would be found everywhere.
        if value.trim().len() > 3 {
            self.hidden.extend(self.file.text.match_indices(value).map(|(at, text)| at..at + text.len()));
        }
        self
    }

    /// The fault as people see it: with nothing in its excerpt that looks like a secret, or that one of `faults` hides.
    fn shown(&self, faults: &[Self]) -> Cow<'_, Self> {
        let of_file = faults.iter().filter(|fault| fault.file.path == self.file.path);
        let hidden = of_file.flat_map(|fault| fault.hidden.iter().cloned());
        let hidden: Vec<_> = secrets(&self.file.text).into_iter().chain(hidden).collect();
        if hidden.is_empty() {
            return Cow::Borrowed(self);
        }
        let named = NamedSource::new(self.file.path.display().to_string(), self.file.masked(&hidden));
        Cow::Owned(Self { named, ..self.clone() })
    }

    /// Says how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Offers the known name that is nearest to `name`, else lists what is known.
    #[must_use]
    pub fn nearest<'a>(self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        match nearest(name, &known) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None if known.is_empty() => self.help("none is declared"),
            None => {
                let quoted: Vec<String> = known.iter().take(12).map(|name| format!("`{name}`")).collect();
                let more = if known.len() > quoted.len() { " and others" } else { "" };
                self.help(format!("known are {}{more}", quoted.join(", ")))
            }
        }
    }

    /// Says what the pointer points at.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Names another place that it speaks of.
    #[must_use]
    pub fn also(mut self, file: &Arc<SourceFile>, place: Place, label: impl Into<String>) -> Self {
        let place = file.pointed(place);
        self.elsewhere.push(Elsewhere { file: file.clone(), place, label: label.into() });
        self
    }

    /// Its place as `file:line:column`.
    #[must_use]
    pub fn at(&self) -> String {
        at(&self.file.path, self.place)
    }

    /// File, line, column, code, message, help and other places.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let elsewhere = self.elsewhere.iter().map(|other| {
            json!({
                "file": other.file.path.display().to_string(),
                "line": other.place.line,
                "column": other.place.column,
                "label": other.label,
            })
        });
        json!({
            "code": self.code,
            "message": self.message,
            "file": self.file.path.display().to_string(),
            "line": self.place.line,
            "column": self.place.column,
            "label": self.label,
            "help": self.help,
            "elsewhere": elsewhere.collect::<Vec<_>>(),
        })
    }
}

/// `file:line:column`, or the file alone when it is meant as a whole.
pub(super) fn at(path: &Path, place: Place) -> String {
    match place.line {
        0 => path.display().to_string(),
        line => format!("{}:{line}:{}", path.display(), place.column),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl Diagnostic for Fault {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        // A place in another file cannot be drawn beside this one's text, so the help names it.
        let said = |other: &Elsewhere| {
            self.help.as_ref().is_some_and(|help| help.contains(&at(&other.file.path, other.place)))
        };
        let away = self.elsewhere.iter().filter(|other| other.file.path != self.file.path && !said(other));
        let away: Vec<String> =
            away.map(|other| format!("{}: {}", other.label, at(&other.file.path, other.place))).collect();
        let lines: Vec<String> = away.into_iter().chain(self.help.clone()).collect();
        if lines.is_empty() { None } else { Some(Box::new(lines.join("\n"))) }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        (self.place.line > 0).then_some(&self.named as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        if self.place.line == 0 {
            return None;
        }
        let here = LabeledSpan::new_primary_with_span(self.label.clone(), (self.place.offset, self.place.length));
        let near = self.elsewhere.iter().filter(|other| other.file.path == self.file.path);
        let near = near
            .map(|other| LabeledSpan::new(Some(other.label.clone()), other.place.offset, other.place.length.max(1)));
        Some(Box::new(std::iter::once(here).chain(near)))
    }
}

/// Every fault that was found, in the order of files and lines.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    faults: Vec<Fault>,
    referenced: Referenced,
    hash: Option<Arc<str>>,
}

impl Faults {
    /// Adds one.
    pub fn push(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// Adds many.
    pub fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.extend(faults);
    }

    /// Adds those whose place nobody complained of yet: one mistake, looked at twice, is told once.
    pub fn extend_with_new(&mut self, faults: impl IntoIterator<Item = Fault>) {
        for fault in faults {
            let same_place = |known: &Fault| known.file.path == fault.file.path && known.place == fault.place;
            let known = |known: &Fault| same_place(known) && (fault.place.line > 0 || known.message == fault.message);
            if !self.faults.iter().any(known) {
                self.faults.push(fault);
            }
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The faults.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.faults.len()
    }

    /// Names the files that the faulty configuration refers to.
    #[must_use]
    pub fn referring_to(mut self, referenced: Referenced) -> Self {
        self.referenced = referenced;
        self
    }

    /// Names the hash of the faulty configuration.
    #[must_use]
    pub fn of(mut self, hash: Arc<str>) -> Self {
        self.hash = Some(hash);
        self
    }

    /// Hash of the faulty configuration, as [`super::Checked::hash`] of a sound one.
    #[must_use]
    pub fn hash(&self) -> Option<&Arc<str>> {
        self.hash.as_ref()
    }

    /// Files that the faulty configuration refers to, as far as they are known: one of them may hold the fault.
    #[must_use]
    pub fn referenced(&self) -> &Referenced {
        &self.referenced
    }

    /// `Ok(value)` when nothing is wrong.
    ///
    /// # Errors
    /// The faults, ordered by file and place.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.faults.is_empty() { Ok(value) } else { Err(self.sorted()) }
    }

    /// Ordered by file and place.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.faults.sort_by(|one, other| (&one.file.path, one.place).cmp(&(&other.file.path, other.place)));
        self
    }

    /// For people: each fault with a pointer at the text. Colour is the caller's decision.
    #[must_use]
    pub fn render(&self, colour: bool, width: usize) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_links(false);
        let mut text = String::new();
        for fault in &self.faults {
            if fault.place.line == 0 {
                text.push_str(&format!("{}\n", fault.file.path.display()));
            }
            if handler.render_report(&mut text, fault.shown(&self.faults).as_ref()).is_err() {
                text.push_str(&format!("{}: {}", fault.at(), fault.message));
            }
            text.push('\n');
        }
        text
    }

    /// For programs: `{ "faults": [ … ] }`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "faults": self.faults.iter().map(Fault::to_json).collect::<Vec<_>>() })
    }
}

impl IntoIterator for Faults {
    type Item = Fault;
    type IntoIter = std::vec::IntoIter<Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.faults.into_iter()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        std::iter::once(fault).collect()
    }
}

impl FromIterator<Fault> for Faults {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        Self { faults: faults.into_iter().collect(), referenced: Referenced::new(), hash: None }
    }
}

/// One line a fault, for logs.
impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(formatter, "{line_break}{}: {}", fault.at(), fault.message)?;
            if let Some(help) = &fault.help {
                write!(formatter, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The known name that a misspelt one most likely means.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = name.to_lowercase().replace('-', "_");
    let distance = |other: &str| strsim::damerau_levenshtein(&folded, &other.to_lowercase().replace('-', "_"));
    let (distance, near) = known.iter().map(|other| (distance(other), *other)).min_by_key(|(distance, _)| *distance)?;
    (distance <= (name.chars().count() / 3).max(1)).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> Fault {
        let file = SourceFile::new("policies/é.yaml", "a: é\nb: wrong\n");
        let place = file.place(9, 5);
        let fault = Fault::new("unknown_b", &file, place, "`b` is wrong").label("this one").nearest("wrong", ["wrang"]);
        let other = SourceFile::new("doorward.yaml", "b: right\n");
        fault.also(&other, other.place(3, 5), "the right one")
    }

    #[test]
    fn a_fault_shows_file_line_column_pointer_and_mend() {
        let mut faults = Faults::default();
        faults.push(fault());
        let text = faults.render(false, 100);
        assert!(text.contains("policies/é.yaml:2:4"), "{text}");
        assert!(text.contains("b: wrong") && text.contains("this one"), "{text}");
        assert!(text.contains("did you mean `wrang`?") && text.contains("doorward.yaml:1:4"), "{text}");
        assert!(!text.contains('\u{1b}'), "no colour was asked for: {text:?}");
        assert!(faults.render(true, 100).contains('\u{1b}'));
    }

    #[test]
    fn no_excerpt_of_a_file_shows_what_one_of_its_faults_hides() {
        for secret in ["hunter2", "\"hunter2\"", "\"h\\u0075nter2\"", "|\n  hunter2\n  hunter2"] {
            let file = SourceFile::new("f.yaml", format!("kind: é\nsecret: {secret}\nname: x\n"));
            let place = file.place(17, 1);
            let mut faults = Faults::default();
            faults.push(Fault::new("first", &file, file.place(0, 4), "the line above"));
            faults.push(Fault::new("second", &file, place, "the line itself").hiding("hunter2"));
            faults.push(Fault::new("third", &file, file.place(file.text.len() - 2, 1), "a line below"));
            let text = faults.render(false, 100);
            assert!(!text.contains("unter2") && text.contains("****"), "{text}");
        }
    }

    #[test]
    fn a_fault_as_json_has_every_part() {
        let json = fault().to_json();
        assert_eq!((&json["line"], &json["column"], &json["code"]), (&json!(2), &json!(4), &json!("unknown_b")));
        assert_eq!((&json["file"], &json["elsewhere"][0]["line"]), (&json!("policies/é.yaml"), &json!(1)));
    }

    #[test]
    fn only_a_near_name_is_offered() {
        assert_eq!(nearest("upstrem", &["path", "upstream"]), Some("upstream"));
        assert_eq!(nearest("trusted-proxies", &["trusted_proxies"]), Some("trusted_proxies"));
        assert_eq!(nearest("zebra", &["path", "upstream"]), None);
    }
}
