use schemars::JsonSchema;
use serde::Deserialize;

use super::Reasoned;
use crate::config::placed::{Named, Placed};
use crate::config::units::{DurationText, SizeText};

/// Keys of an AWS role session, by which requests are signed (SigV4).
///
/// Texts with `{{…}}` are filled from the request: `{{path.NAME}}`, `{{claim.NAME}}`, `{{principal.id}}`,
/// `{{principal.subject}}`, `{{principal.issuer}}`, `{{principal.email}}`, `{{route}}`, `{{environment}}`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["role", "region", "services"]))]
pub struct Aws {
    /// ARN of the role.
    pub role: Option<Placed<String>>,
    /// Region of STS, and the first of those that requests are signed for.
    pub region: Option<Placed<String>>,
    /// Services that requests are signed for, as signatures name them: `s3`, `dynamodb`. A caller with an SDK chooses
    /// among them; every other request is signed for the first.
    pub services: Option<Placed<Vec<Placed<String>>>>,
    /// Further regions that a caller with an SDK may choose.
    pub further_regions: Vec<Placed<String>>,
    /// By what the role is assumed. Default `doorward`.
    pub subject: Option<Placed<AwsSubject>>,
    /// Where the keys come from for `subject: ambient`.
    pub ambient: Option<Placed<AwsAmbient>>,
    /// `ExternalId`, for `subject: ambient`.
    pub external_id: Option<Placed<String>>,
    /// `aud` of Doorward's token. Default `sts.amazonaws.com`.
    pub token_audience: Option<Placed<String>>,
    /// `sub` of Doorward's token, which the role's trust policy asks about. Default `doorward:{{environment}}:{{route}}`.
    pub token_subject: Option<Placed<String>>,
    /// The STS endpoint. Default: the region's own.
    pub sts: Option<AwsSts>,
    /// How long a session lives, 15 minutes to 12 hours. Default `15m`.
    pub duration: Option<Placed<DurationText>>,
    /// `RoleSessionName`, made to fit. Default `{{principal.id}}`.
    pub session_name: Option<Placed<String>>,
    /// `SourceIdentity`, made to fit. The role's trust policy must allow `sts:SetSourceIdentity`.
    pub source_identity: Option<Placed<String>>,
    /// Session tags. The role's trust policy must allow `sts:TagSession`.
    pub tags: Named<Placed<String>>,
    /// Tags that stay when the session assumes another role.
    pub transitive_tags: Vec<Placed<String>>,
    /// What of the role's rights a session keeps: what these statements allow.
    pub session_policy: Option<Placed<Vec<AwsStatement>>>,
    /// ARNs of managed policies that narrow a session, in place of `session_policy`.
    pub policy_arns: Option<Placed<Vec<Placed<String>>>>,
    /// Why a session keeps all of the role's rights, where neither `session_policy` nor `policy_arns` narrows it.
    pub whole_role: Option<Reasoned>,
    /// Why callers may copy from other objects, set access rights and lift retention by headers (`x-amz-copy-source`,
    /// `x-amz-acl`, `x-amz-grant-*`, `x-amz-bypass-governance-retention`).
    pub widening_headers: Option<Reasoned>,
    /// Longest body that is held until it is hashed, for services that want a hash. Default `8MiB`.
    pub signed_body: Option<Placed<SizeText>>,
}

/// An STS endpoint.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["url"]))]
pub struct AwsSts {
    /// Its URL.
    pub url: Option<Placed<String>>,
    /// PEM file of the authorities that vouch for it. Default: the operating system's.
    pub authorities: Option<Placed<String>>,
}

/// By what a role is assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AwsSubject {
    /// A token of Doorward's (AssumeRoleWithWebIdentity).
    Doorward,
    /// The caller's own token (AssumeRoleWithWebIdentity): for routes that take bearer tokens only.
    Caller,
    /// Keys of the place where Doorward runs (AssumeRole).
    Ambient,
}

/// Where ambient keys come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AwsAmbient {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
    Environment,
    /// The endpoint of ECS or EKS Pod Identity that the environment names.
    Container,
    /// Instance metadata (IMDSv2).
    Instance,
}

/// A statement of a session policy; it allows.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["actions", "resources"]))]
pub struct AwsStatement {
    /// Actions, such as `s3:GetObject`.
    pub actions: Option<Placed<Vec<Placed<String>>>>,
    /// ARNs, such as `arn:aws:s3:::reports/{{path.team}}/*`.
    pub resources: Option<Placed<Vec<Placed<String>>>>,
    /// Values by operator and condition key.
    pub conditions: Named<Named<Vec<Placed<String>>>>,
    /// Why the statement allows every action or every resource, where it does.
    pub wildcard: Option<Reasoned>,
}
