//! One small configuration, asked by many callers.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::clock::Timestamp;
use crate::config::{Judged, judge};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn judged() -> (TempDir, Judged) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("policies")).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["api.example.com".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    for (name, text) in [
        ("doorward.yaml", include_str!("../../tests/cli/world/doorward.yaml")),
        ("policies/rules.yaml", include_str!("../../tests/cli/world/policies/rules.yaml")),
        ("policies/access.cedar", include_str!("../../tests/cli/world/policies/access.cedar")),
        ("policies/guardrails.cedar", include_str!("../../tests/cli/world/policies/guardrails.cedar")),
        ("keys.json", "{\"keys\":[]}"),
        ("server.pem", &certificate.pem()),
        ("server.key", &key.serialize_pem()),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let judged = judge(&directory.path().join("doorward.yaml")).unwrap_or_else(|faults| panic!("{faults}"));
    (directory, judged)
}

fn question(caller: Caller, method: &str, url: &str) -> Question {
    let url = if url.starts_with('/') { format!("https://api.example.com{url}") } else { url.to_owned() };
    Question {
        caller,
        method: method.parse().unwrap(),
        url: url.parse().unwrap(),
        source_ip: "192.0.2.7".parse().unwrap(),
        at: NOW,
    }
}

fn ask(caller: Caller, method: &str, url: &str) -> Answer {
    explain(&judged().1, &question(caller, method, url)).unwrap()
}

fn object(claims: Value) -> serde_json::Map<String, Value> {
    claims.as_object().unwrap().clone()
}

fn okta(claims: Value) -> Caller {
    Caller::Claims { issuer: "okta".to_owned(), claims: object(claims) }
}

fn ci(claims: Value) -> Caller {
    Caller::Claims { issuer: "ci".to_owned(), claims: object(claims) }
}

fn session(claims: Value) -> Caller {
    Caller::Session { issuer: "okta".to_owned(), claims: object(claims) }
}

fn code(caller: Caller, url: &str) -> (&'static str, &'static str, Option<u16>) {
    let answer = ask(caller, "GET", url);
    (answer.decision, answer.code, answer.status)
}

#[test]
fn an_allowed_request_names_route_role_rule_and_what_the_upstream_sees() {
    let answer = ask(okta(json!({ "uid": "u1", "groups": ["admins"] })), "GET", "/invoices/7");
    assert_eq!((answer.decision, answer.code, answer.status), ("allow", "ok", None));
    assert_eq!(answer.caller.principal.as_deref(), Some("okta|u1"));
    assert!(!answer.caller.verified);
    let route = answer.route.unwrap();
    assert_eq!(
        (route.name.as_str(), route.issuers.as_slice()),
        ("invoices", &["okta".to_owned(), "ci".to_owned()][..])
    );
    assert!(route.declared.contains("rules.yaml:"), "{}", route.declared);
    let policy = answer.policy.unwrap();
    assert_eq!(policy.deciding[0].id, "admin-all");
    assert!(policy.deciding[0].location.ends_with("access.cedar:1"), "{}", policy.deciding[0].location);
    let held: Vec<_> = policy.roles.iter().filter(|role| role.held).map(|role| role.role.as_str()).collect();
    assert_eq!(held, ["admin"]);
    let forwarded = answer.forwarded.unwrap();
    assert_eq!((forwarded.upstream.as_str(), forwarded.credential_kind), ("billing", "signed_assertion"));
    assert_eq!(forwarded.credential_header.as_deref(), Some("authorization"));
    assert_eq!(forwarded.identity_headers.len(), 5);
}

#[test]
fn a_denied_request_tells_which_trust_is_not_met_and_forwards_nothing() {
    let answer = ask(okta(json!({ "uid": "u1", "groups": ["engineers"] })), "GET", "/invoices/7");
    assert_eq!((answer.decision, answer.code, answer.status), ("deny", "not_permitted", Some(403)));
    assert_eq!(answer.forwarded, None);
    let roles = answer.policy.unwrap().roles;
    let admin = roles.iter().find(|role| role.role == "admin").unwrap();
    assert!(admin.trust[0].failed.as_ref().unwrap().contains("`admins`"), "{admin:?}");
}

#[test]
fn a_guardrail_wins_and_is_named() {
    let answer = ask(okta(json!({ "uid": "u1", "groups": ["admins"] })), "DELETE", "/invoices/7");
    assert_eq!((answer.code, answer.status), ("guardrail", Some(403)));
    let deciding = &answer.policy.unwrap().deciding[0];
    assert_eq!((deciding.id.as_str(), deciding.guardrail), ("no-deletes", true));
    assert_eq!(deciding.reason.as_deref(), Some("Finance records are never deleted"));
}

#[test]
fn facts_of_the_request_count() {
    let (_directory, judged) = judged();
    let auditor = okta(json!({ "uid": "u1", "groups": ["auditors"] }));
    let mut asked = question(auditor, "GET", "/invoices/7");
    assert_eq!(explain(&judged, &asked).unwrap().code, "ok");
    asked.source_ip = "203.0.113.9".parse().unwrap();
    assert_eq!(explain(&judged, &asked).unwrap().code, "guardrail");
    let began = json!({ "uid": "u1", "groups": ["admins"], "iat": NOW.unix_seconds() - 3600 });
    let mut late = question(okta(began), "GET", "/invoices/7");
    let answer = explain(&judged, &late).unwrap();
    assert_eq!((answer.code, answer.status), ("role_session_expired", Some(401)));
    late.at = NOW.minus(std::time::Duration::from_secs(1));
    assert_eq!(explain(&judged, &late).unwrap().code, "ok");
}

#[test]
fn nobody_passes_a_public_route_only() {
    let open = ask(Caller::Nobody, "GET", "/health");
    assert_eq!((open.decision, open.caller.kind), ("allow", Some("Anonymous")));
    assert_eq!(open.forwarded.unwrap().credential_kind, "none");
    let known = ask(okta(json!({ "uid": "u1", "groups": ["admins"] })), "GET", "/health");
    assert_eq!(known.caller.principal.as_deref(), Some("anonymous"));
    assert!(known.notes[0].contains("not looked at"), "{:?}", known.notes);
    let answer = ask(Caller::Nobody, "GET", "/invoices/7");
    assert_eq!((answer.decision, answer.code, answer.status), ("deny", "unauthenticated", Some(401)));
    assert!(answer.route.is_some() && answer.policy.is_none());
    assert!(answer.notes[0].contains("sign in"), "{:?}", answer.notes);
}

#[test]
fn a_path_with_two_readings_is_refused_before_any_route() {
    let answer = ask(okta(json!({ "uid": "u1", "groups": ["admins"] })), "GET", "/invoices/a%2Fb");
    assert_eq!((answer.code, answer.status), ("path_ambiguous", Some(400)));
    assert!(answer.route.is_none());
    assert_eq!(code(Caller::Nobody, "/a/../health"), ("deny", "path_dot_segment", Some(400)));
    assert_eq!(code(Caller::Nobody, "/nowhere"), ("deny", "no_route", Some(404)));
    assert_eq!(code(Caller::Nobody, "https://other.example.com/health"), ("deny", "no_route", Some(404)));
}

#[test]
fn doorward_s_own_paths_are_said_to_be_its_own() {
    assert_eq!(code(Caller::Nobody, "/.doorward/jwks.json"), ("own", "ok", None));
    assert_eq!(code(Caller::Nobody, "/.doorward/a%2Fb"), ("deny", "path_ambiguous", Some(400)));
}

#[test]
fn evidence_passes_the_gate_of_its_route() {
    let claims = || json!({ "uid": "u1", "groups": ["admins"], "acr": "urn:mfa" });
    assert_eq!(code(okta(claims()), "/payroll"), ("deny", "evidence_not_accepted", Some(401)));
    assert_eq!(code(session(claims()), "/payroll"), ("allow", "ok", None));
    let weak = json!({ "uid": "u1", "groups": ["admins"] });
    assert_eq!(code(session(weak), "/payroll"), ("deny", "insufficient_user_authentication", Some(401)));
    let service = || Caller::Certificate { issuer: None, name: "reports.internal".to_owned() };
    assert_eq!(code(service(), "/reports/7"), ("allow", "ok", None));
    // A certificate is no evidence where the route does not ask for one.
    assert_eq!(code(service(), "/invoices/7"), ("deny", "unauthenticated", Some(401)));
    assert_eq!(
        code(Caller::Certificate { issuer: None, name: "*.internal".to_owned() }, "/reports/7").1,
        "certificate_name_refused"
    );
}

#[test]
fn claims_are_projected_by_the_issuer_s_own_rules() {
    let refused = |claims| code(okta(claims), "/invoices/7").1;
    assert_eq!(refused(json!({ "sub": "u1" })), "claim_missing");
    assert_eq!(refused(json!({ "uid": "u1", "suspended": true })), "claim_forbidden");
    assert_eq!(refused(json!({ "uid": "u1", "aud": "api://other" })), "audience_mismatch");
    assert_eq!(refused(json!({ "uid": "u1", "iss": "https://ci.example.com" })), "issuer_mismatch");
    assert_eq!(refused(json!({ "uid": "u1", "exp": NOW.unix_seconds() - 3600 })), "token_expired");
    assert_eq!(refused(json!({ "uid": "u1", "nonce": "n" })), "id_token_refused");
}

#[test]
fn what_is_not_stated_is_said_and_meets_no_trust() {
    let answer = ask(ci(json!({ "sub": "j1", "client_id": "nightly" })), "GET", "/invoices/7");
    assert_eq!(answer.code, "ok");
    assert_eq!(answer.caller.taken_as_good, ["iss", "aud", "exp", "iat", "jti"]);
    let answer = ask(ci(json!({ "sub": "j1" })), "GET", "/invoices/7");
    assert!(answer.caller.taken_as_good.contains(&"client_id"));
    assert_eq!(answer.code, "not_permitted", "a claim taken as good is none that the caller has");
}

#[test]
fn a_token_is_read_by_every_rule_but_its_signature_and_the_answer_says_so() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let token = |header: Value, claims: Value| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!("{}.{}.{}", part(&header), part(&claims), URL_SAFE_NO_PAD.encode("forged"));
        Caller::Token { issuer: None, token }
    };
    let header = || json!({ "alg": "ES256", "typ": "JWT" });
    let claims = |issuer: &str| {
        let exp = NOW.unix_seconds() + 300;
        json!({ "iss": issuer, "aud": "api://acme", "exp": exp, "uid": "u1", "groups": ["admins"] })
    };
    let answer = ask(token(header(), claims("https://id.example.com")), "GET", "/invoices/7");
    assert_eq!((answer.code, answer.caller.taken_as_good.as_slice()), ("ok", &["signature"][..]));
    assert!(answer.notes.iter().any(|note| note.contains("NOT verified")), "{:?}", answer.notes);
    let refused = |caller| code(caller, "/invoices/7").1;
    assert_eq!(refused(token(header(), claims("https://nobody.example.com"))), "issuer_unknown");
    assert_eq!(refused(token(json!({ "alg": "RS256" }), claims("https://id.example.com"))), "algorithm_refused");
    let logout = json!({ "alg": "ES256", "typ": "logout+jwt" });
    assert_eq!(refused(token(logout, claims("https://id.example.com"))), "token_type_refused");
    assert_eq!(refused(Caller::Token { issuer: None, token: "no token".to_owned() }), "token_malformed");
    let mut bare = claims("https://id.example.com");
    bare.as_object_mut().unwrap().remove("exp");
    assert_eq!(refused(token(header(), bare)), "claim_missing", "a token has to say it all");
}

#[test]
fn a_question_about_what_is_not_there_gets_the_nearest_name() {
    let (_directory, judged) = judged();
    let error = |caller, url| explain(&judged, &question(caller, "GET", url)).unwrap_err();
    let unknown = Caller::Claims { issuer: "okat".to_owned(), claims: object(json!({})) };
    assert_eq!(error(unknown, "/health").to_string(), "no issuer is named `okat`: did you mean `okta`?");
    let no_login = Caller::Session { issuer: "ci".to_owned(), claims: object(json!({})) };
    assert_eq!(error(no_login, "/health"), ExplainError::NoLogin { issuer: "ci".to_owned() });
    let named = Caller::Certificate { issuer: Some("okta".to_owned()), name: "a.internal".to_owned() };
    assert!(matches!(error(named, "/health"), ExplainError::UnknownIssuer { .. }));
    let mut hostless = question(Caller::Nobody, "GET", "/health");
    hostless.url = "/health".parse().unwrap();
    assert_eq!(explain(&judged, &hostless).unwrap_err(), ExplainError::NoHost);
}
