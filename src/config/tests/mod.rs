//! The configuration as a whole: what every fault says and where, and what a cut file can never mean.

mod audit;
pub(crate) mod examples;
mod files;
mod issuers;
mod mechanisms;
mod mtls;
mod rules;
mod whole;
pub(crate) mod world;
