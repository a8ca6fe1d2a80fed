//! Credentials by AWS STS.

use std::collections::BTreeMap;
use std::time::Duration;

use super::desk::Scope;
use super::text;
use crate::config::checked::{AwsAmbient, AwsCredential, AwsProof, CredentialKind};
use crate::config::placed::Placed;
use crate::config::raw::{self, AwsAmbient as Ambient, AwsSubject as By};
use crate::credential::{LARGEST_POLICY, PolicyStatement, SessionPolicy, Template};

const SHORTEST: Duration = Duration::from_secs(900);
const LONGEST: Duration = Duration::from_secs(12 * 3600);
const MOST_TAGS: usize = 50;
const LONGEST_TAG_KEY: usize = 128;
const MOST_POLICY_ARNS: usize = 10;
const SIGNED_BODY: u64 = 8 * 1024 * 1024;
const LARGEST_SIGNED_BODY: u64 = 32 * 1024 * 1024;

pub(super) fn aws(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Aws) -> Option<CredentialKind> {
    let role = scope.required(raw.role.as_ref(), name, "aws.role").filter(|role| is_role(scope, role));
    let region =
        scope.required(raw.region.as_ref(), name, "aws.region").filter(|region| is_name(scope, region, "region"));
    let services = scope.required(raw.services.as_ref(), name, "aws.services");
    if let Some(services) = services {
        scope.not_empty(services, "services");
    }
    let named = |list: &[Placed<String>], what| -> Vec<String> {
        list.iter().filter(|text| is_name(scope, text, what)).map(|text| text.value.clone()).collect()
    };
    let proof = proof(scope, name, raw);
    let template = |text: &Option<Placed<String>>| match text {
        Some(text) => text::template(scope, text),
        None => None,
    };
    let or = |text: &Option<Placed<String>>, default: &str| match text {
        Some(_) => template(text),
        None => Template::parse(default).ok(),
    };
    let (session_name, token_subject) =
        (or(&raw.session_name, "{{principal.id}}"), or(&raw.token_subject, "doorward:{{environment}}:{{route}}"));
    let policy = raw.session_policy.as_ref().map(|statements| policy(scope, statements));
    if raw.policy_arns.len() > MOST_POLICY_ARNS {
        let place = raw.policy_arns.get(MOST_POLICY_ARNS).map(|arn| arn.place).unwrap_or_default();
        let help = format!("AWS takes at most {MOST_POLICY_ARNS}");
        scope.refuse("policy_arns", place, "too many managed policies", help);
    }
    for arn in raw.policy_arns.iter().filter(|arn| !arn.starts_with("arn:")) {
        let message = format!("`{}` is no ARN", arn.value);
        scope.refuse("arn", arn.place, message, "write `arn:aws:iam::ACCOUNT:policy/NAME`");
    }
    narrowed(scope, name, raw);
    if let Some(reasoned) = &raw.widening_headers {
        scope.reason(reasoned);
    }
    let tags = tags(scope, raw);
    let duration = duration(scope, raw);
    let sts_url = match &raw.sts {
        Some(sts) => {
            let url = scope.required(sts.url.as_ref(), name, "aws.sts.url");
            url.and_then(|url| text::secure_url(scope, url, "the endpoint of STS").map(|url| url.to_string()))
        }
        None => region.map(|region| {
            let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("https://sts.{}.{domain}/", region.value)
        }),
    };
    let authorities = raw.sts.as_ref().and_then(|sts| sts.authorities.as_ref());
    let signed_body = scope.size(raw.signed_body.as_ref(), SIGNED_BODY);
    if let Some(text) = raw.signed_body.as_ref().filter(|_| signed_body > LARGEST_SIGNED_BODY) {
        scope.refuse("too_large", text.place, "so large a body is not held in memory", "write at most `32MiB`");
    }
    let regions = region.into_iter().chain(&raw.further_regions).cloned().collect::<Vec<_>>();
    Some(CredentialKind::Aws(Box::new(AwsCredential {
        role: role?.value.clone(),
        regions: named(&regions, "region"),
        services: named(&services?.value, "service"),
        proof: proof?,
        token_subject: token_subject?,
        sts_url: sts_url?,
        authorities: authorities.map(|path| scope.pem(path, "CERTIFICATE")),
        duration,
        session_name: session_name?,
        source_identity: raw.source_identity.as_ref().map(|_| template(&raw.source_identity)).transpose_none()?,
        tags: tags?,
        transitive_tags: raw.transitive_tags.iter().map(|tag| tag.value.clone()).collect(),
        policy: policy.transpose_none()?,
        policy_arns: raw.policy_arns.iter().map(|arn| arn.value.clone()).collect(),
        widening_headers: raw.widening_headers.is_some(),
        signed_body_bytes: usize::try_from(signed_body).unwrap_or(usize::MAX),
    })))
}

