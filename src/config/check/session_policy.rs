//! What of a role's rights a session keeps.

use std::collections::BTreeMap;

use super::desk::Scope;
use super::text;
use crate::config::placed::Placed;
use crate::config::raw;
use crate::credential::{LARGEST_POLICY, PolicyStatement, SessionPolicy};

const MOST_POLICY_ARNS: usize = 10;
/// AWS's own policies that allow everything, or everything but rights.
const WIDE_POLICIES: [&str; 2] = [":iam::aws:policy/AdministratorAccess", ":iam::aws:policy/PowerUserAccess"];

/// Policies see method, host and path; what else a request can ask for with the role's keys is the session's to bound.
pub(super) fn narrowed(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Aws) {
    let narrows = raw.session_policy.is_some() || raw.policy_arns.is_some();
    match &raw.whole_role {
        Some(reasoned) => {
            scope.reason(reasoned);
            if narrows {
                let help = "remove one of them";
                scope.refuse(
                    "session_policy_unused",
                    reasoned.reason.place,
                    "the session does not keep the whole role",
                    help,
                );
            }
        }
        // The session keeps what either allows, so the wider one would be the only one that counts.
        None if raw.session_policy.is_some() && raw.policy_arns.is_some() => {
            let place = raw.policy_arns.as_ref().map(|arns| arns.place).unwrap_or_default();
            let message = "AWS adds what `policy_arns` allow to what `session_policy` allows";
            scope.refuse("session_policies", place, message, "keep one of them");
        }
        None if !narrows => {
            let message = format!("sessions of credential `{}` keep all of the role's rights", name.value);
            let help = "narrow them by `session_policy` or `policy_arns`, or say why in `whole_role: { reason: … }`";
            scope.refuse("session_policy_missing", name.place, message, help);
        }
        None => {}
    }
}

/// ARNs of managed policies.
pub(super) fn managed(scope: &Scope<'_>, raw: &Placed<Vec<Placed<String>>>) -> Vec<String> {
    scope.not_empty(raw, "policy_arns");
    if let Some(arn) = raw.value.get(MOST_POLICY_ARNS) {
        let help = format!("AWS takes at most {MOST_POLICY_ARNS}");
        scope.refuse("policy_arns", arn.place, "too many managed policies", help);
    }
    for arn in raw.value.iter().filter(|arn| !is_managed_policy(arn)) {
        let message = format!("`{}` is no ARN of a managed policy", arn.value);
        scope.refuse("arn", arn.place, message, "write `arn:aws:iam::ACCOUNT:policy/NAME`");
    }
    for arn in raw.value.iter().filter(|arn| WIDE_POLICIES.iter().any(|wide| arn.ends_with(wide))) {
        let message = format!("`{}` narrows nothing", arn.value);
        let help = "name a policy of what is needed, or say why the session keeps all in `whole_role: { reason: … }`";
        scope.refuse("session_policy_wide", arn.place, message, help);
    }
    raw.value.iter().map(|arn| arn.value.clone()).collect()
}

/// `arn:PARTITION:iam::ACCOUNT:policy/NAME`, of an account or of AWS itself.
fn is_managed_policy(arn: &str) -> bool {
    match arn.splitn(6, ':').collect::<Vec<_>>().as_slice() {
        ["arn", partition, "iam", "", account, resource] => {
            let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
            let name = resource.strip_prefix("policy/").unwrap_or_default();
            partition.starts_with("aws") && (is_account || *account == "aws") && !name.is_empty() && !has_wildcard(name)
        }
        _ => false,
    }
}

pub(super) fn policy(scope: &Scope<'_>, raw: &Placed<Vec<raw::AwsStatement>>) -> Option<SessionPolicy> {
    scope.not_empty(raw, "session_policy");
    let owner = Placed { value: "session_policy".to_owned(), place: raw.place };
    let statements: Option<Vec<_>> = raw.value.iter().map(|one| statement(scope, &owner, one)).collect();
    let policy = SessionPolicy(statements?);
    let least = policy.least_length();
    if least > LARGEST_POLICY {
        let message = format!("the session policy has at least {least} characters");
        let help = format!("AWS takes at most {LARGEST_POLICY}: say it shorter, or use `policy_arns`");
        scope.refuse("session_policy_large", raw.place, message, help);
    }
    Some(policy)
}

