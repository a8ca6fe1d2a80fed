//! Texts of a configuration with values of the request in them: `{{path.bucket}}`, `{{principal.subject}}`.
//!
//! A value is put in only if every character of it is one that the place allows, so that no value can say more than a
//! value.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::Ask;
use crate::identity::claims::ClaimPath;

/// Longest value, bytes.
const LONGEST_VALUE: usize = 1024;

/// A text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// What stands for a value of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `principal.id`: issuer, `|`, subject.
    PrincipalId,
    /// `principal.subject`
    Subject,
    /// `principal.issuer`: configured name.
    Issuer,
    /// `principal.email`
    Email,
    /// `route`
    Route,
    /// `environment`
    Environment,
    /// `roles`: the names of the roles that are held, sorted, with commas between them.
    Roles,
    /// `claim.NAME`, by the path of the claim.
    Claim(ClaimPath),
    /// `path.NAME`: what the route's pattern caught, decoded.
    Path(Box<str>),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("`{{{{` has no `}}}}` after it")]
    Unclosed,
    /// Nothing goes by this name.
    #[error("`{0}` is no variable")]
    Unknown(String),
    /// A line break, or another character that no name holds.
    #[error("it holds a control character")]
    Control,
    /// Where one value ends and the next begins, nobody could tell.
    #[error(
        "two variables stand side by side, so that two requests could have the same text: put something between them"
    )]
    Adjacent,
}

/// Why a template cannot be filled for a request. Shows no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The request has no such value.
    #[error("`{0}` has no value")]
    Absent(String),
    /// The value is no text, no number, or not in UTF-8.
    #[error("the value of `{0}` is no text")]
    NoText(String),
    /// The value holds a character that may not stand there.
    #[error("the value of `{0}` holds a character that may not stand there")]
    Character(String),
    /// The value is too long.
    #[error("the value of `{0}` is longer than {LONGEST_VALUE} bytes")]
    Length(String),
}

impl fmt::Display for Variable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrincipalId => formatter.write_str("principal.id"),
            Self::Subject => formatter.write_str("principal.subject"),
            Self::Issuer => formatter.write_str("principal.issuer"),
            Self::Email => formatter.write_str("principal.email"),
            Self::Route => formatter.write_str("route"),
            Self::Environment => formatter.write_str("environment"),
            Self::Roles => formatter.write_str("roles"),
            Self::Claim(path) => write!(formatter, "claim.{}", path.as_str()),
            Self::Path(name) => write!(formatter, "path.{name}"),
        }
    }
}

impl Variable {
    /// What a template may name, for messages.
    pub const KNOWN: &'static str = "`principal.id`, `principal.subject`, `principal.issuer`, `principal.email`, `route`, `environment`, `roles`, `claim.NAME` and `path.NAME`";

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "principal.id" => Self::PrincipalId,
            "principal.subject" => Self::Subject,
            "principal.issuer" => Self::Issuer,
            "principal.email" => Self::Email,
            "route" => Self::Route,
            "environment" => Self::Environment,
            "roles" => Self::Roles,
            _ => match name.split_once('.') {
                Some(("claim", path)) => Self::Claim(ClaimPath::parse(path).ok()?),
                Some(("path", name)) if !name.is_empty() => Self::Path(name.into()),
                _ => return None,
            },
        })
    }

    /// Whether two callers of one route may have two values. Roles tell sets of callers apart, and no more.
    fn tells_callers_apart(&self) -> bool {
        !matches!(self, Self::Route | Self::Environment | Self::Roles | Self::Path(_))
    }

    fn value(&self, ask: &Ask<'_>) -> Result<String, ValueError> {
        let (principal, route) = (ask.grant.principal(), ask.grant.route());
        let absent = || ValueError::Absent(self.to_string());
        Ok(match self {
            Self::PrincipalId => principal.id().to_string(),
            Self::Subject => principal.subject.to_string(),
            Self::Issuer => principal.issuer.to_string(),
            Self::Email => principal.email.clone().ok_or_else(absent)?,
            Self::Route => route.name.to_string(),
            Self::Environment => route.environment.to_string(),
            Self::Roles => {
                let names: BTreeSet<&str> = ask.grant.roles().iter().map(|held| &*held.role).collect();
                names.into_iter().collect::<Vec<_>>().join(",")
            }
            Self::Claim(path) => match path.find(&principal.claims).ok_or_else(absent)? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return Err(ValueError::NoText(self.to_string())),
            },
            Self::Path(name) => {
                let caught = ask.parameters.iter().find(|(known, _)| **known == **name).ok_or_else(absent)?;
                let text = percent_decode_str(caught.1).decode_utf8();
                text.map_err(|_| ValueError::NoText(self.to_string()))?.into_owned()
            }
        })
    }
}

