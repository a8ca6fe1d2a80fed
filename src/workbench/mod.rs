//! Asking a configuration questions without serving by it.

mod answer;
mod caller;
mod explain;
mod mint;
#[cfg(test)]
mod tests;
mod trust;

pub use answer::{Answer, CallerAnswer, Forwarded, RouteAnswer};
pub use caller::Caller;
pub use explain::{ExplainError, Question, explain};
pub use mint::{Minting, mint};
pub use trust::{Trust, TrustError, trust};
