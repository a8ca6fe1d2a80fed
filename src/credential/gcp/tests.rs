use std::collections::BTreeMap;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::credential::keys::SigningKeys;
use crate::credential::testing::{Asked, Caller, MONTH, now};
use crate::credential::{Algorithm, ClientAuthentication, SubjectTokens, Template, TokenEndpoint};
use crate::outbound::testing::{TestServer, answer};
use crate::outbound::{OutboundClient, OutboundSettings};

const PROVIDER: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/doorward";
const EMAIL: &str = "reader@acme.iam.gserviceaccount.com";
const FEDERATED: &str = r#"{"access_token":"ya29.federated","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3599}"#;

/// One request as Google received it.
#[derive(Clone, Debug)]
struct Received {
    target: String,
    authorization: Option<String>,
    flavor: Option<String>,
    body: String,
}

impl Received {
    fn form(&self) -> BTreeMap<String, String> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

/// A server that keeps what it receives.
struct Google {
    server: TestServer,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Google {
    async fn start(answers: impl Fn(&str) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let (kept, answers) = (received.clone(), Arc::new(answers));
        let server = TestServer::start_async(move |request: Request<Incoming>| {
            let (kept, answers) = (kept.clone(), answers.clone());
            async move {
                let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                let (authorization, flavor) = (text("authorization"), text("metadata-flavor"));
                let target = request.uri().to_string();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body = String::from_utf8(body.to_vec()).unwrap();
                kept.lock().unwrap().push(Received { target: target.clone(), authorization, flavor, body });
                answers(&target)
            }
        })
        .await;
        Self { server, received }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn client(&self) -> OutboundClient {
        OutboundClient::new(&OutboundSettings::default()).unwrap()
    }

    fn federation(&self, proof: GcpProof, service_account: Option<ServiceAccount>) -> GcpSettings {
        let origin = GcpOrigin::Federation(Box::new(Federation {
            audience: PROVIDER.into(),
            proof,
            sts: TokenEndpoint {
                url: self.server.at("/v1/token").into(),
                client: self.client(),
                authentication: ClientAuthentication::None,
                clock: Clock::system(),
            },
            scopes: vec!["https://www.googleapis.com/auth/cloud-platform".to_owned()],
            service_account,
        }));
        GcpSettings { origin, user_project: None, header: AUTHORIZATION }
    }

    fn account(&self, token: GcpToken) -> ServiceAccount {
        ServiceAccount {
            url: self.server.origin().into(),
            client: self.client(),
            clock: Clock::system(),
            email: EMAIL.into(),
            delegates: vec!["between@acme.iam.gserviceaccount.com".to_owned()],
            token,
        }
    }

    fn metadata(&self, token: GcpToken) -> GcpSettings {
        let origin = GcpOrigin::Metadata(Box::new(MetadataServer {
            url: self.server.origin().into(),
            client: self.client(),
            clock: Clock::system(),
            account: "default".into(),
            token,
        }));
        GcpSettings { origin, user_project: None, header: AUTHORIZATION }
    }
}

fn asked() -> Asked {
    let mut asked = Asked::of(Caller::default().grant());
    asked.token = Some("callers.own.token".to_owned());
    asked
}

async fn issued(settings: GcpSettings) -> Result<Issued, SourceError> {
    let source = Arc::new(GcpSource::new(settings));
    let request = source.request(&asked().at(now())).unwrap_or_else(|error| panic!("{error}"));
    source.fetch(Arc::new(request)).await
}

fn shown(issued: &Issued) -> Vec<(String, String)> {
    let headers = issued.proof.headers();
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

fn jwt(claims: &Value) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn signing() -> (TempDir, SubjectTokens) {
    let state = tempfile::tempdir().unwrap();
    let keys = Arc::new(SigningKeys::open(state.path(), MONTH).unwrap());
    keys.ensure(Algorithm::Rs256, now()).unwrap();
    (state, SubjectTokens::new(keys, "https://gate.test/.doorward".into(), Algorithm::Rs256, Clock::system()))
}

#[tokio::test]
async fn the_callers_token_is_exchanged_for_a_federated_one_that_goes_upstream() {
    let google = Google::start(|_| answer(200, FEDERATED)).await;
    let issued = issued(google.federation(GcpProof::Caller, None)).await.unwrap();
    assert_eq!(shown(&issued), [("authorization".to_owned(), "Bearer ya29.federated".to_owned())]);
    let [request] = &google.received()[..] else { panic!("one request") };
    assert_eq!((&*request.target, &request.authorization), ("/v1/token", &None));
    let form = request.form();
    let expected = [
        ("audience", PROVIDER),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("scope", "https://www.googleapis.com/auth/cloud-platform"),
        ("subject_token", "callers.own.token"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
    ];
    assert!(form.iter().map(|(name, value)| (&**name, &**value)).eq(expected), "{form:?}");
    assert_eq!(issued.facts, [("provider", json!(PROVIDER))]);
}

#[tokio::test]
async fn a_token_of_doorwards_names_its_subject_and_the_provider_and_is_signed_rs256() {
    let google = Google::start(|_| answer(200, FEDERATED)).await;
    let (_state, tokens) = signing();
    let subject = Template::parse("doorward:{{environment}}:{{route}}").unwrap();
    let proof = GcpProof::Doorward { tokens, audience: format!("https:{PROVIDER}").into(), subject };
    let issued = issued(google.federation(proof, None)).await.unwrap();
    let token = google.received()[0].form()["subject_token"].clone();
    let part = |place: usize| -> Value {
        let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(place).unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let (header, claims) = (part(0), part(1));
    assert_eq!(header["alg"], "RS256");
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["aud"]),
        (
            &json!("https://gate.test/.doorward"),
            &json!("doorward:production:invoices"),
            &json!(format!("https:{PROVIDER}"))
        )
    );
    assert!(issued.facts.contains(&("subject", json!("doorward:production:invoices"))), "{:?}", issued.facts);
}

#[tokio::test]
async fn a_subject_that_google_would_not_take_is_refused_before_it_is_asked() {
    let google = Google::start(|_| answer(200, FEDERATED)).await;
    let (_state, tokens) = signing();
    let subject = Template::parse(&format!("{}:{{{{principal.subject}}}}", "x".repeat(LONGEST_SUBJECT - 3))).unwrap();
    let source = GcpSource::new(
        google.federation(GcpProof::Doorward { tokens, audience: "https://google.test".into(), subject }, None),
    );
    let grant = |subject| Asked::of(Caller { subject, ..Caller::default() }.grant());
    assert!(source.request(&grant("ab").at(now())).is_ok());
    let error = source.request(&grant("abc").at(now())).unwrap_err();
    assert!(error.code == CredentialError::UNFIT_VALUE && !error.detail.contains("abc"), "{error}");
}

#[tokio::test]
async fn a_service_accounts_token_is_asked_for_with_the_federated_one() {
    let google = Google::start(|target| match target {
        "/v1/token" => answer(200, FEDERATED),
        _ => answer(200, r#"{"accessToken":"ya29.account","expireTime":"2999-01-01T00:00:00Z"}"#),
    })
    .await;
    let scopes = vec!["https://www.googleapis.com/auth/devstorage.read_only".to_owned()];
    let wanted = GcpToken::Access { scopes: scopes.clone(), lifetime: Duration::from_secs(600) };
    let before = Clock::system().now();
    let settings = google.federation(GcpProof::Caller, Some(google.account(wanted)));
    let issued = issued(settings).await.unwrap();
    assert_eq!(shown(&issued), [("authorization".to_owned(), "Bearer ya29.account".to_owned())]);
    assert!(issued.expires_at.since(before) < Duration::from_secs(660), "no longer than was asked for");
    let request = google.received().pop().unwrap();
    assert_eq!(request.target, format!("/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken"));
    assert_eq!(request.authorization.as_deref(), Some("Bearer ya29.federated"));
    assert_eq!(
        serde_json::from_str::<Value>(&request.body).unwrap(),
        json!({
            "delegates": ["projects/-/serviceAccounts/between@acme.iam.gserviceaccount.com"],
            "scope": scopes, "lifetime": "600s",
        })
    );
    assert!(issued.facts.contains(&("service_account", json!(EMAIL))), "{:?}", issued.facts);
}

#[tokio::test]
async fn an_id_token_for_another_audience_than_was_asked_is_not_passed_on() {
    let wanted = GcpToken::Identity { audience: "https://run.test".into(), include_email: true };
    let ends = now().plus(Duration::from_secs(3600)).unix_seconds();
    for (audience, sound) in [("https://run.test", true), ("https://other.test", false)] {
        let token = jwt(&json!({ "aud": audience, "exp": ends }));
        let google = Google::start(move |target| match target {
            "/v1/token" => answer(200, FEDERATED),
            _ => answer(200, json!({ "token": token }).to_string()),
        })
        .await;
        let settings = google.federation(GcpProof::Caller, Some(google.account(wanted.clone())));
        let issued = issued(settings).await;
        let body: Value = serde_json::from_str(&google.received().pop().unwrap().body).unwrap();
        assert_eq!((&body["audience"], &body["includeEmail"]), (&json!("https://run.test"), &json!(true)));
        match issued {
            Ok(issued) => assert!(sound && issued.expires_at.unix_seconds() == ends, "{audience}"),
            Err(error) => assert!(!sound && error.code == SourceError::UNREADABLE, "{error}"),
        }
    }
}

#[tokio::test]
async fn what_answers_without_googles_flavour_is_no_metadata_server() {
    for flavored in [true, false] {
        let google = Google::start(move |_| {
            let mut response = answer(200, r#"{"access_token":"ya29.own","expires_in":3599,"token_type":"Bearer"}"#);
            if flavored {
                response.headers_mut().insert("metadata-flavor", HeaderValue::from_static("Google"));
            }
            response
        })
        .await;
        let scopes = vec!["https://a.test/x".to_owned(), "https://a.test/y".to_owned()];
        let issued = issued(google.metadata(GcpToken::Access { scopes, lifetime: Duration::from_secs(3600) })).await;
        let request = google.received().pop().unwrap();
        assert_eq!(
            request.target,
            "/computeMetadata/v1/instance/service-accounts/default/token?scopes=https%3A%2F%2Fa.test%2Fx%2Chttps%3A%2F%2Fa.test%2Fy"
        );
        assert_eq!((request.flavor.as_deref(), request.authorization), (Some("Google"), None));
        match issued {
            Ok(issued) => {
                assert!(flavored);
                assert_eq!(shown(&issued), [("authorization".to_owned(), "Bearer ya29.own".to_owned())]);
            }
            Err(error) => assert!(!flavored && error.code == SourceError::UNREADABLE, "{error}"),
        }
    }
}

#[tokio::test]
async fn a_metadata_servers_id_token_is_for_the_audience_that_was_asked() {
    let ends = now().plus(Duration::from_secs(3600)).unix_seconds();
    let token = jwt(&json!({ "aud": "https://run.test/a b", "exp": ends }));
    let google = Google::start(move |_| {
        let mut response = answer(200, format!("{token}\n"));
        response.headers_mut().insert("metadata-flavor", HeaderValue::from_static("Google"));
        response
    })
    .await;
    let wanted = GcpToken::Identity { audience: "https://run.test/a b".into(), include_email: false };
    let issued = issued(google.metadata(wanted)).await.unwrap();
    assert_eq!(issued.expires_at.unix_seconds(), ends);
    assert_eq!(
        google.received()[0].target,
        "/computeMetadata/v1/instance/service-accounts/default/identity?audience=https%3A%2F%2Frun.test%2Fa+b&format=standard"
    );
}

#[tokio::test]
async fn the_bill_is_the_configured_projects_and_never_the_callers_to_choose() {
    let google = Google::start(|_| answer(200, FEDERATED)).await;
    let mut settings = google.federation(GcpProof::Caller, None);
    assert!(GcpSource::new(settings.clone()).headers().contains(&USER_PROJECT));
    settings.user_project = Some(HeaderValue::from_static("acme-billing"));
    settings.header = SERVERLESS_AUTHORIZATION;
    let issued = issued(settings).await.unwrap();
    assert_eq!(
        shown(&issued),
        [
            ("x-serverless-authorization".to_owned(), "Bearer ya29.federated".to_owned()),
            ("x-goog-user-project".to_owned(), "acme-billing".to_owned()),
        ]
    );
}

#[tokio::test]
async fn two_credentials_that_differ_in_anything_are_never_kept_under_one_key() {
    let google = Google::start(|_| answer(200, FEDERATED)).await;
    let access = |seconds| GcpToken::Access { scopes: Vec::new(), lifetime: Duration::from_secs(seconds) };
    let identity = |email| GcpToken::Identity { audience: "https://run.test".into(), include_email: email };
    let mut billed = google.federation(GcpProof::Caller, None);
    billed.user_project = Some(HeaderValue::from_static("acme"));
    let all = [
        google.federation(GcpProof::Caller, None),
        billed,
        google.federation(GcpProof::Caller, Some(google.account(access(600)))),
        google.federation(GcpProof::Caller, Some(google.account(access(601)))),
        google.federation(GcpProof::Caller, Some(google.account(identity(true)))),
        google.federation(GcpProof::Caller, Some(google.account(identity(false)))),
        google.metadata(access(600)),
        google.metadata(identity(true)),
    ];
    let keys: Vec<_> = all
        .into_iter()
        .map(|settings| {
            let mut digest = KeyDigest::default();
            GcpSource::new(settings).digest(&mut digest);
            digest.finish()
        })
        .collect();
    for (place, key) in keys.iter().enumerate() {
        assert!(!keys[..place].contains(key), "credential {place}");
    }
}
