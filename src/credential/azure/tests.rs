use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::credential::keys::SigningKeys;
use crate::credential::testing::{Asked, Caller, MONTH, now};
use crate::credential::{Algorithm, ClientAuthentication, SubjectTokens, TokenEndpoint};
use crate::outbound::testing::{TestServer, answer};
use crate::outbound::{OutboundClient, OutboundSettings};

const APP: &str = "11111111-2222-3333-4444-555555555555";
const SCOPE: &str = "https://storage.azure.com/.default";

struct Received {
    target: String,
    headers: BTreeMap<String, String>,
    form: BTreeMap<String, String>,
}

/// A server that keeps what it receives.
struct Microsoft {
    server: TestServer,
    received: Arc<Mutex<Vec<Received>>>,
    _state: TempDir,
    tokens: SubjectTokens,
}

impl Microsoft {
    async fn start(answers: impl Fn() -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let (kept, answers) = (received.clone(), Arc::new(answers));
        let server = TestServer::start_async(move |request: Request<Incoming>| {
            let (kept, answers) = (kept.clone(), answers.clone());
            async move {
                let target = request.uri().to_string();
                let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
                let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let form = url::form_urlencoded::parse(&body).into_owned().collect();
                kept.lock().unwrap().push(Received { target, headers, form });
                answers()
            }
        })
        .await;
        let state = tempfile::tempdir().unwrap();
        let keys = Arc::new(SigningKeys::open(state.path(), MONTH).unwrap());
        keys.ensure(Algorithm::Rs256, now()).unwrap();
        let tokens = SubjectTokens::new(keys, "https://gate.test/.doorward".into(), Algorithm::Rs256, Clock::system());
        Self { server, received, _state: state, tokens }
    }

    fn client(&self) -> OutboundClient {
        OutboundClient::new(&OutboundSettings::default()).unwrap()
    }

    fn application(&self, on_behalf_of_caller: bool) -> AzureSettings {
        let origin = AzureOrigin::Application(Box::new(Application {
            endpoint: TokenEndpoint {
                url: self.server.at("/acme.test/oauth2/v2.0/token").into(),
                client: self.client(),
                authentication: ClientAuthentication::None,
                clock: Clock::system(),
            },
            tenant: "acme.test".into(),
            client_id: APP.into(),
            tokens: self.tokens.clone(),
            subject: "doorward:Billing".into(),
            audience: "api://AzureADTokenExchange".into(),
            on_behalf_of_caller,
        }));
        AzureSettings { origin, scope: SCOPE.into(), header: AUTHORIZATION }
    }

    fn managed_identity(&self, host: ManagedIdentityHost, client_id: Option<&str>) -> AzureSettings {
        let client_id = client_id.map(Into::into);
        let (client, clock) = (self.client(), Clock::system());
        let origin = AzureOrigin::ManagedIdentity(Box::new(ManagedIdentity { host, client_id, client, clock }));
        AzureSettings { origin, scope: SCOPE.into(), header: AUTHORIZATION }
    }

    fn only(&self) -> Received {
        let mut received = self.received.lock().unwrap();
        assert_eq!(received.len(), 1);
        received.remove(0)
    }
}

async fn issued(settings: AzureSettings) -> Result<Issued, SourceError> {
    let source = Arc::new(AzureSource::new(settings));
    let mut asked = Asked::of(Caller::default().grant());
    asked.token = Some("callers.own.token".to_owned());
    let request = source.request(&asked.at(now())).unwrap_or_else(|error| panic!("{error}"));
    source.fetch(Arc::new(request)).await
}

fn good() -> Response<Full<Bytes>> {
    let body =
        r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"refresh_in":1200,"access_token":"entra"}"#;
    answer(200, body)
}

/// Claims of the assertion, whose other parts of the form are checked against `expected`.
fn assertion(mut form: BTreeMap<String, String>, expected: &[(&str, &str)]) -> Value {
    let assertion = form.remove("client_assertion").unwrap();
    assert!(form.iter().map(|(name, value)| (&**name, &**value)).eq(expected.iter().copied()), "{form:?}");
    let part = |place: usize| -> Value {
        let bytes = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(place).unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    assert_eq!(part(0)["alg"], "RS256");
    part(1)
}

#[tokio::test]
async fn an_application_shows_a_token_of_doorwards_with_exactly_the_configured_subject() {
    let microsoft = Microsoft::start(good).await;
    let before = Clock::system().now();
    let issued = issued(microsoft.application(false)).await.unwrap();
    assert_eq!(issued.proof.headers()[0].1, "Bearer entra");
    let renewed = issued.renew_at.unwrap().since(before);
    assert!((1200..1260).contains(&renewed.as_secs()), "`refresh_in` is honoured: {renewed:?}");
    let received = microsoft.only();
    assert_eq!(received.target, "/acme.test/oauth2/v2.0/token");
    assert_eq!(received.headers["content-type"], "application/x-www-form-urlencoded");
    let claims = assertion(
        received.form,
        &[
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_id", APP),
            ("grant_type", "client_credentials"),
            ("scope", SCOPE),
        ],
    );
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["aud"]),
        (&json!("https://gate.test/.doorward"), &json!("doorward:Billing"), &json!("api://AzureADTokenExchange"))
    );
}

