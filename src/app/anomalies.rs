//! What connections do that frames no request: on record, once a connection.

use std::sync::Arc;

use serde_json::Value;

use crate::audit::{Audit, OtherEvent};
use crate::clock::Clock;
use crate::server::AnomalyHandler;

/// Writes `anomaly.protocol`. A full queue counts it as lost: there is no request to refuse.
pub(super) fn on_record(audit: Audit, clock: Clock) -> AnomalyHandler {
    Arc::new(move |peer, anomaly| {
        let event = OtherEvent {
            at: clock.now(),
            name: "anomaly.protocol",
            request_id: None,
            principal: None,
            fields: vec![
                ("peer", Value::from(peer.socket_address.ip().to_string())),
                ("source", Value::from(peer.address.ip().to_string())),
                ("listener", Value::from(&*peer.listener)),
                ("code", Value::from(anomaly.code())),
            ],
        };
        let _counted = audit.emit(event);
    })
}
