//! What upstreams verify assertions with: the discovery document and the key set, below one issuer URL.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response};
use serde_json::json;

use super::keys::SigningKeys;
use super::signing_key::Algorithm;
use crate::body::{self, Body};

/// The documents of one issuer.
#[derive(Clone, Debug)]
pub struct Documents {
    issuer: Arc<str>,
    keys: Arc<SigningKeys>,
}

impl Documents {
    /// The documents of `issuer` (the exact `iss` of its assertions), with `keys`.
    #[must_use]
    pub fn new(issuer: impl Into<Arc<str>>, keys: Arc<SigningKeys>) -> Self {
        Self { issuer: issuer.into(), keys }
    }

    /// The answer to a `GET` of this path below the issuer's own; `None` is: nothing of ours.
    #[must_use]
    pub fn answer(&self, path_below_issuer: &str) -> Option<Response<Body>> {
        let document = match path_below_issuer {
            "/.well-known/openid-configuration" => self.discovery().into(),
            "/jwks.json" => self.keys.document(),
            _ => return None,
        };
        let mut response = Response::new(body::full(document));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Some(response)
    }

    fn discovery(&self) -> String {
        let algorithms: Vec<_> = self.keys.algorithms().into_iter().map(Algorithm::as_str).collect();
        json!({
            "issuer": &*self.issuer,
            "jwks_uri": format!("{}/jwks.json", self.issuer.trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
            "claims_supported": [
                "iss", "sub", "aud", "iat", "nbf", "exp", "jti", "kind", "roles", "email", "groups"
            ],
        })
        .to_string()
    }
}
