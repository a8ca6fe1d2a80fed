//! From policy files to rules: parsed, named, checked against the configuration, validated strictly. All faults at
//! once.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::mem::discriminant;
use std::sync::Arc;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode};
use cedar_policy::{ValidationWarning, Validator};
use miette::{Diagnostic, SourceSpan};
use serde_json::Value;

use super::context::ContextReads;
use super::depth::too_deep;
use super::entities::Vocabulary;
use super::faults::{PolicyFault, Position};
use super::names::Names;
use super::rules::{Rule, Rules};
use super::schema::generate_schema;
use super::settings::{PolicySettings, PolicySource};
use super::slice::Scope;
use crate::route::Access;

/// What the engine is made of.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) schema_text: String,
    pub(super) vocabulary: Vocabulary,
    pub(super) rules: Rules,
    pub(super) warnings: Vec<PolicyFault>,
}

/// Reads all of `settings`.
///
/// # Errors
/// Every fault, in the order of files and lines.
pub(super) fn load(settings: &PolicySettings) -> Result<Loaded, Vec<PolicyFault>> {
    let mut reader = Reader::new(settings);
    reader.check_roles();
    reader.read_all();
    reader.check_names();
    let schema = reader.schema();
    let mut warnings = Vec::new();
    if let Some((_, schema, _)) = &schema {
        warnings = reader.validate(schema);
    }
    let Reader { mut faults, statements, .. } = reader;
    let Some((schema_text, _, vocabulary)) = schema.filter(|_| faults.is_empty()) else {
        faults.sort_by_cached_key(PolicyFault::sort_key);
        return Err(faults);
    };
    let authenticated = settings.routes.iter().any(|route| matches!(route.access, Access::Authenticated(_)));
    if statements.is_empty() && authenticated {
        warnings.push(
            PolicyFault::general("no policy permits anything, so every route with callers refuses them").into_warning(),
        );
    }
    warnings.sort_by_cached_key(PolicyFault::sort_key);
    let rules = Rules::new(statements.into_iter().filter_map(|statement| statement.into_rule(settings)).collect());
    Ok(Loaded { schema_text, vocabulary, rules, warnings })
}

/// What is wrong with the form of policies (syntax, ids, guardrails that permit), which needs neither roles nor routes
/// to be seen.
#[must_use]
pub fn form_faults(sources: Vec<PolicySource>) -> Vec<PolicyFault> {
    let settings = PolicySettings { sources, ..PolicySettings::default() };
    let mut reader = Reader::new(&settings);
    reader.read_all();
    reader.faults
}

fn parse(source: &PolicySource) -> Result<PolicySet, Vec<PolicyFault>> {
    if let Some((at, message)) = too_deep(&source.text) {
        let fault = PolicyFault::at(source, SourceSpan::from((at, 1)), "here", message);
        return Err(vec![fault.with_help(Some("write several policies, or compare with a set by `in`".to_owned()))]);
    }
    source.text.parse().map_err(|errors: cedar_policy::ParseErrors| {
        let place = SourceSpan::from(0..0);
        errors.iter().map(|error| PolicyFault::of_cedar(source, place, error)).collect()
    })
}

/// One policy as written, before it is known to be good.
struct Statement {
    policy: Policy,
    source: usize,
    span: SourceSpan,
    position: Position,
    id: Option<Arc<str>>,
    form: OnceCell<Option<Value>>,
}

impl Statement {
    fn new(policy: &Policy, source: usize) -> Self {
        // The only place of a policy that Cedar tells.
        let span = policy.as_ref().loc().map_or_else(|| SourceSpan::from(0..0), |place| place.span);
        Self { policy: policy.clone(), source, span, position: Position::START, id: None, form: OnceCell::new() }
    }

    /// Cedar's JSON of it, read once: that costs more than all that is looked for in it.
    fn form(&self) -> Option<&Value> {
        self.form.get_or_init(|| self.policy.to_json().ok()).as_ref()
    }

    /// What of `context` it reads; everything, when that cannot be told.
    fn reads(&self) -> ContextReads {
        self.form().map_or(ContextReads::ALL, ContextReads::of)
    }

    fn into_rule(self, settings: &PolicySettings) -> Option<Rule> {
        let source = settings.sources.get(self.source)?;
        let reads = self.reads();
        let literals = self.policy.entity_literals();
        let roles = literals.iter().filter(|entity| entity.type_name().basename() == "Role");
        Some(Rule {
            id: self.id?,
            file: source.file.clone(),
            position: self.position,
            guardrail: source.guardrail,
            effect: self.policy.effect(),
            reason: self.policy.annotation("reason").map(Arc::from),
            scope: Scope::of(&self.policy, &settings.roles),
            reads,
            roles: roles.map(|role| role.id().unescaped().into()).collect(),
            policy: self.policy,
        })
    }
}

