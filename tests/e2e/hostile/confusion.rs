//! Two readers of one request: another route's headers, another spelling of a path, another hop's word.

use serde_json::json;

use super::World;
use crate::support::{Authority, Gate, RecordingUpstream, StaticIssuer};

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {{token}}\r\n\r\n")
}

/// The upstream `api` behind three routes: one tells it who calls, one shows it a secret, one tells it nothing.
async fn world_of_one_upstream_and_several_routes() -> World {
    let names = json!({ "subject": "X-Remote-Subject", "groups": "X-Remote-Groups" });
    World::changed(|gate| {
        gate.file("api.key", "sesame")
            .config(json!({ "credentials": {
                "key": { "fixed": { "header": "X-Api-Key", "secret": "file:api.key" } },
                "open": { "none": { "reason": "a health page" } },
            } }))
            .route("things", json!({ "path": "/things/{*rest}", "identity_headers": names }))
            .route("keyed", json!({ "path": "/keyed/{*rest}", "credential": "key" }))
            .route(
                "open",
                json!({
                    "path": "/open/{*rest}", "credential": "open", "public": { "reason": "a health page" },
                }),
            )
            .route("plain", json!({ "path": "/plain/{*rest}" }))
    })
    .await
}

#[tokio::test]
async fn a_header_that_any_route_sets_is_taken_from_callers_on_every_route() {
    let world = world_of_one_upstream_and_several_routes().await;
    let names =
        ["X-Remote-Subject", "x_remote_subject", "X-Remote.Groups", "X-REMOTE-GROUPS", "X-Api-Key", "X_Api_Key"];
    for (number, name) in names.iter().enumerate() {
        for route in ["open", "plain", "things", "keyed"] {
            let path = format!("/{route}/{number}");
            let mut request = world.gate.get(&path).header(name, "root");
            if route != "open" {
                request = request.bearer(&world.token);
            }
            assert_eq!(request.send().await.status, 200, "{path}");
            let received = world.upstream.received().pop().unwrap();
            assert!(received.headers.values().all(|value| value != "root"), "{name} on {path}: {received:?}");
        }
    }
}

#[tokio::test]
async fn what_names_a_caller_to_others_is_never_the_callers_to_say() {
    let world = World::start().await;
    let names = [
        "Client-Cert",
        "Client-Cert-Chain",
        "X-Client-Cert",
        "X-SSL-Client-S-DN",
        "Ssl-Client-Verify",
        "Remote-User",
        "X-Remote-User",
        "True-Client-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "CF-Connecting-IP",
    ];
    let mut request = world.gate.get("/things/1").bearer(&world.token);
    for name in names {
        request = request.header(name, "root");
    }
    assert_eq!(request.send().await.status, 200);
    let received = world.upstream.only();
    let passed: Vec<_> = received.headers.iter().filter(|(_, value)| *value == "root").map(|(name, _)| name).collect();
    assert!(passed.is_empty(), "{passed:?}");
}