/// `Some(None)` is a value that is not good.
trait TransposeNone<T> {
    fn transpose_none(self) -> Option<Option<T>>;
}

impl<T> TransposeNone<T> for Option<Option<T>> {
    fn transpose_none(self) -> Option<Option<T>> {
        match self {
            None => Some(None),
            Some(None) => None,
            Some(Some(value)) => Some(Some(value)),
        }
    }
}

/// `arn:PARTITION:iam:[region]:[ACCOUNT]:role/NAME`; other servers leave the account out.
fn is_role(scope: &Scope<'_>, role: &Placed<String>) -> bool {
    let parts: Vec<&str> = role.splitn(6, ':').collect();
    let sound = matches!(parts.as_slice(), ["arn", partition, "iam", _, account, resource]
        if !partition.is_empty()
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty()))
        && role.bytes().all(|byte| byte.is_ascii_graphic())
        && role.len() <= 2048;
    if !sound {
        let message = format!("`{}` is no role", role.value);
        scope.refuse("role_arn", role.place, message, "write `arn:aws:iam::ACCOUNT:role/NAME`");
    }
    sound
}

fn is_name(scope: &Scope<'_>, text: &Placed<String>, what: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let sound = !text.is_empty() && text.len() <= 64 && text.bytes().all(plain);
    if !sound {
        let help = "lower case letters, digits and `-`, as AWS names it: `eu-central-1`, `s3`, `dynamodb`";
        scope.refuse("aws_name", text.place, format!("`{}` is no {what}", text.value), help);
    }
    sound
}

fn proof(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Aws) -> Option<AwsProof> {
    let by = raw.subject.as_ref().map_or(By::Doorward, |subject| subject.value);
    let unused = |text: Option<crate::config::placed::Place>, key: &str| {
        if let Some(place) = text {
            let message = format!("`{key}` does not go with this `subject`");
            scope.refuse("aws_subject", place, message, "remove one of them");
        }
    };
    if by != By::Ambient {
        unused(raw.ambient.as_ref().map(|ambient| ambient.place), "ambient");
        unused(raw.external_id.as_ref().map(|id| id.place), "external_id");
    }
    if by != By::Doorward {
        unused(raw.token_audience.as_ref().map(|audience| audience.place), "token_audience");
        unused(raw.token_subject.as_ref().map(|subject| subject.place), "token_subject");
    }
    if by == By::Caller {
        unused(raw.source_identity.as_ref().map(|identity| identity.place), "source_identity");
        unused(raw.tags.iter().next().map(|(key, _)| key.place), "tags");
    }
    Some(match by {
        By::Doorward => AwsProof::Doorward {
            audience: raw.token_audience.as_ref().map_or("sts.amazonaws.com", |audience| audience.as_str()).to_owned(),
        },
        By::Caller => AwsProof::Caller,
        By::Ambient => {
            let ambient = scope.required(raw.ambient.as_ref(), name, "aws.ambient")?;
            AwsProof::Ambient {
                keys: keys(scope, ambient)?,
                external_id: raw.external_id.as_ref().map(|id| id.value.clone()),
            }
        }
    })
}

fn keys(scope: &Scope<'_>, ambient: &Placed<Ambient>) -> Option<AwsAmbient> {
    let variable = |name: &str| scope.variable(name);
    let lacking = |name: &str| {
        let message = format!("the environment has no `{name}`");
        scope.refuse("ambient_missing", ambient.place, message, "set it where Doorward is started");
    };
    match ambient.value {
        Ambient::Environment => {
            let needed = |name| {
                let value = variable(name);
                if value.is_none() {
                    lacking(name);
                }
                value
            };
            let (id, secret) = (needed("AWS_ACCESS_KEY_ID"), needed("AWS_SECRET_ACCESS_KEY"));
            Some(AwsAmbient::Environment {
                access_key_id: id?.expose().to_owned(),
                secret_access_key: secret?,
                session_token: variable("AWS_SESSION_TOKEN"),
            })
        }
        Ambient::Container => {
            let full = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI").map(|url| url.expose().to_owned());
            let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
            let url = full.or_else(|| relative.map(|path| format!("http://169.254.170.2{}", path.expose())));
            if url.is_none() {
                lacking("AWS_CONTAINER_CREDENTIALS_FULL_URI");
            }
            Some(AwsAmbient::Container {
                url: url?,
                token: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
                token_file: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| path.expose().into()),
            })
        }
        Ambient::Instance => Some(AwsAmbient::Instance {
            url: variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").map(|url| url.expose().to_owned()),
        }),
    }
}

