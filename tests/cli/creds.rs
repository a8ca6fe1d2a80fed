use serde_json::json;

use crate::support::World;

#[test]
fn credentials_are_listed_with_the_routes_that_use_them() {
    let world = World::new();
    let output = world.run(&["creds", "list"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.contains("signed_assertion"), "{}", output.stdout);
    let listed = world.run(&["creds", "list", "--json"]).json();
    assert!(listed["credentials"].as_array().is_some_and(|list| !list.is_empty()), "{listed}");
}

#[test]
fn a_route_that_is_not_there_is_said_with_those_that_are() {
    let world = World::new();
    let output = world.run(&["creds", "mint", "--dry-run", "--route", "none"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("no route is named `none`; there are "), "{}", output.stderr);
    assert_eq!(world.run(&["creds", "mint", "--route", "none"]).code, 2, "nothing but a dry run is offered");
}

#[test]
fn a_token_is_printed_in_the_form_that_sdks_take() {
    let world = World::new();
    let token = |exp: i64| {
        use base64::Engine as _;
        let encode =
            |value: serde_json::Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", encode(json!({ "alg": "ES256" })), encode(json!({ "sub": "x", "exp": exp })))
    };
    let good = token(4_102_444_800);
    world.write("token.jwt", &format!("{good}\n"));
    let output = world.run(&["creds", "process", "--token", "token.jwt"]);
    let printed = output.json();
    assert_eq!((output.code, &printed["Version"]), (0, &json!(1)), "{}", output.stderr);
    assert_eq!((&printed["SessionToken"], &printed["Expiration"]), (&json!(good), &json!("2100-01-01T00:00:00Z")));
    world.write("token.jwt", &token(1));
    let output = world.run(&["creds", "process", "--token", "token.jwt"]);
    assert!(output.code == 3 && output.stderr.contains("ended at 1970-01-01"), "{}", output.stderr);
    world.write("token.jwt", "opaque");
    assert_eq!(world.run(&["creds", "process", "--token", "token.jwt"]).code, 2);
}
