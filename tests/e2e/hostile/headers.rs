//! Headers by which a caller would pass for somebody else, or take from the upstream what Doorward tells it.

use serde_json::json;

use super::World;
use crate::support::Received;

/// Every header name that the upstream was given, as a careless upstream reads it: without case, `_` as `-`.
fn read_by_cgi<'a>(received: &'a Received, name: &str) -> Vec<&'a str> {
    let alike = |found: &str| found.replace('_', "-").eq_ignore_ascii_case(name);
    let all = received.headers.iter().filter(|(found, _)| alike(found.as_str()));
    all.map(|(_, value)| value.to_str().unwrap()).collect()
}

async fn world_with_identity_headers() -> World {
    World::changed(|gate| gate.route("things", json!({ "path": "/things/{*rest}", "identity_headers": {} }))).await
}

#[tokio::test]
async fn every_spelling_of_an_identity_header_from_outside_is_removed() {
    let world = world_with_identity_headers().await;
    for (number, name) in
        ["X-Doorward-Subject", "x-doorward-subject", "X_Doorward_Subject", "X-Doorward_Subject", "x_doorward-SUBJECT"]
            .iter()
            .enumerate()
    {
        let path = format!("/things/{number}");
        let answer = world.gate.get(&path).header(name, "root").header(name, "root").bearer(&world.token).send().await;
        assert_eq!(answer.status, 200, "{name}");
        let received = world.upstream.received().pop().unwrap();
        assert_eq!(read_by_cgi(&received, "x-doorward-subject"), ["machine-1"], "{name}");
    }
}

#[tokio::test]
async fn all_identity_headers_are_replaced_even_where_there_is_no_value_to_put() {
    let world = world_with_identity_headers().await;
    let mut request = world.gate.get("/things/1").bearer(&world.token);
    for name in ["subject", "issuer", "email", "groups", "roles"] {
        request = request.header(&format!("x-doorward-{name}"), "root");
    }
    assert_eq!(request.send().await.status, 200);
    let received = world.upstream.only();
    assert_eq!(received.header("x-doorward-issuer"), Some("machines"));
    assert_eq!(received.header("x-doorward-email").unwrap_or_default(), "", "a machine has no e-mail address");
    assert!(received.header("x-doorward-roles").unwrap().contains("reader"));
    assert!(received.headers.values().all(|value| value != "root"), "{:?}", received.headers);
}

