use cedar_policy::{PolicySet, Request, Schema};
use proptest::prelude::*;

use super::context::ContextReads;
use super::judge::{Ruling, Verdict, judge};
use super::*;

const PRINCIPALS: [&str; 8] = [
    "principal",
    r#"principal in Role::"reader""#,
    r#"principal in Role::"admin""#,
    r#"principal in Role::"tester""#,
    r#"principal is User in Role::"admin""#,
    "principal is Workload",
    r#"principal == User::"okta|alice""#,
    r#"principal in User::"okta|alice""#,
];
const ACTIONS: [&str; 5] = [
    "action",
    r#"action == Action::"GET""#,
    r#"action in Action::"read""#,
    r#"action in [Action::"write", Action::"HEAD"]"#,
    r#"action in Action::"DELETE""#,
];
const RESOURCES: [&str; 6] = [
    "resource",
    r#"resource == Route::"shop""#,
    r#"resource in Route::"invoices""#,
    r#"resource in Environment::"production""#,
    r#"resource is Route in Environment::"staging""#,
    "resource is Route",
];
const CONDITIONS: [&str; 9] = [
    "",
    r#"when { principal.groups.contains("reader") }"#,
    r#"when { principal has level && principal.level + 9223372036854775807 > 0 }"#,
    r#"when { context.parameters has id && context.parameters.id == "7" }"#,
    r#"unless { resource.tags.contains("finance") }"#,
    r#"when { context.method == "GET" || context.scopes.contains("none") }"#,
    r#"unless { principal in Role::"contractor" }"#,
    r#"when { context.source_ip.isInRange(ip("10.1.0.0/16")) }"#,
    r#"when { context.time < datetime("2026-11-22T09:30:00Z") }"#,
];

prop_compose! {
    fn policy()(permit in any::<bool>(), principal in 0..PRINCIPALS.len(), action in 0..ACTIONS.len(),
                resource in 0..RESOURCES.len(), condition in 0..CONDITIONS.len()) -> String {
        let effect = if permit { "permit" } else { "forbid" };
        let (principal, action) = (PRINCIPALS[principal], ACTIONS[action]);
        format!("{effect}({principal}, {action}, {}) {};", RESOURCES[resource], CONDITIONS[condition])
    }
}

prop_compose! {
    fn caller()(kind in 0..3, groups in proptest::sample::subsequence(vec!["reader", "admin", "contractor", "tester"], 0..4),
                level in proptest::option::of(Just(1))) -> Arc<Principal> {
        let mut identity = verified(&groups);
        identity.fingerprint[31] = u8::from(level.is_some());
        identity.attributes.extend(level.map(|level| ("level".to_owned(), Attribute::Long(level))));
        match kind {
            0 => Arc::new(Principal::verified(identity)),
            1 => workload(json!({"repository": {"id": "123"}})),
            _ => nobody(),
        }
    }
}

/// Every policy in one set, and the schema that requests are held to.
fn everything(world: &World) -> (PolicySet, Schema) {
    let policies = world.policies.rules.all().iter().map(|rule| rule.policy.clone());
    let schema = Schema::from_cedarschema_str(world.policies.schema_text()).unwrap().0;
    (PolicySet::from_policies(policies).unwrap(), schema)
}

