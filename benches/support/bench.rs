//! How long a criterion benchmark may take: all of them together stay within minutes.

use std::time::Duration;

use criterion::Criterion;

/// Criterion with short measurements, and what stands on the command line.
pub fn criterion() -> Criterion {
    let short = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300));
    short.measurement_time(Duration::from_secs(1)).without_plots().configure_from_args()
}

/// Prints what is measured once, for it takes too long to be measured often.
#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
pub fn note(name: &str, took: Duration) {
    println!("{name:<50} once:   {took:.2?}\n");
}

/// One after the other, and from the beginning again.
pub struct Rotating<'items, T> {
    items: &'items [T],
    position: usize,
}

impl<'items, T> Rotating<'items, T> {
    /// From the first on.
    pub fn over(items: &'items [T]) -> Self {
        Self { items, position: 0 }
    }

    /// The next one.
    pub fn next(&mut self) -> &'items T {
        self.position = (self.position + 1) % self.items.len();
        &self.items[self.position]
    }
}
