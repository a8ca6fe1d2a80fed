//! An explanation for people: the decision first, then why.

use std::fmt::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::identity::PrincipalKind;
use crate::policy::{Explanation, PolicyExplanation, RoleExplanation};
use crate::workbench::{Answer, Forwarded, RouteAnswer};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default();
const CYAN: Style = AnsiColor::Cyan.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// The answer as text, with colours that the printer may strip.
pub(super) fn readable(answer: &Answer) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _written = write_answer(&mut text, answer);
    text
}

fn write_answer(text: &mut String, answer: &Answer) -> fmt::Result {
    let (style, word) = match answer.decision {
        "allow" => (GREEN.bold(), "ALLOW"),
        "own" => (CYAN.bold(), "OWN"),
        _ => (RED.bold(), "DENY"),
    };
    let status = answer.status.map(|status| format!(" {status}")).unwrap_or_default();
    let code = if answer.code == "ok" { String::new() } else { format!(" {}", answer.code) };
    writeln!(text, "{style}{word}{style:#}{status}{code}  {}", plain(&answer.sentence))?;
    if let Some(detail) = &answer.detail {
        writeln!(text, "      {}", plain(detail))?;
    }
    for note in &answer.notes {
        writeln!(text, "      {YELLOW}note{YELLOW:#} {}", plain(note))?;
    }
    writeln!(text)?;
    let (host, path) = (plain(&answer.host), plain(&answer.path));
    line(
        text,
        "request",
        &format!("{} {host}{path}  {DIM}from{DIM:#} {}  {DIM}at{DIM:#} {}", answer.method, answer.source_ip, answer.at),
    )?;
    caller(text, answer)?;
    if let Some(found) = &answer.route {
        route(text, found)?;
    }
    if let Some(policy) = &answer.policy {
        roles(text, &policy.roles, answer)?;
        rules(text, policy)?;
    }
    answer.forwarded.as_ref().map_or(Ok(()), |forwarded| sends(text, forwarded))
}

fn caller(text: &mut String, answer: &Answer) -> fmt::Result {
    let caller = &answer.caller;
    let shown = match (caller.evidence, &caller.issuer) {
        (None, _) => "nobody: no evidence of who is calling".to_owned(),
        (Some(kind), None) => format!("{kind}, not verified"),
        (Some(kind), Some(issuer)) => format!("{kind} of {}, not verified", plain(issuer)),
    };
    match (&caller.principal, caller.kind) {
        (Some(principal), Some(kind)) => {
            let principal = plain(principal);
            line(text, "caller", &format!("{BOLD}{principal}{BOLD:#}  {kind}  {DIM}({shown}){DIM:#}"))?;
        }
        _ => line(text, "caller", &shown)?,
    }
    if !caller.taken_as_good.is_empty() {
        line(text, "", &format!("{DIM}taken as good: {}{DIM:#}", caller.taken_as_good.join(", ")))?;
    }
    Ok(())
}

fn route(text: &mut String, route: &RouteAnswer) -> fmt::Result {
    let RouteAnswer { name, host, path, environment, declared, .. } = route;
    line(
        text,
        "route",
        &format!("{BOLD}{name}{BOLD:#}  {host} {path}  {DIM}in{DIM:#} {environment}  {DIM}{declared}{DIM:#}"),
    )?;
    match &route.public {
        Some(reason) => line(text, "", &format!("public: {reason}"))?,
        None => line(text, "", &format!("takes {} of {}", any_of(&route.evidence), any_of(&route.issuers)))?,
    }
    if !route.acr_values.is_empty() {
        line(text, "", &format!("asks for an authentication of class {}", any_of(&route.acr_values)))?;
    }
    if let Some(seconds) = route.max_age_seconds {
        line(text, "", &format!("asks for an authentication at most {seconds}s ago"))?;
    }
    if let Some(reason) = &route.opaque_paths {
        line(text, "", &format!("reads paths as raw bytes: {reason}"))?;
    }
    Ok(())
}

