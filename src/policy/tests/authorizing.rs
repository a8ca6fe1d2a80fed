use super::*;

const READERS: &str = r#"@id("readers-read") permit(principal in Role::"reader", action in Action::"read", resource);"#;

#[test]
fn no_rule_denies() {
    let denied = World::of("").ask(&alice(&["reader", "admin"]), "GET", "/invoices/7").unwrap_err();
    assert_eq!(denied.reason, DenyReason::NotPermitted);
    assert!(denied.policy_ids.is_empty());
    assert_eq!(denied.roles.len(), 2, "a refusal tells the roles as a permission does");
}

#[test]
fn a_grant_names_the_policies_that_decided() {
    let world = World::of(READERS);
    let grant = world.ask(&alice(&["reader"]), "GET", "/invoices/7").unwrap();
    assert_eq!(ids(grant.policy_ids()), ["readers-read"]);
    assert_eq!(&*grant.route().name, "invoices");
    assert_eq!(&**grant.principal().id(), "okta|alice");
    assert_eq!(world.policies.policy_location("readers-read").unwrap(), "rules.cedar:1");
}

#[test]
fn head_and_options_read_and_the_rest_writes() {
    let world = World::of(READERS);
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert!(world.ask(&alice(&["reader"]), method, "/invoices/7").is_ok(), "{method}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(world.reason(&alice(&["reader"]), method, "/invoices/7"), DenyReason::NotPermitted, "{method}");
    }
}

