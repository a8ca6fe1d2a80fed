//! What is wrong with the rules, where, and how to mend it.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode, SourceSpan};

use super::settings::PolicySource;

/// One fault of the rules, with its place. Prints with a pointer at the text through `miette`.
#[derive(Clone, Debug)]
pub struct PolicyFault {
    message: String,
    help: Option<String>,
    severity: Severity,
    place: Option<Place>,
}

/// Where in which file.
#[derive(Clone, Debug)]
struct Place {
    file: Arc<str>,
    source: NamedSource<Arc<str>>,
    labels: Vec<LabeledSpan>,
    offset: usize,
    position: Position,
}

/// Line and column, counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    /// Where a text begins.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    fn of(text: &str, offset: usize) -> Self {
        Self::START.after(text.get(..offset).unwrap_or(text))
    }

    /// The position past `text`, which begins here.
    pub(super) fn after(self, text: &str) -> Self {
        match text.rsplit_once('\n') {
            None => Self { column: self.column.saturating_add(text.chars().count()), ..self },
            Some((lines, last)) => Self {
                line: self.line.saturating_add(lines.matches('\n').count()).saturating_add(1),
                column: last.chars().count().saturating_add(1),
            },
        }
    }
}

impl PolicyFault {
    /// A fault of the configuration as a whole.
    pub(super) fn general(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, severity: Severity::Error, place: None }
    }

    /// A fault at `span` of `source`.
    pub(super) fn at(source: &PolicySource, span: SourceSpan, label: &str, message: impl Into<String>) -> Self {
        let label = LabeledSpan::new_with_span(Some(label.to_owned()), span);
        Self { place: Some(Place::new(source, vec![label], span.offset())), ..Self::general(message) }
    }

    /// What Cedar says about `source`. Cedar attaches a text without a name, so its labels move to ours.
    pub(super) fn of_cedar(source: &PolicySource, fallback: SourceSpan, error: &dyn Diagnostic) -> Self {
        let mut labels: Vec<LabeledSpan> = error.labels().into_iter().flatten().collect();
        if labels.is_empty() {
            labels.push(LabeledSpan::new_with_span(None, fallback));
        }
        let offset = labels.first().map_or(0, LabeledSpan::offset);
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let inner_message = inner.to_string();
            if !message.contains(&inner_message) {
                message = format!("{message}: {inner_message}");
            }
            cause = inner.source();
        }
        Self {
            message,
            help: error.help().map(|help| help.to_string()),
            severity: Severity::Error,
            place: Some(Place::new(source, labels, offset)),
        }
    }

    pub(super) fn with_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    pub(super) fn into_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Name of the file; `None` for a fault of the configuration as a whole.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.place.as_ref().map(|place| &*place.file)
    }

    /// Line of the first label, from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.position.line)
    }

    /// Column of the first label, in characters from 1.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.position.column)
    }

    /// Offset and length of the first label, in bytes of the file.
    #[must_use]
    pub fn span(&self) -> Option<(usize, usize)> {
        let label = self.place.as_ref()?.labels.first()?;
        Some((label.offset(), label.len()))
    }

    /// What the first label says.
    #[must_use]
    pub fn label_text(&self) -> Option<&str> {
        self.place.as_ref()?.labels.first()?.label()
    }

    /// How to mend it, where that is known.
    #[must_use]
    pub fn help_text(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Order in which people read faults.
    pub(super) fn sort_key(&self) -> (Option<Arc<str>>, usize, String) {
        let place = self.place.as_ref();
        (place.map(|place| place.file.clone()), place.map_or(0, |place| place.offset), self.message.clone())
    }
}

impl Place {
    fn new(source: &PolicySource, labels: Vec<LabeledSpan>, offset: usize) -> Self {
        Self {
            file: source.file.clone(),
            source: NamedSource::new(&*source.file, source.text.clone()),
            labels,
            offset,
            position: Position::of(&source.text, offset),
        }
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for PolicyFault {}

impl Diagnostic for PolicyFault {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|place| &place.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.place.as_ref().map(|place| Box::new(place.labels.iter().cloned()) as Box<dyn Iterator<Item = _>>)
    }
}

/// `did you mean …`, when one of `known` is near enough to `given`.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    const NEAR: f64 = 0.75;
    // Likeness of beginnings serves long names; in a short one, count slips of the finger.
    let likeness = |name: &str| {
        let slips = strsim::damerau_levenshtein(given, name);
        let by_slips = if slips <= 1 { NEAR } else { 0.0 };
        strsim::jaro_winkler(given, name).max(by_slips)
    };
    known
        .into_iter()
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, name)| format!("did you mean `{name}`?"))
}
