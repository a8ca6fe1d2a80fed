//! `azure`: tokens of Entra ID behind the gate. Entra is a stand-in that verifies as Microsoft says that Entra does,
//! and that takes what Microsoft's own SDK sends. The storage service behind the last test is Azurite.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{
    Answer, AuditRecord, Authority, Clouds, Gate, ORIGIN, Received, RecordingUpstream, RunningGate, SigningKey,
    StaticIssuer, within,
};

const TENANT: &str = "99999999-0000-1111-2222-333333333333";
const APP: &str = "11111111-2222-3333-4444-555555555555";
const STORAGE: &str = "https://storage.azure.com/.default";
const SUBJECT: &str = "doorward:test:Storage";

struct World {
    clouds: Clouds,
    issuer: StaticIssuer,
    upstream: RecordingUpstream,
    gate: RunningGate,
}

impl World {
    /// Each of `credentials` by its name, on a route of its own, `/NAME/…`. Entra trusts the gate as `SUBJECT`.
    async fn start(credentials: impl FnOnce(&Clouds) -> Value) -> Self {
        Self::changed(credentials, |gate, _, _| gate).await
    }

    async fn changed(
        credentials: impl FnOnce(&Clouds) -> Value,
        change: impl FnOnce(Gate, &Clouds, &Authority) -> Gate,
    ) -> Self {
        let authority = Authority::new();
        let clouds = Clouds::start(&authority).await;
        let issuer = StaticIssuer::start(&authority).await;
        let upstream = RecordingUpstream::start().await;
        let credentials = credentials(&clouds);
        let mut gate = Gate::standard(&authority, &issuer, &upstream).config(json!({ "credentials": credentials }));
        for name in credentials.as_object().unwrap().keys() {
            gate = gate.route(name, json!({ "path": format!("/{name}/{{*rest}}"), "credential": name }));
        }
        let gate = change(gate, &clouds, &authority).start().await;
        gate.becomes_ready(200).await;
        let own = format!("{ORIGIN}/.doorward");
        clouds.reach(&own, gate.address()).await;
        clouds.reach_issuer(&issuer).await;
        let federated = json!([{ "issuer": own, "subject": SUBJECT }]);
        clouds
            .entra(json!({
                "tenant": TENANT, "identity_header": "h-of-the-environment", "user_assigned": [APP],
                "applications": { APP: { "federated": federated, "identifiers": [ORIGIN] } },
            }))
            .await;
        Self { clouds, issuer, upstream, gate }
    }

    async fn get(&self, path: &str) -> Answer {
        self.gate.get(path).bearer(&self.issuer.token().mint()).send().await
    }

    /// What the upstream received for a GET of `path`, whose caller saw nothing of `Authorization` there.
    async fn shown(&self, path: &str, token: &str) -> Received {
        let answer = self.gate.get(path).bearer(token).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let received = self.upstream.received().pop().unwrap();
        let secret = received.header("authorization").unwrap().trim_start_matches("Bearer ").to_owned();
        assert!(!format!("{:?} {}", answer.headers, answer.text()).contains(&secret), "the caller saw the credential");
        self.gate.never_wrote(&secret);
        received
    }

    async fn all_issued(&self) -> Vec<Value> {
        self.clouds.entra(json!({})).await["issued"].as_array().unwrap().clone()
    }

    /// What Entra issued last.
    async fn issued(&self) -> Value {
        self.all_issued().await.pop().unwrap()
    }

    async fn event(&self, name: &str, credential: &str) -> AuditRecord {
        let is_it = |record: &AuditRecord| record.event() == name && record.text("credential") == credential;
        self.gate.audited(name, is_it).await
    }
}

/// An application's credential with these settings besides.
fn application(clouds: &Clouds, settings: Value) -> Value {
    let mut azure = json!({
        "tenant": TENANT, "client_id": APP, "scope": STORAGE, "federated": { "subject": SUBJECT },
        "authority_host": clouds.entra, "authorities": "ca.pem",
    });
    azure.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    json!({ "azure": azure })
}

