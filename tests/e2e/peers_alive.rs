//! The peers themselves: a test that fails elsewhere fails for Doorward's sake, not for theirs.

use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode, Version};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Authority, Browser, Client, HOST, ORIGIN, Provider, RecordingUpstream, Script, StaticIssuer, base64url,
};

fn client_of(authority: &Authority, url: &str) -> Client {
    let address = url.split_once("://").unwrap().1.parse().unwrap();
    Client::tls(address, "127.0.0.1", authority.client_config(None))
}

fn plain_client_of(upstream: &RecordingUpstream) -> Client {
    Client::plain(upstream.url().strip_prefix("http://").unwrap().parse().unwrap())
}

fn verified(token: &str, keys: &JwkSet, algorithm: Algorithm) -> Value {
    let header = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(header.alg, algorithm);
    let key = keys.find(header.kid.as_deref().unwrap()).unwrap();
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[ORIGIN]);
    jsonwebtoken::decode(token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims
}

#[tokio::test]
async fn the_issuers_tokens_verify_by_the_keys_it_publishes() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let client = client_of(&authority, &issuer.url());
    let discovery = client.get("/.well-known/openid-configuration").send().await.json();
    assert_eq!(discovery["issuer"], issuer.url());
    let keys: JwkSet = client.get("/keys").send().await.json_as();
    assert_eq!(verified(&issuer.token().mint(), &keys, Algorithm::ES256)["groups"], json!(["readers"]));
    assert_eq!(verified(&issuer.rsa_token().subject("me").mint(), &keys, Algorithm::RS256)["sub"], "me");

    issuer.rotate("es-2");
    assert!(keys.find("es-2").is_none());
    let keys: JwkSet = client.get("/keys").send().await.json_as();
    verified(&issuer.token().mint(), &keys, Algorithm::ES256);
    assert_eq!((issuer.discoveries(), issuer.key_fetches()), (1, 2));
}

#[tokio::test]
async fn an_issuer_goes_away_and_comes_back_at_the_same_address() {
    let authority = Authority::new();
    let issuer = StaticIssuer::away(&authority);
    let address: std::net::SocketAddr = issuer.url().strip_prefix("https://").unwrap().parse().unwrap();
    tokio::net::TcpStream::connect(address).await.expect_err("nobody listens yet");
    issuer.come_up().await;
    client_of(&authority, &issuer.url()).get("/keys").send().await;
    issuer.go_away().await;
    tokio::net::TcpStream::connect(address).await.expect_err("nobody listens any more");
    issuer.come_up().await;
    client_of(&authority, &issuer.url()).get("/keys").send().await;
}

#[tokio::test]
async fn the_upstream_keeps_what_it_received() {
    let upstream = RecordingUpstream::start().await;
    let client = plain_client_of(&upstream);
    let answer = client.post("/a%2Fb?c=d").header("x-one", "1").body("hello").send().await;
    assert_eq!(answer.status, StatusCode::OK);
    let received = upstream.only();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/a%2Fb?c=d"));
    assert_eq!((received.header("x-one"), received.body_bytes, received.complete), (Some("1"), 5, true));
    assert_eq!(base64url(&received.body_sha256), "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ");
}

#[tokio::test]
async fn the_upstream_streams_piece_by_piece_cuts_and_echoes() {
    let upstream = RecordingUpstream::start().await;
    let client = plain_client_of(&upstream);
    let (pieces, script) = Script::pieces("text/event-stream");
    upstream.script("/events", script);
    upstream.script("/cut", Script::Cut);
    upstream.script("/socket", Script::WebSocketEcho);

    let mut events = client.get("/events").begin().await.into_body();
    for text in ["data: 1\n\n", "data: 2\n\n"] {
        pieces.send(text.into()).await.unwrap();
        let frame = http_body_util::BodyExt::frame(&mut events).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }

    let cut = client.get("/cut").begin().await;
    http_body_util::BodyExt::collect(cut.into_body()).await.expect_err("the answer was cut");

    let stream = tokio::net::TcpStream::connect(("127.0.0.1", upstream.port())).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://127.0.0.1/socket", stream).await.unwrap();
    socket.send(Message::text("ping")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("ping"));
}

