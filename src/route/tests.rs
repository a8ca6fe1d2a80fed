use super::*;
use http::Request;

fn route(index: usize, host: HostPattern, path: &str, path_mode: PathMode) -> Route {
    Route {
        name: format!("r{index}").into(),
        index,
        host,
        path: path.into(),
        path_mode,
        environment: "production".into(),
        tags: BTreeSet::new(),
        access: Access::Authenticated(Accepts::default()),
        login: LoginRequirement::default(),
        cors: Cors::default(),
        csrf_origins: BTreeSet::new(),
        pass_authorization: None,
        pass_cookies: None,
        websocket: false,
        identity_headers: None,
        limits: RouteLimits::default(),
    }
}

fn router() -> Router {
    let opaque = PathMode::Opaque { reason: "package names hold slashes".into() };
    let hosts = [HostPattern::Exact("a.test".into()), HostPattern::Below("test".into()), HostPattern::Any];
    let [exact, below, any] = hosts;
    Router::new(vec![
        route(0, exact.clone(), "/api/{*rest}", PathMode::Normal),
        route(1, exact.clone(), "/api/users/{id}", PathMode::Normal),
        route(2, exact, "/npm/{*name}", opaque),
        route(3, below, "/{*rest}", PathMode::Normal),
        route(4, any, "/only", PathMode::Normal),
    ])
    .unwrap()
}

fn find(host: &str, path: &str) -> Result<Option<(usize, String)>, TargetError> {
    let request = Request::get(path).header("host", host).body(()).unwrap();
    let found = router().find(RequestTarget::of(&request.into_parts().0)?)?;
    Ok(found.map(|found| (found.route.index, found.target.path().to_owned())))
}

#[test]
fn the_most_specific_host_and_path_win() {
    assert_eq!(find("a.test", "/api/x/y").unwrap().unwrap().0, 0);
    assert_eq!(find("a.test", "/api/").unwrap().unwrap().0, 0);
    assert_eq!(find("A.test.", "/api/users/7").unwrap().unwrap().0, 1);
    assert_eq!(find("x.y.test", "/api/x").unwrap().unwrap().0, 3);
    assert_eq!(find("other", "/only").unwrap().unwrap().0, 4);
    assert_eq!(find("a.test", "/only").unwrap(), None, "paths do not fall through to a wider host");
    assert_eq!(find("test", "/x").unwrap(), None, "a name is not below itself");
}

#[test]
fn an_opaque_route_is_matched_by_raw_bytes_only() {
    assert_eq!(find("a.test", "/npm/@a%2fb").unwrap().unwrap(), (2, "/npm/@a%2fb".to_owned()));
    assert_eq!(find("a.test", "/%6epm/x").unwrap_err(), TargetError::PathAmbiguous);
    assert_eq!(find("a.test", "/api/a%2fb").unwrap_err(), TargetError::PathAmbiguous);
    assert_eq!(find("a.test", "/npm/..%2fx").unwrap_err(), TargetError::DotSegment);
}

#[test]
fn a_pattern_taken_twice_is_a_fault_of_the_second() {
    let same = |index| route(index, HostPattern::Any, "/a/{id}", PathMode::Normal);
    assert!(matches!(Router::new(vec![same(0), same(1)]).unwrap_err().as_slice(), [(1, RouteError::Conflict(_))]));
}