#[tokio::test]
async fn the_stand_in_takes_what_microsofts_own_sdk_sends_and_refuses_what_entra_refuses() {
    let authority = Authority::new();
    let clouds = Clouds::start(&authority).await;
    let issuer = StaticIssuer::start(&authority).await;
    clouds.reach_issuer(&issuer).await;
    let federated = json!([{ "issuer": issuer.url(), "subject": "machine-1" }]);
    let applications = json!({ APP: { "federated": federated, "identifiers": [ORIGIN] } });
    let identity = json!({ "tenant": TENANT, "applications": applications, "user_assigned": [APP],
        "identity_header": "h-of-the-environment" });
    clouds.entra(identity).await;
    let file = authority.folder().join("own.token");
    let ask = async |with: &str, token: &str, more: Value| {
        std::fs::write(&file, token).unwrap();
        let mut settings = json!({
            "with": with, "url": clouds.entra, "tenant": TENANT, "client_id": APP, "token_file": file.to_str(),
            "scope": STORAGE,
        });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        clouds.sdk(settings).await
    };
    let issued = async || clouds.entra(json!({})).await["issued"].as_array().unwrap().last().unwrap().clone();
    let sound = issuer.rsa_token().claim("aud", "api://AzureADTokenExchange");
    assert_eq!(ask("workload_identity", &sound.mint(), json!({})).await.unwrap(), issued().await["token"]);
    let user = issuer.token().subject("ada").claim("scp", "use").mint();
    let on_behalf = ask("on_behalf_of", &sound.mint(), json!({ "user_assertion": user })).await.unwrap();
    assert_eq!((json!(on_behalf), json!("ada")), (issued().await["token"].clone(), issued().await["sub"].clone()));
    for (environment, client_id) in [
        (json!({ "AZURE_POD_IDENTITY_AUTHORITY_HOST": clouds.managed_identity }), json!(APP)),
        (
            json!({ "IDENTITY_ENDPOINT": format!("{}/msi/token", clouds.managed_identity),
                "IDENTITY_HEADER": "h-of-the-environment" }),
            Value::Null,
        ),
    ] {
        let more = json!({ "environment": environment, "client_id": client_id });
        let token = ask("managed_identity", "", more).await.unwrap();
        assert_eq!((json!(token), client_id), (issued().await["token"].clone(), issued().await["client_id"].clone()));
    }

    let stranger = SigningKey::rs256("rs-1");
    for (token, code) in [
        (sound.clone().claim("sub", "Machine-1"), "AADSTS700213"),
        (sound.clone().claim("aud", ORIGIN), "AADSTS700212"),
        (sound.clone().claim("aud", ["api://AzureADTokenExchange", ORIGIN]), "AADSTS700212"),
        (sound.clone().claim("iss", "https://else.test"), "AADSTS700211"),
        (sound.clone().claim("exp", crate::support::now() - 1), "AADSTS700024"),
        (sound.clone().signed_by(&stranger), "AADSTS700027"),
        (issuer.token().claim("aud", "api://AzureADTokenExchange"), "AADSTS700027"),
    ] {
        let error = ask("workload_identity", &token.mint(), json!({})).await.unwrap_err();
        assert!(error.contains(code), "{code}: {error}");
    }
    let other = json!({ "client_id": TENANT });
    let error = ask("workload_identity", &sound.mint(), other).await.unwrap_err();
    assert!(error.contains("AADSTS700016"), "{error}");
    let app_only = issuer.token().mint();
    let error = ask("on_behalf_of", &sound.mint(), json!({ "user_assertion": app_only })).await.unwrap_err();
    assert!(error.contains("AADSTS7000114"), "{error}");
}

#[tokio::test]
async fn an_applications_token_goes_upstream_and_is_asked_for_once() {
    let world = World::start(|clouds| json!({ "storage": application(clouds, json!({})) })).await;
    let received = world.shown("/storage/1", &world.issuer.token().mint()).await;
    let issued = world.issued().await;
    assert_eq!(received.header("authorization"), Some(&*format!("Bearer {}", issued["token"].as_str().unwrap())));
    assert_eq!((&issued["kind"], &issued["scope"]), (&json!("client_credentials"), &json!(STORAGE)));
    let record = world.event("credential.issued", "storage").await;
    assert_eq!((record.text("tenant"), record.text("client_id"), record.text("scope")), (TENANT, APP, STORAGE));
    assert_eq!(record.value("on_behalf_of"), &json!(false));
    assert_eq!(record.value("id"), &issued["uti"], "as Entra's own sign-in logs have it");

    world.shown("/storage/2", &world.issuer.token().subject("machine-2").mint()).await;
    assert_eq!(world.all_issued().await.len(), 1);
}

#[tokio::test]
async fn on_behalf_of_each_caller_there_is_a_token_of_their_own() {
    let settings = json!({ "on_behalf_of": "caller", "scope": "https://graph.microsoft.com/User.Read" });
    let world = World::start(|clouds| json!({ "own": application(clouds, settings) })).await;
    let mut shown = Vec::new();
    for subject in ["ada", "grace"] {
        let token = world.issuer.token().subject(subject).claim("scp", "use").mint();
        shown.push(world.shown("/own/1", &token).await.header("authorization").unwrap().to_owned());
        assert_eq!(world.issued().await["sub"], subject);
        world.gate.never_wrote(&token);
    }
    assert_ne!(shown[0], shown[1]);
    assert_eq!(world.event("credential.issued", "own").await.value("on_behalf_of"), &json!(true));
    let answer = world.get("/own/1").await;
    assert_eq!(answer.status, 503, "a token without a user behind it");
    assert!(world.event("credential.refused", "own").await.text("detail").contains("AADSTS7000114"));
}

