//! Credentials by AWS STS.

use std::collections::BTreeMap;
use std::time::Duration;

use super::desk::Scope;
use super::{session_policy, text};
use crate::config::checked::{AwsAmbient, AwsCredential, AwsProof, CredentialKind};
use crate::config::placed::Placed;
use crate::config::raw::{self, AwsAmbient as Ambient, AwsSubject as By};
use crate::credential::Template;

const SHORTEST: Duration = Duration::from_secs(900);
const LONGEST: Duration = Duration::from_secs(12 * 3600);
const MOST_TAGS: usize = 50;
const LONGEST_TAG_KEY: usize = 128;
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
    let session_name = template_or(scope, raw.session_name.as_ref(), "{{principal.id}}");
    let token_subject = template_or(scope, raw.token_subject.as_ref(), "doorward:{{environment}}:{{route}}");
    let source_identity = raw.source_identity.as_ref().map(|identity| named_template(scope, identity));
    let policy = raw.session_policy.as_ref().map(|statements| session_policy::policy(scope, statements));
    let policy_arns = raw.policy_arns.as_ref().map(|arns| session_policy::managed(scope, arns));
    session_policy::narrowed(scope, name, raw);
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
        source_identity: match source_identity {
            Some(identity) => Some(identity?),
            None => None,
        },
        tags: tags?,
        transitive_tags: raw.transitive_tags.iter().map(|tag| tag.value.clone()).collect(),
        policy: match policy {
            Some(policy) => Some(policy?),
            None => None,
        },
        policy_arns: policy_arns.unwrap_or_default(),
        widening_headers: raw.widening_headers.is_some(),
        signed_body_bytes: usize::try_from(signed_body).unwrap_or(usize::MAX),
    })))
}

/// A name that AWS wants: one that is not empty, however its variables turn out, is made of one.
fn named_template(scope: &Scope<'_>, text: &Placed<String>) -> Option<Template> {
    if text.trim().is_empty() {
        scope.refuse("empty_value", text.place, "the name is empty", "remove it, or name what it is made of");
    }
    text::template(scope, text)
}

fn template_or(scope: &Scope<'_>, text: Option<&Placed<String>>, default: &str) -> Option<Template> {
    match text {
        Some(text) => named_template(scope, text),
        None => Template::parse(default).ok(),
    }
}

/// `arn:PARTITION:iam:[region]:[ACCOUNT]:role/NAME`, with an account of 12 digits; other servers leave it out.
fn is_role(scope: &Scope<'_>, role: &Placed<String>) -> bool {
    let parts: Vec<&str> = role.splitn(6, ':').collect();
    let sound = matches!(parts.as_slice(), ["arn", partition, "iam", _, account, resource]
        if !partition.is_empty()
            && (account.is_empty() || account.len() == 12)
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
        if key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:")) {
            let message = format!("session tags such as `{}` are set by AWS alone", key.value);
            scope.refuse("session_tag", key.place, message, "name it without `aws:`");
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
