//! `gcp`: tokens of Google Cloud behind the gate. Google is a stand-in that verifies as Google says that it does, and
//! that takes what Google's own SDK sends.

use serde_json::{Value, json};

use crate::support::{
    Answer, AuditRecord, Authority, Clouds, Gate, ORIGIN, Received, RecordingUpstream, RunningGate, SigningKey,
    StaticIssuer,
};

const PROVIDER: &str = "//iam.googleapis.com/projects/12/locations/global/workloadIdentityPools/pool/providers/gate";
const READER: &str = "reader@acme.iam.gserviceaccount.com";
const BETWEEN: &str = "between@acme.iam.gserviceaccount.com";

struct World {
    clouds: Clouds,
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
}

impl World {
    /// Each of `credentials` by its name, on a route of its own, `/NAME/…`. Google trusts the gate as `subjects`.
    async fn start(subjects: &[&str], credentials: impl FnOnce(&Clouds) -> Value) -> Self {
        let authority = Authority::new();
        let clouds = Clouds::start(&authority).await;
        let issuer = StaticIssuer::start(&authority).await;
        let upstream = RecordingUpstream::start().await;
        let credentials = credentials(&clouds);
        let mut gate = Gate::standard(&authority, &issuer, &upstream).config(json!({ "credentials": credentials }));
        for name in credentials.as_object().unwrap().keys() {
            gate = gate.route(name, json!({ "path": format!("/{name}/{{*rest}}"), "credential": name }));
        }
        let gate = gate.start().await;
        gate.becomes_ready(200).await;
        clouds.reach(&format!("{ORIGIN}/.doorward"), gate.address()).await;
        clouds.reach_issuer(&issuer).await;
        let audiences = [format!("https:{PROVIDER}"), ORIGIN.to_owned()];
        let provider = json!({ PROVIDER: { "subjects": subjects, "audiences": audiences } });
        let accounts = json!({ READER: [BETWEEN], BETWEEN: subjects });
        clouds.google(json!({ "providers": provider, "accounts": accounts })).await;
        Self { clouds, issuer, upstream, gate }
    }

    async fn get(&self, path: &str) -> Answer {
        self.gate.get(path).bearer(&self.issuer.token().mint()).send().await
    }

    /// What the upstream received for a GET of `path`, whose caller saw nothing of `Authorization` there.
    async fn shown(&self, path: &str, token: &str) -> Received {
        let answer = self.gate.get(path).bearer(token).header("x-goog-user-project", "the-callers").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let received = self.upstream.received().pop().unwrap();
        let secret = received.header("authorization").unwrap().trim_start_matches("Bearer ").to_owned();
        assert!(!format!("{:?} {}", answer.headers, answer.text()).contains(&secret), "the caller saw the credential");
        self.gate.never_wrote(&secret);
        received
    }

    /// What Google issued last.
    async fn issued(&self) -> Value {
        self.clouds.google(json!({})).await["issued"].as_array().unwrap().last().unwrap().clone()
    }

    async fn event(&self, name: &str, credential: &str) -> AuditRecord {
        let is_it = |record: &AuditRecord| record.event() == name && record.text("credential") == credential;
        self.gate.audited(name, is_it).await
    }
}

fn sts(clouds: &Clouds) -> Value {
    json!({ "url": format!("{}/v1/token", clouds.google), "authorities": "ca.pem" })
}

/// The credential with these settings besides the provider.
fn federation(clouds: &Clouds, settings: Value) -> Value {
    let mut gcp = json!({ "audience": PROVIDER, "sts": sts(clouds) });
    if settings.get("service_account").is_some() {
        gcp["iam_credentials"] = json!({ "url": clouds.google, "authorities": "ca.pem" });
    }
    gcp.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    json!({ "gcp": gcp })
}