/// Policies see method, host and path; what else a request can ask for with the role's keys is the session's to bound.
fn narrowed(scope: &Scope<'_>, name: &Placed<String>, raw: &raw::Aws) {
    let narrows = raw.session_policy.is_some() || !raw.policy_arns.is_empty();
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
        None if !narrows => {
            let message = format!("sessions of credential `{}` keep all of the role's rights", name.value);
            let help = "narrow them by `session_policy` or `policy_arns`, or say why in `whole_role: { reason: … }`";
            scope.refuse("session_policy_missing", name.place, message, help);
        }
        None => {}
    }
}

/// Refuses an upstream to which keys and bodies would go in the clear.
pub(super) fn meets_upstream(
    scope: &Scope<'_>,
    credential: &Placed<String>,
    name: &Placed<String>,
    upstream: &raw::Upstream,
) {
    let mut addresses = upstream.addresses.iter().flat_map(|list| &list.value);
    let plain = |address: &Placed<String>| {
        url::Url::parse(address).is_ok_and(|url| url.scheme() == "http" && !text::is_loopback(&url))
    };
    if addresses.any(plain) {
        let message = format!(
            "upstream `{}` is reached by plain HTTP, and credential `{}` signs no bodies for S3",
            name.value, credential.value
        );
        let help = "give the upstream https addresses; http is taken for loopback hosts only";
        scope.refuse("aws_plain_upstream", credential.place, message, help);
    }
}

fn duration(scope: &Scope<'_>, raw: &raw::Aws) -> Duration {
    let duration = scope.duration_up_to(raw.duration.as_ref(), SHORTEST, (LONGEST, "12h"));
    if let Some(text) = raw.duration.as_ref().filter(|_| duration < SHORTEST) {
        let message = format!("`{}` is shorter than any session of AWS", text.value.0);
        scope.refuse("too_short", text.place, message, "at least `15m` is needed here");
    }
    duration
}

fn tags(scope: &Scope<'_>, raw: &raw::Aws) -> Option<BTreeMap<String, Template>> {
    let mut tags = BTreeMap::new();
    for (key, value) in raw.tags.iter() {
        if key.is_empty() || key.chars().count() > LONGEST_TAG_KEY {
            let message = format!("a session tag's key has 1 to {LONGEST_TAG_KEY} characters");
            scope.refuse("session_tag", key.place, message, "write a shorter one");
        }
        tags.insert(key.value.clone(), text::template(scope, value)?);
    }
    if let Some((key, _)) = raw.tags.iter().nth(MOST_TAGS) {
        scope.refuse("session_tag", key.place, "too many session tags", format!("AWS takes at most {MOST_TAGS}"));
    }
    for tag in raw.transitive_tags.iter().filter(|tag| !tags.contains_key(&tag.value)) {
        let message = format!("`{}` is none of the `tags`", tag.value);
        scope.refuse("session_tag", tag.place, message, "name one of them");
    }
    Some(tags)
}

fn policy(scope: &Scope<'_>, raw: &Placed<Vec<raw::AwsStatement>>) -> Option<SessionPolicy> {
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
            let all = |text: &str| text.chars().all(|character| matches!(character, '*' | ':' | '?'));
            let every = |action: &&Placed<String>| all(action) || action.ends_with(":*");
            for text in actions.value.iter().filter(every).chain(resources.value.iter().filter(|text| all(text))) {
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

/// Every text with values of the request in it.
pub(super) fn templates(raw: &raw::Aws) -> Vec<&Placed<String>> {
    let mut texts: Vec<_> =
        [&raw.session_name, &raw.source_identity, &raw.token_subject].into_iter().flatten().collect();
    texts.extend(raw.tags.iter().map(|(_, value)| value));
    for statement in raw.session_policy.iter().flat_map(|policy| &policy.value) {
        texts.extend(statement.resources.iter().flat_map(|resources| &resources.value));
        texts.extend(statement.conditions.iter().flat_map(|(_, keys)| keys.iter().flat_map(|(_, values)| values)));
    }
    texts
}

/// Whether Doorward has to sign for it.
pub(super) fn signs(raw: &raw::Aws) -> bool {
    raw.subject.as_ref().is_none_or(|subject| subject.value == By::Doorward)
}

/// Whether it is made of the caller's own token.
pub(super) fn takes_callers_token(raw: &raw::Aws) -> bool {
    raw.subject.as_ref().is_some_and(|subject| subject.value == By::Caller)
}
