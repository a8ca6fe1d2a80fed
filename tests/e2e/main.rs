//! End-to-end tests: the real binary between real peers, driven from outside.
//!
//! `make test` installs what they need (Node.js, Chromium, the packages of `tests/peers/`).
#![allow(missing_docs, reason = "a test's name is its sentence")]

mod support;

mod peers_alive;

mod authorize;
mod aws;
mod azure;
mod client_certificates;
mod credential_issuer;
mod credentials;
mod forward;
mod gcp;
mod grpc;
mod identify;
mod keys;
mod mtls;
mod upstream_faults;
mod vault;

mod audit;
mod audit_writer;
mod bad_input;
mod bearer;
mod browser_login;
mod demo;
mod drain;
mod hostile;
mod issuer_outage;
mod limits;
mod load;
mod oauth;
mod one_worker;
mod open_streams;
mod operation;
mod reload;
mod server;
mod sessions;
mod step_up;
mod streaming;
mod tls;
