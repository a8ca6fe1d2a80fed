use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use super::*;

fn faults(sources: &[(&str, &str)]) -> Vec<PolicyFault> {
    Policies::load(settings(sources), Arc::default()).unwrap_err()
}

fn only(text: &str) -> PolicyFault {
    let faults = faults(&[("rules.cedar", text)]);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.into_iter().next().unwrap()
}

fn place(fault: &PolicyFault) -> (&str, usize, usize) {
    (fault.file().unwrap(), fault.line().unwrap(), fault.column().unwrap())
}

#[test]
fn a_misspelt_attribute_is_an_error_with_file_line_column_and_the_nearest_name() {
    let fault = only(
        "@id(\"a\")\npermit(principal, action, resource)\nwhen { principal has department && principal.departmnt == \"x\" };",
    );
    assert_eq!(place(&fault), ("rules.cedar", 3, 36));
    assert!(fault.to_string().contains("departmnt"), "{fault}");
    assert!(fault.help_text().unwrap().contains("department"), "{fault:?}");
}

#[test]
fn a_fault_prints_with_the_file_s_name_and_a_pointer_at_the_text() {
    let fault = only("@id(\"a\")\npermit(principal, action, resource)\nwhen { context.sourceip == ip(\"10.0.0.1\") };");
    let mut printed = String::new();
    let theme = GraphicalTheme::unicode_nocolor();
    GraphicalReportHandler::new_themed(theme).render_report(&mut printed, &fault).unwrap();
    assert!(printed.contains("rules.cedar:3:"), "{printed}");
    assert!(printed.contains("when { context.sourceip"), "{printed}");
    assert!(printed.contains("source_ip"), "{printed}");
}

