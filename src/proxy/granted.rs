//! `request.granted`: written before a request goes upstream, where the audit is strict.

use serde_json::Value;

use super::ProxyError;
use crate::audit::{Audit, OtherEvent, RequestRecord, shortened};
use crate::clock::Timestamp;

/// Writes what was granted, and waits until it cannot be lost with this process. The one record of the request follows
/// at its end.
///
/// # Errors
/// [`ProxyError::AuditFull`], [`ProxyError::AuditUnwritten`]: the request must not go upstream.
pub(super) async fn record(
    audit: &Audit,
    granted: &RequestRecord,
    now: Timestamp,
    upstream: &str,
) -> Result<(), ProxyError> {
    let route = granted.route.as_deref();
    let event = OtherEvent {
        at: now,
        name: "request.granted",
        request_id: Some(granted.request_id.clone()),
        principal: granted.principal.clone(),
        fields: vec![
            ("roles", granted.roles.iter().map(|held| Value::from(&*held.role)).collect()),
            ("route", route.map(|route| &*route.name).into()),
            ("environment", route.map(|route| &*route.environment).into()),
            ("method", granted.method.as_str().into()),
            ("host", granted.host.as_str().into()),
            ("path", shortened(granted.path.clone()).into()),
            ("policy_ids", granted.policy_ids.iter().map(|id| Value::from(&**id)).collect()),
            ("snapshot", granted.snapshot.as_ref().into()),
            ("credential", granted.credential_id.as_deref().into()),
            ("upstream", upstream.into()),
        ],
    };
    Ok(audit.emit_written(event).await?)
}
