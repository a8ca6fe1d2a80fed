//! Cedar's names for what a request is about, and the few entities that one request needs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema};
use http::Method;

use crate::identity::{Attribute, Principal, PrincipalKind};
use crate::route::Route;
use crate::target::METHODS;

/// A boxed error of Cedar's.
pub(super) type CedarError = Box<dyn std::error::Error + Send + Sync>;

/// Kinds of principals, in the order of their index.
pub(super) const KINDS: [PrincipalKind; 3] = [PrincipalKind::User, PrincipalKind::Workload, PrincipalKind::Anonymous];

/// Position of `kind` in [`KINDS`].
pub(super) const fn kind_index(kind: PrincipalKind) -> usize {
    match kind {
        PrincipalKind::User => 0,
        PrincipalKind::Workload => 1,
        PrincipalKind::Anonymous => 2,
    }
}

/// Position of `method` in [`METHODS`]; `None` for a method that policies cannot speak of.
pub(super) fn method_index(method: &Method) -> Option<usize> {
    METHODS.iter().position(|known| known == method)
}

/// The type names and actions of the generated schema, parsed once.
#[derive(Debug)]
pub(super) struct Vocabulary {
    user: EntityTypeName,
    workload: EntityTypeName,
    anonymous: EntityTypeName,
    role: EntityTypeName,
    route: EntityTypeName,
    environment: EntityTypeName,
    /// In the order of [`METHODS`]. An action's entity knows its groups: without it `action in Action::"read"`
    /// never matches.
    actions: Vec<Entity>,
}

impl Vocabulary {
    /// Reads the names from `schema`.
    ///
    /// # Errors
    /// When the schema is not one that this crate generated.
    pub(super) fn of(schema: &Schema) -> Result<Self, CedarError> {
        let action: EntityTypeName = "Action".parse()?;
        let entities = schema.action_entities()?;
        let actions = METHODS.iter().map(|method| {
            let uid = EntityUid::from_type_name_and_id(action.clone(), EntityId::new(method.as_str()));
            entities.get(&uid).cloned().ok_or_else(|| CedarError::from(format!("no action `{method}`")))
        });
        Ok(Self {
            user: "User".parse()?,
            workload: "Workload".parse()?,
            anonymous: "Anonymous".parse()?,
            role: "Role".parse()?,
            route: "Route".parse()?,
            environment: "Environment".parse()?,
            actions: actions.collect::<Result<_, _>>()?,
        })
    }

    /// The action of the method at `index` of [`METHODS`].
    pub(super) fn action(&self, index: usize) -> Option<&Entity> {
        self.actions.get(index)
    }

    pub(super) fn principal_uid(&self, principal: &Principal) -> EntityUid {
        let kind = match principal.kind {
            PrincipalKind::User => &self.user,
            PrincipalKind::Workload => &self.workload,
            PrincipalKind::Anonymous => &self.anonymous,
        };
        uid(kind, principal.id())
    }

    pub(super) fn role_uid(&self, name: &str) -> EntityUid {
        uid(&self.role, name)
    }

    pub(super) fn route_uid(&self, name: &str) -> EntityUid {
        uid(&self.route, name)
    }

    /// The entity of `route`, in its environment.
    ///
    /// # Errors
    /// Cedar's, never seen.
    pub(super) fn route_entity(&self, route: &Route) -> Result<Entity, CedarError> {
        let attributes = HashMap::from([
            ("name".to_owned(), text(&route.name)),
            ("environment".to_owned(), text(&route.environment)),
            ("tags".to_owned(), RestrictedExpression::new_set(route.tags.iter().map(|tag| text(tag)))),
        ]);
        let environment = uid(&self.environment, &route.environment);
        Ok(Entity::new(self.route_uid(&route.name), attributes, HashSet::from([environment]))?)
    }

    fn principal_entity(&self, principal: &Principal, roles: HashSet<EntityUid>) -> Result<Entity, CedarError> {
        let mut attributes: HashMap<String, RestrictedExpression> =
            principal.attributes.iter().map(|(name, attribute)| (name.clone(), attribute_value(attribute))).collect();
        // After the projected claims, so that none of them can stand in for what the verifier vouches for.
        attributes.insert("issuer".to_owned(), text(&principal.issuer));
        attributes.insert("subject".to_owned(), text(&principal.subject));
        attributes.insert("groups".to_owned(), texts(&principal.groups));
        attributes.remove("email");
        if let Some(email) = &principal.email {
            attributes.insert("email".to_owned(), text(email));
        }
        Ok(Entity::new(self.principal_uid(principal), attributes, roles)?)
    }

    /// The three entities that one request can reach: the caller in `roles`, the action in its group, the route in
    /// its environment.
    ///
    /// # Errors
    /// Cedar's, never seen.
    pub(super) fn entities<'a>(
        &self,
        principal: &Principal,
        roles: impl Iterator<Item = &'a Arc<str>>,
        action: &Entity,
        route: &Entity,
    ) -> Result<Entities, CedarError> {
        let roles = roles.map(|role| self.role_uid(role)).collect();
        let principal = self.principal_entity(principal, roles)?;
        Ok(Entities::from_entities([principal, action.clone(), route.clone()], None)?)
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn attribute_value(attribute: &Attribute) -> RestrictedExpression {
    match attribute {
        Attribute::String(value) => text(value),
        Attribute::Long(value) => RestrictedExpression::new_long(*value),
        Attribute::Bool(value) => RestrictedExpression::new_bool(*value),
        Attribute::Set(values) => texts(values),
    }
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn texts(values: &[String]) -> RestrictedExpression {
    RestrictedExpression::new_set(values.iter().map(|value| text(value)))
}
