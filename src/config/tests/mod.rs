//! The configuration as a whole: what every fault says and where, and what a cut file can never mean.

mod audit;
mod clouds;
mod credentials;
pub(crate) mod examples;
mod files;
mod issuers;
mod mechanisms;
mod mtls;
mod rules;
mod vault;
mod whole;
pub(crate) mod world;