#[tokio::test]
async fn a_caller_who_must_sign_in_again_is_told_how() {
    let world = World::start(|clouds| json!({ "own": application(clouds, json!({ "on_behalf_of": "caller" })) })).await;
    world.clouds.entra(json!({ "wants_second_factor": true })).await;
    let draft = world.issuer.token().subject("ada").claim("scp", "use");
    let answer = world.gate.get("/own/1").bearer(&draft.mint()).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (401, &json!("interaction_required")));
    let challenge = answer.header("www-authenticate").unwrap();
    let claims = challenge.split_once("error=\"insufficient_claims\", claims=\"").unwrap().1.trim_end_matches('"');
    let claims: Value = serde_json::from_slice(&STANDARD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["access_token"]["acrs"]["value"], "c1");
    let record = world.gate.only_record_of("/own/1").await;
    assert_eq!(record.verdict(), ("deny", "interaction_required"));
    let refused = world.event("credential.refused", "own").await;
    assert_eq!(refused.text("code"), "interaction_required");
    assert!(refused.text("detail").contains("AADSTS50076"), "{}", refused.0);
    world.upstream.heard_nothing();
    world.shown("/own/2", &draft.claim("acrs", ["c1"]).mint()).await;
}

#[tokio::test]
async fn what_entra_refuses_is_told_in_the_record_and_nothing_is_forwarded() {
    let world = World::start(|clouds| {
        json!({
            "good": application(clouds, json!({})),
            "subject": application(clouds, json!({ "federated": { "subject": "doorward:test:storage" } })),
            "audience": application(clouds, json!({ "federated": { "subject": SUBJECT, "audience": "api://else" } })),
            "stranger": application(clouds, json!({ "client_id": TENANT })),
            "elsewhere": application(clouds, json!({ "tenant": "contoso.onmicrosoft.com" })),
        })
    })
    .await;
    for (name, said) in [
        ("subject", "invalid_client: AADSTS700213: No matching federated identity record found"),
        ("audience", "invalid_client: AADSTS700212: No matching federated identity record found"),
        ("stranger", "unauthorized_client: AADSTS700016: Application with identifier"),
        ("elsewhere", "invalid_request: AADSTS90002: Tenant 'contoso.onmicrosoft.com' not found."),
    ] {
        let path = format!("/{name}/1");
        let answer = world.get(&path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (503, &json!("credential_unavailable")), "{name}");
        assert!(!answer.text().contains("AADSTS"), "a caller is not told how the gate is configured");
        assert_eq!(world.gate.only_record_of(&path).await.text("code"), "credential_unavailable");
        let refused = world.event("credential.refused", name).await;
        assert_eq!(refused.text("code"), "credential_refused");
        assert!(refused.text("detail").contains(said), "{}", refused.0);
        assert!(refused.text("detail").ends_with("trace 0000aaaa-11bb-22cc-33dd-444444eeeeee"), "{}", refused.0);
    }
    world.upstream.heard_nothing();
    assert_eq!(world.get("/good/1").await.status, 200, "other routes go on");
}

#[tokio::test]
async fn a_federated_credential_that_is_not_everywhere_yet_is_asked_for_again() {
    let world = World::start(|clouds| json!({ "storage": application(clouds, json!({})) })).await;
    world.clouds.entra(json!({ "not_yet": 2 })).await;
    assert_eq!(world.get("/storage/1").await.status, 200);
    assert_eq!(world.clouds.entra(json!({})).await["asked"], 3);
}