#[test]
fn an_optional_attribute_needs_its_check() {
    let fault = only(r#"@id("a") permit(principal, action, resource) when { principal.department == "x" };"#);
    assert!(fault.help_text().unwrap().contains("has department"), "{fault:?}");
}

#[test]
fn faults_of_all_files_are_told_at_once_in_order() {
    let faults = faults(&[
        ("b.cedar", "permit(principal, action, resource) when { context.nothing };"),
        ("a.cedar", "permit(principal, action, resource"),
        ("c.cedar", "@id(\"x\") permit(principal in Role::\"redaer\", action, resource);"),
    ]);
    let files: Vec<_> = faults.iter().map(|fault| fault.file().unwrap()).collect();
    assert_eq!(files, ["a.cedar", "b.cedar", "b.cedar", "c.cedar"], "{faults:#?}");
}

#[test]
fn a_parse_error_names_file_and_line() {
    let fault = only("@id(\"a\")\npermit(principal, action, resource)\nwhen { principal. };");
    assert_eq!((fault.file(), fault.line()), (Some("rules.cedar"), Some(3)));
}

#[test]
fn a_role_route_or_environment_that_does_not_exist_is_an_error_with_the_nearest_name() {
    for (scope, name, near) in [
        (r#"principal in Role::"redaer", action, resource"#, "redaer", "reader"),
        (r#"principal, action, resource == Route::"invoice""#, "invoice", "invoices"),
        (r#"principal, action, resource in Environment::"prodution""#, "prodution", "production"),
    ] {
        let fault = only(&format!("@id(\"a\")\nforbid({scope});"));
        assert!(fault.to_string().contains(&format!("`{name}` does not exist")), "{fault}");
        assert_eq!(fault.help_text().unwrap(), format!("did you mean `{near}`?"));
        assert_eq!((fault.line(), fault.labels().unwrap().count()), (Some(2), 1));
    }
}

#[test]
fn a_misspelt_attribute_after_has_is_an_error() {
    for (condition, column, near) in [
        ("!(principal has departmnt) || context.method == \"PUT\"", 21, "department"),
        ("context has arc || context.method == \"PUT\"", 17, "acr"),
        ("context has parameters.idd || context.method == \"PUT\"", 28, "id"),
        ("context.parameters has idd || context.method == \"PUT\"", 28, "id"),
        ("resource has \"tag\" || context.method == \"PUT\"", 19, "tags"),
    ] {
        let fault = only(&format!("@id(\"a\")\nforbid(principal, action, resource) when {{\n    {condition} }};"));
        assert_eq!((fault.line(), fault.column()), (Some(3), Some(column)), "{fault:?}");
        assert_eq!(fault.help_text().unwrap(), format!("did you mean `{near}`?"));
    }
}

#[test]
fn names_in_conditions_must_exist_too() {
    let fault = only(r#"@id("a") permit(principal, action, resource) unless { principal in Role::"contractr" };"#);
    assert_eq!(fault.help_text().unwrap(), "did you mean `contractor`?");
}

#[test]
fn a_principal_of_an_unknown_issuer_is_an_error() {
    let fault = only(r#"@id("a") forbid(principal == User::"okat|alice", action, resource);"#);
    assert_eq!(fault.help_text().unwrap(), "did you mean `okta`?");
    assert!(only(r#"@id("a") forbid(principal == User::"alice", action, resource);"#).to_string().contains("issuer"));
    only(r#"@id("a") forbid(principal == Anonymous::"nobody", action, resource);"#);
    World::of(r#"@id("a") forbid(principal == User::"okta|a|b", action, resource);"#);
}

#[test]
fn a_principal_of_the_other_kind_than_its_issuers_callers_is_an_error() {
    let fault = only("@id(\"a\")\nforbid(principal == User::\"ci|acme/web\", action, resource);");
    assert_eq!((fault.line(), fault.column()), (Some(2), Some(21)), "{fault:?}");
    assert_eq!(fault.help_text().unwrap(), "did you mean `Workload::\"ci|acme/web\"`?");
    World::of(r#"@id("a") forbid(principal == Workload::"ci|acme/web", action, resource);"#);
    only(r#"@id("a") forbid(principal == Workload::"okta|alice", action, resource);"#);
}

#[test]
fn a_text_that_is_no_name_is_an_error_where_names_are_compared() {
    for (condition, column, near) in [
        ("resource.name == \"invoice\"", 22, "invoices"),
        ("\"invoice\" != resource.name", 5, "invoices"),
        ("resource.environment == \"prodution\"", 29, "production"),
        ("principal.issuer == \"okat\"", 25, "okta"),
        ("[\"okta\", \"cii\"].contains(principal.issuer)", 14, "ci"),
    ] {
        let fault = only(&format!("@id(\"a\")\nforbid(principal, action, resource) when {{\n    {condition} }};"));
        assert_eq!((fault.line(), fault.column()), (Some(3), Some(column)), "{fault:?}");
        assert_eq!(fault.help_text().unwrap(), format!("did you mean `{near}`?"));
    }
    World::of(
        r#"@id("a") forbid(principal, action, resource) when { resource.name == "shop" || principal.issuer == "" };"#,
    );
    World::of(r#"@id("a") forbid(principal, action, resource) when { ["okta"].contains(principal.issuer) };"#);
}

#[test]
fn a_forbid_that_reads_the_path_of_an_opaque_route_is_an_error() {
    let with_opaque = |text: &str| {
        let mut settings = settings(&[("rules.cedar", text)]);
        let opaque = PathMode::Opaque { reason: "package names hold slashes".into() };
        let npm = Route {
            path_mode: opaque,
            ..route(4, "npm", "/npm/{*name}", "staging", Access::Public { reason: "x".into() })
        };
        settings.routes.push(Arc::new(npm));
        Policies::load(settings, Arc::default())
    };
    for (policy, column) in [
        (r#"forbid(principal, action, resource) when { context.path like "/npm/admin*" };"#, 44),
        (r#"forbid(principal, action, resource) when { context has parameters.name };"#, 44),
        (r#"forbid(principal, action, resource in Environment::"staging") when { context.path == "/npm/x" };"#, 70),
        (r#"forbid(principal, action, resource) when { context == context };"#, 44),
    ] {
        let faults = with_opaque(&format!("@id(\"a\")\n{policy}")).unwrap_err();
        assert_eq!((faults.len(), faults[0].line(), faults[0].column()), (1, Some(2), Some(column)), "{faults:?}");
        assert!(faults[0].to_string().contains("`npm`") && faults[0].help_text().is_some(), "{faults:?}");
    }
    for policy in [
        r#"forbid(principal, action, resource == Route::"shop") when { context.path == "/shop" };"#,
        r#"forbid(principal, action, resource in Environment::"production") when { context.path == "/shop" };"#,
        r#"forbid(principal, action, resource) when { context.host == "api.test" };"#,
        r#"permit(principal, action, resource) when { context.path == "/npm/x" };"#,
    ] {
        assert!(with_opaque(&format!("@id(\"a\")\n{policy}")).is_ok(), "{policy}");
    }
}

#[test]
fn an_unknown_action_is_an_error() {
    let fault = only(r#"@id("a") permit(principal, action == Action::"GETT", resource);"#);
    assert!(fault.to_string().contains("GETT"), "{fault}");
}

#[test]
fn a_policy_without_an_id_is_an_error() {
    let fault = only("// first\n\n  permit(principal, action, resource);");
    assert_eq!(place(&fault), ("rules.cedar", 3, 3));
    assert!(fault.to_string().contains("@id"));
    only(r#"@id("") permit(principal, action, resource);"#);
}

#[test]
fn an_id_that_is_used_twice_names_both_places() {
    let policy = "@id(\"a\") permit(principal, action, resource);";
    let faults = faults(&[("one.cedar", &format!("\n{policy}")), ("two.cedar", policy)]);
    let message = faults[0].to_string();
    assert!(message.contains("one.cedar:2:1") && message.contains("two.cedar:1:1"), "{message}");
}

#[test]
fn every_policy_of_a_file_has_its_own_place() {
    let world = World::of(
        "@id(\"é\") permit(principal, action, resource); @id(\"b\") permit(principal, action, resource);\n\n\
         // between\n  @id(\"c\")\npermit(principal, action, resource);",
    );
    let places: Vec<_> =
        world.policies.rules.all().iter().map(|rule| (&*rule.id, rule.position.line, rule.position.column)).collect();
    assert_eq!(places, [("é", 1, 1), ("b", 1, 47), ("c", 4, 3)]);
}

#[test]
fn a_permit_in_a_guardrails_file_is_an_error() {
    let faults = faults(&[("guardrails.cedar", "@id(\"a\") permit(principal, action, resource);")]);
    assert!(faults[0].to_string().contains("only `forbid`"), "{}", faults[0]);
    World::new(&[("guardrails.cedar", "@id(\"a\") forbid(principal, action, resource);")]);
}

#[test]
fn a_template_is_an_error() {
    let fault = only("@id(\"a\")\npermit(principal == ?principal, action, resource);");
    assert_eq!((fault.file(), fault.line()), (Some("rules.cedar"), Some(1)));
    assert!(fault.to_string().contains("template"));
}

#[test]
fn an_impossible_policy_is_an_error() {
    let fault =
        only(r#"@id("a") forbid(principal is Anonymous, action, resource) when { principal in Role::"admin" };"#);
    assert!(fault.to_string().contains("impossible"), "{fault}");
}

#[test]
fn an_action_group_is_no_action() {
    only(r#"@id("a") permit(principal, action == Action::"read", resource);"#);
}

#[test]
fn no_policies_at_all_are_a_warning_where_a_route_takes_callers() {
    assert_eq!(World::of("").policies.warnings().len(), 1);
    let mut open = settings(&[]);
    open.routes.retain(|route| matches!(route.access, Access::Public { .. }));
    assert!(Policies::load(open, Arc::default()).unwrap().warnings().is_empty());
}

#[test]
fn a_role_session_of_nothing_is_an_error() {
    let mut settings = settings(&[]);
    settings.roles[0].longest_session = Some(Duration::ZERO);
    assert!(Policies::load(settings, Arc::default()).is_err());
}
