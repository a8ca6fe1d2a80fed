//! Which requests are a browser that navigates, and where it is sent to log in.

use http::{HeaderMap, Method, Response, header};
use url::form_urlencoded;

use super::flow::MOST_ACR_VALUES;
use super::{AMONG, LOGIN, Login, redirect, return_to};
use crate::body::Body;
use crate::identity::Presented;
use crate::route::{Access, EvidenceKind};
use crate::target::Target;

/// Why a browser is sent to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginReason {
    /// It shows no session, or one that is over.
    Unauthenticated,
    /// The route asks for a stronger or a more recent authentication.
    StepUp,
    /// The user must authenticate anew in any case: a role session has ended.
    Reauthenticate,
    /// Its session cannot be confirmed at the issuer any more; signing in may get further.
    Unconfirmed,
}

impl Login {
    /// The redirect for a browser that navigates to a page of `route` without a session that will do; `None` for
    /// everything else (XHR, curl, WebSocket, gRPC), which gets its 401.
    #[must_use]
    pub fn redirect_for(
        &self,
        presented: &Presented<'_>,
        target: &Target,
        reason: LoginReason,
    ) -> Option<Response<Body>> {
        let Access::Authenticated(accepts) = &presented.route.access else { return None };
        let usable = accepts.kinds.contains(&EvidenceKind::Session) && self.origin.has_host(target.host());
        if !usable || !is_navigation(presented.method, presented.headers) {
            return None;
        }
        let names: Vec<_> = self.issuers.keys().filter(|name| accepts.issuer(name)).collect();
        let only = match names.as_slice() {
            [] => return None,
            [only] => Some((*only).clone()),
            _ => None,
        };
        let session =
            || (reason != LoginReason::Unauthenticated).then(|| self.session_named(presented.headers)).flatten();
        if reason == LoginReason::Unconfirmed && session().is_none() {
            return None;
        }
        let requirement = &presented.route.login;
        let issuer = requirement.issuer.clone().or(only).or_else(|| session().map(|(_, issuer)| issuer));
        let mut query = form_urlencoded::Serializer::new(String::new());
        match issuer {
            Some(issuer) => drop(query.append_pair("issuer", &issuer)),
            None => drop(query.extend_pairs(names.iter().map(|name| (AMONG, name)))),
        }
        // A longer one would not be taken, and could make the query too long to be read.
        let return_to = Some(target.path_and_query()).filter(|path| path.len() <= return_to::LONGEST);
        query.extend_pairs(return_to.map(|path| ("return_to", path)));
        for value in requirement.acr_values.iter().take(MOST_ACR_VALUES) {
            query.append_pair("acr_values", value);
        }
        if let Some(longest) = requirement.max_age {
            query.append_pair("max_age", &longest.as_secs().to_string());
        }
        if reason == LoginReason::Reauthenticate {
            query.append_pair("prompt", "login");
        }
        Some(redirect(&format!("{LOGIN}?{}", query.finish()), Vec::new()))
    }
}

/// Whether a browser navigates, by its own word or, where it says nothing, by the looks of the request.
fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let holds = |name: header::HeaderName, text: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.into_iter().any(|value| value.to_ascii_lowercase().contains(text))
    };
    let other = headers.contains_key("x-requested-with")
        || headers.contains_key(header::UPGRADE)
        || holds(header::CONTENT_TYPE, "application/grpc");
    if other || !matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    match headers.get("sec-fetch-mode") {
        Some(mode) => mode.as_bytes() == b"navigate",
        // A program that shows a token may well take HTML too.
        None => holds(header::ACCEPT, "text/html") && !headers.contains_key(header::AUTHORIZATION),
    }
}