#[tokio::test]
async fn a_managed_identitys_token_goes_upstream_from_either_service() {
    let imds = |url: &str, client_id: Value| {
        let identity = json!({ "host": "imds", "url": url, "client_id": client_id });
        json!({ "azure": { "scope": STORAGE, "managed_identity": identity } })
    };
    let world = World::changed(
        |clouds| {
            json!({
                "machine": imds(&clouds.managed_identity, json!(APP)),
                "stranger": imds(&clouds.managed_identity, json!(TENANT)),
                "app": { "azure": { "scope": STORAGE, "managed_identity": { "host": "app_service" } } },
            })
        },
        |gate, clouds, _| {
            gate.variable("IDENTITY_ENDPOINT", &format!("{}/msi/token", clouds.managed_identity))
                .variable("IDENTITY_HEADER", "h-of-the-environment")
        },
    )
    .await;
    world.clouds.entra(json!({ "updating": 1 })).await;
    let token = world.issuer.token().mint();
    for (path, client_id) in [("/machine/1", json!(APP)), ("/app/1", Value::Null)] {
        let received = world.shown(path, &token).await;
        let issued = world.issued().await;
        assert_eq!(received.header("authorization"), Some(&*format!("Bearer {}", issued["token"].as_str().unwrap())));
        assert_eq!((&issued["resource"], &issued["client_id"]), (&json!("https://storage.azure.com"), &client_id));
    }
    assert_eq!(world.event("credential.issued", "app").await.text("managed_identity"), "app_service");
    assert_eq!(world.get("/stranger/1").await.status, 503);
    assert!(world.event("credential.refused", "stranger").await.text("detail").contains("Identity not found"));
    world.gate.never_wrote("h-of-the-environment");
}

/// Azurite's blob service over TLS, which takes bearer tokens of Entra's form.
struct Azurite {
    _process: Child,
    url: String,
}

impl Azurite {
    async fn start(authority: &Authority) -> Self {
        let main = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/node_modules/azurite/dist/src/blob/main.js");
        let mut process = Command::new("node")
            .args([main, "--blobHost", "127.0.0.1", "--blobPort", "0", "--oauth", "basic", "--disableTelemetry"])
            .args(["--inMemoryPersistence", "--cert", "server.pem", "--key", "server.key"])
            .current_dir(authority.folder())
            .env("NODE_NO_WARNINGS", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts (`make test` installs it)");
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = async {
            while let Some(line) = output.next_line().await.unwrap() {
                if let Some((_, url)) = line.split_once("successfully listens on ") {
                    return url.trim().to_owned();
                }
            }
            panic!("Azurite ended; `make test` installs what it needs");
        };
        let url = within("Azurite", url).await;
        // It writes a line for each request, which somebody has to take.
        tokio::spawn(async move { while let Ok(Some(_)) = output.next_line().await {} });
        Self { _process: process, url }
    }
}

#[tokio::test]
async fn a_storage_service_opens_to_the_gates_token_and_to_nothing_else() {
    let authority = Authority::new();
    let azurite = Azurite::start(&authority).await;
    let clouds = Clouds::start(&authority).await;
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let credentials = json!({
        "storage": application(&clouds, json!({})),
        "graph": application(&clouds, json!({ "scope": "https://graph.microsoft.com/.default" })),
        "nothing": { "none": { "reason": "to see what happens" } },
    });
    let blobs = json!({ "addresses": [azurite.url], "tls": { "authorities": "ca.pem" } });
    let mut gate = Gate::standard(&authority, &issuer, &upstream)
        .config(json!({ "credentials": credentials, "upstreams": { "blobs": blobs } }));
    for (name, path) in [("storage", ""), ("graph", "graph/"), ("nothing", "nothing/")] {
        let path = format!("/devstoreaccount1/{path}{{*rest}}");
        gate = gate.route(name, json!({ "path": path, "credential": name, "upstream": "blobs" }));
    }
    let gate = gate.start().await;
    gate.becomes_ready(200).await;
    let own = format!("{ORIGIN}/.doorward");
    clouds.reach(&own, gate.address()).await;
    let federated = json!([{ "issuer": own, "subject": SUBJECT }]);
    let applications = json!({ APP: { "federated": federated, "identifiers": [] } });
    clouds.entra(json!({ "tenant": TENANT, "applications": applications })).await;

    let token = issuer.token().groups(&["readers", "writers"]).mint();
    let ask = |method: Method, path: &str| {
        let draft = gate.request(method, path).bearer(&token);
        draft.header("x-ms-version", "2021-08-06").header("x-ms-blob-type", "BlockBlob")
    };
    let made = ask(Method::PUT, "/devstoreaccount1/reports?restype=container").send().await;
    assert_eq!(made.status, 201, "{}", made.text());
    let put = ask(Method::PUT, "/devstoreaccount1/reports/a.txt").body("figures").send().await;
    assert_eq!(put.status, 201, "{}", put.text());
    let got = ask(Method::GET, "/devstoreaccount1/reports/a.txt").send().await;
    assert_eq!((got.status.as_u16(), &*got.text()), (200, "figures"));
    for (container, status) in [("absent", 404), ("nothing", 403), ("graph", 403)] {
        let answer = ask(Method::GET, &format!("/devstoreaccount1/{container}/a.txt")).send().await;
        assert_eq!(answer.status, status, "only the token for storage is let in to look: {answer:?}");
    }
}
