//! Figures of one work, and what they are to each other.

use std::fmt;

use super::contender::{DOORWARD, NGINX, Target};
use super::rounds::Slice;

/// One work.
pub struct Table {
    /// As bars name it.
    pub name: &'static str,
    pub title: String,
    pub unit: &'static str,
    pub rows: Vec<Row>,
    /// What has to be known beside the figures.
    pub note: String,
}

/// One proxy.
pub struct Row {
    pub name: String,
    pub checks: &'static str,
    /// One figure a round.
    pub rounds: Vec<f64>,
    /// The share of a core that the proxy used.
    pub busy: Option<f64>,
    /// Answers that were not 2xx.
    pub failures: u64,
}

/// The middle of some figures, and between what half of them lie.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    lower: f64,
    upper: f64,
}

impl Row {
    /// CPU time an answer, of the slices of each round.
    pub fn of_slices(target: &Target, slices: &[Slice]) -> Self {
        let mut sum = Slice::default();
        slices.iter().for_each(|slice| sum += *slice);
        Self {
            rounds: slices.iter().map(Slice::micros).collect(),
            busy: Some(sum.busy()),
            failures: sum.failures,
            ..Self::of(target, Vec::new())
        }
    }

    /// Figures alone.
    pub fn of(target: &Target, rounds: Vec<f64>) -> Self {
        Self { name: target.name.to_owned(), checks: target.checks, rounds, busy: None, failures: 0 }
    }
}

impl Table {
    /// The figures of one row.
    pub fn spread(&self, name: &str) -> Option<Spread> {
        Spread::of(self.row(name)?.rounds.clone())
    }

    /// One row by another, within each round.
    pub fn ratio(&self, one: &str, other: &str) -> Option<Spread> {
        let (one, other) = (self.row(one)?, self.row(other)?);
        Spread::of(one.rounds.iter().zip(&other.rounds).map(|(one, other)| one / other).collect())
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let at = |position: usize| figures.get(position).copied();
        let last = figures.len().checked_sub(1)?;
        let median = f64::midpoint(at(last / 2)?, at(last.div_ceil(2))?);
        Some(Self { median, lower: at(last / 4)?, upper: at((last * 3).div_ceil(4))? })
    }
}

/// Two digits behind the point for small figures, fewer for large ones.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.median < 10.0 { 2 } else { usize::from(self.median < 1000.0) };
        write!(f, "{:.digits$}", self.median)?;
        if self.lower < self.upper {
            write!(f, " ({:.digits$}–{:.digits$})", self.lower, self.upper)?;
        }
        Ok(())
    }
}

/// Markdown.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| | checks | {} | × nginx | doorward is × of it | busy |\n|---|---|---|---|---|---|", self.unit)?;
        let shown = |spread: Option<Spread>| spread.map_or("–".to_owned(), |spread| spread.to_string());
        for row in &self.rows {
            let name = &row.name;
            let busy = row.busy.map_or("–".to_owned(), |busy| format!("{busy:.2}"));
            let figures = [self.spread(name), self.ratio(name, NGINX), self.ratio(DOORWARD, name)].map(shown);
            writeln!(f, "| {name} | {} | {} | {busy} |", row.checks, figures.join(" | "))?;
        }
        for row in self.rows.iter().filter(|row| row.failures > 0) {
            writeln!(f, "\n**{}: {} answers were not 2xx.**", row.name, row.failures)?;
        }
        if !self.note.is_empty() {
            writeln!(f, "\n{}", self.note)?;
        }
        Ok(())
    }
}
