use schemars::JsonSchema;
use serde::Deserialize;

use super::{ListenerTls, Reasoned};
use crate::config::placed::Placed;

/// Listener for health, readiness and metrics.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// `ADDRESS:PORT` or `unix:PATH`. Default `127.0.0.1:9901`; elsewhere needs `token` or required client
    /// certificates, and `tls` or `plain`.
    pub address: Option<Placed<String>>,
    /// Bearer token that requests must show: `file:PATH` or `env:NAME`.
    pub token: Option<Placed<String>>,
    /// TLS, as a listener's.
    pub tls: Option<ListenerTls>,
    /// Why a token crosses the network in plain HTTP.
    pub plain: Option<Reasoned>,
}
