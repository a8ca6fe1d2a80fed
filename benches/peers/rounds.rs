//! Slices in turn: A B C, C B A in each round, so that what disturbs the machine disturbs all alike.

use std::ops::AddAssign;
use std::time::Duration;

/// Measures each of `count` twice a round. Answers what each has measured in each round.
pub fn interleaved<S>(count: usize, rounds: usize, mut slice: impl FnMut(usize) -> S) -> Vec<Vec<S>>
where
    S: AddAssign,
{
    let mut measured: Vec<Vec<S>> = (0..count).map(|_| Vec::with_capacity(rounds)).collect();
    for _ in 0..rounds {
        for (position, own) in measured.iter_mut().enumerate() {
            own.push(slice(position));
        }
        for (position, own) in measured.iter_mut().enumerate().rev() {
            let back = slice(position);
            if let Some(there) = own.last_mut() {
                *there += back;
            }
        }
    }
    measured
}

/// What a proxy used, and how much it answered meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slice {
    pub used: Duration,
    pub wall: Duration,
    /// Answers with a status of 2xx.
    pub answers: u64,
    /// All others.
    pub failures: u64,
}

impl AddAssign for Slice {
    fn add_assign(&mut self, other: Self) {
        self.used += other.used;
        self.wall += other.wall;
        self.answers += other.answers;
        self.failures += other.failures;
    }
}

impl Slice {
    /// CPU microseconds of one answer.
    pub fn micros(&self) -> f64 {
        self.used.as_secs_f64() * 1e6 / self.answers.max(1) as f64
    }

    /// The share of a core that it used.
    pub fn busy(&self) -> f64 {
        self.used.as_secs_f64() / self.wall.as_secs_f64().max(f64::EPSILON)
    }
}
