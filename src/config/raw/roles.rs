use schemars::JsonSchema;
use serde::Deserialize;

use super::{ClaimValues, Reasoned};
use crate::config::placed::{Named, Placed};
use crate::config::units::DurationText;

/// A narrow, named set of permissions, and who holds it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["trust", "environment"]))]
pub struct Role {
    /// Who holds it: any entry of the list will do; within an entry everything must hold.
    pub trust: Option<Placed<Vec<Placed<Trust>>>>,
    /// It holds only on routes of this environment.
    pub environment: Option<Placed<String>>,
    /// A role session ends this long after authentication.
    pub longest_session: Option<Placed<DurationText>>,
}

/// Callers that hold a role.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["issuer"]))]
pub struct Trust {
    /// Name of their issuer.
    pub issuer: Option<Placed<String>>,
    /// Groups of which they are in one.
    pub groups: Option<Placed<Vec<Placed<String>>>>,
    /// Claims: path, and a value or a list of values of which any will do.
    pub claims: Named<Placed<ClaimValues>>,
    /// Instead of groups and claims: why every caller of the issuer holds the role.
    pub everyone: Option<Reasoned>,
}
