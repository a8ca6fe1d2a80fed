//! Logging out.

use super::*;

const LOGOUT: &str = "/.doorward/logout";
const OWN: &[(&str, &str)] = &[("sec-fetch-site", "same-origin")];

#[tokio::test]
async fn a_logout_ends_the_session_here_and_at_the_issuer() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let stolen = browser.clone();
    let page = world.get(&mut browser, LOGOUT).await;
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.contains(&format!("form-action 'self' {};", world.issuer.url)), "{policy}");
    assert!(world.ask(&browser).await.is_ok(), "asking ends nothing");

    let url = url::Url::parse(&location(&world.send(&mut browser, Method::POST, LOGOUT, OWN).await)).unwrap();
    assert!(url.as_str().starts_with(&format!("{}/end?", world.issuer.url)));
    let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!(query["post_logout_redirect_uri"], "https://own.test/.doorward/signed-out");
    assert_eq!((query["client_id"].as_str(), query["id_token_hint"].split('.').count()), ("client", 3));
    assert!(query["state"].len() >= 43);
    assert_eq!(browser.session_cookies(), [""; 0]);
    assert_eq!(code(&world.ask(&stolen).await), "session_ended", "a copy of the cookie is worth nothing");
    assert_eq!(world.happened().last(), Some(&(SessionEventKind::Ended, "logout")));
    assert_eq!(world.get(&mut browser, "/.doorward/signed-out").await.status(), 200);
}

#[tokio::test]
async fn no_other_site_can_log_anybody_out() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    for headers in [
        &[][..],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", "https://own.test")],
        &[("origin", "https://evil.test")],
        &[("origin", "null")],
    ] {
        assert_eq!(world.send(&mut browser, Method::POST, LOGOUT, headers).await.status(), 403, "{headers:?}");
        assert!(world.ask(&browser).await.is_ok());
    }
    let response = world.send(&mut browser, Method::POST, LOGOUT, &[("origin", "https://own.test")]).await;
    assert_eq!(response.status(), 303);
}

#[tokio::test]
async fn a_logout_works_without_the_issuer_and_without_a_session() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.issuer.set(|mode| mode.no_end_session = true);
    world.log_in(&mut browser, "").await;
    let own = "https://own.test/.doorward/signed-out";
    assert_eq!(location(&world.send(&mut browser, Method::POST, LOGOUT, OWN).await), own);
    assert_eq!(location(&world.send(&mut browser, Method::POST, LOGOUT, OWN).await), own);
    let mut broken = Browser([("__Host-doorward.3".to_owned(), "x".to_owned())].into());
    assert_eq!(location(&world.send(&mut broken, Method::POST, LOGOUT, OWN).await), own);
    assert_eq!(broken.session_cookies(), [""; 0], "stray chunks are cleared too");
}

#[tokio::test]
async fn a_session_that_could_not_be_ended_durably_says_so_and_is_over_here() {
    let (world, mut browser) = (World::new().await, Browser::default());
    world.log_in(&mut browser, "").await;
    let copy = browser.clone();
    std::fs::remove_dir_all(world.home.path().join("login/sessions")).unwrap();
    assert_eq!(world.send(&mut browser, Method::POST, LOGOUT, OWN).await.status(), 500);
    assert_eq!(code(&world.ask(&copy).await), "session_ended");
}

#[tokio::test]
async fn every_path_knows_its_methods() {
    let (world, mut browser) = (World::new().await, Browser::default());
    for (path, method) in
        [("/.doorward/login", Method::POST), (LOGOUT, Method::DELETE), ("/.doorward/callback", Method::POST)]
    {
        let response = world.send(&mut browser, method, path, &[]).await;
        assert_eq!(response.status(), 405);
        assert!(response.headers().contains_key(header::ALLOW));
    }
    for path in ["/.doorward/login", "/.doorward/callback", LOGOUT, "/.doorward/signed-out"] {
        assert!(Login::owns(path));
    }
    assert!(!Login::owns("/.doorward/jwks") && !Login::owns("/.doorward/login/"));
}
