//! Callbacks that must not lead to a session.

use serde_json::json;

use super::*;
use crate::login::testing::Mode;

async fn refused(world: &World, browser: &mut Browser, callback: &str) -> String {
    let response = world.get(browser, callback).await;
    assert!(response.status().is_client_error() || response.status().is_server_error(), "{callback}");
    assert_eq!(browser.session_cookies(), [""; 0], "{callback}");
    text(response).await
}

#[tokio::test]
async fn a_state_that_is_missing_swapped_or_used_is_refused() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let callback = world.issuer.authorize(&world.begin(&mut browser, "").await);
    let (base, state) = callback.split_once("&state=").unwrap();
    let before = browser.clone();
    for altered in [base.to_owned(), format!("{base}&state="), format!("{callback}&state={state}")] {
        refused(&world, &mut browser, &altered).await;
    }
    let other = if state.starts_with('A') { 'B' } else { 'A' };
    refused(&world, &mut browser, &format!("{base}&state={other}{}", &state[1..])).await;

    assert_eq!(world.get(&mut browser, &callback).await.status(), 303);
    let page = refused(&world, &mut before.clone(), &callback).await;
    assert!(page.contains("login_state"), "a state is used once, even with its cookie");
    assert_eq!(world.issuer.calls(|calls| calls.code), 1);
}

#[tokio::test]
async fn a_login_begun_in_another_browser_is_refused() {
    let (world, mut victim) = (World::new().await, Browser::default());
    let callback = world.issuer.authorize(&world.begin(&mut Browser::default(), "").await);
    assert!(refused(&world, &mut victim, &callback).await.contains("login_state"));
    assert_eq!(world.happened(), [(SessionEventKind::Refused, "login_state")]);
    assert_eq!(world.issuer.calls(|calls| calls.code), 0, "the code is not even sent");
}

#[tokio::test]
async fn a_code_of_another_login_is_refused() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let other = world.issuer.authorize(&world.begin(&mut Browser::default(), "").await);
    let own = world.issuer.authorize(&world.begin(&mut browser, "").await);
    let code = other.split_once("code=").unwrap().1.split_once('&').unwrap().0;
    let injected = format!("/.doorward/callback?code={code}&state={}", own.split_once("&state=").unwrap().1);
    refused(&world, &mut browser, &injected).await;
}

#[tokio::test]
async fn a_login_cookie_under_another_name_too_old_or_altered_is_refused() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let first = world.issuer.authorize(&world.begin(&mut browser, "").await);
    let second = world.issuer.authorize(&world.begin(&mut browser, "").await);
    let names = browser.login_cookies();
    let mut swapped = browser.clone();
    let values: Vec<_> = names.iter().map(|name| browser.0[name].clone()).collect();
    swapped.0.insert(names[0].clone(), values[1].clone());
    swapped.0.insert(names[1].clone(), values[0].clone());
    refused(&world, &mut swapped.clone(), &first).await;
    refused(&world, &mut swapped, &second).await;
    world.clock.advance(Duration::from_secs(600));
    refused(&world, &mut browser, &first).await;
}

#[tokio::test]
async fn an_answer_of_another_issuer_is_refused() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let callback = world.issuer.authorize(&world.begin(&mut browser, "").await);
    let mixed = format!("{callback}&iss=https%3A%2F%2Fevil.test");
    assert!(refused(&world, &mut browser, &mixed).await.contains("login_issuer"), "also where none was promised");

    let world = World::new().await;
    world.issuer.set(|mode| mode.issuer_parameter = true);
    let callback = world.issuer.authorize(&world.begin(&mut browser, "").await);
    let (without, _) = callback.split_once("&iss=").unwrap();
    assert!(refused(&world, &mut browser, without).await.contains("login_issuer"), "promised and missing");
    let callback = world.issuer.authorize(&world.begin(&mut browser, "").await);
    let twice = format!("{callback}&iss=https%3A%2F%2Fevil.test");
    assert!(refused(&world, &mut browser, &twice).await.contains("login_issuer"));
    world.log_in(&mut browser, "").await;
}

