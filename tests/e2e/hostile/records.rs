//! Callers who would rather not stand on record as what they were.

use http::Method;

use super::World;

#[tokio::test]
async fn a_refusal_that_nobody_reads_to_its_end_keeps_its_verdict_on_record() {
    let world = World::start().await;
    let nobody = world.issuer.token().groups(&["nobodies"]).mint();
    let refused = world.gate.request(Method::HEAD, "/things/1").bearer(&nobody).send().await;
    assert_eq!(refused.status, 403);
    assert_eq!(world.gate.only_record_of("/things/1").await.verdict(), ("deny", "not_permitted"));
    let unknown = world.gate.request(Method::HEAD, "/things/2").send().await;
    assert_eq!(unknown.status, 401);
    assert_eq!(world.gate.only_record_of("/things/2").await.verdict(), ("deny", "unauthenticated"));
    let allowed = world.gate.request(Method::HEAD, "/things/3").bearer(&world.token).send().await;
    assert_eq!(allowed.status, 200);
    assert_eq!(world.gate.only_record_of("/things/3").await.verdict(), ("allow", "ok"));
}

#[tokio::test]
async fn an_answer_to_head_over_http2_ends_with_its_head_whoever_gives_it() {
    let world = World::start().await;
    let head = |path: &str| world.gate.request(Method::HEAD, path);
    for (path, draft, status) in [
        ("/things/1", head("/things/1"), 401),
        ("/things/2", head("/things/2").bearer(&world.token), 200),
        ("/nowhere", head("/nowhere"), 404),
        ("/.doorward/jwks.json", head("/.doorward/jwks.json"), 200),
    ] {
        // hyper's client resets a stream that brings bytes where none may come.
        let answer = draft.send_http2().await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0), "{path}");
        assert!(answer.header("content-length").is_some_and(|length| length != "0"), "{path}: {:?}", answer.headers);
        assert_eq!(world.gate.only_record_of(path).await.number("response_bytes"), 0, "{path}");
    }
}
