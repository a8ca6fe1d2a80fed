//! Logout: asked for with a page, done by a form of our own, told to the issuer.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};

use super::attempt::random;
use super::provider::end_session_endpoint;
use super::{Login, LoginIssuer, SIGNED_OUT, SessionEventKind, origin, pages, redirect};
use crate::body::Body;

/// Longest wait for an issuer that is to be told of a logout.
const LONGEST_QUESTION: Duration = Duration::from_secs(3);

/// Longest ID token that goes into an address.
const LONGEST_HINT: usize = 4096;

impl Login {
    /// `GET /.doorward/logout`: a link from elsewhere must not log anybody out, so this only asks.
    pub(super) async fn ask_logout(&self, head: &Parts) -> Response<Body> {
        let issuer = self.session_named(&head.headers).and_then(|(_, issuer)| self.issuers.get(&issuer));
        // A form's redirects must be allowed too: the form leads to the issuer in the end.
        let end = match issuer {
            Some(issuer) => self.end_session_url(issuer).await,
            None => None,
        };
        pages::ask_logout(end.map(|url| url.origin().ascii_serialization()).as_deref())
    }

    /// `POST /.doorward/logout`.
    pub(super) async fn logout(&self, head: &Parts, request_id: &Arc<str>) -> Response<Body> {
        if !origin::is_own_form(&self.origin, &head.headers) {
            let sentence = "Signing out must be asked for on this site.";
            return pages::error_response(StatusCode::FORBIDDEN, "cross_origin", sentence, request_id);
        }
        let mut cookies = self.cookies.clear_session(&head.headers);
        cookies.extend(self.cookies.clear(&self.cookies.count()));
        let Some((key, name)) = self.session_named(&head.headers) else {
            return redirect(&self.signed_out_url(), cookies);
        };
        let record = self.state.store.load(key).await.ok();
        let principal = self.principal_named(key).await;
        match self.state.store.end(key).await {
            Ok(false) => {}
            Ok(true) => self.tell(SessionEventKind::Ended, &name, principal, Some(key), "logout", request_id),
            Err(error) => {
                tracing::error!(session = %key, %error, "the end of a session could not be written");
                self.tell(SessionEventKind::Ended, &name, principal, Some(key), "logout", request_id);
                return unsaved(cookies, request_id);
            }
        }
        let facts = record.as_ref().and_then(|record| record.facts.as_ref());
        // The name may stand for another tenant by now, whom this session and its ID token do not concern.
        let issuer = self.issuers.get(&name).filter(|issuer| facts.is_none_or(|facts| issuer.gave(&facts.claims)));
        let to = match issuer {
            Some(issuer) => self.farewell(issuer, record.and_then(|record| record.id_token)).await,
            None => None,
        };
        redirect(&to.unwrap_or_else(|| self.signed_out_url()), cookies)
    }

    /// `GET /.doorward/signed-out`.
    pub(super) fn signed_out(&self) -> Response<Body> {
        pages::signed_out()
    }

    fn signed_out_url(&self) -> String {
        format!("{}{SIGNED_OUT}", self.origin.as_str())
    }

    /// Where the issuer ends its own session. After a restart that is asked first, since a session that goes on
    /// there signs the user in again by itself; but an issuer that is away does not hold anybody up.
    async fn end_session_url(&self, issuer: &Arc<LoginIssuer>) -> Option<url::Url> {
        let providers = &self.state.providers;
        let metadata = match providers.metadata_at_hand(issuer) {
            Some(metadata) => metadata,
            None => tokio::time::timeout(LONGEST_QUESTION, providers.metadata(issuer)).await.ok()?.ok()?,
        };
        end_session_endpoint(issuer, &metadata)
    }

    /// RP-initiated logout at the issuer.
    async fn farewell(&self, issuer: &Arc<LoginIssuer>, id_token: Option<String>) -> Option<String> {
        let mut url = self.end_session_url(issuer).await?;
        {
            let mut query = url.query_pairs_mut();
            // A hint that makes the address too long would cost the whole logout.
            if let Some(id_token) = id_token.filter(|token| token.len() <= LONGEST_HINT) {
                query.append_pair("id_token_hint", &id_token);
            }
            query.append_pair("client_id", &issuer.settings.client_id);
            query.append_pair("post_logout_redirect_uri", &self.signed_out_url());
            query.append_pair("state", &random()?);
        }
        Some(url.into())
    }
}

/// The session has ended here and now, but a restart might not know.
fn unsaved(cookies: Vec<HeaderValue>, request_id: &Arc<str>) -> Response<Body> {
    let sentence = "You are signed out in this browser, but it could not be recorded. Close the browser to be sure.";
    let mut response =
        pages::error_response(StatusCode::INTERNAL_SERVER_ERROR, "state_unavailable", sentence, request_id);
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