#[tokio::test]
async fn on_behalf_of_a_caller_the_callers_token_is_the_assertion_and_doorwards_the_clients() {
    let microsoft = Microsoft::start(good).await;
    issued(microsoft.application(true)).await.unwrap();
    let claims = assertion(
        microsoft.only().form,
        &[
            ("assertion", "callers.own.token"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_id", APP),
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("requested_token_use", "on_behalf_of"),
            ("scope", SCOPE),
        ],
    );
    assert_eq!(claims["sub"], "doorward:Billing");
    let none = Asked::of(Caller::default().grant());
    let error = AzureSource::new(microsoft.application(true)).request(&none.at(now())).unwrap_err();
    assert_eq!(error.code, CredentialError::NO_CALLER_TOKEN);
}

#[tokio::test]
async fn callers_on_whose_behalf_tokens_are_asked_never_share_one() {
    let microsoft = Microsoft::start(good).await;
    let source = AzureSource::new(microsoft.application(true));
    let key = |token: &str| {
        let mut asked = Asked::of(Caller::default().grant());
        asked.token = Some(token.to_owned());
        let mut digest = KeyDigest::default();
        source.request(&asked.at(now())).unwrap().digest(&mut digest);
        digest.finish()
    };
    assert_ne!(key("callers.token.a"), key("callers.token.b"));
    assert_eq!(key("callers.token.a"), key("callers.token.a"));
}

#[tokio::test]
async fn instance_metadata_is_asked_for_the_resource_with_its_header() {
    let microsoft = Microsoft::start(|| {
        answer(
            200,
            r#"{"access_token":"mi","client_id":"c","expires_in":"86399","expires_on":"9999999999","resource":"r","token_type":"Bearer"}"#,
        )
    })
    .await;
    let host = ManagedIdentityHost::Imds { url: microsoft.server.origin().into() };
    let before = Clock::system().now();
    let issued = issued(microsoft.managed_identity(host, Some(APP))).await.unwrap();
    assert_eq!(issued.proof.headers()[0].1, "Bearer mi");
    let renewed = issued.renew_at.unwrap().since(before);
    assert!((43_199..43_300).contains(&renewed.as_secs()), "a day's token is renewed half way: {renewed:?}");
    let received = microsoft.only();
    assert_eq!(
        received.target,
        format!(
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com&client_id={APP}"
        )
    );
    assert_eq!(received.headers["metadata"], "true");
}

#[tokio::test]
async fn app_service_is_shown_the_header_that_the_environment_gives() {
    let ends = now().plus(Duration::from_secs(3600)).unix_seconds();
    let body = json!({ "access_token": "as", "expires_on": ends.to_string(), "token_type": "Bearer" }).to_string();
    let microsoft = Microsoft::start(move || answer(200, body.clone())).await;
    let (url, header) = (microsoft.server.at("/msi/token").into(), Secret::new("of-the-environment"));
    let settings = microsoft.managed_identity(ManagedIdentityHost::AppService { url, header }, None);
    assert!(!format!("{settings:?}").contains("of-the-environment"));
    let issued = issued(settings).await.unwrap();
    assert!((ends - 1..=ends).contains(&issued.expires_at.unix_seconds()));
    let received = microsoft.only();
    assert_eq!(received.target, "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com");
    assert_eq!(received.headers["x-identity-header"], "of-the-environment");
}

#[tokio::test]
async fn a_redirect_of_a_metadata_service_is_refused_and_not_followed() {
    let microsoft = Microsoft::start(|| {
        let mut response = answer(302, "");
        response.headers_mut().insert("location", http::HeaderValue::from_static("/elsewhere"));
        response
    })
    .await;
    let host = ManagedIdentityHost::Imds { url: microsoft.server.origin().into() };
    let error = issued(microsoft.managed_identity(host, None)).await.unwrap_err();
    assert_eq!((error.code, error.may_pass()), (SourceError::UNREADABLE, false));
    assert_eq!(microsoft.server.hits("/elsewhere"), 0);
}
