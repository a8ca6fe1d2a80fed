use super::*;

const ADMINS: &str = r#"@id("admins") permit(principal in Role::"admin", action, resource);"#;

#[test]
fn an_expired_role_session_answers_role_session_expired() {
    let world = World::of(ADMINS);
    let caller = alice(&["admin"]);
    assert!(world.at(NOW.plus(HOUR - Duration::from_millis(1)), &caller, "GET", "/shop").is_ok());
    let denied = world.at(NOW.plus(HOUR), &caller, "GET", "/shop").unwrap_err();
    assert_eq!(denied.reason, DenyReason::RoleSessionExpired);
    assert!(denied.roles.is_empty(), "a role past its session is not held");
    assert_eq!(ids(&denied.policy_ids), ["admins"]);
    assert!(denied.detail.unwrap().contains("admin"));
}

#[test]
fn a_role_session_begins_at_authentication_not_at_first_use() {
    let world = World::of(ADMINS);
    let old = VerifiedIdentity { began_at: NOW.minus(2 * HOUR), ..verified(&["admin"]) };
    assert_eq!(world.reason(&Arc::new(Principal::verified(old)), "GET", "/shop"), DenyReason::RoleSessionExpired);
}

#[test]
fn an_expired_role_does_not_lift_its_forbid() {
    let world = World::of(
        r#"@id("readers") permit(principal in Role::"reader", action, resource);
           @id("contractors") forbid(principal in Role::"contractor", action in Action::"write", resource);"#,
    );
    let caller = alice(&["reader", "contractor"]);
    for now in [NOW, NOW.plus(HOUR), NOW.plus(3 * HOUR)] {
        let denied = world.at(now, &caller, "POST", "/shop").unwrap_err();
        assert_eq!((denied.reason, ids(&denied.policy_ids)), (DenyReason::Forbidden, vec!["contractors"]));
        assert!(world.at(now, &caller, "GET", "/shop").is_ok());
    }
}

