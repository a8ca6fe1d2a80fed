//! Ways out of the origin: return paths, callbacks, states.

use crate::support::{Answer, Authority, Browser, Gate, ORIGIN, Provider, RecordingUpstream, RunningGate};

async fn world() -> (Provider, RecordingUpstream, RunningGate) {
    let authority = Authority::new();
    let provider = Provider::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let gate = Gate::for_people(&authority, &provider, &upstream).start().await;
    gate.becomes_ready(200).await;
    (provider, upstream, gate)
}

/// Where a browser at Doorward's origin would go.
fn destination(answer: &Answer) -> Option<url::Url> {
    let location = answer.header("location")?;
    Some(url::Url::parse(ORIGIN).unwrap().join(location).unwrap())
}

const OUTSIDE: [&str; 14] = [
    "https://evil.test/",
    "//evil.test/",
    "/\\evil.test/",
    "\\\\evil.test/",
    "/%09/evil.test",
    "/%0a/evil.test",
    "/%5cevil.test",
    "%2f%2fevil.test",
    "https:evil.test",
    "https%3a%2f%2fevil.test",
    "javascript:alert(1)",
    "https://gate.test@evil.test/",
    "https://gate.test.evil.test/",
    "/.doorward/logout",
];

#[tokio::test]
async fn no_parameter_of_a_reserved_path_leads_out_of_the_origin() {
    let (provider, _upstream, gate) = world().await;
    for path in ["login", "callback", "logout", "signed-out"] {
        for parameter in ["return_to", "rd", "redirect", "redirect_uri", "next", "url", "target_link_uri", "rt"] {
            for outside in OUTSIDE {
                let answer = gate.get(&format!("/.doorward/{path}?{parameter}={outside}")).navigation().send().await;
                let Some(to) = destination(&answer) else { continue };
                let to_provider = to.as_str().starts_with(provider.url());
                assert!(
                    to_provider || to.origin().ascii_serialization() == ORIGIN,
                    "{path}?{parameter}={outside}: {to}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_login_sends_the_browser_back_to_the_configured_origin_whatever_host_it_names() {
    let (provider, _upstream, gate) = world().await;
    let lying = |path: &str| {
        let request = gate.get(path).navigation();
        request.header("x-forwarded-host", "evil.test").header("x-forwarded-proto", "http")
    };
    let sent = lying("/app/x").send().await;
    let login = destination(&sent).expect("a redirect to the login");
    assert_eq!((login.origin().ascii_serialization(), login.path()), (ORIGIN.to_owned(), "/.doorward/login"));
    let answer = lying(sent.header("location").unwrap()).send().await;
    let to = destination(&answer).expect("a redirect to the provider");
    assert!(to.as_str().starts_with(provider.url()), "{to}");
    let back = to.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    assert_eq!(back, format!("{ORIGIN}/.doorward/callback"));
    let value = |name| to.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    assert_eq!(value("response_type").as_deref(), Some("code"));
    assert_eq!(value("code_challenge_method").as_deref(), Some("S256"));
    assert!(value("state").unwrap().len() >= 22 && value("nonce").unwrap().len() >= 22);
}

#[tokio::test]
async fn a_callback_without_its_login_cookie_or_with_another_state_is_refused() {
    let (provider, upstream, gate) = world().await;
    let issuer = provider.url();
    let tokens = provider.count("token").await;
    for (what, query, with_cookie, code) in [
        ("no cookie", format!("code=x&state=STATE&iss={issuer}"), false, "login_state"),
        ("another state", format!("code=x&state=other&iss={issuer}"), true, "login_state"),
        ("no state", format!("code=x&iss={issuer}"), true, "login_state"),
        ("two states", format!("code=x&state=STATE&state=STATE&iss={issuer}"), true, "login_state"),
        ("another issuer (mix-up)", "code=x&state=STATE&iss=https://evil.test".to_owned(), true, "login_issuer"),
        ("no issuer where the provider gives one", "code=x&state=STATE".to_owned(), true, "login_issuer"),
    ] {
        // A login of its own each: a state that an earlier case used up would be refused for that.
        let begun = gate.begin_login("/app/x", "").await;
        let to = destination(&begun).unwrap();
        let state = to.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let cookie = begun.set_cookies()[0].split(';').next().unwrap().to_owned();
        let cookie = if with_cookie { cookie.as_str() } else { "" };
        let path = format!("/.doorward/callback?{}", query.replace("STATE", &state));
        let answer = gate.get(&path).navigation().header("cookie", cookie).send().await;
        assert!(answer.status.is_client_error(), "{what}: {answer:?}");
        assert!(answer.text().contains(code), "{what}: {}", answer.text());
        assert!(
            answer.set_cookies().iter().all(|cookie| cookie.contains("login") || cookie.contains("Max-Age=0")),
            "{what}"
        );
    }
    assert_eq!(provider.count("token").await, tokens, "a code was exchanged");
    upstream.heard_nothing();
}

#[tokio::test]
async fn the_providers_error_text_is_shown_escaped_and_never_loops() {
    let (provider, _upstream, gate) = world().await;
    let begun = gate.begin_login("/app/x", "").await;
    let to = destination(&begun).unwrap();
    let state = to.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let cookie = begun.set_cookies()[0].split(';').next().unwrap().to_owned();
    let query = format!(
        "error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E&state={state}&iss={}",
        provider.url()
    );
    let answer = gate.get(&format!("/.doorward/callback?{query}")).navigation().header("cookie", &cookie).send().await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    assert!(!answer.text().contains("<script>alert"), "{}", answer.text());
    assert!(answer.header("content-security-policy").is_some());
}

#[tokio::test]
async fn a_code_serves_once_and_only_the_browser_that_asked_for_it() {
    let (provider, upstream, gate) = world().await;
    let begun = gate.begin_login("/app/x", "").await;
    let cookie = begun.set_cookies()[0].split(';').next().unwrap().to_owned();
    // Another browser, lured into a login that somebody else began.
    let mut victim = Browser::start(gate.port()).await;
    victim.goto(begun.header("location").unwrap()).await;
    let place = victim.sign_in("alice").await;
    assert_eq!(place.status, 400, "{place:?}");
    assert!(victim.cookies().await.iter().all(|cookie| cookie["domain"] != crate::support::HOST));
    assert_eq!(provider.count("token").await, 0);

    let visited = victim.visited().await;
    let callback = visited.iter().find_map(|url| url.strip_prefix(ORIGIN)).expect("a callback");
    let answer = gate.get(callback).navigation().header("cookie", &cookie).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, Some(format!("{ORIGIN}/app/x").as_str())));
    let again = gate.get(callback).navigation().header("cookie", &cookie).send().await;
    assert_eq!(again.status, 400, "{again:?}");
    assert!(again.set_cookies().is_empty(), "{again:?}");
    assert_eq!(provider.count("token").await, 1, "the code was sent twice");
    let records = gate.settled_audit().await;
    assert_eq!(records.iter().filter(|record| record.event() == "session.started").count(), 1);
    upstream.heard_nothing();
}