#[tokio::test]
async fn an_id_token_that_does_not_hold_is_refused() {
    let now = Clock::system().now().unix_seconds();
    let claim = |name: &str, value: Value| {
        let name = name.to_owned();
        Box::new(move |mode: &mut Mode| drop(mode.claims.insert(name, value))) as Box<dyn FnOnce(&mut Mode)>
    };
    let header = |name: &str, value: Value| {
        let name = name.to_owned();
        Box::new(move |mode: &mut Mode| drop(mode.header.insert(name, value))) as Box<dyn FnOnce(&mut Mode)>
    };
    type Change = Box<dyn FnOnce(&mut Mode)>;
    let cases: Vec<(&str, Change)> = vec![
        ("nonce of another login", claim("nonce", json!("other"))),
        ("no nonce", claim("nonce", Value::Null)),
        ("nonce of the wrong type", claim("nonce", json!(1))),
        ("another issuer", claim("iss", json!("https://evil.test"))),
        ("issuer with a slash", claim("iss", json!("http://127.0.0.1/"))),
        ("another audience", claim("aud", json!("other"))),
        ("no audience", claim("aud", Value::Null)),
        ("empty audience", claim("aud", json!([]))),
        ("two audiences without azp", claim("aud", json!(["client", "other"]))),
        ("another azp", claim("azp", json!("other"))),
        ("azp of the wrong type", claim("azp", json!(["client"]))),
        ("expired", claim("exp", json!(now - 60))),
        ("no expiry", claim("exp", Value::Null)),
        ("expiry of the wrong type", claim("exp", json!("tomorrow"))),
        ("issued in the future", claim("iat", json!(now + 600))),
        ("no iat", claim("iat", Value::Null)),
        ("not valid yet", claim("nbf", json!(now + 600))),
        ("nbf of the wrong type", claim("nbf", json!("now"))),
        ("acr of the wrong type", claim("acr", json!(["basic"]))),
        ("auth_time of the wrong type", claim("auth_time", json!("now"))),
        ("at_hash of another token", claim("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA"))),
        ("no subject", claim("sub", Value::Null)),
        ("algorithm none", header("alg", json!("none"))),
        ("algorithm HS256", header("alg", json!("HS256"))),
        ("algorithm not listed", header("alg", json!("ES384"))),
        ("unknown critical header", header("crit", json!(["x"]))),
        ("another token type", header("typ", json!("logout+jwt"))),
        ("an access token", header("typ", json!("at+jwt"))),
        ("another key", header("kid", json!("k9"))),
        ("a claim twice", Box::new(|mode| mode.before_claims = r#""groups":["admins"],"#)),
        ("too large", claim("groups", json!("x".repeat(16 * 1024)))),
        ("signed by a stranger", Box::new(|mode| mode.sign_with_stranger = true)),
    ];
    let world = World::new().await;
    for (name, change) in cases {
        let mut browser = Browser::default();
        let callback = world.issuer.authorize(&world.begin(&mut browser, "").await);
        world.issuer.set(change);
        let response = world.get(&mut browser, &callback).await;
        assert_eq!((response.status().as_u16() / 100, browser.session_cookies().len()), (5, 0), "{name}");
        world.issuer.set(|mode| *mode = Mode::default());
    }
    world.log_in(&mut Browser::default(), "").await;
}

#[tokio::test]
async fn what_the_issuer_says_is_shown_as_text() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let callback = world.issuer.authorize(&world.begin(&mut browser, "return_to=/x").await);
    let state = callback.split_once("&state=").unwrap().1;
    let denied = format!("/.doorward/callback?error=access_denied&error_description=%3Cscript%3E&state={state}");
    let page = refused(&world, &mut browser, &denied).await;
    assert!(page.contains("access_denied: &lt;script&gt;") && !page.contains("<script>"), "{page}");
    assert_eq!(browser.login_cookies(), [""; 0], "an attempt that was refused is over");
    assert_eq!(world.happened(), [(SessionEventKind::Refused, "login_denied")]);
}

#[tokio::test]
async fn no_return_path_leaves_the_origin() {
    let world = World::new().await;
    for path in
        ["//evil.test", "/%5Cevil.test", "https://evil.test", "/.doorward/logout", "/%0d%0aX:y", "/.//evil.test"]
    {
        let query: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
        let home = world.log_in(&mut Browser::default(), &format!("return_to={query}")).await;
        assert_eq!(home, "https://own.test/", "{path}");
    }
    let twice = world.log_in(&mut Browser::default(), "return_to=/a&return_to=//evil.test").await;
    assert_eq!(twice, "https://own.test/");
}

#[tokio::test]
async fn an_account_that_the_configuration_does_not_take_gets_no_session() {
    let (world, mut browser) = (World::new().await, Browser::default());
    let callback = world.issuer.authorize(&world.begin(&mut browser, "").await);
    world.issuer.set(|mode| drop(mode.claims.insert("suspended".into(), true.into())));
    assert!(refused(&world, &mut browser, &callback).await.contains("claims_refused"));
}
