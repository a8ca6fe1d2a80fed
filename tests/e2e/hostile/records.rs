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
