//! A file of the configuration as it was read, and places in it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::placed::Place;

/// A file as it was read: what faults point into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path, as the operator would write it.
    pub path: PathBuf,
    /// Its whole text.
    pub text: Arc<str>,
}

impl SourceFile {
    /// A file with its text.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, text: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Self { path: path.into(), text: text.into() })
    }

    /// The place of a byte range, for parsers that count in bytes. Past the end is the end.
    #[must_use]
    pub fn place(&self, offset: usize, length: usize) -> Place {
        let offset = (0..=offset.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let before = self.text.get(..offset).unwrap_or_default();
        let line_begins = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_begins..).unwrap_or_default().chars().count() + 1;
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place { line: narrow(before.matches('\n').count() + 1), column: narrow(column), offset, length }
    }

    /// The place again, with a byte range where a parser gave line and column only, and never past its line.
    pub(super) fn pointed(&self, mut place: Place) -> Place {
        if place.line == 0 {
            return place;
        }
        let mut line_begins = 0;
        for line in self.text.split_inclusive('\n').take(place.line.saturating_sub(1) as usize) {
            line_begins += line.len();
        }
        let line = self.text.get(line_begins..).unwrap_or_default().lines().next().unwrap_or_default();
        let column = place.column.saturating_sub(1) as usize;
        place.offset = line_begins + line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
        place.length = place.length.min((line_begins + line.len()).saturating_sub(place.offset)).max(1);
        place.length = place.length.min(self.text.len().saturating_sub(place.offset));
        // No half of a character is pointed at.
        while !self.text.is_char_boundary(place.offset + place.length) {
            place.length += 1;
        }
        place
    }

    /// Where a value that begins at `offset` stands: to the end of its line, or anywhere where it is written otherwise.
    pub(super) fn around(&self, offset: usize, value: &str) -> Range<usize> {
        let rest = self.text.get(offset..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        if line.contains(value) { offset..offset + line.len() } else { 0..self.text.len() }
    }

    /// The text, with as many `*` as these ranges have bytes.
    pub(super) fn masked(&self, ranges: &[Range<usize>]) -> Arc<str> {
        let masked = self.text.char_indices().fold(String::new(), |mut text, (at, character)| {
            if character != '\n' && ranges.iter().any(|range| range.contains(&at)) {
                text.extend(std::iter::repeat_n('*', character.len_utf8()));
            } else {
                text.push(character);
            }
            text
        });
        masked.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_past_the_end_is_the_end() {
        let file = SourceFile::new("f", "a\n");
        assert_eq!((file.place(99, 4).line, file.place(99, 4).column), (2, 1));
        let place = file.pointed(Place { line: 7, column: 9, offset: 99, length: 9 });
        assert!(place.offset + place.length <= 2);
    }
}
