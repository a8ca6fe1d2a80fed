//! How long a criterion benchmark may take: all of them together stay within minutes.

use std::time::Duration;

use criterion::Criterion;

/// Criterion with short measurements, and what stands on the command line.
pub fn criterion() -> Criterion {
    let short = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300));
    short.measurement_time(Duration::from_secs(1)).without_plots().configure_from_args()
}
