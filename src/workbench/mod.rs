//! Asking a configuration questions without serving by it.

mod answer;
mod caller;
mod explain;
#[cfg(test)]
mod tests;

pub use answer::{Answer, CallerAnswer, Forwarded, RouteAnswer};
pub use caller::Caller;
pub use explain::{ExplainError, Question, explain};
