use super::*;

fn explain(world: &World, caller: &Principal, method: &str, path: &str, now: Timestamp) -> Explanation {
    let found = world.found(method, path);
    world.policies.explain(caller, &facts(&found, now))
}

const RULES: &str = "@id(\"admins\")\n@reason(\"Admins may do everything\")\n\
    permit(principal in Role::\"admin\", action, resource);\n\
    @id(\"no-delete\") forbid(principal, action == Action::\"DELETE\", resource);";

#[test]
fn an_explanation_names_the_deciding_policy_its_place_and_its_reason() {
    let world = World::of(RULES);
    let explanation = explain(&world, &alice(&["admin"]), "GET", "/shop", NOW);
    assert_eq!((explanation.decision, explanation.code), ("allow", "ok"));
    let [deciding] = explanation.deciding.as_slice() else { panic!("{explanation:#?}") };
    assert_eq!((deciding.id.as_str(), deciding.location.as_str()), ("admins", "rules.cedar:1"));
    assert_eq!(deciding.reason.as_deref(), Some("Admins may do everything"));
    assert_eq!(explanation.considered.len(), 1, "the forbid is about another method");
}

#[test]
fn an_explanation_tells_which_part_of_a_role_s_trust_is_not_met() {
    let world = World::of(RULES);
    let explanation = explain(&world, &alice(&["tester"]), "GET", "/shop", NOW);
    assert_eq!((explanation.decision, explanation.code), ("deny", "not_permitted"));
    let role = |name: &str| explanation.roles.iter().find(|role| role.role == name).unwrap();
    let failed = |name: &str| role(name).trust[0].failed.clone().unwrap();
    assert_eq!(failed("admin"), "the caller is not in the group `admin`");
    assert_eq!(failed("deployer"), "the caller's issuer is not `ci`");
    assert!(role("tester").trust[0].met && !role("tester").held);
    assert!(role("tester").reason.as_ref().unwrap().contains("staging"));
    assert_eq!(explanation.considered[0].outcome, "does not apply");
}

#[test]
fn an_explanation_tells_of_a_session_that_is_past() {
    let world = World::of(RULES);
    let explanation = explain(&world, &alice(&["admin"]), "GET", "/shop", NOW.plus(2 * HOUR));
    assert_eq!(explanation.code, "role_session_expired");
    let admin = explanation.roles.iter().find(|role| role.role == "admin").unwrap();
    assert!(!admin.held && admin.reason.as_ref().unwrap().contains("2026-11-22T09:00:00.000Z"), "{admin:?}");
}

#[test]
fn an_explanation_is_data() {
    let world = World::of(RULES);
    let json = serde_json::to_value(explain(&world, &alice(&["admin"]), "DELETE", "/shop", NOW)).unwrap();
    assert_eq!(json["code"], "forbidden");
    assert_eq!(json["deciding"][0]["id"], "no-delete");
    assert_eq!(json["considered"].as_array().unwrap().len(), 2);
}

#[test]
fn explaining_a_made_up_caller_grants_nothing_to_the_real_one() {
    let world = World::of(RULES);
    let real = alice(&[]);
    let made_up = VerifiedIdentity { groups: vec!["admin".to_owned()], ..verified(&[]) };
    assert_eq!(explain(&world, &Principal::verified(made_up), "GET", "/shop", NOW).decision, "allow");
    assert_eq!(world.reason(&real, "GET", "/shop"), DenyReason::NotPermitted);
}

#[test]
fn an_explanation_decides_as_authorize_does() {
    let world = World::of(RULES);
    for (caller, method) in [(alice(&["admin"]), "GET"), (alice(&["admin"]), "DELETE"), (alice(&[]), "GET")] {
        for path in ["/shop", "/health", "/reports/x"] {
            let expected = world.ask(&caller, method, path).map_or_else(|denied| denied.reason.code(), |_| "ok");
            assert_eq!(explain(&world, &caller, method, path, NOW).code, expected, "{method} {path}");
        }
    }
}
