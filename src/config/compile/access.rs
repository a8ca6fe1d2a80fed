//! Roles and Cedar files become [`Policies`]; their faults become the configuration's.

use std::sync::Arc;

use crate::config::checked::{AttributeKind, Checked};
use crate::config::faults::{Fault, Faults};
use crate::config::source_file::SourceFile;
use crate::identity::PrincipalKind;
use crate::identity::claims::ClaimPath;
use crate::policy::{
    AttributeType, DeclaredAttribute, Policies, PolicyFault, PolicySettings, PolicySource, RoleSettings, RoleTrust,
    RoleUses,
};
use crate::route::Router;

/// Loads the rules.
pub(super) fn policies(checked: &Checked, router: &Router, uses: &Arc<RoleUses>) -> Result<Policies, Faults> {
    let declared = checked.issuers.iter().flat_map(|issuer| {
        issuer.attributes.iter().map(|attribute| DeclaredAttribute {
            issuer: issuer.name.as_str().into(),
            name: attribute.name.as_str().into(),
            kind: kind(attribute.kind),
        })
    });
    let issuers = checked.issuers.iter().map(|issuer| (&issuer.name, issuer.kind));
    let certificates = checked.certificate_issuers.iter().map(|issuer| (&issuer.name, PrincipalKind::Workload));
    let settings = PolicySettings {
        issuers: issuers.chain(certificates).map(|(name, kind)| (name.as_str().into(), kind)).collect(),
        attributes: declared.collect(),
        roles: checked.roles.iter().map(role).collect(),
        routes: router.routes().to_vec(),
        sources: checked.policies.iter().map(source).collect(),
    };
    Policies::load(settings, uses.clone()).map_err(|faults| all_placed(checked, &faults))
}

/// What is wrong with the form of the rules, whatever else is.
pub(super) fn form_faults(checked: &Checked) -> Faults {
    all_placed(checked, &crate::policy::form_faults(checked.policies.iter().map(source).collect()))
}

/// What is suspicious about the rules without being wrong.
pub(super) fn warnings(checked: &Checked, policies: &Policies) -> Faults {
    all_placed(checked, policies.warnings())
}

fn all_placed(checked: &Checked, faults: &[PolicyFault]) -> Faults {
    let files: Vec<&Arc<SourceFile>> = checked.policies.iter().map(|source| &source.file).collect();
    faults.iter().map(|fault| placed(fault, &files)).collect()
}

fn kind(kind: AttributeKind) -> AttributeType {
    match kind {
        AttributeKind::String => AttributeType::String,
        AttributeKind::Long => AttributeType::Long,
        AttributeKind::Bool => AttributeType::Bool,
        AttributeKind::Set => AttributeType::Set,
    }
}

fn role(role: &crate::config::checked::Role) -> RoleSettings {
    let trust = role.trust.iter().map(|trust| RoleTrust {
        issuer: trust.issuer.as_str().into(),
        groups: trust.groups.clone(),
        claims: trust.claims.iter().map(|(path, values)| (segments(path), values.clone())).collect(),
    });
    RoleSettings {
        name: role.name.as_str().into(),
        trust: trust.collect(),
        environment: role.environment.as_str().into(),
        longest_session: role.longest_session,
    }
}

/// A path that was checked before; one that cannot be read names no claim, so that no caller meets it.
fn segments(path: &str) -> Vec<String> {
    ClaimPath::parse(path).map_or_else(|_| Vec::new(), |path| path.segments().to_vec())
}

fn source(source: &crate::config::checked::PolicySource) -> PolicySource {
    PolicySource {
        file: source.file.path.to_string_lossy().as_ref().into(),
        text: source.file.text.clone(),
        guardrail: source.guardrail,
    }
}

/// The same fault with the configuration's own source files.
fn placed(fault: &PolicyFault, files: &[&Arc<SourceFile>]) -> Fault {
    let of = |name: &str| files.iter().find(|file| file.path.to_string_lossy() == name).copied();
    let unknown = SourceFile::new("policies", "");
    let file = fault.file().and_then(of).unwrap_or(&unknown);
    let (offset, length) = fault.span().unwrap_or_default();
    let mut placed = Fault::new("policy", file, file.place(offset, length), fault.to_string());
    if let Some(label) = fault.label_text() {
        placed = placed.label(label);
    }
    if let Some(help) = fault.help_text() {
        placed = placed.help(help);
    }
    placed
}