#[tokio::test]
async fn the_stand_in_takes_what_googles_own_sdk_sends_and_refuses_what_google_refuses() {
    let authority = Authority::new();
    let clouds = Clouds::start(&authority).await;
    let issuer = StaticIssuer::start(&authority).await;
    clouds.reach_issuer(&issuer).await;
    let accounts = json!({ READER: ["machine-1"], BETWEEN: [] });
    let provider = json!({ PROVIDER: { "subjects": ["machine-1"] } });
    clouds.google(json!({ "providers": provider, "accounts": accounts })).await;
    let file = authority.folder().join("own.token");
    let ask = async |token: &str, more: Value| {
        std::fs::write(&file, token).unwrap();
        let mut settings =
            json!({ "with": "google", "url": clouds.google, "audience": PROVIDER, "token_file": file.to_str() });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        clouds.sdk(settings).await
    };
    let sound = issuer.rsa_token().claim("aud", format!("https:{PROVIDER}"));
    let issued = async || clouds.google(json!({})).await["issued"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(ask(&sound.mint(), json!({})).await.unwrap(), issued().await["token"]);
    assert_eq!(ask(&sound.mint(), json!({ "email": READER })).await.unwrap(), issued().await["token"]);
    assert_eq!((&issued().await["kind"], &issued().await["seconds"]), (&json!("access"), &json!(600)));

    let stranger = SigningKey::rs256("rs-1");
    for (token, said) in [
        (sound.clone().claim("aud", "https://else.test"), "does not match the expected audience"),
        (sound.clone().claim("iss", "https://else.test"), "issuer in ID Token does not match"),
        (sound.clone().claim("sub", "machine-2"), "rejected by the attribute condition"),
        (sound.clone().claim("sub", "x".repeat(128)), "exceeds the 127 bytes limit"),
        (sound.clone().claim("exp", crate::support::now() - 1), "stale"),
        (sound.clone().without_claim("iat"), "stale"),
        (sound.clone().signed_by(&stranger), "signature"),
    ] {
        let error = ask(&token.mint(), json!({})).await.unwrap_err();
        assert!(error.contains(said), "{said}: {error}");
    }
    let error = ask(&sound.mint(), json!({ "email": BETWEEN })).await.unwrap_err();
    assert!(error.contains("PERMISSION_DENIED"), "{error}");
    let error = ask(&sound.mint(), json!({ "audience": "//iam.googleapis.com/else" })).await.unwrap_err();
    assert!(error.contains("invalid_target"), "{error}");
}

#[tokio::test]
async fn a_federated_token_goes_upstream_and_is_asked_for_once() {
    let world = World::start(
        &["doorward:test:federated"],
        |clouds| json!({ "federated": federation(clouds, json!({ "user_project": "acme-billing" })) }),
    )
    .await;
    let token = world.issuer.token().mint();
    let received = world.shown("/federated/1", &token).await;
    let issued = world.issued().await;
    assert_eq!(received.header("authorization"), Some(&*format!("Bearer {}", issued["token"].as_str().unwrap())));
    assert_eq!(received.header("x-goog-user-project"), Some("acme-billing"));
    let claims = &issued["claims"];
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["aud"]),
        (&json!(format!("{ORIGIN}/.doorward")), &json!("doorward:test:federated"), &json!(format!("https:{PROVIDER}")))
    );
    assert_eq!(issued["scopes"], json!(["https://www.googleapis.com/auth/cloud-platform"]));
    let record = world.event("credential.issued", "federated").await;
    assert_eq!((record.text("provider"), record.text("subject")), (PROVIDER, "doorward:test:federated"));

    let other = world.issuer.token().subject("machine-2").mint();
    assert_eq!(world.shown("/federated/2", &other).await.header("authorization"), received.header("authorization"));
    assert_eq!(world.clouds.google(json!({})).await["issued"].as_array().unwrap().len(), 1, "one for the route");
}

#[tokio::test]
async fn a_service_account_is_impersonated_through_its_delegates() {
    let account = json!({ "email": READER, "delegates": [BETWEEN], "lifetime": "5m",
        "scopes": ["https://www.googleapis.com/auth/devstorage.read_only"] });
    let world = World::start(
        &["doorward:test:account"],
        |clouds| json!({ "account": federation(clouds, json!({ "service_account": account })) }),
    )
    .await;
    let received = world.shown("/account/1", &world.issuer.token().mint()).await;
    let issued = world.issued().await;
    assert_eq!(received.header("authorization"), Some(&*format!("Bearer {}", issued["token"].as_str().unwrap())));
    assert_eq!(received.header("x-goog-user-project"), None, "the caller does not choose whose bill it is");
    assert_eq!(
        (&issued["kind"], &issued["seconds"], &issued["delegates"]),
        (&json!("access"), &json!(300), &json!([BETWEEN]))
    );
    assert_eq!(issued["scopes"], json!(["https://www.googleapis.com/auth/devstorage.read_only"]));
    let before = &world.clouds.google(json!({})).await["issued"][0];
    assert_eq!(before["scopes"], json!(["https://www.googleapis.com/auth/iam"]), "no more than impersonation takes");
    let federated = before["token"].as_str().unwrap();
    world.gate.never_wrote(federated);
    assert!(!format!("{received:?}").contains(federated));
    assert_eq!(world.event("credential.issued", "account").await.text("service_account"), READER);
}