#[tokio::test]
async fn an_opaque_route_is_no_way_around_a_narrower_one() {
    let opaque = json!({ "path": "/npm/{*rest}", "path_mode": { "opaque": { "reason": "package names hold %2F" } } });
    let world = World::changed(|gate| {
        gate.route("npm", opaque)
            .route("admin", json!({ "path": "/npm/admin/{*rest}" }))
            .policy(r#"@id("nobody") forbid(principal, action, resource == Route::"admin");"#)
    })
    .await;
    assert_eq!(world.status_of(&get("/npm/admin/users")).await, Some(403));
    for target in [
        "/npm/%61dmin/users",
        "/npm/admin%2fusers",
        "/npm/%2561dmin/users",
        "/npm//admin/users",
        "/npm/%2fadmin/users",
        "/npm/admin;x=1/users",
        "/npm/;x/admin/users",
        "/npm/admin%3bx/users",
        "/npm/admin%5cusers",
    ] {
        world.refuses_as(&get(target), 400, "path_ambiguous").await;
    }
    world.passes(&get("/npm/@scope%2fname")).await;
    world.passes(&get("/npm/@scope%2fname;v=1//x")).await;
}

#[tokio::test]
async fn an_opaque_route_is_no_way_around_another_opaque_one() {
    let opaque =
        |path: &str| json!({ "path": path, "path_mode": { "opaque": { "reason": "package names hold %2F" } } });
    let world = World::changed(|gate| {
        gate.route("npm", opaque("/npm/{*rest}"))
            .route("users", opaque("/npm/-/user/{*rest}"))
            .route("objects", opaque("/{*key}"))
            .policy(r#"@id("nobody") forbid(principal, action, resource == Route::"users");"#)
    })
    .await;
    assert_eq!(world.status_of(&get("/npm/-/user/x")).await, Some(403));
    for target in [
        "/npm/-/%75ser/x",
        "/npm/-/%2575ser/x",
        "/npm/-/user%2fx",
        "/npm/-//user/x",
        "/npm/-/user;a=b/x",
        "//npm/x",
        "/%6epm/-/user/x",
    ] {
        world.refuses_as(&get(target), 400, "path_ambiguous").await;
    }
    world.passes(&get("/npm/@scope%2fname")).await;
    world.passes(&get("/bucket//a;b%2fc")).await;
}

#[tokio::test]
async fn parameters_that_are_cut_before_escapes_are_undone_hide_no_route() {
    let opaque = json!({ "path": "/npm/{*rest}", "path_mode": { "opaque": { "reason": "package names hold %2F" } } });
    let world = World::changed(|gate| {
        gate.route("npm", opaque)
            .route("admin", json!({ "path": "/npm/admin" }))
            .policy(r#"@id("nobody") forbid(principal, action, resource == Route::"admin");"#)
    })
    .await;
    assert_eq!(world.status_of(&get("/npm/admin")).await, Some(403));
    for target in ["/npm/admin;x%2fy", "/npm/admin;%2f", "/npm/admin%3bx", "/npm/admin%3fx"] {
        world.refuses_as(&get(target), 400, "path_ambiguous").await;
    }
    world.passes(&get("/npm/other;x%2fy")).await;
}

#[tokio::test]
async fn a_last_slash_is_no_way_to_another_route() {
    let world = World::changed(|gate| {
        gate.route("everything", json!({ "path": "/{*rest}" }))
            .route("admin", json!({ "path": "/admin/{*rest}" }))
            .route("settings", json!({ "path": "/site/settings" }))
            .policy(
                r#"@id("nobody") forbid(principal, action, resource) when {
                    resource == Route::"admin" || resource == Route::"settings" };"#,
            )
    })
    .await;
    for target in ["/admin/", "/admin/x", "/site/settings"] {
        assert_eq!(world.status_of(&get(target)).await, Some(403), "{target}");
    }
    for target in ["/admin", "/%61dmin", "/site/settings/", "/things"] {
        world.refuses_as(&get(target), 400, "path_last_slash").await;
    }
    world.passes(&get("/site")).await;
    world.passes(&get("/site/")).await;
}

#[tokio::test]
async fn an_encoded_delimiter_is_the_delimiter() {
    let world = World::changed(|gate| {
        gate.route("rotate", json!({ "path": "/things/keys:rotate" }))
            .route("plus", json!({ "path": "/things/c++" }))
            .policy(r#"@id("no-turn") forbid(principal, action, resource == Route::"rotate");"#)
            .policy(r#"@id("no-plus") forbid(principal, action, resource == Route::"plus");"#)
            .policy(r#"@id("no-stars") forbid(principal, action, resource) when { context.path like "*,all" };"#)
    })
    .await;
    for target in ["/things/keys:rotate", "/things/keys%3Arotate", "/things/keys%3arotate", "/things/c++"] {
        assert_eq!(world.status_of(&get(target)).await, Some(403), "{target}");
    }
    assert_eq!(world.status_of(&get("/things/a%2Call")).await, Some(403));
    world.refuses_as(&get("/things/c%2B%2B"), 400, "path_ambiguous").await;
    world.refuses_as(&get("/things/c%2B+"), 400, "path_ambiguous").await;
    world.passes(&get("/things/a%40b+c%2Bd")).await;
    assert_eq!(world.upstream.only().target, "/things/a@b+c%2Bd");
}

#[tokio::test]
async fn an_escape_is_never_made_by_unescaping() {
    let world = World::start().await;
    for target in ["/things/a%25%32%66b", "/things/a%25%32fb", "/things/%25%36%31", "/things/%2531"] {
        world.refuses_as(&get(target), 400, "path_ambiguous").await;
    }
    world.passes(&get("/things/100%25")).await;
}

#[tokio::test]
async fn an_unreadable_line_of_hops_hides_no_hop() {
    let world = World::changed(|gate| {
        gate.config(json!({ "trusted_proxies": ["127.0.0.0/8"] })).policy(
            r#"@id("not-from-there") forbid(principal, action, resource) when { context.source_ip.isInRange(ip("203.0.113.0/24")) };"#,
        )
    })
    .await;
    let ask = |lines: &str| {
        format!("GET /things/1 HTTP/1.1\r\nHost: gate.test\r\n{lines}Authorization: Bearer {{token}}\r\n\r\n")
    };
    // The caller sent both lines, and the balancer put what it saw at the end of the last one.
    let hidden = "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-For: \u{fc}, 203.0.113.9\r\n";
    assert_eq!(world.status_of(&ask(hidden)).await, Some(403));
    let unreadable = "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-For: \u{fc}\r\n";
    assert_eq!(world.status_of(&ask(unreadable)).await, Some(200));
    assert_eq!(world.upstream.only().header("x-forwarded-for"), Some("0.0.0.0"), "nobody knows who is behind it");
}

#[tokio::test]
async fn a_certificate_beside_a_token_is_two_kinds_only_where_the_route_takes_certificates() {
    let authority = Authority::new();
    let issuer = StaticIssuer::start(&authority).await;
    let upstream = RecordingUpstream::start().await;
    let takes = |evidence: &[&str]| json!({ "issuers": ["machines", "mesh"], "evidence": evidence });
    let gate = Gate::standard(&authority, &issuer, &upstream)
        .config(json!({
            "listeners": { "public": { "tls": {
                "client_certificates": { "mode": "optional", "authorities": "ca.pem" },
            } } },
            "certificate_issuers": { "mesh": { "listeners": ["public"] } },
        }))
        .route("both", json!({ "path": "/both/{*rest}", "accept": takes(&["client_certificate", "bearer"]) }))
        .start()
        .await;
    gate.becomes_ready(200).await;
    let (token, worker) = (issuer.token().mint(), gate.client_with(&authority.client_pair("spiffe://test/worker")));
    let both = worker.get("/both/1").bearer(&token).send().await;
    assert_eq!((both.status.as_u16(), both.json()["code"].as_str()), (400, Some("two_kinds_of_evidence")));
    upstream.heard_nothing();
    assert_eq!(worker.get("/things/1").bearer(&token).send().await.status, 200);
}