#[tokio::test]
async fn identity_headers_are_removed_on_public_routes_too() {
    let settings = json!({ "path": "/open/{*rest}", "public": { "reason": "a health page" }, "identity_headers": {} });
    let world = World::changed(|gate| {
        gate.route("open", settings)
            .policy(r#"@id("anybody-reads") permit(principal, action in Action::"read", resource == Route::"open");"#)
    })
    .await;
    let request = world.gate.get("/open/1").header("X-Doorward-Subject", "root").header("X_Doorward_Roles", "admin");
    assert_eq!(request.send().await.status, 200);
    let received = world.upstream.only();
    assert!(received.headers.values().all(|value| value != "root" && value != "admin"), "{:?}", received.headers);
}

#[tokio::test]
async fn connection_takes_nothing_away_that_doorward_puts_on() {
    let world = world_with_identity_headers().await;
    let named = "X-Doorward-Subject, Authorization, X-Forwarded-For, X-Forwarded-Proto, Forwarded, X-Request-Id, \
                 Host, Content-Length, Transfer-Encoding, keep-alive";
    let answer = world.gate.get("/things/1").header("connection", named).bearer(&world.token).send().await;
    if answer.status == 400 {
        return world.upstream.heard_nothing();
    }
    let received = world.upstream.only();
    assert_eq!(received.header("x-doorward-subject"), Some("machine-1"));
    assert!(received.header("authorization").unwrap().starts_with("Bearer "));
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert!(received.header("x-forwarded-proto").is_some() && received.header("x-request-id").is_some());
    assert!(received.authority.is_some());
}

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop() {
    let world = World::start().await;
    let request = world
        .gate
        .get("/things/1")
        .header("connection", "x-mine")
        .header("x-mine", "hop")
        .header("keep-alive", "timeout=5")
        .header("proxy-authorization", "Basic eDp5")
        .header("proxy-connection", "keep-alive")
        .header("te", "gzip")
        .header("trailer", "x")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQAAP__")
        .header("proxy", "http://evil.test/")
        .bearer(&world.token);
    assert_eq!(request.send().await.status, 200);
    let received = world.upstream.only();
    for name in
        ["x-mine", "keep-alive", "proxy-authorization", "proxy-connection", "te", "upgrade", "http2-settings", "proxy"]
    {
        assert_eq!(received.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn forwarded_headers_from_a_stranger_are_never_believed_nor_passed_on() {
    let world = World::changed(|gate| {
        gate.policy(
            r#"@id("not-from-there") forbid(principal, action, resource) when { context.source_ip.isInRange(ip("203.0.113.0/24")) };"#,
        )
    })
    .await;
    let names = [
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-User",
        "X_Forwarded_User",
        "X-Real-Ip",
        "Forwarded",
        "True-Client-Ip",
    ];
    let mut request = world.gate.get("/things/1").bearer(&world.token);
    for name in names {
        request = request.header(name, if name == "Forwarded" { "for=203.0.113.9" } else { "203.0.113.9" });
    }
    assert_eq!(request.send().await.status, 200, "the caller's own word moved it");
    let received = world.upstream.only();
    let passed: Vec<_> = received.headers.iter().filter(|(_, value)| value.as_bytes().starts_with(b"203.")).collect();
    assert!(passed.is_empty(), "{passed:?}");
}

/// Names by which balancers, TLS ends, content networks and rewriters speak to upstreams about a request.
const SPOKEN_BY_OTHERS: [&str; 92] = [
    "Forwarded",
    "X-Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-User",
    "X-Real-Ip",
    "X-Request-Id",
    "Traceparent",
    "X-Rewrite-Url",
    "X-Original-Url",
    "X-Original-Uri",
    "X-Http-Method",
    "X-Http-Method-Override",
    "X-Method-Override",
    "X-Doorward-Subject",
    "X-Doorward-Roles",
    "X-Doorward-Anything",
    "Client-Cert",
    "Client-Cert-Chain",
    "X-Client-Cert",
    "X-Client-Cert-Dn",
    "X-Client-Certificate",
    "X-Ssl-Client",
    "X-Ssl-Client-Cert",
    "X-Ssl-Client-S-Dn",
    "X-Ssl-Client-Verify",
    "Ssl-Client",
    "Ssl-Client-Cert",
    "Ssl-Client-Verify",
    "Remote-User",
    "X-Remote-User",
    "True-Client-Ip",
    "X-Client-Ip",
    "X-Cluster-Client-Ip",
    "Cf-Connecting-Ip",
    "Fastly-Client-Ip",
    "Proxy-Authorization",
    "Remote-Groups",
    "Remote-Email",
    "X-Remote-Group",
    "X-Auth-Request-User",
    "X-Auth-Request-Groups",
    "X-WebAuth-User",
    "X-Authenticated-User",
    "X-Authenticated-Userid",
    "X-Authentik-Username",
    "X-Amzn-Oidc-Data",
    "X-Goog-Authenticated-User-Email",
    "X-Goog-Iap-Jwt-Assertion",
    "Cf-Access-Jwt-Assertion",
    "X-Ms-Client-Principal",
    "Tailscale-User-Login",
    "X-Pomerium-Jwt-Assertion",
    "X-Consumer-Username",
    "X-Tls-Client-Cert",
    "WL-Proxy-Client-Ip",
    "X-Envoy-Original-Path",
    "Front-End-Https",
    "X-Scheme",
    "Impersonate-User",
    "Impersonate-Group",
    "X-Amzn-Mtls-Clientcert-Subject",
    "X-Apigateway-Api-Userinfo",
    "X-Endpoint-API-UserInfo",
    "X-Appengine-User-Email",
    "X-ARR-ClientCert",
    "X-Azure-ClientIP",
    "SM_USER",
    "SMUSER",
    "iv-user",
    "OAM_REMOTE_USER",
    "Teleport-Jwt-Assertion",
    "Ngrok-Auth-User-Email",
    "Shib-Session-Id",
    "Eppn",
    "Mellon-Name-Id",
    "Cas-User",
    "OIDC-Access-Token",
    "Client-IP",
    "X-Originating-IP",
    "Fly-Client-IP",
    "DO-Connecting-IP",
    "Incap-Client-IP",
    "CloudFront-Viewer-Address",
    "X-Vercel-Forwarded-For",
    "X-Nf-Client-Connection-Ip",
    "X-User-Email",
    "X-Email",
    "X-Groups",
    "X-RemoteUser",
    "X-Jwt-Payload",
];

#[tokio::test]
async fn no_name_that_others_speak_by_arrives_with_the_callers_word() {
    const WORD: &str = "the-callers-own-word";
    let world = world_with_identity_headers().await;
    let spellings: [fn(&str) -> String; 6] = [
        str::to_owned,
        str::to_lowercase,
        str::to_uppercase,
        |name| name.to_lowercase().replace('-', "_"),
        |name| name.replacen('-', "_", 1),
        |name| name.replace('-', "."),
    ];
    // No more at once than a head may have fields.
    let heads = spellings.iter().flat_map(|spelling| SPOKEN_BY_OTHERS.chunks(40).map(move |names| (spelling, names)));
    for (spelling, names) in heads {
        let names: Vec<String> = names.iter().map(|name| spelling(name)).collect();
        let lines: String = names.iter().map(|name| format!("{name}: {WORD}\r\n{name}: {WORD}\r\n")).collect();
        for connection in ["keep-alive".to_owned(), names.join(", ")] {
            world
                .passes(&format!(
                    "GET /things/1 HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {{token}}\r\n\
                     Connection: {connection}\r\n{lines}\r\n"
                ))
                .await;
            let received = world.upstream.received().pop().unwrap();
            let carries = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).contains(WORD);
            let passed: Vec<_> = received.headers.iter().filter(|(_, value)| carries(value)).collect();
            assert!(passed.is_empty(), "{passed:?}");
            assert_eq!(received.header("x-doorward-subject"), Some("machine-1"));
            assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
        }
    }
}

#[tokio::test]
async fn a_named_proxy_is_believed_from_the_right() {
    let world = World::changed(|gate| {
        gate.config(json!({ "trusted_proxies": ["127.0.0.0/8"] })).policy(
            r#"@id("not-from-there") forbid(principal, action, resource) when { context.source_ip.isInRange(ip("203.0.113.0/24")) };"#,
        )
    })
    .await;
    let ask = |chain: &str| world.gate.get("/things/1").header("x-forwarded-for", chain).bearer(&world.token).send();
    assert_eq!(ask("198.51.100.7, 203.0.113.9").await.status, 403, "the address that the proxy saw");
    assert_eq!(ask("203.0.113.9, 198.51.100.7").await.status, 200, "what stands left of it is the caller's own word");
    assert_eq!(ask("203.0.113.9, 127.0.0.1").await.status, 403, "a proxy of ours is skipped");
}