#[tokio::test]
async fn an_id_token_is_for_the_routes_upstream_unless_it_is_told_otherwise() {
    let account = |id_token: Value| json!({ "email": READER, "delegates": [BETWEEN], "id_token": id_token });
    let subjects = ["doorward:test:identity", "doorward:test:other"];
    let world = World::start(&subjects, |clouds| {
        json!({
            "identity": federation(clouds, json!({ "service_account": account(json!({})) })),
            "other": federation(clouds, json!({ "service_account": account(json!({
                "audience": "https://run.test", "include_email": false,
            })) })),
            "metadata": { "gcp": { "metadata_server": { "url": clouds.google_metadata, "id_token": {} } } },
        })
    })
    .await;
    let token = world.issuer.token().mint();
    let own = world.upstream.url();
    for (path, audience, email) in [
        ("/identity/1", &*own, json!(READER)),
        ("/other/1", "https://run.test", Value::Null),
        ("/metadata/1", &*own, Value::Null),
    ] {
        let received = world.shown(path, &token).await;
        let shown = received.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
        assert_eq!(world.issued().await["token"], shown);
        let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(shown).unwrap().claims;
        assert_eq!((&claims["aud"], &claims["email"]), (&json!(audience), &email), "{path}");
    }
}

#[tokio::test]
async fn the_callers_own_token_is_exchanged_and_each_caller_has_their_own() {
    let world = World::start(
        &["machine-1", "machine-2"],
        |clouds| json!({ "own": federation(clouds, json!({ "subject": "caller" })) }),
    )
    .await;
    let mut shown = Vec::new();
    for subject in ["machine-1", "machine-2"] {
        let token = world.issuer.token().subject(subject).mint();
        let received = world.shown("/own/1", &token).await;
        let issued = world.issued().await;
        assert_eq!((&issued["subject"], &issued["claims"]["iss"]), (&json!(subject), &json!(world.issuer.url())));
        shown.push(received.header("authorization").unwrap().to_owned());
        world.gate.never_wrote(&token);
    }
    assert_ne!(shown[0], shown[1]);
    let refused = world.issuer.token().subject("machine-3").mint();
    let answer = world.gate.get("/own/1").bearer(&refused).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (503, &json!("credential_unavailable")));
    world.gate.never_wrote(&refused);
}

#[tokio::test]
async fn what_google_refuses_is_told_in_the_record_and_nothing_is_forwarded() {
    let world = World::start(&["doorward:test:good", "doorward:test:denied"], |clouds| {
        json!({
            "good": federation(clouds, json!({})),
            "audience": federation(clouds, json!({ "token_audience": "https://else.test" })),
            "subject": federation(clouds, json!({})),
            "denied": federation(clouds, json!({ "service_account": { "email": READER } })),
        })
    })
    .await;
    for (name, said) in [
        ("audience", "invalid_grant: The audience in ID Token [https://else.test] does not match"),
        ("subject", "unauthorized_client: The given credential is rejected by the attribute condition."),
        ("denied", "IAM Credentials answered 403: PERMISSION_DENIED: Permission 'iam.serviceAccounts.getAccessToken'"),
    ] {
        let path = format!("/{name}/1");
        let answer = world.get(&path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (503, &json!("credential_unavailable")), "{name}");
        assert!(!answer.text().contains("else.test"), "a caller is not told how the gate is configured");
        let record = world.gate.only_record_of(&path).await;
        assert_eq!(record.text("code"), "credential_unavailable");
        let refused = world.event("credential.refused", name).await;
        assert_eq!(refused.text("code"), "credential_refused");
        assert!(refused.text("detail").contains(said), "{}", refused.0);
    }
    world.upstream.heard_nothing();
    assert_eq!(world.get("/good/1").await.status, 200, "other routes go on");
}

#[tokio::test]
async fn google_being_away_for_a_moment_is_not_noticed() {
    let world =
        World::start(&["doorward:test:federated"], |clouds| json!({ "federated": federation(clouds, json!({})) }))
            .await;
    world.clouds.google(json!({ "broken": 1 })).await;
    assert_eq!(world.get("/federated/1").await.status, 200);
    assert_eq!(world.clouds.google(json!({})).await["refused"], 1);
}

#[tokio::test]
async fn the_metadata_servers_token_goes_upstream() {
    let world = World::start(&[], |clouds| {
        json!({ "metadata": { "gcp": { "metadata_server": {
            "url": clouds.google_metadata, "scopes": ["https://www.googleapis.com/auth/pubsub"],
        } } } })
    })
    .await;
    let received = world.shown("/metadata/1", &world.issuer.token().mint()).await;
    let issued = world.issued().await;
    assert_eq!(received.header("authorization"), Some(&*format!("Bearer {}", issued["token"].as_str().unwrap())));
    assert_eq!(issued["scopes"], json!(["https://www.googleapis.com/auth/pubsub"]));
}