/// Where a statement reads the path, as far as its text tells.
fn path_reading(source: &PolicySource, span: SourceSpan) -> SourceSpan {
    let end = span.offset().saturating_add(span.len());
    let text = source.text.get(span.offset()..end).unwrap_or_default();
    let found =
        ["context.path", "context.parameters", "context"].iter().find_map(|read| Some((text.find(read)?, read)));
    match found {
        Some((start, read)) => SourceSpan::from((span.offset().saturating_add(start), read.len())),
        None => source.head(span),
    }
}

struct Reader<'a> {
    settings: &'a PolicySettings,
    names: Names<'a>,
    faults: Vec<PolicyFault>,
    statements: Vec<Statement>,
}

impl<'a> Reader<'a> {
    fn new(settings: &'a PolicySettings) -> Self {
        Self { settings, names: Names::of(settings), faults: Vec::new(), statements: Vec::new() }
    }

    fn read_all(&mut self) {
        for (index, source) in self.settings.sources.iter().enumerate() {
            self.read(index, source);
        }
        self.name_statements();
    }

    /// What policies name must be there.
    fn check_names(&mut self) {
        for statement in &self.statements {
            let Some(source) = self.settings.sources.get(statement.source) else { continue };
            self.faults.append(&mut self.names.check(source, (&statement.policy, statement.form()), statement.span));
        }
    }

    fn check_roles(&mut self) {
        let mut names = HashSet::new();
        for role in &self.settings.roles {
            let name = &role.name;
            if !names.insert(name) {
                self.faults.push(PolicyFault::general(format!("role `{name}` is declared twice")));
            }
            if role.longest_session.is_some_and(|longest| longest.is_zero()) {
                self.faults.push(PolicyFault::general(format!("role `{name}` has a longest session of nothing")));
            }
        }
    }

    fn read(&mut self, index: usize, source: &PolicySource) {
        let set = match parse(source) {
            Ok(set) => set,
            Err(mut faults) => {
                self.faults.append(&mut faults);
                return;
            }
        };
        for template in set.templates() {
            let span = template.as_ref().loc().map_or_else(|| SourceSpan::from(0..0), |place| place.span);
            self.faults.push(
                PolicyFault::at(source, source.head(span), "a template", "policy templates are not supported")
                    .with_help(Some("write the principal and the resource instead of `?principal`".to_owned())),
            );
        }
        let mut statements: Vec<Statement> = set.policies().map(|policy| Statement::new(policy, index)).collect();
        statements.sort_by_key(|statement| statement.span.offset());
        let (mut position, mut read) = (Position::START, 0);
        for statement in &mut statements {
            let start = statement.span.offset();
            position = position.after(source.text.get(read..start).unwrap_or_default());
            (statement.position, read) = (position, start);
        }
        for statement in &statements {
            self.check_effect(source, statement);
            self.check_path_reading(source, statement);
        }
        self.statements.append(&mut statements);
    }

    fn check_effect(&mut self, source: &PolicySource, statement: &Statement) {
        if source.guardrail && statement.policy.effect() == Effect::Permit {
            let span = source.head(statement.span);
            self.faults.push(
                PolicyFault::at(source, span, "permits", "a guardrails file may hold only `forbid`").with_help(Some(
                    "move this policy to a file whose name does not begin with `guardrails`".to_owned(),
                )),
            );
        }
    }

    /// On an opaque route a path has many spellings, and a `forbid` that knows one of them lets the others pass.
    fn check_path_reading(&mut self, source: &PolicySource, statement: &Statement) {
        let policy = &statement.policy;
        if policy.effect() != Effect::Forbid || !statement.reads().reads_path() {
            return;
        }
        let scope = Scope::of(policy, &self.settings.roles);
        let mut routes = self.settings.routes.iter();
        let Some(route) = routes.find(|route| route.is_opaque() && scope.admits_some(route)) else { return };
        let message = format!(
            "this `forbid` reads the path, which callers can spell in many ways on the opaque route `{}`",
            route.name
        );
        let help = "name a route with normal paths in its scope, or give what it guards a route of its own and forbid \
                    that";
        let fault = PolicyFault::at(source, path_reading(source, statement.span), "reads the path", message);
        self.faults.push(fault.with_help(Some(help.to_owned())));
    }

