//! `role.assumed`: the record that evidence uses a role for the first time.

use std::sync::Arc;

use super::ProxyError;
use crate::audit::{Audit, OtherEvent};
use crate::clock::Timestamp;
use crate::policy::{Grant, Policies};

/// Writes `role.assumed`, once for each role and evidence. Without room for it nothing is forwarded, and the next
/// request of this evidence writes what is missing.
///
/// # Errors
/// [`ProxyError::AuditFull`].
pub(super) fn record(
    audit: &Audit,
    policies: &Policies,
    grant: &Grant,
    now: Timestamp,
    request_id: &Arc<str>,
) -> Result<(), ProxyError> {
    for (at, session) in grant.first_uses().iter().enumerate() {
        let event = OtherEvent {
            at: now,
            name: "role.assumed",
            request_id: Some(request_id.clone()),
            principal: Some(grant.principal().clone()),
            fields: vec![
                ("role", session.role.as_ref().into()),
                ("began_at", session.began_at.rfc3339().into()),
                ("ends_at", session.ends_at.map_or(serde_json::Value::Null, |end| end.rfc3339().into())),
                ("environment", grant.route().environment.as_ref().into()),
            ],
        };
        if audit.emit(event).is_err() {
            policies.forget_uses(grant.principal(), grant.first_uses().get(at..).unwrap_or_default());
            return Err(ProxyError::AuditFull);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::mpsc::{channel, sync_channel};
    use std::time::Duration;

    use super::*;
    use crate::audit::{Destination, WhenFull, Writer, WriterSettings};
    use crate::identity::PrincipalKind;
    use crate::identity::testing::workload;
    use crate::policy::{PolicySettings, PolicySource, RequestFacts, RoleSettings, RoleTrust};
    use crate::route::{Route, Router};
    use crate::target::RequestTarget;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_795_334_400);

    fn route() -> Route {
        Route { environment: "test".into(), ..crate::identity::testing::route() }
    }

    /// Two roles, `one` and `two`, that every caller of `ci` holds.
    fn policies(router: &Router) -> Policies {
        let trust = || vec![RoleTrust { issuer: "ci".into(), groups: Vec::new(), claims: Vec::new() }];
        let role = |name: &str| RoleSettings {
            name: name.into(),
            trust: trust(),
            environment: "test".into(),
            longest_session: None,
        };
        let text = r#"@id("all") permit(principal in Role::"one", action, resource);"#;
        let settings = PolicySettings {
            issuers: BTreeMap::from([("ci".into(), PrincipalKind::Workload)]),
            attributes: Vec::new(),
            roles: vec![role("one"), role("two")],
            routes: router.routes().to_vec(),
            sources: vec![PolicySource { file: "rules.cedar".into(), text: text.into(), guardrail: false }],
        };
        Policies::load(settings, Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn a_role_for_which_the_queue_has_no_room_is_recorded_by_the_next_request() {
        let router = Router::new(vec![route()]).unwrap();
        let (policies, caller) = (policies(&router), workload(NOW));
        let request = http::Request::get("/").header("host", "a.test").body(()).unwrap().into_parts().0;
        let found = router.find(RequestTarget::of(&request).unwrap()).unwrap().unwrap();
        let facts = RequestFacts {
            route: &found.route,
            target: &found.target,
            parameters: &found.parameters,
            source_ip: "10.1.2.3".parse().unwrap(),
            now: NOW,
        };
        let grant = || policies.authorize(&caller, &facts).unwrap();
        let roles =
            |grant: &Grant| grant.first_uses().iter().map(|session| session.role.to_string()).collect::<Vec<_>>();

        // The writer is held by the first record, so that the queue behind it has exactly one free slot.
        let ((entered, stalled), (release, released)) = (sync_channel(1), channel::<()>());
        let (lines, written) = channel();
        let callback = move |text: &str| {
            let _told = entered.try_send(());
            released.recv().map_err(io::Error::other)?;
            lines.send(text.to_owned()).map_err(io::Error::other)
        };
        let destination = Destination::Callback(Box::new(callback));
        let (writer, audit) =
            Writer::start(WriterSettings { destination, queue: 1, when_full: WhenFull::Refuse }).unwrap();
        let held = OtherEvent { at: NOW, name: "config.loaded", request_id: None, principal: None, fields: Vec::new() };
        audit.emit(held).unwrap();
        stalled.recv().unwrap();
        assert_eq!(audit.free_slots(), 1);

        let (first, request_id) = (grant(), Arc::from("r1"));
        assert_eq!(roles(&first), ["one", "two"]);
        assert!(matches!(record(&audit, &policies, &first, NOW, &request_id), Err(ProxyError::AuditFull)));
        let second = grant();
        assert_eq!(roles(&second), ["two"], "what was recorded is not recorded again");
        assert!(record(&audit, &policies, &second, NOW, &request_id).is_err());
        let third = grant();
        assert_eq!(roles(&third), ["two"]);

        for _ in 0..2 {
            release.send(()).unwrap();
        }
        drop(release);
        writer.finish(Duration::from_secs(30)).await.unwrap();
        let written: String = written.iter().collect();
        assert_eq!(written.matches("role.assumed").count(), 1, "{written}");
    }
}