fn statement(scope: &Scope<'_>, owner: &Placed<String>, raw: &raw::AwsStatement) -> Option<PolicyStatement> {
    let actions = scope.required(raw.actions.as_ref(), owner, "actions");
    let resources = scope.required(raw.resources.as_ref(), owner, "resources");
    let (actions, resources) = (actions?, resources?);
    scope.texts(actions, "actions");
    scope.texts(resources, "resources");
    match &raw.wildcard {
        Some(reasoned) => drop(scope.reason(reasoned)),
        None => {
            let actions = actions.value.iter().filter(|action| is_every_action(action));
            for text in actions.chain(resources.value.iter().filter(|resource| is_every_resource(resource))) {
                let message = format!("`{}` narrows nothing", text.value);
                let help = "name what is needed, or say why in the statement's `wildcard: { reason: … }`";
                scope.refuse("session_policy_wide", text.place, message, help);
            }
        }
    }
    for action in actions.value.iter().filter(|action| !action.contains(':') && action.as_str() != "*") {
        let message = format!("`{}` is no action", action.value);
        scope.refuse("session_policy_action", action.place, message, "write `SERVICE:ACTION`, such as `s3:GetObject`");
    }
    for resource in resources.value.iter().filter(|resource| !resource.starts_with("arn:") && resource.as_str() != "*")
    {
        let message = format!("`{}` is no ARN", resource.value);
        scope.refuse("arn", resource.place, message, "write `arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE`");
    }
    for text in resources.value.iter().filter(|text| text.contains("${")) {
        let message = format!("`{}` holds a policy variable", text.value);
        scope.refuse("session_policy_variable", text.place, message, "write `{{claim.NAME}}` or another of Doorward's");
    }
    let parsed =
        |texts: &[Placed<String>]| texts.iter().map(|text| text::template(scope, text)).collect::<Option<Vec<_>>>();
    let mut conditions = BTreeMap::new();
    for (operator, keys) in raw.conditions.iter() {
        let keys = keys.iter().map(|(key, values)| Some((key.value.clone(), parsed(values)?)));
        conditions.insert(operator.value.clone(), keys.collect::<Option<BTreeMap<_, _>>>()?);
    }
    Some(PolicyStatement {
        actions: actions.value.iter().map(|action| action.value.clone()).collect(),
        resources: parsed(&resources.value)?,
        conditions,
    })
}

/// Whether nothing but wildcards says which action of a service is meant, or which service.
fn is_every_action(action: &str) -> bool {
    match action.split_once(':') {
        Some((service, name)) => has_wildcard(service) || names_nothing(name),
        None => names_nothing(action),
    }
}

/// Whether nothing but wildcards says which resource of a service is meant, or which service. A wildcard goes on over
/// the colons of an ARN, so that one that has too few of them ends at any resource; and behind a value it goes on with
/// whatever begins like it.
fn is_every_resource(resource: &str) -> bool {
    if resource.contains("}}*") || resource.contains("}}?") {
        return true;
    }
    let is_open = |part: &str| has_wildcard(part) || part.contains("{{");
    match resource.splitn(6, ':').collect::<Vec<_>>().as_slice() {
        [_, partition, service, _, _, name] => {
            // `table/*` is every table.
            let of_type = name.split_once(['/', ':']).filter(|_| *service != "s3").map_or(*name, |(_, name)| name);
            is_open(partition) || is_open(service) || names_nothing(of_type)
        }
        _ => is_open(resource),
    }
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

fn names_nothing(text: &str) -> bool {
    !text.contains(char::is_alphanumeric)
}
