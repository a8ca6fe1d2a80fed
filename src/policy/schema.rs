//! Cedar's schema, generated from the configuration: what policies can speak of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use super::faults::PolicyFault;
use super::settings::{AttributeType, PolicySettings};

/// Attributes that every principal has; no issuer may declare these names.
pub(super) const BUILT_IN: [&str; 4] = ["issuer", "subject", "email", "groups"];

/// The schema in Cedar's own notation.
///
/// # Errors
/// A fault for each attribute that two issuers declare with different types, or that hides a built-in one.
pub fn generate_schema(settings: &PolicySettings) -> Result<String, Vec<PolicyFault>> {
    let attributes = principal_attributes(settings)?;
    let parameters: BTreeSet<&str> = settings.routes.iter().flat_map(|route| path_parameters(&route.path)).collect();
    let mut principal = String::from("issuer: String, subject: String, email?: String, groups: Set<String>");
    for (name, kind) in attributes {
        write_optional(&mut principal, &name, kind.as_cedar());
    }
    let mut record = String::new();
    for name in parameters {
        write_optional(&mut record, name, "String");
    }
    let record = record.trim_start_matches(", ");
    Ok(format!(
        "type RequestContext = {{\n  \
           source_ip: ipaddr,\n  time: datetime,\n  method: String,\n  host: String,\n  path: String,\n  \
           parameters: {{ {record} }},\n  scopes: Set<String>,\n  acr?: String,\n  amr: Set<String>,\n  \
           authentication_age?: Long,\n  tags: Set<String>,\n}};\n\
         entity Role;\n\
         entity Environment;\n\
         entity Route in [Environment] {{ name: String, environment: String, tags: Set<String> }};\n\
         entity User, Workload in [Role] {{ {principal} }};\n\
         entity Anonymous {{ {principal} }};\n\
         action \"read\";\n\
         action \"write\";\n\
         action \"GET\", \"HEAD\", \"OPTIONS\" in [\"read\"] appliesTo {{\n  \
           principal: [User, Workload, Anonymous], resource: [Route], context: RequestContext\n}};\n\
         action \"POST\", \"PUT\", \"PATCH\", \"DELETE\" in [\"write\"] appliesTo {{\n  \
           principal: [User, Workload, Anonymous], resource: [Route], context: RequestContext\n}};\n"
    ))
}

fn write_optional(record: &mut String, name: &str, kind: &str) {
    // Writing to a `String` cannot fail.
    let _infallible = write!(record, ", \"{}\"?: {kind}", name.escape_debug());
}

fn principal_attributes(settings: &PolicySettings) -> Result<BTreeMap<Arc<str>, AttributeType>, Vec<PolicyFault>> {
    let mut types: BTreeMap<Arc<str>, (AttributeType, Arc<str>)> = BTreeMap::new();
    let mut faults = Vec::new();
    for declared in &settings.attributes {
        let (name, issuer) = (&declared.name, &declared.issuer);
        if BUILT_IN.contains(&&**name) {
            faults.push(PolicyFault::general(format!(
                "issuer `{issuer}` declares the attribute `{name}`, which every principal has already"
            )));
        }
        match types.get(name) {
            Some((kind, first)) if *kind != declared.kind => faults.push(
                PolicyFault::general(format!(
                    "attribute `{name}` is {} at issuer `{first}` and {} at issuer `{issuer}`",
                    kind.as_cedar(),
                    declared.kind.as_cedar()
                ))
                .with_help(Some("give it one type, or two names".to_owned())),
            ),
            Some(_) => {}
            None => {
                types.insert(name.clone(), (declared.kind, issuer.clone()));
            }
        }
    }
    if faults.is_empty() { Ok(types.into_iter().map(|(name, (kind, _))| (name, kind)).collect()) } else { Err(faults) }
}

/// Names of the parameters in a route's path pattern: `{name}` and `{*name}`, with `{{` as a plain brace.
pub(super) fn path_parameters(pattern: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = pattern;
    while let Some((_, after)) = rest.split_once('{') {
        if let Some(plain) = after.strip_prefix('{') {
            rest = plain;
            continue;
        }
        let Some((name, after)) = after.split_once('}') else { break };
        names.push(name.strip_prefix('*').unwrap_or(name));
        rest = after;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::settings::DeclaredAttribute;

    fn declared(issuer: &str, name: &str, kind: AttributeType) -> DeclaredAttribute {
        DeclaredAttribute { issuer: issuer.into(), name: name.into(), kind }
    }

    #[test]
    fn path_parameters_are_found_between_single_braces() {
        assert_eq!(path_parameters("/a/{id}/{{x}}/{*rest}"), ["id", "rest"]);
        assert_eq!(path_parameters("/plain"), Vec::<&str>::new());
    }

    #[test]
    fn one_attribute_with_two_types_is_a_fault_that_names_both_issuers() {
        let attributes =
            vec![declared("okta", "level", AttributeType::Long), declared("ci", "level", AttributeType::String)];
        let faults = generate_schema(&PolicySettings { attributes, ..PolicySettings::default() }).unwrap_err();
        let message = faults[0].to_string();
        assert!(message.contains("okta") && message.contains("ci") && message.contains("level"), "{message}");
    }

    #[test]
    fn an_attribute_may_not_hide_a_built_in_one() {
        let attributes = vec![declared("okta", "groups", AttributeType::String)];
        assert!(generate_schema(&PolicySettings { attributes, ..PolicySettings::default() }).is_err());
    }

    #[test]
    fn the_generated_schema_is_cedar_whatever_an_attribute_is_called() {
        let attributes = vec![
            declared("okta", "cost-centre \"x\"", AttributeType::Long),
            declared("okta", "teams", AttributeType::Set),
            declared("ci", "trusted", AttributeType::Bool),
        ];
        let text = generate_schema(&PolicySettings { attributes, ..PolicySettings::default() }).unwrap();
        let (schema, warnings) = cedar_policy::Schema::from_cedarschema_str(&text).unwrap();
        assert_eq!(warnings.count(), 0);
        assert_eq!(schema.request_envs().count(), 21, "three kinds of principal, seven methods");
    }
}
