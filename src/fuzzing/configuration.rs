//! The files of a configuration.

use crate::config::load::survey_texts;
use crate::config::{Checked, Environment, Faults};
use crate::route::{Access, Route};

/// Between the main file and the rules.
const BOUNDARY: &str = "%%\n";

/// A main file that refers to no other, for inputs that are rules alone.
const MAIN: &str = include_str!("configuration.yaml");

/// How many of a configuration's prefixes are looked at.
const CUTS: usize = 12;

/// `main %% rules`, or rules alone: every fault has a place within its text, and no prefix of sound rules opens a route
/// further.
///
/// # Panics
/// When one does.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let (main, rules) = text.split_once(BOUNDARY).unwrap_or((MAIN, text));
    // What it refers to must depend on nothing outside of these bytes.
    if main.contains("file:") || rules.contains("file:") {
        return;
    }
    let (whole, faults) = survey(main, rules);
    have_places(&faults);
    if !faults.is_empty() {
        return;
    }
    let ends: Vec<usize> = rules.match_indices('\n').map(|(at, _)| at + 1).filter(|end| *end < rules.len()).collect();
    for end in ends.iter().step_by(ends.len().div_ceil(CUTS).max(1)) {
        let (cut, faults) = survey(main, &rules[..*end]);
        have_places(&faults);
        if faults.is_empty() {
            opens_no_further(&cut, &whole);
        }
    }
}

fn survey(main: &str, rules: &str) -> (Checked, Faults) {
    survey_texts(main, rules, &Environment::of(|_| None))
}

fn have_places(faults: &Faults) {
    for fault in faults.iter() {
        let places = fault.elsewhere.iter().map(|other| (&other.file, other.place));
        for (file, place) in places.chain([(&fault.file, fault.place)]) {
            let end = place.offset.saturating_add(place.length);
            assert!(file.text.get(place.offset..end).is_some(), "{} {place:?} of {}", fault.code, file.text.len());
            let lines = u32::try_from(file.text.lines().count()).expect("few lines");
            assert!(place.line <= lines.saturating_add(1), "{} {place:?} of {lines} lines", fault.code);
        }
        assert!(!fault.message.is_empty() && !fault.code.is_empty());
    }
    if !faults.is_empty() {
        assert!(!faults.render(false, 100).is_empty());
        assert_eq!(faults.to_json()["faults"].as_array().map(Vec::len), Some(faults.len()));
    }
}

/// Every route of `cut` is one of `whole` that takes at least the same callers.
fn opens_no_further(cut: &Checked, whole: &Checked) {
    for settings in &cut.routes {
        let route = &settings.route;
        let of = whole.routes.iter().map(|settings| &settings.route).find(|of| of.name == route.name);
        let of = of.unwrap_or_else(|| panic!("route `{}` came to be", route.name));
        assert_eq!((&route.host, &route.path, &route.environment), (&of.host, &of.path, &of.environment));
        assert!(is_within(route, of), "route `{}` is open further: {:?}, {:?}", route.name, route.access, of.access);
    }
}

fn is_within(route: &Route, of: &Route) -> bool {
    match (&route.access, &of.access) {
        (Access::Public { .. }, Access::Public { .. }) | (Access::Authenticated(_), Access::Public { .. }) => true,
        (Access::Public { .. }, Access::Authenticated(_)) => false,
        (Access::Authenticated(own), Access::Authenticated(all)) => {
            let names_fewer = match (&own.issuers, &all.issuers) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(own), Some(all)) => own.is_subset(all),
            };
            names_fewer && own.kinds.is_subset(&all.kinds)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use super::*;

    const RULES: &str = include_str!("../../fuzz/corpus/configuration/seed-rules");

    #[test]
    fn a_route_that_takes_more_callers_is_told_from_one_that_takes_fewer() {
        let checked = |rules: &str| {
            let (checked, faults) = survey(MAIN, rules);
            assert!(faults.is_empty(), "{faults}");
            checked
        };
        let whole = checked(RULES);
        let fewer = checked(&RULES.replace("[okta, ci]", "[okta]"));
        opens_no_further(&fewer, &whole);
        let panics = |one, other| std::panic::catch_unwind(AssertUnwindSafe(|| opens_no_further(one, other))).is_err();
        assert!(panics(&whole, &fewer));
        let public = RULES.replace(
            "accept:\n      issuers: [okta, ci]\n      evidence: [bearer]",
            "public: { reason: \"a test of it\" }",
        );
        let public = checked(&public);
        opens_no_further(&whole, &public);
        assert!(panics(&public, &whole));
    }
}
