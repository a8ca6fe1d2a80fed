//! What the corpus shows as evidence: good tokens, bad ones, and ones that name the lure.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::json;

use super::policy::Caller;
use crate::support::{SigningKey, StaticIssuer, TokenDraft, base64url, now};

/// The tokens of one run.
pub(crate) struct Tokens {
    good: Vec<(Caller, String)>,
    bad: Vec<(&'static str, String)>,
    by_text: HashMap<String, Caller>,
}

impl Tokens {
    /// Tokens of `issuer`, good for longer than any run; bad ones name `lure` wherever a token can name a place.
    pub(crate) fn mint(issuer: &StaticIssuer, lure: SocketAddr) -> Self {
        let draft = |token: TokenDraft, caller: Caller| {
            token.subject(caller.subject()).groups(caller.groups()).claim("exp", now() + 3000)
        };
        let callers = [Caller::Stranger, Caller::Reader, Caller::Writer, Caller::Both];
        let mut good: Vec<(Caller, String)> =
            callers.map(|caller| (caller, draft(issuer.token(), caller).mint())).to_vec();
        good.push((Caller::Both, draft(issuer.rsa_token(), Caller::Both).mint()));

        let both = || draft(issuer.token(), Caller::Both);
        let (theirs, place) = (SigningKey::es256("es-1"), format!("http://{lure}/keys"));
        let public = theirs.public();
        let pem = issuer_pem(&both());
        let mut bad = vec![
            ("expired", both().claim("iat", now() - 900).claim("exp", now() - 600).mint()),
            ("not yet valid", both().claim("nbf", now() + 2000).mint()),
            ("lives too long", both().claim("exp", now() + 90_000).mint()),
            ("other audience", both().claim("aud", "https://elsewhere.test").mint()),
            ("other issuer", both().claim("iss", "https://issuer.test").mint()),
            ("issuer is the lure", both().claim("iss", format!("http://{lure}")).signed_by(&theirs).mint()),
            ("other key", both().signed_by(&theirs).mint()),
            ("shared secret", both().header("alg", "HS256").signed_by(&SigningKey::hs256("es-1", &pem)).mint()),
            ("jku", both().header("jku", &place).signed_by(&theirs).mint()),
            ("x5u", both().header("x5u", &place).signed_by(&theirs).mint()),
            ("jwk", both().header("jwk", &public).signed_by(&theirs).mint()),
            ("kid is the lure", both().header("kid", &place).signed_by(&theirs).mint()),
            ("kid is a path", both().header("kid", "../../../../dev/null").signed_by(&theirs).mint()),
            ("kid unknown", both().header("kid", "es-9").signed_by(&theirs).mint()),
            ("crit", both().header("crit", ["jku"]).header("jku", &place).mint()),
            ("id token", both().header("typ", "JWT").mint()),
            ("no subject", both().without_claim("sub").mint()),
            ("bound to a key", both().claim("cnf", json!({ "jkt": "x", "jku": place, "x5u": place })).mint()),
        ];
        let unsigned = both().header("alg", "none");
        bad.push(("alg none", format!("{}.{}.", base64url(unsigned.header_text()), base64url(unsigned.claims_text()))));
        bad.push(("no token", "not.a.token".to_owned()));
        let by_text = good.iter().map(|(caller, token)| (token.clone(), *caller)).collect();
        Self { good, bad, by_text }
    }

    /// A good token of `caller`; none for nobody.
    pub(crate) fn of(&self, caller: Caller, which: usize) -> Option<&str> {
        let mut of_caller: Vec<&str> = Vec::new();
        of_caller.extend(self.good.iter().filter(|(found, _)| *found == caller).map(|(_, token)| &**token));
        of_caller.get(which % of_caller.len().max(1)).copied()
    }

    /// Tokens that speak for nobody, and what is wrong with each.
    pub(crate) fn bad(&self) -> &[(&'static str, String)] {
        &self.bad
    }

    /// Whom a value of `Authorization` speaks for.
    pub(crate) fn caller(&self, authorization: &str) -> Caller {
        let Some((scheme, token)) = authorization.split_once(' ') else { return Caller::Nobody };
        let token = token.trim_matches(' ');
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Caller::Nobody;
        }
        self.by_text.get(token).copied().unwrap_or(Caller::Nobody)
    }

    /// Whether `text` holds one of the good tokens.
    pub(crate) fn any_in(&self, text: &str) -> bool {
        self.good.iter().any(|(_, token)| text.contains(token))
    }
}

/// What an attacker takes for the shared secret: the public key as everybody can read it.
fn issuer_pem(draft: &TokenDraft) -> Vec<u8> {
    draft.key.public_pem().into_bytes()
}
