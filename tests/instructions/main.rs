//! Instructions of each step of the line, counted by valgrind and compared with the table in `expected.txt`.
//!
//! Time varies with whatever else a machine does, counts do not: 10 % more fails, on any machine and every time. So do
//! 25 % less, for a table that is not renewed lets as much slip in unseen. The counts are those of the `ci` profile:
//!
//!     cargo test --profile ci --test instructions
//!     cargo test --profile ci --test instructions -- authorize     # those whose names hold `authorize`
//!     cargo test --profile ci --test instructions -- --renew       # writes the table
#![expect(clippy::print_stdout, reason = "it reports as cargo's own harness does")]

mod count;

mod steps;

#[path = "../../benches/support/mod.rs"]
mod support;

mod table;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use steps::{STEPS, Step};
use table::Table;

/// What cargo's own harness ends with when a test failed.
const FAILED: u8 = 101;

/// Options of cargo's own harness whose next word is theirs, and no filter.
const WITH_VALUE: [&str; 7] = ["--color", "--format", "--logfile", "--shuffle-seed", "--skip", "--test-threads", "-Z"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, name] = arguments.as_slice()
        && word == "step"
    {
        let step = STEPS.iter().find(|step| step.name == name).expect("a step of this name");
        (step.run)(step.runs);
        return ExitCode::SUCCESS;
    }
    let wanted = filters(&arguments);
    let chosen: Vec<&Step> = STEPS.iter().filter(|step| is_wanted(step.name, &wanted)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|step| println!("{}: test", step.name));
        println!("\n{} tests, 0 benchmarks", chosen.len());
        return ExitCode::SUCCESS;
    }
    let renew = arguments.iter().any(|argument| argument == "--renew");
    if compare(&chosen, renew) { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn filters(arguments: &[String]) -> Vec<&str> {
    let mut filters = Vec::new();
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            let _its_value = words.next();
        } else if !word.starts_with('-') {
            filters.push(word);
        }
    }
    filters
}

fn is_wanted(name: &str, wanted: &[&str]) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted))
}

/// Counts the chosen steps and says how they compare; whether all is well.
fn compare(chosen: &[&Step], renew: bool) -> bool {
    let began = Instant::now();
    println!("\nrunning {} tests", chosen.len());
    let mut faults = Vec::new();
    let mut failed = 0;
    if chosen.is_empty() {
        // Nothing to count, nothing to refuse.
    } else if let Err(fault) = count::possible() {
        failed = chosen.len();
        faults.push(fault);
    } else {
        let mut table = Table::read();
        for (step, count) in chosen.iter().zip(counts(chosen)) {
            let judged = count.and_then(|count| {
                if renew {
                    table.set(step.name, count);
                }
                table.judge(step.name, count)
            });
            match judged {
                Ok(verdict) => println!("test {} ... ok ({verdict})", step.name),
                Err(fault) => {
                    println!("test {} ... FAILED", step.name);
                    faults.push(format!("{}: {fault}", step.name));
                    failed += 1;
                }
            }
        }
        if renew {
            table.write();
        }
    }
    if !faults.is_empty() {
        println!("\nfailures:\n    {}", faults.join("\n    "));
    }
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
        STEPS.len() - chosen.len(),
        began.elapsed().as_secs_f64()
    );
    failed == 0
}

/// Instructions of one run of each step, in their order; as many at a time as there are cores.
fn counts(steps: &[&Step]) -> Vec<Result<u64, String>> {
    let next = AtomicUsize::new(0);
    let counts = Mutex::new(vec![Ok(0); steps.len()]);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some(step) = steps.get(position) else { break };
                    let count = count::count(step);
                    counts.lock().unwrap_or_else(PoisonError::into_inner)[position] = count;
                }
            });
        }
    });
    counts.into_inner().unwrap_or_else(PoisonError::into_inner)
}
