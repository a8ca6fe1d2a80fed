//! What the benchmarks share: certificates, tokens, an upstream, the yardstick and a client.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each benchmark uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "a benchmark waits for processes and reads the real time")]

pub mod bare;

pub mod bench;

pub mod client;

pub mod process;

pub mod role;

pub mod served;

pub mod steps;

pub mod upstream;

pub mod world;
