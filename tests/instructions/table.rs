//! The table of what each step is expected to take.

use std::fs;
use std::path::PathBuf;

use crate::steps::STEPS;

/// Percent.
const MOST_ABOVE: f64 = 10.0;
/// Percent. Past it the table is too old to notice what comes next.
const MOST_BELOW: f64 = 25.0;

const RENEW: &str = "cargo test --profile ci --test instructions -- --renew";

const HEADING: &str = "\
# Instructions of one run of each step, in the `ci` profile. Written by
#     cargo test --profile ci --test instructions -- --renew
";

/// Names of steps and their instructions, as the file has them.
pub(crate) struct Table(Vec<(String, u64)>);

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/instructions/expected.txt")
}

impl Table {
    /// An empty one where there is no file.
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(path()).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Self(lines.filter_map(|(name, count)| Some((name.trim_end().to_owned(), count.parse().ok()?))).collect())
    }

    pub(crate) fn set(&mut self, name: &str, count: u64) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), count));
    }

    /// Writes what it has of the steps that there are, in their order.
    pub(crate) fn write(&self) {
        let rows = STEPS.iter().filter_map(|step| Some((step.name, self.expected(step.name)?)));
        let lines: String = rows.map(|(name, count)| format!("{name:<52} {count:>8}\n")).collect();
        fs::write(path(), format!("{HEADING}{lines}")).expect("the table can be written");
    }

    fn expected(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, count)| *count)
    }

    /// How `count` compares.
    ///
    /// # Errors
    /// That it is too far from what is expected, or that nothing is.
    pub(crate) fn judge(&self, name: &str, count: u64) -> Result<String, String> {
        let Some(expected) = self.expected(name) else {
            return Err(format!("it is not in the table, and takes {count} instructions: `{RENEW}`"));
        };
        let change = (count as f64 / expected as f64 - 1.0) * 100.0;
        let found = format!("{count} instructions, {expected} expected: {change:+.1} %");
        if change > MOST_ABOVE {
            return Err(format!("{found}. If that is what it is worth: `{RENEW}`"));
        }
        if change < -MOST_BELOW {
            return Err(format!("{found}. Keep what was won: `{RENEW}`"));
        }
        Ok(found)
    }
}