fn roles(text: &mut String, roles: &[RoleExplanation], answer: &Answer) -> fmt::Result {
    if answer.caller.kind == Some(PrincipalKind::Anonymous.as_str()) {
        return line(text, "roles", "none: nobody in particular holds any");
    }
    let issuer = answer.caller.issuer.as_deref().unwrap_or_default();
    let width = roles.iter().map(|role| role.role.chars().count()).max().unwrap_or(0);
    // Held ones first: they decide.
    let ordered = roles.iter().filter(|role| role.held).chain(roles.iter().filter(|role| !role.held));
    for (index, role) in ordered.enumerate() {
        let label = if index == 0 { "roles" } else { "" };
        let (style, mark) = if role.held { (GREEN, '✓') } else { (RED, '✗') };
        // Clauses about other issuers' callers are no news.
        let failed: Vec<&String> = role
            .trust
            .iter()
            .filter(|trust| trust.issuer == issuer)
            .filter_map(|trust| trust.failed.as_ref())
            .collect();
        let trusted = role.trust.iter().any(|trust| trust.met);
        let why = match (&role.reason, &role.ends_at) {
            _ if !trusted && failed.is_empty() => format!("it trusts no caller of {}", plain(issuer)),
            (Some(reason), _) => plain(reason),
            (None, Some(end)) => format!("held until {end}"),
            (None, None) => "held as long as the evidence".to_owned(),
        };
        line(text, label, &format!("{style}{mark}{style:#} {:<width$}  {why}", role.role))?;
        for failed in failed.into_iter().filter(|_| !trusted) {
            line(text, "", &format!("  {:<width$}  {DIM}- {}{DIM:#}", "", plain(failed)))?;
        }
    }
    Ok(())
}

fn rules(text: &mut String, policy: &Explanation) -> fmt::Result {
    if policy.considered.is_empty() {
        return line(text, "rules", "none is about this route, method and kind of caller");
    }
    let decides = |rule: &PolicyExplanation| policy.deciding.iter().any(|deciding| deciding.id == rule.id);
    let ordered = policy.considered.iter().filter(|rule| decides(rule));
    let ordered = ordered.chain(policy.considered.iter().filter(|rule| !decides(rule)));
    for (index, rule) in ordered.enumerate() {
        let label = if index == 0 { "rules" } else { "" };
        let decides = decides(rule);
        let (style, outcome) = match (decides, rule.effect) {
            (true, "permit") => (GREEN.bold(), "decides"),
            (true, _) => (RED.bold(), "decides"),
            (false, _) => (DIM, rule.outcome),
        };
        let guardrail = if rule.guardrail { " guardrail" } else { "" };
        let (effect, id, location) = (rule.effect, plain(&rule.id), plain(&rule.location));
        line(text, label, &format!("{style}{effect:<6} {id}{guardrail}: {outcome}{style:#}  {DIM}{location}{DIM:#}"))?;
        if let Some(reason) = rule.reason.as_ref().filter(|_| decides) {
            line(text, "", &format!("       \"{}\"", plain(reason)))?;
        }
    }
    Ok(())
}

fn sends(text: &mut String, forwarded: &Forwarded) -> fmt::Result {
    let addresses = forwarded.addresses.join(", ");
    line(text, "sends", &format!("to {BOLD}{}{BOLD:#}  {DIM}{addresses}{DIM:#}", forwarded.upstream))?;
    let name = &forwarded.credential;
    match (&forwarded.credential_header, forwarded.credential_kind) {
        (Some(header), "signed_assertion") => {
            let audience = forwarded.audience.as_deref().unwrap_or("-");
            let seconds = forwarded.lifetime_seconds.unwrap_or(0);
            line(text, "", &format!("{header}: a signed assertion for {audience}, {seconds}s  {DIM}{name}{DIM:#}"))?;
        }
        (Some(header), "vault") => line(text, "", &format!("{header}: a secret of a vault  {DIM}{name}{DIM:#}"))?,
        (Some(header), kind) => {
            let what = match kind {
                "fixed" => "a fixed secret",
                "aws" => "a signature by keys of an AWS role session",
                "gcp" => "a token of Google Cloud",
                "azure" => "a token of Entra ID",
                _ => "a token of an authorization server",
            };
            line(text, "", &format!("{header}: {what}  {DIM}{name}{DIM:#}"))?;
        }
        (None, "mtls") => line(text, "", &format!("a client certificate  {DIM}{name}{DIM:#}"))?,
        (None, _) => line(text, "", &format!("no credential  {DIM}{name}{DIM:#}"))?,
    }
    if !forwarded.identity_headers.is_empty() {
        line(text, "", &forwarded.identity_headers.join(", "))?;
    }
    Ok(())
}

fn line(text: &mut String, label: &str, content: &str) -> fmt::Result {
    writeln!(text, "{DIM}{label:<8}{DIM:#} {content}")
}

fn any_of<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(" or ") }
}

/// Text of strangers, with whatever a terminal would act on written out.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_cannot_move_the_cursor() {
        assert_eq!(plain("José \"x\"\n\u{1b}[2J\u{202e}"), "José \"x\"\\n\\u{1b}[2J\\u{202e}");
    }
}
