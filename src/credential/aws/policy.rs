//! Inline session policies (AWS IAM user guide, "Session policies"): what a role may do, narrowed for one request.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::credential::{Ask, Template, ValueError, is_plain};

/// Largest inline policy of both AssumeRole calls, in characters.
pub const LARGEST_POLICY: usize = 2048;

/// One statement that allows something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatement {
    /// Actions, such as `s3:GetObject`.
    pub actions: Vec<String>,
    /// Resources.
    pub resources: Vec<Template>,
    /// Values by operator and condition key.
    pub conditions: BTreeMap<String, BTreeMap<String, Vec<Template>>>,
}

/// What a session is narrowed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPolicy(pub Vec<PolicyStatement>);

impl SessionPolicy {
    /// Every template in it.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        self.0.iter().flat_map(|statement| {
            let values = statement.conditions.values().flat_map(BTreeMap::values).flatten();
            statement.resources.iter().chain(values)
        })
    }

    /// The policy of one request. No value of the request can be read as more than itself: wildcards, policy variables
    /// and quotes are refused.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn fill(&self, ask: &Ask<'_>) -> Result<Arc<str>, ValueError> {
        self.written(&|template| template.fill(ask, is_plain).map(|text| text.to_string())).map(Arc::from)
    }

    /// The characters that any request's policy has at least: each value counts as one.
    #[must_use]
    pub fn least_length(&self) -> usize {
        let least = |template: &Template| Ok::<_, ValueError>(template.with(|_| "x".to_owned()));
        self.written(&least).map_or(0, |text| text.chars().count())
    }

    fn written<E>(&self, text: &impl Fn(&Template) -> Result<String, E>) -> Result<String, E> {
        let all = |templates: &[Template]| templates.iter().map(text).collect::<Result<Vec<_>, E>>();
        let mut statements = Vec::with_capacity(self.0.len());
        for statement in &self.0 {
            let mut written = json!({
                "Effect": "Allow",
                "Action": statement.actions,
                "Resource": all(&statement.resources)?,
            });
            if !statement.conditions.is_empty() {
                let mut conditions = BTreeMap::new();
                for (operator, keys) in &statement.conditions {
                    let keys: Result<BTreeMap<&str, Vec<String>>, E> =
                        keys.iter().map(|(key, values)| Ok((key.as_str(), all(values)?))).collect();
                    conditions.insert(operator.as_str(), keys?);
                }
                if let Value::Object(written) = &mut written {
                    written.insert("Condition".to_owned(), json!(conditions));
                }
            }
            statements.push(written);
        }
        Ok(json!({ "Version": "2012-10-17", "Statement": statements }).to_string())
    }
}