/// The decision that the whole set gives, by the rules as they are written down: slow, without slices and memory.
fn whole(
    world: &World,
    (set, schema): &(PolicySet, Schema),
    caller: &Arc<Principal>,
    facts: &RequestFacts<'_>,
) -> Result<Ruling, DenyReason> {
    let policies = &world.policies;
    let question = policies.question(caller, facts).unwrap();
    let context = context::build(ContextReads::ALL, caller, facts).unwrap();
    let uid = policies.vocabulary.principal_uid(caller);
    let action = question.action.uid();
    let request = Request::new(uid, action, question.entry.entity.uid(), context, Some(schema)).unwrap();
    let held = roles::held(&policies.roles, caller, &facts.route.environment);
    let ruling = |held: &mut dyn Iterator<Item = &Arc<str>>| {
        let entities = policies.vocabulary.entities(caller, held, question.action, &question.entry.entity);
        judge(&policies.rules, set, &request, &entities.unwrap())
    };
    let live = ruling(&mut held.iter().filter(|session| session.is_live(facts.now)).map(|session| &session.role));
    let all = ruling(&mut held.iter().map(|session| &session.role));
    let open = matches!(facts.route.access, Access::Public { .. });
    let passes = |ruling: &Ruling| ruling.verdict == Verdict::Permit || open && ruling.verdict == Verdict::Silence;
    if caller.kind == PrincipalKind::Anonymous && !open {
        return Err(DenyReason::NotPermitted);
    }
    match (&live, &all) {
        (live, all) if passes(live) && passes(all) => Ok(live.clone()),
        (live, _) if live.verdict == Verdict::Failure => Err(DenyReason::EvaluationFailed),
        (_, all) if passes(all) => Err(DenyReason::RoleSessionExpired),
        (_, all) => Err(match all.verdict {
            Verdict::Failure => DenyReason::EvaluationFailed,
            Verdict::Guardrail => DenyReason::Guardrail,
            Verdict::Forbid => DenyReason::Forbidden,
            Verdict::Silence | Verdict::Permit => DenyReason::NotPermitted,
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Also holds what is remembered to what is decided anew: every request is asked twice.
    #[test]
    fn slices_decide_as_the_whole_set(
        policies in proptest::collection::vec((policy(), any::<bool>()), 0..10),
        callers in proptest::collection::vec(caller(), 1..4),
        hours in 0..3_u32,
    ) {
        let (mut rules, mut guardrails) = (String::new(), String::new());
        for (index, (policy, guardrail)) in policies.iter().enumerate() {
            let file = if *guardrail && policy.starts_with("forbid") { &mut guardrails } else { &mut rules };
            file.push_str(&format!("@id(\"p{index}\") {policy}\n"));
        }
        let world = World::new(&[("rules.cedar", &rules), ("guardrails.cedar", &guardrails)]);
        let everything = everything(&world);
        for caller in &callers {
            for (method, path) in [("GET", "/invoices/7"), ("HEAD", "/invoices/8"), ("POST", "/shop"), ("GET", "/shop"),
                                   ("DELETE", "/reports/x"), ("GET", "/reports/x"), ("GET", "/health")] {
                for (now, source_ip) in
                    [(NOW, "::ffff:10.1.2.3"), (NOW, "192.0.2.7"), (NOW.plus(hours * HOUR), "10.1.9.9")]
                {
                    let found = world.found(method, path);
                    let facts = RequestFacts { source_ip: source_ip.parse().unwrap(), ..facts(&found, now) };
                    let expected = whole(&world, &everything, caller, &facts);
                    for _ in 0..2 {
                        let given = world.policies.authorize(caller, &facts);
                        match (&given, &expected) {
                            (Ok(grant), Ok(ruling)) => prop_assert_eq!(grant.policy_ids(), &ruling.policy_ids),
                            (Err(denied), Err(reason)) => prop_assert_eq!(denied.reason, *reason),
                            _ => prop_assert!(false, "{method} {path}: {given:?} instead of {expected:?}"),
                        }
                    }
                }
            }
        }
    }

    /// A permission is still there one moment before its end, where nothing but time passes.
    #[test]
    fn a_permission_holds_until_it_ends(
        policies in proptest::collection::vec(policy(), 1..8),
        caller in caller(),
    ) {
        let rules: String = policies.iter().enumerate().map(|(index, policy)| format!("@id(\"p{index}\") {policy}\n"))
            .filter(|policy| !policy.contains("context.time")).collect();
        let world = World::of(&rules);
        for path in ["/invoices/7", "/shop", "/reports/x"] {
            if let Ok(grant) = world.ask(&caller, "GET", path)
                && let Some(end) = grant.expires_at()
            {
                let before = world.at(end.minus(Duration::from_millis(1)), &caller, "GET", path);
                prop_assert!(before.is_ok(), "{path}: {before:?}");
            }
        }
    }
}

#[test]
fn a_slice_leaves_out_what_cannot_match() {
    let world = World::of(
        r#"@id("shop") permit(principal, action, resource == Route::"shop");
           @id("staging") permit(principal, action, resource in Environment::"staging");
           @id("writes") permit(principal, action in Action::"write", resource);
           @id("workloads") permit(principal is Workload, action, resource);
           @id("testers") permit(principal in Role::"tester", action, resource);
           @id("all") permit(principal, action, resource);"#,
    );
    let members = |method: http::Method, route: usize, kind| {
        let route = &world.router.routes()[route];
        let slice = world.policies.slices.find(route, &method, kind).unwrap();
        slice.members.iter().map(|member| world.policies.rules.all()[*member].id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(members(http::Method::GET, 0, PrincipalKind::User), ["all"]);
    assert_eq!(members(http::Method::GET, 3, PrincipalKind::User), ["shop", "all"]);
    assert_eq!(members(http::Method::PUT, 0, PrincipalKind::Workload), ["writes", "workloads", "all"]);
    assert_eq!(members(http::Method::GET, 1, PrincipalKind::User), ["staging", "testers", "all"]);
    assert_eq!(members(http::Method::GET, 1, PrincipalKind::Anonymous), ["staging", "all"]);
}
