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
        speaks_aws: false,
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
fn what_is_signed_is_judged_as_it_is_signed() {
    let opaque = PathMode::Opaque { reason: "keys of objects are bytes".into() };
    let mut signed = route(0, HostPattern::Any, "/{bucket}/{*key}", opaque);
    signed.speaks_aws = true;
    let router = Router::new(vec![signed]).unwrap();
    for (spelt, path, key) in [
        ("/b/p%72ivate", "/b/private", "private"),
        ("/b/a!b%2d", "/b/a%21b-", "a%21b-"),
        ("/b/%c3%a9//x", "/b/%C3%A9//x", "%C3%A9//x"),
    ] {
        let request = Request::get(spelt).header("host", "a.test").body(()).unwrap();
        let found = router.find(RequestTarget::of(&request.into_parts().0).unwrap()).unwrap().unwrap();
        assert_eq!(found.target.path(), path);
        assert!(found.parameters.iter().any(|parameter| parameter == ("key", key)), "{spelt}");
    }
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

fn index_of(routes: &[(&str, bool)], path: &str) -> Result<usize, TargetError> {
    let mode = |opaque: &bool| match opaque {
        true => PathMode::Opaque { reason: "package names hold slashes".into() },
        false => PathMode::Normal,
    };
    let routes = routes.iter().enumerate().map(|(at, (path, opaque))| route(at, HostPattern::Any, path, mode(opaque)));
    let router = Router::new(routes.collect()).unwrap();
    let request = Request::get(path).header("host", "a.test").body(()).unwrap();
    Ok(router.find(RequestTarget::of(&request.into_parts().0)?)?.unwrap().route.index)
}

#[test]
fn an_opaque_route_is_no_way_around_another_opaque_one() {
    let routes = [("/npm/{*rest}", true), ("/npm/-/user/{*rest}", true), ("/{*key}", true), ("/k//{*rest}", true)];
    for path in ["/npm/-/%75ser/x", "/npm/-/user%2fx", "/npm/-//user/x", "/npm/-/user;a=b/x", "//npm/x", "/%6b//x"] {
        assert_eq!(index_of(&routes, path), Err(TargetError::PathAmbiguous), "{path}");
    }
    assert_eq!(index_of(&routes, "/npm/-/user/x"), Ok(1));
    assert_eq!(index_of(&routes, "/npm/@a%2fb"), Ok(0));
    assert_eq!(index_of(&routes, "/a//b;c"), Ok(2));
}

#[test]
fn path_parameters_are_cut_before_escapes_are_undone_too() {
    let routes = [("/npm/{*rest}", true), ("/npm/admin", false)];
    for path in ["/npm/admin;x%2fy", "/npm/admin;x%2f", "/npm/admin%3bx", "/npm/admin;"] {
        assert_eq!(index_of(&routes, path), Err(TargetError::PathAmbiguous), "{path}");
    }
    assert_eq!(index_of(&routes, "/npm/admin"), Ok(1));
    assert_eq!(index_of(&routes, "/npm/other;x%2fy"), Ok(0));
}

#[test]
fn a_path_that_is_a_more_exact_routes_but_for_its_last_slash_is_refused() {
    let routes = [
        ("/{*rest}", false),
        ("/admin/{*rest}", false),
        ("/a/settings", false),
        ("/b/{id}/", false),
        ("/c", false),
        ("/c/{*rest}", false),
    ];
    for path in ["/admin", "/a/settings/", "/%61dmin", "/b/1", "/c/"] {
        assert_eq!(index_of(&routes, path), Err(TargetError::LastSlash), "{path}");
    }
    let good = [("/admin/", 1), ("/admin/x", 1), ("/a/settings", 2), ("/b/1/", 3), ("/c", 4), ("/c/x/", 5), ("/", 0)];
    for (path, index) in good {
        assert_eq!(index_of(&routes, path), Ok(index), "{path}");
    }
    assert_eq!(index_of(&routes, "/x/"), Ok(0), "a slash that changes no route is the path's own");
    assert_eq!(index_of(&routes, "/ADMIN"), Ok(0), "letter case tells paths apart");
}

#[test]
fn a_last_slash_is_looked_at_in_every_reading() {
    let routes = [("/npm/{*rest}", true), ("/npm/admin/{*rest}", true), ("/npm/all", false)];
    for path in ["/npm/%61dmin", "/npm/admin;x", "/npm/admin", "/npm/%61ll/", "/npm/all%2f"] {
        assert!(matches!(index_of(&routes, path), Err(TargetError::LastSlash | TargetError::PathAmbiguous)), "{path}");
    }
}