#[tokio::test]
async fn the_upstream_speaks_http2_with_trailers() {
    let authority = Authority::new();
    let upstream = RecordingUpstream::start_tls(&authority).await;
    upstream.script("/pkg.Service/Call", Script::Grpc);
    let answer = client_of(&authority, &upstream.url()).post("/pkg.Service/Call").body("frame").send_http2().await;
    assert_eq!((answer.text().as_str(), answer.trailers["grpc-status"].to_str().unwrap()), ("frame", "0"));
    assert_eq!(upstream.only().version, Version::HTTP_2);
}

#[tokio::test]
async fn the_provider_issues_tokens_rotates_keys_and_goes_away() {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let client = client_of(&authority, provider.url());
    let keys: JwkSet = client.get("/jwks").send().await.json_as();
    let token = provider.service_token(&authority, "RS256").await;
    assert_eq!(verified(&token, &keys, Algorithm::RS256)["sub"], "service");
    verified(&provider.service_token(&authority, "ES256").await, &keys, Algorithm::ES256);
    assert_eq!((provider.count("token").await, provider.count("jwks").await), (2, 1));

    provider.rotate_keys().await;
    let header = jsonwebtoken::decode_header(&provider.service_token(&authority, "ES256").await).unwrap();
    assert!(keys.find(header.kid.as_deref().unwrap()).is_none(), "the old key still signs");

    let address: std::net::SocketAddr = provider.url().strip_prefix("https://").unwrap().parse().unwrap();
    provider.go_away().await;
    tokio::net::TcpStream::connect(address).await.expect_err("nobody listens");
    provider.come_back().await;
    client.get("/jwks").send().await;
}

#[tokio::test]
async fn a_browser_signs_in_at_the_providers_own_pages() {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let callback = RecordingUpstream::start_tls(&authority).await;
    let mut browser = Browser::start(callback.port()).await;
    let challenge = base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[b'v'; 43]));
    let place = browser
        .goto(&format!(
            "{}/auth?client_id=doorward&response_type=code&scope=openid%20email%20offline_access&state=s\
             &redirect_uri={ORIGIN}/.doorward/callback&code_challenge_method=S256&code_challenge={challenge}",
            provider.url()
        ))
        .await;
    assert!(place.url.contains("/interaction/"), "{place:?}");
    let place = browser.sign_in("alice").await;
    assert!(place.url.starts_with(&format!("{ORIGIN}/.doorward/callback?")), "{place:?}");
    assert_eq!((place.title.as_str(), place.status), ("Upstream", 200));

    let url: url::Url = place.url.parse().unwrap();
    let parameter = |name| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    assert_eq!((parameter("state").as_str(), parameter("iss").as_str()), ("s", provider.url()));
    let form = format!(
        "grant_type=authorization_code&code={}&client_id=doorward&client_secret=doorward-secret\
         &redirect_uri={ORIGIN}/.doorward/callback&code_verifier={}",
        parameter("code"),
        "v".repeat(43)
    );
    let tokens = client_of(&authority, provider.url())
        .post("/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .json();
    let claims = tokens["id_token"].as_str().unwrap_or_else(|| panic!("{tokens}")).split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["sub"], &claims["email"]), (&json!("alice"), &json!("alice@example.test")));
    assert!(claims["auth_time"].is_u64() && claims["groups"].as_array().unwrap().contains(&json!("eng")), "{claims}");
    assert!(tokens["refresh_token"].is_string());
    assert_eq!(provider.count("authorize").await, 1);

    let fetched = browser.fetch("/other", json!({ "method": "POST", "body": "x" })).await;
    assert_eq!(fetched["status"], 200);
    assert_eq!(browser.evaluate("location.host").await, HOST);
}

/// The harness's own wait gives up: without that, a hung test would hang the run.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "waited 30 s for a thing that never comes")]
async fn waiting_has_an_end() {
    crate::support::eventually("a thing that never comes", || async { None::<Request<()>> }).await;
}
