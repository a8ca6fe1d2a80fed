//! A request's target: what route, policy and upstream are given.

use std::sync::{Arc, LazyLock};

use cedar_policy::EvalResult;
use http::request::Parts;
use http::{HeaderValue, Request, Uri};
use percent_encoding::percent_decode_str;

use crate::clock::Timestamp;
use crate::identity::{Principal, testing};
use crate::policy::{RequestFacts, whole_context};
use crate::route::{HostPattern, PathMode, Route, RouteMatch, Router};
use crate::target::RequestTarget;
use crate::upstream::uri_of;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// `host LF uri`, or a URI alone: what passes has one form, and route, policy and upstream all see that.
///
/// # Panics
/// When it does not.
pub fn target(bytes: &[u8]) {
    let (host, uri) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => bytes.split_at(end),
        None => (&b"api.test"[..], bytes),
    };
    let Some(parts) = parts_of(host, uri.strip_prefix(b"\n").unwrap_or(uri)) else { return };
    let Ok(request) = RequestTarget::of(&parts) else { return };
    assert_eq!(request.raw_path(), parts.uri.path(), "the raw path is what came");
    is_normal_host(&request);
    if let Some(path) = request.normal_path() {
        is_normal_path(&request, path);
    }
    if let Some(found) = WORLD.found(&parts) {
        WORLD.everybody_sees_the_same(&found, &parts);
    }
}

/// The head of a request for this URI with this `Host`, where such a request can be.
pub(super) fn parts_of(host: &[u8], uri: &[u8]) -> Option<Parts> {
    let uri = Uri::try_from(uri).ok()?;
    let host = HeaderValue::from_bytes(host).ok()?;
    Some(Request::get(uri).header("host", host).body(()).ok()?.into_parts().0)
}

fn is_normal_host(request: &RequestTarget) {
    let again = parts_of(request.host().as_bytes(), b"/").and_then(|parts| RequestTarget::of(&parts).ok());
    assert_eq!(again.as_ref().map(RequestTarget::host), Some(request.host()), "the host is its own normal form");
}

fn is_normal_path(request: &RequestTarget, path: &str) {
    let again = parts_of(request.host().as_bytes(), path.as_bytes()).and_then(|parts| RequestTarget::of(&parts).ok());
    let again = again.as_ref().and_then(RequestTarget::normal_path);
    assert_eq!(again, Some(path), "the normal form of {:?} is its own", request.raw_path());
    assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path:?}");
    assert!(!path.contains("//") && !path.contains(['\\', ';', '?', '#']), "{path:?}");
    // However often somebody decodes it, it gains no separator, no dot segment and no control byte.
    let mut decoded = path.to_owned();
    for _ in 0..3 {
        decoded = percent_decode_str(&decoded).decode_utf8().expect("the bytes of a path are text").into_owned();
        assert!(!decoded.chars().any(|character| character.is_ascii_control()), "{path:?}");
        assert_eq!(decoded.matches(['/', '\\']).count(), path.matches('/').count(), "{path:?}");
        assert!(!decoded.split('/').any(|segment| matches!(segment, "." | "..")), "{path:?}");
    }
}

/// Routes of both forms, one within the reach of another.
pub(super) struct World {
    router: Router,
    caller: Arc<Principal>,
}

impl World {
    pub(super) fn new() -> Self {
        let opaque = || PathMode::Opaque { reason: "package names hold %2F".into() };
        let routes = [
            ("/things/{id}", PathMode::Normal),
            ("/things/{id}/parts/{*rest}", PathMode::Normal),
            ("/admin/", PathMode::Normal),
            ("/npm/{*rest}", opaque()),
            ("/npm/private/{name}", PathMode::Normal),
            ("/{*rest}", PathMode::Normal),
        ];
        let route = |(index, (path, path_mode)): (usize, (&str, PathMode))| Route {
            name: format!("route-{index}").into(),
            index,
            host: HostPattern::Any,
            path: path.into(),
            path_mode,
            ..testing::route()
        };
        let router = Router::new(routes.into_iter().enumerate().map(route).collect()).expect("the routes are sound");
        Self { router, caller: Arc::new(Principal::anonymous(Timestamp::default())) }
    }

    /// The route of a request, where it has one.
    pub(super) fn found(&self, parts: &Parts) -> Option<RouteMatch> {
        self.router.find(RequestTarget::of(parts).ok()?).ok().flatten()
    }

    /// Fails unless the path that the route's pattern caught, the path in the policies' context and the path in the
    /// upstream's request line are the same bytes: the raw ones where the route is opaque, the normal form otherwise.
    pub(super) fn everybody_sees_the_same(&self, found: &RouteMatch, parts: &Parts) {
        let RouteMatch { route, target, parameters } = found;
        let request = RequestTarget::of(parts).expect("it was read before");
        let form = if route.is_opaque() { Some(request.raw_path()) } else { request.normal_path() };
        assert_eq!(Some(target.path()), form);

        let mut caught = route.path.to_string();
        for (name, value) in parameters.iter() {
            for hole in [format!("{{{name}}}"), format!("{{*{name}}}")] {
                caught = caught.replace(&hole, &value.replace('{', "\u{1}"));
            }
        }
        // `/a/{*rest}` means `/a/` too, and catches nothing there.
        let caught = caught.replace("{*rest}", "").replace('\u{1}', "{");
        assert_eq!(caught, target.path(), "what {} caught", route.path);

        let facts = RequestFacts {
            route,
            target,
            parameters,
            source_ip: [192, 0, 2, 1].into(),
            now: Timestamp::from_unix_seconds(1_700_000_000),
        };
        let context = whole_context(&self.caller, &facts).expect("every target has a context");
        let text = |name: &str| match context.get(name) {
            Some(EvalResult::String(text)) => text,
            other => panic!("`{name}` is {other:?}"),
        };
        assert_eq!((text("path").as_str(), text("host").as_str()), (target.path(), target.host()));
        let Some(EvalResult::Record(seen)) = context.get("parameters") else { panic!("no parameters") };
        for (name, value) in parameters.iter() {
            assert_eq!(seen.get(name), Some(&EvalResult::String(value.to_owned())));
        }

        let sent = uri_of(target).expect("every target can be written");
        assert_eq!((sent.path(), sent.query()), (target.path(), target.query()));
        assert_eq!(sent.to_string(), target.path_and_query());
    }
}
