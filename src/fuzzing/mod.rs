//! What holds for any bytes: one function for each border where bytes from outside are read.
//!
//! Each takes anything and panics where its property does not hold. The fuzzer (`fuzz/`) looks for such bytes; the tests
//! here try all those that were ever worth keeping. Public for the fuzzer's crate alone, and in no other build.

mod configuration;
mod cookie;
mod framing;
mod policy;
mod proxy_header;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod same_bytes;
mod target;
mod token;

pub use configuration::configuration;
pub use cookie::cookie;
pub use framing::framing;
pub use policy::policy;
pub use proxy_header::proxy_header;
pub use target::target;
pub use token::token;

/// Takes the first byte away, for what the rest is used for; nothing when there is none.
fn choice(bytes: &[u8]) -> Option<(u8, &[u8])> {
    bytes.split_first().map(|(first, rest)| (*first, rest))
}
