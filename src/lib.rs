//! Doorward: an identity-aware reverse proxy.
//!
//! One line serves every request: accept, TLS, identify, authorize, credential, forward, audit. Each step takes what
//! the step before it returned, so none can be left out. `docs/ARCHITECTURE.md` draws it.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![cfg_attr(not(test), deny(clippy::string_slice, clippy::todo, clippy::unreachable))]

pub mod cli;

pub mod demo;

pub mod app;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub mod workbench;

pub mod config;

pub mod edge;

pub mod server;

pub mod proxy;

pub mod identity;

pub mod login;

pub mod policy;

pub mod credential;

pub mod upstream;

pub mod audit;

pub mod admin;

pub mod outbound;

pub mod body;
pub mod clock;
pub mod hex;
pub mod peer;
pub mod route;
pub mod secret;
pub mod shutdown;
pub mod target;
pub mod telemetry;
pub mod worker;
