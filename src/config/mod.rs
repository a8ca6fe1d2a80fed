//! Configuration: files become one checked value, or every fault that they hold.
//!
//! [`load()`] reads `doorward.yaml` and the `policies` directory beside it, reads each file's form and checks the
//! meaning of all of them together. It knows no running part: [`Checked`] holds plain settings.

pub mod checked;
pub mod compile;
pub mod faults;
pub mod load;
pub mod placed;
pub mod raw;
pub mod schema;
pub mod secrets;
pub mod source_file;
pub mod units;
pub mod watch;

mod check;
mod form;
mod masked;

pub use checked::Checked;
pub use compile::{Judged, Runtime, StartError, compile, examine, judge};
pub use faults::{Fault, Faults};
pub use load::{load, load_with};
pub use secrets::Environment;
pub use source_file::SourceFile;

#[cfg(test)]
pub(crate) mod tests;
