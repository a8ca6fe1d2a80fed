//! The server over loopback, with real clients.

mod drain;
mod framing;
mod http;
mod limits;
mod peers;
mod tls;