#[test]
fn action_groups_also_hold_in_conditions() {
    let world = World::of(r#"@id("a") permit(principal is User, action, resource) when { action in Action::"read" };"#);
    assert!(world.ask(&alice(&[]), "HEAD", "/invoices/7").is_ok());
    assert_eq!(world.reason(&alice(&[]), "PUT", "/invoices/7"), DenyReason::NotPermitted);
}

#[test]
fn a_caller_holds_every_role_at_once() {
    let world = World::of(
        r#"@id("both") permit(principal in Role::"reader", action, resource) when { principal in Role::"admin" };"#,
    );
    assert!(world.ask(&alice(&["reader", "admin"]), "GET", "/invoices/7").is_ok());
    assert_eq!(world.reason(&alice(&["admin"]), "GET", "/invoices/7"), DenyReason::NotPermitted);
    assert_eq!(world.reason(&alice(&["reader"]), "GET", "/invoices/7"), DenyReason::NotPermitted);
}

#[test]
fn a_role_holds_on_routes_of_its_environment_only() {
    let world = World::of(
        r#"@id("all") permit(principal, action, resource) when { principal in [Role::"reader", Role::"tester"] };"#,
    );
    let both = alice(&["reader", "tester"]);
    let production = world.ask(&both, "GET", "/invoices/7").unwrap();
    assert_eq!(production.roles().iter().map(|session| &*session.role).collect::<Vec<_>>(), ["reader"]);
    let staging = world.ask(&both, "GET", "/reports/x").unwrap();
    assert_eq!(staging.roles().iter().map(|session| &*session.role).collect::<Vec<_>>(), ["tester"]);
    assert_eq!(world.reason(&alice(&["reader"]), "GET", "/reports/x"), DenyReason::NotPermitted);
}

#[test]
fn a_role_is_for_the_issuer_that_its_trust_names() {
    let world = World::of(
        r#"@id("d") permit(principal in Role::"deployer", action, resource == Route::"shop");
           @id("r") permit(principal in Role::"reader", action, resource);"#,
    );
    assert!(world.ask(&workload(json!({"repository": {"id": "123"}})), "POST", "/shop").is_ok());
    let another = VerifiedIdentity { issuer: "ci".into(), ..verified(&["reader"]) };
    assert_eq!(world.reason(&Arc::new(Principal::verified(another)), "GET", "/shop"), DenyReason::NotPermitted);
}

#[test]
fn a_claim_of_another_type_opens_no_role() {
    let rules = r#"@id("d") permit(principal in Role::"deployer", action, resource);"#;
    for claims in [json!({"repository": {"id": 123}}), json!({"repository": "123"}), json!({"repository.id": "123"})] {
        assert_eq!(World::of(rules).reason(&workload(claims), "POST", "/shop"), DenyReason::NotPermitted);
    }
}

#[test]
fn a_forbid_wins_over_a_permit() {
    let world = World::of(
        r#"@id("all") permit(principal, action, resource);
           @id("no-delete") forbid(principal, action == Action::"DELETE", resource in Environment::"production");"#,
    );
    let denied = world.ask(&alice(&[]), "DELETE", "/invoices/7").unwrap_err();
    assert_eq!((denied.reason, ids(&denied.policy_ids)), (DenyReason::Forbidden, vec!["no-delete"]));
    assert!(world.ask(&alice(&[]), "DELETE", "/reports/x").is_ok());
}

#[test]
fn a_guardrail_wins_over_a_permit() {
    let guardrail = r#"@id("freeze") forbid(principal, action in Action::"write", resource);"#;
    let world = World::new(&[
        ("rules.cedar", r#"@id("all") permit(principal, action, resource);"#),
        ("guardrails-freeze.cedar", guardrail),
    ]);
    let denied = world.ask(&alice(&["admin"]), "POST", "/invoices/7").unwrap_err();
    assert_eq!((denied.reason, ids(&denied.policy_ids)), (DenyReason::Guardrail, vec!["freeze"]));
}

#[test]
fn an_evaluation_error_denies_even_if_a_permit_matches() {
    let world = World::of(
        r#"@id("all") permit(principal, action, resource);
           @id("overflow") forbid(principal, action, resource)
             when { principal has level && principal.level + 9223372036854775807 < 0 };"#,
    );
    assert!(world.ask(&alice(&[]), "GET", "/shop").is_ok());
    let mut identity = verified(&[]);
    identity.attributes.insert("level".to_owned(), Attribute::Long(1));
    identity.fingerprint = [3; 32];
    let caller = Arc::new(Principal::verified(identity));
    let denied = world.ask(&caller, "GET", "/shop").unwrap_err();
    assert_eq!((denied.reason, ids(&denied.policy_ids)), (DenyReason::EvaluationFailed, vec!["overflow"]));
    assert_eq!(denied.detail.unwrap(), "policy `overflow` could not be evaluated: a number is too large");
}

#[test]
fn an_attribute_of_another_type_than_declared_denies() {
    let world = World::of(
        r#"@id("all") permit(principal, action, resource);
           @id("low") forbid(principal, action, resource) when { principal has level && principal.level < 3 };"#,
    );
    let mut identity = verified(&[]);
    identity.attributes.insert("level".to_owned(), Attribute::String("9".to_owned()));
    let denied = world.ask(&Arc::new(Principal::verified(identity)), "GET", "/shop").unwrap_err();
    assert_eq!(denied.reason, DenyReason::EvaluationFailed);
    assert!(!denied.detail.unwrap().contains('9'), "no claim's value in a record's detail");
}

#[test]
fn a_projected_claim_cannot_stand_in_for_issuer_or_groups() {
    let world = World::of(
        r#"@id("a") permit(principal, action, resource) when { principal.groups.contains("admin") };
           @id("b") permit(principal, action, resource) when { principal.issuer == "ci" };
           @id("c") permit(principal, action, resource) when { principal has email && principal.email == "x@y" };"#,
    );
    let mut identity = verified(&[]);
    identity.email = None;
    identity.attributes.insert("groups".to_owned(), Attribute::Set(vec!["admin".to_owned()]));
    identity.attributes.insert("issuer".to_owned(), Attribute::String("ci".to_owned()));
    identity.attributes.insert("email".to_owned(), Attribute::String("x@y".to_owned()));
    assert_eq!(world.reason(&Arc::new(Principal::verified(identity)), "GET", "/shop"), DenyReason::NotPermitted);
}

#[test]
fn a_public_route_takes_anybody_whom_nothing_forbids() {
    let world = World::of("");
    let grant = world.ask(&nobody(), "GET", "/health").unwrap();
    assert!(grant.policy_ids().is_empty() && grant.roles().is_empty() && grant.first_uses().is_empty());
}

#[test]
fn a_public_route_with_a_guardrail_that_forbids_is_refused() {
    let guardrail = r#"@id("office") forbid(principal, action, resource)
        unless { context.source_ip.isInRange(ip("192.0.2.0/24")) };"#;
    let world = World::new(&[("guardrails.cedar", guardrail)]);
    assert_eq!(world.reason(&nobody(), "GET", "/health"), DenyReason::Guardrail);
    let rule = r#"@id("no-posts") forbid(principal is Anonymous, action in Action::"write", resource);"#;
    assert_eq!(World::of(rule).reason(&nobody(), "POST", "/health"), DenyReason::Forbidden);
}

#[test]
fn nobody_in_particular_never_enters_a_route_with_callers() {
    let world = World::of(r#"@id("all") permit(principal, action, resource);"#);
    assert_eq!(world.reason(&nobody(), "GET", "/invoices/7"), DenyReason::NotPermitted);
}

#[test]
fn a_preflight_passes_only_where_the_route_names_origins_and_nothing_forbids() {
    let preflight = |world: &World, caller: &Arc<Principal>, method: &str, path: &str| {
        let found = world.found(method, path);
        world.policies.authorize_preflight(caller, &facts(&found, NOW)).map_err(|denied| denied.reason)
    };
    let world = World::of("");
    assert!(preflight(&world, &nobody(), "OPTIONS", "/shop").is_ok());
    assert_eq!(preflight(&world, &nobody(), "OPTIONS", "/invoices/7").unwrap_err(), DenyReason::NotPermitted);
    assert_eq!(preflight(&world, &nobody(), "GET", "/shop").unwrap_err(), DenyReason::NotPermitted);
    assert_eq!(preflight(&world, &alice(&[]), "OPTIONS", "/shop").unwrap_err(), DenyReason::NotPermitted);
    assert_eq!(world.reason(&nobody(), "OPTIONS", "/shop"), DenyReason::NotPermitted, "no way around the preflight");
    let world = World::new(&[("guardrails.cedar", r#"@id("closed") forbid(principal, action, resource);"#)]);
    assert_eq!(preflight(&world, &nobody(), "OPTIONS", "/shop").unwrap_err(), DenyReason::Guardrail);
}

#[test]
fn policies_read_every_fact_of_the_request() {
    let world = World::of(
        r#"@id("facts") permit(principal, action, resource) when {
             context.source_ip.isInRange(ip("10.0.0.0/8")) &&
             context.time.toTime() == duration("8h") &&
             context.method == "GET" && context.host == "api.test" && context.path == "/invoices/7" &&
             context.parameters has id && context.parameters.id == "7" &&
             context.scopes.contains("billing") && context.amr.contains("pwd") && !(context has acr) &&
             context has authentication_age && context.authentication_age == 0 &&
             context.tags.contains("finance") && resource.tags == context.tags &&
             resource.name == "invoices" && resource.environment == "production" &&
             principal.issuer == "okta" && principal.subject == "alice" &&
             principal has email && principal.email == "alice@example.com" &&
             principal has department && principal.department == "finance"
           };"#,
    );
    assert!(world.ask(&alice(&[]), "GET", "/invoices/7").is_ok());
    assert_eq!(world.reason(&alice(&[]), "GET", "/invoices/8"), DenyReason::NotPermitted);
}

#[test]
fn a_decision_about_one_request_is_not_remembered_for_another() {
    let rules = r#"@id("own") permit(principal, action, resource) when {
        context.parameters has id && context.parameters.id == "7" };"#;
    let world = World::of(rules);
    assert!(world.ask(&alice(&[]), "GET", "/invoices/7").is_ok());
    assert_eq!(world.reason(&alice(&[]), "GET", "/invoices/8"), DenyReason::NotPermitted);
    assert!(world.ask(&alice(&[]), "GET", "/invoices/7").is_ok());
}

#[test]
fn a_remembered_decision_is_the_caller_s_own() {
    let world = World::of(READERS);
    for _ in 0..2 {
        assert!(world.ask(&alice(&["reader"]), "GET", "/invoices/7").is_ok());
        assert_eq!(world.reason(&alice(&["tester"]), "GET", "/invoices/7"), DenyReason::NotPermitted);
        assert_eq!(world.reason(&alice(&["reader"]), "PUT", "/invoices/7"), DenyReason::NotPermitted);
        assert_eq!(world.reason(&alice(&["reader"]), "GET", "/reports/x"), DenyReason::NotPermitted);
    }
}

#[test]
fn a_route_of_another_snapshot_is_refused() {
    let world = World::of(r#"@id("all") permit(principal, action, resource);"#);
    let mut found = world.found("GET", "/shop");
    found.route = Arc::new(Route { access: Access::Public { reason: "once".into() }, ..(*found.route).clone() });
    let denied = world.policies.authorize(&alice(&[]), &facts(&found, NOW)).unwrap_err();
    assert_eq!(denied.reason, DenyReason::EvaluationFailed);
}
