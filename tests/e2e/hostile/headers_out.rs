//! What must never reach the upstream, and what must never come back.

use http::StatusCode;
use serde_json::json;

use super::World;
use crate::support::Script;

#[tokio::test]
async fn the_callers_authorization_and_cookies_never_reach_the_upstream() {
    let world = World::changed(|gate| {
        let open = json!({ "none": { "reason": "the upstream takes all callers" } });
        gate.config(json!({ "credentials": { "open": open } }))
            .route("open", json!({ "path": "/open/{*rest}", "credential": "open" }))
            .policy(r#"@id("all-read") permit(principal in Role::"reader", action, resource == Route::"open");"#)
    })
    .await;
    let request = world.gate.get("/open/1").header("cookie", "theme=dark; other=x").bearer(&world.token);
    assert_eq!(request.send().await.status, 200);
    let received = world.upstream.only();
    assert_eq!((received.header("authorization"), received.header("cookie")), (None, None));
    assert!(!format!("{:?}", received.headers).contains(&world.token));
}

#[tokio::test]
async fn doorwards_own_cookies_never_pass_even_where_the_route_passes_cookies() {
    let reason = json!({ "reason": "the application keeps its own session" });
    let settings = json!({ "path": "/things/{*rest}", "pass_cookies": reason });
    let world = World::changed(|gate| gate.route("things", settings)).await;
    let own = ["__Host-doorward", "__Host-doorward.0", "__Host-doorward_login_0a1b2c3d", "__Host-doorward-csrf"];
    for name in own {
        let cookies = format!("theme=dark; {name}=stolen; lang=en");
        let answer = world.gate.get("/things/1").header("cookie", &cookies).bearer(&world.token).send().await;
        assert_eq!(answer.status, 200, "{name}");
    }
    let received = world.upstream.received();
    assert_eq!(received.len(), own.len());
    for received in received {
        assert_eq!(received.header("cookie"), Some("theme=dark; lang=en"));
    }
}

#[tokio::test]
async fn the_injected_credential_never_comes_back_to_the_caller() {
    let world = World::start().await;
    let answer = world.gate.get("/things/1").bearer(&world.token).send().await;
    let shown = world.upstream.only().header("authorization").unwrap()["Bearer ".len()..].to_owned();
    assert!(!format!("{answer:?}").contains(&shown));
    world.gate.never_wrote(&shown);
}

#[tokio::test]
async fn an_upstream_cannot_set_or_clear_doorwards_cookies() {
    let world = World::start().await;
    let headers = vec![
        ("set-cookie", "__Host-doorward=forged; Path=/; Secure"),
        ("set-cookie", "theme=dark; Path=/"),
        ("clear-site-data", "\"cookies\", \"cache\""),
        ("clear-site-data", "\"*\""),
        ("connection", "close, x-inner"),
        ("x-inner", "hop"),
    ];
    world.upstream.script("/things/1", Script::Fixed(StatusCode::OK, headers, "ok"));
    let answer = world.gate.get("/things/1").bearer(&world.token).send().await;
    assert!(answer.set_cookies().iter().all(|cookie| !cookie.starts_with("__Host-doorward")), "{answer:?}");
    assert!(answer.set_cookies().iter().any(|cookie| cookie.starts_with("theme=")), "{answer:?}");
    assert_eq!(answer.header("x-inner"), None);
    let cleared: Vec<_> = answer.headers.get_all("clear-site-data").iter().map(|line| line.to_str().unwrap()).collect();
    assert_eq!(cleared.concat().trim(), "\"cache\"", "{cleared:?}");
}

#[tokio::test]
async fn claims_with_line_breaks_never_split_a_header() {
    let settings = json!({ "path": "/things/{*rest}", "identity_headers": {} });
    let world = World::changed(|gate| gate.route("things", settings)).await;
    let hostile = "x\r\nX-Doorward-Roles: admin\r\n";
    let answer = world.gate.get("/things/0").bearer(&world.issuer.token().subject(hostile).mint()).send().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (401, &json!("subject_refused")));
    world.upstream.heard_nothing();

    let token = world.issuer.token().groups(&["readers", "a,b", "c\nd", hostile]).mint();
    let answer = world.gate.get("/things/1").bearer(&token).send().await;
    assert_eq!(answer.status, 200);
    let received = world.upstream.only();
    assert_eq!(received.header("x-doorward-roles"), Some("reader"));
    let groups: Vec<_> = received.header("x-doorward-groups").unwrap().split(',').collect();
    assert_eq!(groups, ["readers", "a%2Cb", "c%0Ad", "x%0D%0AX-Doorward-Roles: admin%0D%0A"]);
}

#[tokio::test]
async fn a_control_byte_in_a_claim_breaks_no_audit_line() {
    let world = World::start().await;
    let token = world.issuer.token().subject("me\u{1b}[2J\n{\"event\":\"request\"}").mint();
    world.gate.get("/things/1").bearer(&token).send().await;
    world.gate.settled_audit().await;
    assert!(!world.gate.read("audit.jsonl").contains('\u{1b}'));
    world.gate.only_record_of("/things/1").await;
}

#[tokio::test]
async fn cors_preflights_pass_without_identity_only_for_named_origins() {
    let settings = json!({ "path": "/things/{*rest}", "cors": { "origins": ["https://app.test"] } });
    let world =
        World::changed(|gate| gate.route("things", settings).route("closed", json!({ "path": "/closed/{*rest}" })))
            .await;
    let preflight = |path: &str, origin: &str| {
        let request = world.gate.request(http::Method::OPTIONS, path).header("origin", origin);
        request.header("access-control-request-method", "POST").send()
    };
    let good = preflight("/things/1", "https://app.test").await;
    assert!(good.status.is_success(), "{good:?}");
    for (path, origin) in [
        ("/things/1", "https://evil.test"),
        ("/things/1", "https://app.test.evil.test"),
        ("/things/1", "http://app.test"),
        ("/things/1", "null"),
        ("/closed/1", "https://app.test"),
    ] {
        let refused = preflight(path, origin).await;
        assert!(matches!(refused.status.as_u16(), 401 | 403), "{path} {origin}: {refused:?}");
        assert_eq!(refused.header("access-control-allow-origin"), None, "{path} {origin}");
    }
    let bare = world.gate.request(http::Method::OPTIONS, "/things/1").header("origin", "https://app.test").send().await;
    assert_eq!(bare.status, 401, "an OPTIONS that is no preflight needs identity");
}