    /// Gives every policy the id that its annotation says.
    fn name_statements(&mut self) {
        let mut first: BTreeMap<Arc<str>, String> = BTreeMap::new();
        for statement in &mut self.statements {
            let Some(source) = self.settings.sources.get(statement.source) else { continue };
            let place = format!("{}:{}:{}", source.file, statement.position.line, statement.position.column);
            let span = source.head(statement.span);
            let id: Arc<str> = statement.policy.annotation("id").unwrap_or_default().trim().into();
            if id.is_empty() || id.chars().any(char::is_control) {
                let help = "put `@id(\"…\")` before it: decisions and audit records name policies by it";
                self.faults.push(
                    PolicyFault::at(source, span, "has no id", "every policy needs an `@id` of its own")
                        .with_help(Some(help.to_owned())),
                );
                // Still validated, under its place.
                statement.policy = statement.policy.new_id(PolicyId::new(&place));
                continue;
            }
            if let Some(earlier) = first.get(&id) {
                let message = format!("policy id `{id}` is used twice: at `{earlier}` and at `{place}`");
                self.faults.push(PolicyFault::at(source, span, "second use", message));
                statement.policy = statement.policy.new_id(PolicyId::new(&place));
                continue;
            }
            first.insert(id.clone(), place);
            statement.policy = statement.policy.new_id(PolicyId::new(&*id));
            statement.id = Some(id);
        }
    }

    fn schema(&mut self) -> Option<(String, Schema, Vocabulary)> {
        let text = match generate_schema(self.settings) {
            Ok(text) => text,
            Err(mut faults) => {
                self.faults.append(&mut faults);
                return None;
            }
        };
        let schema = match Schema::from_cedarschema_str(&text) {
            Ok((schema, _warnings)) => schema,
            Err(error) => {
                self.faults.push(PolicyFault::general(format!("the generated schema is not valid: {error}")));
                return None;
            }
        };
        match Vocabulary::of(&schema) {
            Ok(vocabulary) => Some((text, schema, vocabulary)),
            Err(error) => {
                self.faults.push(PolicyFault::general(format!("the generated schema is not complete: {error}")));
                None
            }
        }
    }

    /// Strict validation; returns what is suspicious only.
    fn validate(&mut self, schema: &Schema) -> Vec<PolicyFault> {
        let set = match PolicySet::from_policies(self.statements.iter().map(|statement| statement.policy.clone())) {
            Ok(set) => set,
            Err(error) => {
                self.faults.push(PolicyFault::general(error.to_string()));
                return Vec::new();
            }
        };
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        // Cedar repeats an error for every action and every kind of principal: one is enough.
        let mut told = HashSet::new();
        let mut wrong = HashSet::new();
        let mut errors: Vec<_> = result.validation_errors().collect();
        errors.sort_by_cached_key(ToString::to_string);
        for error in errors {
            wrong.insert(error.policy_id().clone());
            let offset = error.labels().into_iter().flatten().next().map(|label| label.offset());
            if told.insert((error.policy_id().clone(), offset, Some(discriminant(error)))) {
                let fault = self.fault_of(error.policy_id(), error);
                self.faults.push(fault);
            }
        }
        let mut warnings = Vec::new();
        for warning in result.validation_warnings().filter(|warning| !wrong.contains(warning.policy_id())) {
            let fault = self.fault_of(warning.policy_id(), warning);
            match warning {
                // Honest text in two scripts: worth a look, no more.
                ValidationWarning::MixedScriptString(_) => warnings.push(fault.into_warning()),
                // A policy that no action fits is impossible as well: once is enough.
                ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_) => {
                    if told.insert((warning.policy_id().clone(), None, None)) {
                        self.faults.push(fault);
                    }
                }
                ValidationWarning::BidiCharsInString(_)
                | ValidationWarning::BidiCharsInIdentifier(_)
                | ValidationWarning::MixedScriptIdentifier(_)
                | ValidationWarning::ConfusableIdentifier(_)
                | _ => self.faults.push(fault),
            }
        }
        warnings
    }

    fn fault_of(&self, id: &PolicyId, error: &dyn Diagnostic) -> PolicyFault {
        let statement = self.statements.iter().find(|statement| statement.policy.id() == id);
        let source = statement.and_then(|statement| self.settings.sources.get(statement.source));
        match statement.zip(source) {
            Some((statement, source)) => PolicyFault::of_cedar(source, source.head(statement.span), error),
            None => PolicyFault::general(error.to_string()),
        }
    }
}