impl Template {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Control);
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let name = name.trim();
            let variable = Variable::parse(name).ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
            if before.is_empty() && !parts.is_empty() {
                return Err(TemplateError::Adjacent);
            }
            parts.push(Part::Variable(variable));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self(parts))
    }

    /// The variables, in their order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// Names of the path parameters that it needs.
    pub fn path_parameters(&self) -> impl Iterator<Item = &str> {
        self.variables().filter_map(|variable| if let Variable::Path(name) = variable { Some(&**name) } else { None })
    }

    /// Whether two callers of one route may get two texts.
    #[must_use]
    pub fn tells_callers_apart(&self) -> bool {
        self.variables().any(Variable::tells_callers_apart)
    }

    /// The text with what `value` says for each variable.
    #[must_use]
    pub fn with(&self, mut value: impl FnMut(&Variable) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(fixed) => fixed.to_string(),
            Part::Variable(variable) => value(variable),
        };
        self.0.iter().map(part).collect()
    }

    /// The text for a request; each character of each value must be `allowed`.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn fill(&self, ask: &Ask<'_>, allowed: impl Fn(char) -> bool) -> Result<Arc<str>, ValueError> {
        self.fill_with(ask, allowed, |value| value)
    }

    /// The same, with each value as `written` writes it.
    ///
    /// # Errors
    /// [`ValueError`].
    pub fn fill_with(
        &self,
        ask: &Ask<'_>,
        allowed: impl Fn(char) -> bool,
        written: impl Fn(String) -> String,
    ) -> Result<Arc<str>, ValueError> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Variable(variable) => {
                    let value = variable.value(ask)?;
                    if value.len() > LONGEST_VALUE {
                        return Err(ValueError::Length(variable.to_string()));
                    }
                    if value.is_empty() {
                        return Err(ValueError::Absent(variable.to_string()));
                    }
                    if !value.chars().all(&allowed) {
                        return Err(ValueError::Character(variable.to_string()));
                    }
                    text.push_str(&written(value));
                }
            }
        }
        Ok(text.into())
    }
}

/// Characters that no reader of policies, headers or forms takes for anything but themselves.
#[must_use]
pub fn is_plain(character: char) -> bool {
    !character.is_control() && !matches!(character, '*' | '?' | '$' | '"' | '\'' | '\\' | '`' | '{' | '}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::testing::{Asked, Caller, now};

    fn asked(email: Option<&'static str>) -> Asked {
        let mut asked = Asked::of(Caller { email, ..Caller::default() }.grant());
        asked.parameters = crate::route::PathParameters::of(&[
            ("team", "red%20one"),
            ("evil", "a%22b"),
            ("star", "*"),
            ("empty", ""),
            ("binary", "%ff"),
        ]);
        asked
    }

    fn fill(text: &str) -> Result<String, ValueError> {
        Template::parse(text).unwrap().fill(&asked(None).at(now()), is_plain).map(|text| text.to_string())
    }

    #[test]
    fn values_stand_where_they_are_named_and_text_stays() {
        assert_eq!(fill("a{b}:{{ route }}/{{path.team}}").unwrap(), "a{b}:invoices/red one");
        assert_eq!(fill("{{principal.issuer}}:{{principal.subject}}:{{environment}}").unwrap(), "okta:ada:production");
        assert_eq!(fill("{{principal.id}}").unwrap(), "okta|ada");
        assert_eq!(fill("none").unwrap(), "none");
    }

    #[test]
    fn a_value_that_could_say_more_than_itself_is_refused() {
        for (text, error) in [
            ("{{path.evil}}", ValueError::Character("path.evil".to_owned())),
            ("{{path.star}}", ValueError::Character("path.star".to_owned())),
            ("{{path.empty}}", ValueError::Absent("path.empty".to_owned())),
            ("{{path.binary}}", ValueError::NoText("path.binary".to_owned())),
            ("{{path.other}}", ValueError::Absent("path.other".to_owned())),
            ("{{claim.team}}", ValueError::Absent("claim.team".to_owned())),
            ("{{principal.email}}", ValueError::Absent("principal.email".to_owned())),
        ] {
            assert_eq!(fill(text), Err(error), "{text}");
        }
        for character in "*?$\"'\\`{}\0\n".chars() {
            assert!(!is_plain(character), "{character:?}");
        }
    }

    #[test]
    fn a_text_that_names_nothing_is_no_template() {
        assert_eq!(Template::parse("a\nb"), Err(TemplateError::Control));
        assert_eq!(Template::parse("a {{route"), Err(TemplateError::Unclosed));
        assert_eq!(Template::parse("a{{principal.issuer}}{{principal.subject}}"), Err(TemplateError::Adjacent));
        assert_eq!(Template::parse("{{principal.issuer}}{{principal.subject}}"), Err(TemplateError::Adjacent));
        for unknown in ["", "rout", "path.", "principal", "claims.x"] {
            let text = format!("{{{{{unknown}}}}}");
            assert_eq!(Template::parse(&text), Err(TemplateError::Unknown(unknown.to_owned())));
        }
    }

    #[test]
    fn a_template_knows_what_it_needs() {
        let template = Template::parse("{{route}}/{{path.team}}/{{path.key}}").unwrap();
        assert_eq!(template.path_parameters().collect::<Vec<_>>(), ["team", "key"]);
        assert!(!template.tells_callers_apart());
        assert!(Template::parse("{{claim.sub}}").unwrap().tells_callers_apart());
        assert_eq!(template.with(|_| "x".to_owned()), "x/x/x");
    }
}
