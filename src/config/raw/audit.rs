use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::placed::Placed;
use crate::config::units::SizeText;

/// The record of every request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// `stdout` (default) or `file: { … }`.
    pub destination: Option<AuditDestination>,
    /// Most records that wait for the writer, those of requests under way among them: more than
    /// `limits.concurrent_requests` where a full queue refuses. Default 20000.
    pub queue: Option<Placed<u64>>,
    /// What happens when the queue is full: `refuse` new requests (default) or `count` the lost records.
    pub when_full: Option<WhenFull>,
    /// When a request may go upstream: at once, `queued` (default), or `strict`, once a record that it was granted has
    /// been written.
    pub mode: Option<Placed<AuditMode>>,
}

/// Where records go.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AuditDestination {
    /// Standard output, a JSON object a line.
    Stdout,
    /// A file, rotated.
    File(AuditFile),
}

/// A file of records.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditFile {
    /// The file.
    pub path: Placed<String>,
    /// A new file is begun at this size. Default `100MiB`.
    pub rotate_bytes: Option<Placed<SizeText>>,
    /// How many old files are kept. Default 5.
    pub keep: Option<Placed<u64>>,
}

/// When a request may go upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditMode {
    /// At once: its record waits in the queue.
    Queued,
    /// Once `request.granted` has been written.
    Strict,
}

/// What happens when the queue of records is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// New requests are refused.
    Refuse,
    /// The loss is counted.
    Count,
}