#[test]
fn an_expired_role_that_would_be_refused_anyway_is_refused_as_ever() {
    let world = World::of(r#"@id("admins") permit(principal in Role::"admin", action in Action::"read", resource);"#);
    let denied = world.at(NOW.plus(2 * HOUR), &alice(&["admin"]), "POST", "/shop").unwrap_err();
    assert_eq!(denied.reason, DenyReason::NotPermitted, "signing in again would not help");
}

#[test]
fn a_role_that_exempts_from_a_forbid_exempts_no_longer_than_its_session() {
    let world = World::of(
        r#"@id("all") permit(principal, action, resource);
           @id("admins-only") forbid(principal, action, resource) unless { principal in Role::"admin" };"#,
    );
    let caller = alice(&["admin"]);
    assert!(world.ask(&caller, "GET", "/shop").is_ok());
    let denied = world.at(NOW.plus(HOUR), &caller, "GET", "/shop").unwrap_err();
    assert_eq!(denied.reason, DenyReason::RoleSessionExpired);
}

#[test]
fn a_permission_ends_with_the_role_that_it_rests_on() {
    let world = World::of(ADMINS);
    let grant = world.ask(&alice(&["admin", "contractor"]), "GET", "/shop").unwrap();
    assert_eq!(grant.expires_at(), Some(NOW.plus(HOUR)));
}

#[test]
fn a_permission_outlives_a_role_that_does_not_carry_it() {
    let world = World::of(
        r#"@id("admins") permit(principal in Role::"admin", action, resource);
           @id("readers") permit(principal in Role::"reader", action, resource);"#,
    );
    let grant = world.ask(&alice(&["admin", "reader"]), "GET", "/shop").unwrap();
    assert_eq!(grant.expires_at(), Some(NOW.plus(4 * HOUR)), "the token's end");
    let later = world.at(NOW.plus(2 * HOUR), &alice(&["admin", "reader"]), "GET", "/shop").unwrap();
    assert_eq!(later.roles().iter().map(|session| &*session.role).collect::<Vec<_>>(), ["reader"]);
}

#[test]
fn a_permission_never_outlives_the_evidence() {
    let world = World::of(ADMINS);
    let short = VerifiedIdentity { expires_at: Some(NOW.plus(HOUR / 2)), ..verified(&["admin"]) };
    let grant = world.ask(&Arc::new(Principal::verified(short)), "GET", "/shop").unwrap();
    assert_eq!(grant.expires_at(), Some(NOW.plus(HOUR / 2)));
}

#[test]
fn a_permission_that_reads_the_request_ends_with_the_first_role_that_matters() {
    let world = World::of(
        r#"@id("admins") permit(principal in Role::"admin", action, resource)
             when { context.source_ip.isInRange(ip("10.0.0.0/8")) };"#,
    );
    let caller = alice(&["admin"]);
    assert_eq!(world.ask(&caller, "GET", "/shop").unwrap().expires_at(), Some(NOW.plus(HOUR)));
    let denied = world.at(NOW.plus(HOUR), &caller, "GET", "/shop").unwrap_err();
    assert_eq!(denied.reason, DenyReason::RoleSessionExpired, "remembered entities end with the session too");
}

#[test]
fn the_first_use_of_a_role_is_told_once() {
    let world = World::of(
        r#"@id("admins") permit(principal in Role::"admin", action, resource);
           @id("readers") permit(principal in Role::"reader", action, resource);"#,
    );
    let caller = alice(&["admin", "reader"]);
    let first = |now, path| !world.at(now, &caller, "GET", path).unwrap().first_uses().is_empty();
    assert!(first(NOW, "/shop"));
    assert!(!first(NOW, "/shop"));
    assert!(!first(NOW, "/invoices/7"), "the same roles on another route");
    assert!(!first(NOW.plus(2 * HOUR), "/shop"), "fewer roles are no new ones");
    assert_eq!(world.ask(&alice(&["reader"]), "GET", "/shop").unwrap().first_uses().len(), 1, "another token");
}

#[test]
fn a_use_whose_record_is_lost_is_told_again_past_remembered_decisions() {
    let world = World::of(ADMINS);
    let caller = alice(&["admin"]);
    let told = || world.ask(&caller, "GET", "/shop").unwrap().first_uses().clone();
    let first = told();
    assert_eq!((first.len(), told().len()), (1, 0));
    world.policies.forget_uses(&caller, &first);
    assert_eq!((told(), told().len()), (first, 0));
}

#[test]
fn a_refreshed_session_assumes_no_role_anew() {
    let world = World::of(ADMINS);
    let session = |generation: u8| {
        let identity = VerifiedIdentity { fingerprint: [generation; 32], ..verified(&["admin"]) };
        Arc::new(Principal::verified(identity).with_evidence_id([9; 32]))
    };
    let told = |caller| world.ask(&caller, "GET", "/shop").unwrap().first_uses().len();
    assert_eq!((told(session(1)), told(session(2))), (1, 0));
}

#[test]
fn a_refusal_uses_no_role() {
    let world = World::of(r#"@id("gets") permit(principal in Role::"admin", action == Action::"GET", resource);"#);
    let caller = alice(&["admin"]);
    assert!(world.ask(&caller, "POST", "/shop").is_err());
    assert_eq!(world.ask(&caller, "GET", "/shop").unwrap().first_uses().len(), 1);
}

#[test]
fn a_reload_makes_nobody_assume_roles_anew() {
    let uses = Arc::new(RoleUses::default());
    for expected in [true, false] {
        let world = World::load(settings(&[("rules.cedar", ADMINS)]), uses.clone());
        let grant = world.ask(&alice(&["admin"]), "GET", "/shop").unwrap();
        assert_eq!(!grant.first_uses().is_empty(), expected);
    }
}
