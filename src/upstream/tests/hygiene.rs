//! Which headers cross.

use super::*;
use crate::route::IdentityHeaders;

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

async fn received(ask: Ask) -> Received {
    let (address, mut seen) = recorder().await;
    let answer = ask.send(&upstream_at(address)).await.unwrap();
    assert_eq!(read_all(answer.response.into_body()).await.unwrap(), "ok");
    seen.recv().await.unwrap()
}

#[tokio::test]
async fn no_spelling_of_what_doorward_says_comes_from_the_caller() {
    let mut ask = Ask::get("/a");
    ask.protected = ProtectedHeaders::new(&[name("x-api-key"), name("x_team_token")]);
    ask.route.identity_headers = Some(IdentityHeaders {
        subject: Some(name("x-user")),
        issuer: None,
        email: None,
        groups: Some(name("remote-groups")),
        roles: None,
    });
    let spellings = [
        "X-Api-Key",
        "x_api_key",
        "X-Api_Key",
        "x-team-token",
        "X_Team_Token",
        "X-User",
        "x_user",
        "Remote-Groups",
        "Remote_Groups",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "x-forwarded_for",
        "X-Forwarded-Prefix",
        "X_Forwarded_User",
        "X-Forwarded",
        "X-Real-IP",
        "x_real_ip",
        "X-Doorward-Subject",
        "x_doorward_anything",
        "X-Original-URL",
        "X_Original_Url",
        "X-Rewrite-Url",
        "x_rewrite_url",
        "X-HTTP-Method-Override",
        "X_HTTP_Method_Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "Proxy",
        "Proxy-Authorization",
        "proxy_authorization",
        "HTTP2-Settings",
        "Keep-Alive",
        "keep_alive",
        "Transfer_Encoding",
        "Content_Length",
        "Authorization",
        "Cookie",
        "Expect",
        "tracestate",
        "X_Request_Id",
        "Remote-User",
        "Remote_Email",
        "X-Auth-Request-User",
        "X_Auth_Request_Groups",
        "X-Amzn-Oidc-Data",
        "X-Goog-Iap-Jwt-Assertion",
        "Cf-Access-Jwt-Assertion",
        "X-Ms-Client-Principal",
        "Tailscale-User-Login",
        "X-Pomerium-Claim-Email",
        "X-Ssl-Cert",
        "WL-Proxy-Client-IP",
        "X-Envoy-Original-Path",
        "Impersonate-User",
        "Impersonate_Group",
    ];
    for spelling in spellings {
        ask = ask.header(spelling, "evil").header(spelling, "evil twice");
    }
    let seen = received(ask.header("Forwarded", "for=evil").header("X-Request-Id", "evil").header("Accept", "x")).await;
    for (name, value) in &seen.head.headers {
        assert!(!value.to_str().unwrap().contains("evil"), "{name} crossed");
    }
    let mut names: Vec<_> = seen.head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let own = ["forwarded", "host", "traceparent", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    assert_eq!(names, [&["accept"], &own[..], &["x-request-id"]].concat());
}

#[tokio::test]
async fn what_connection_names_takes_away_the_callers_headers_and_never_doorwards() {
    let mut ask = Ask::get("/a")
        .header("Connection", "close, x-mine, X_Other, X-User, X-Forwarded-For, authorization, x-request-id, host")
        .header("Connection", "forwarded,traceparent")
        .header("X-Mine", "1")
        .header("x-other", "1")
        .header("X-Kept", "1");
    ask.identity = vec![(name("x-user"), HeaderValue::from_static("ada"))];
    ask.credential = vec![(name("authorization"), HeaderValue::from_static("Bearer minted"))];
    let seen = received(ask).await;
    assert_eq!((seen.all("x-mine"), seen.all("x-other"), seen.all("x-kept")), (vec![], vec![], vec!["1"]));
    assert_eq!((seen.all("x-user"), seen.all("authorization")), (vec!["ada"], vec!["Bearer minted"]));
    assert_eq!((seen.all("x-forwarded-for"), seen.all("x-request-id")), (vec!["192.0.2.7"], vec!["request-1"]));
    assert!(seen.all("connection").is_empty() && seen.all("traceparent").len() == 1);
}

#[tokio::test]
async fn an_identity_header_without_a_value_is_still_taken_from_the_caller() {
    let mut ask = Ask::get("/a").header("X_Email", "evil@example.com").header("X-Email", "evil@example.com");
    let none = IdentityHeaders { subject: None, issuer: None, email: None, groups: None, roles: None };
    ask.route.identity_headers = Some(IdentityHeaders { email: Some(name("x-email")), ..none });
    let seen = received(ask).await;
    assert!(seen.all("x-email").is_empty() && seen.all("x_email").is_empty());
}

#[tokio::test]
async fn the_callers_authorization_passes_only_where_the_route_says_so() {
    let ask = || Ask::get("/a").header("Authorization", "Basic caller");
    assert!(received(ask()).await.all("authorization").is_empty());

    let mut passing = ask();
    passing.route.pass_authorization = Some("legacy".into());
    passing.protected = ProtectedHeaders::new(&[name("authorization")]);
    assert_eq!(received(passing).await.all("authorization"), ["Basic caller"]);

    let mut both = ask();
    both.route.pass_authorization = Some("legacy".into());
    both.credential = vec![(name("authorization"), HeaderValue::from_static("Bearer minted"))];
    assert_eq!(received(both).await.all("authorization"), ["Bearer minted"], "the credential wins");

    let (address, mut seen) = recorder().await;
    let mut two = ask().header("Authorization", "Basic other");
    two.route.pass_authorization = Some("legacy".into());
    let error = two.send(&upstream_at(address)).await.unwrap_err();
    assert_eq!((error.code(), error.class()), ("request_malformed", FailureClass::Caller));
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn cookies_pass_only_where_the_route_says_so_and_never_doorwards() {
    let ask = || Ask::get("/a").header("Cookie", "a=1; __Host-doorward=s3cret").header("Cookie", "DOORWARD-login-1=x");
    assert!(received(ask()).await.all("cookie").is_empty());
    let mut passing = ask();
    passing.route.pass_cookies = Some("legacy".into());
    assert_eq!(received(passing).await.all("cookie"), ["a=1"]);
}

#[tokio::test]
async fn the_upstream_is_told_who_called_over_what_and_for_which_host() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut ask = Ask::get("/a%20b?q=%2F&x").header("traceparent", parent).header("tracestate", "v=1");
    ask.downstream.address = "2001:db8::7".parse().unwrap();
    let seen = received(ask).await;
    assert_eq!(seen.head.uri, "/a%20b?q=%2F&x");
    assert_eq!(seen.all("forwarded"), ["for=\"[2001:db8::7]\";proto=https;host=\"api.example.com:8443\""]);
    assert_eq!((seen.all("x-forwarded-for"), seen.all("x-forwarded-proto")), (vec!["2001:db8::7"], vec!["https"]));
    assert_eq!((seen.all("x-forwarded-host"), seen.all("tracestate")), (vec!["api.example.com:8443"], vec!["v=1"]));
    let traceparent = seen.all("traceparent")[0];
    assert!(traceparent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && traceparent != parent);
}

#[tokio::test]
async fn the_host_is_the_one_that_the_settings_choose() {
    let (address, mut seen) = recorder().await;
    let fixed = HostHeader::Fixed("billing.internal".parse().unwrap());
    let own = address.to_string();
    let cases = [
        (HostHeader::Address, own.as_str()),
        (fixed, "billing.internal"),
        (HostHeader::Downstream, "api.example.com:8443"),
    ];
    for (host, expected) in cases {
        for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
            let upstream = upstream(UpstreamSettings { host: host.clone(), protocol, ..settings(&[address]) });
            Ask::get("/").header("Host", "evil").send(&upstream).await.unwrap();
            let seen = seen.recv().await.unwrap();
            let authority = seen.head.uri.authority().map(ToString::to_string);
            let hosts = seen.all("host").into_iter().map(str::to_owned);
            assert_eq!(hosts.chain(authority).collect::<Vec<_>>(), [expected], "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn an_answers_hop_by_hop_headers_and_our_cookies_stay_behind() {
    let address = says(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-hop, content-length\r\nX-Hop: 1\r\nKeep-Alive: a\r\n\
         Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: __host-Doorward=x\r\nX-Own: 1\r\n\r\nok",
    )
    .await;
    let answer = Ask::get("/").send(&upstream_at(address)).await.unwrap().response;
    let mut names: Vec<_> = answer.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "set-cookie", "x-own"]);
    assert_eq!(answer.headers().get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1"]);
}

#[tokio::test]
async fn a_malformed_answer_is_the_upstreams_fault() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
    ] {
        let error = Ask::get("/").send(&upstream_at(says(answer).await)).await.unwrap_err();
        assert_eq!((error.code(), error.class()), ("upstream_protocol", FailureClass::Upstream), "{answer}");
    }
}

#[tokio::test]
async fn interim_answers_are_not_the_answer() {
    let address =
        says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
            .await;
    let answer = Ask::get("/").send(&upstream_at(address)).await.unwrap().response;
    assert_eq!((answer.status(), answer.headers().len()), (StatusCode::NO_CONTENT, 0));
}
