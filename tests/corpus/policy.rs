//! The policy of the corpus, twice: as Doorward is given it, and as the few lines by which the oracle judges.

use serde_json::json;

use crate::support::Gate;

/// Who calls, as a token says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Nobody,
    /// A good token, and no role.
    Stranger,
    Reader,
    Writer,
    Both,
}

/// A route of the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Things,
    Tree,
    Status,
    Orders,
    Open,
    Socket,
    Keyed,
    Objects,
    /// Nobody may come here.
    Forbidden,
}

pub(crate) const HOSTS: [&str; 2] = ["api.test", "files.test"];

/// The secret that upstreams of the route `keyed` are shown.
pub(crate) const API_KEY: &str = "the-key-of-the-upstream";

impl Caller {
    pub(crate) fn subject(self) -> &'static str {
        match self {
            Self::Nobody => "anonymous",
            Self::Stranger => "stranger-1",
            Self::Reader => "reader-1",
            Self::Writer => "writer-1",
            Self::Both => "both-1",
        }
    }

    pub(crate) fn groups(self) -> &'static [&'static str] {
        match self {
            Self::Nobody => &[],
            Self::Stranger => &["others"],
            Self::Reader => &["readers"],
            Self::Writer => &["writers"],
            Self::Both => &["readers", "writers"],
        }
    }

    pub(crate) fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Nobody | Self::Stranger => &[],
            Self::Reader => &["reader"],
            Self::Writer => &["writer"],
            Self::Both => &["reader", "writer"],
        }
    }
}

impl Place {
    /// The route's name in configuration and records.
    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::Things => "things",
            Self::Tree => "tree",
            Self::Status => "status",
            Self::Orders => "orders",
            Self::Open => "open",
            Self::Socket => "socket",
            Self::Keyed => "keyed",
            Self::Objects => "objects",
            Self::Forbidden => "admin",
        }
    }

    /// Whether its upstream is told in plain headers who calls.
    pub(crate) fn tells_identity(self) -> bool {
        matches!(self, Self::Tree | Self::Keyed)
    }

    /// Whether `caller` may use `method` here.
    pub(crate) fn permits(self, caller: Caller, method: &str) -> bool {
        let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
        let writes = matches!(method, "POST" | "PUT" | "PATCH" | "DELETE");
        let has = |role| caller.roles().contains(&role);
        match self {
            Self::Things | Self::Tree | Self::Objects => (reads && has("reader")) || (writes && has("writer")),
            Self::Status | Self::Socket | Self::Keyed => reads && has("reader"),
            Self::Orders => method == "POST" && has("writer"),
            Self::Open => reads,
            Self::Forbidden => false,
        }
    }

    /// The place of a path that arrived; `Err` says why nothing may arrive there.
    ///
    /// `path` is as it was sent upstream, without its query.
    pub(crate) fn of(host: &str, path: &str) -> Result<Self, &'static str> {
        if !path.starts_with('/') {
            return Err("no path");
        }
        if host == "files.test" && path.starts_with("/objects/") {
            return Self::of_object(path);
        }
        let plain = unescaped(path.as_bytes());
        if unescaped(&plain) != plain && unescaped_differs(&plain) {
            return Err("a path that is escaped twice");
        }
        if path.contains(';') || plain.iter().any(|byte| matches!(byte, b'\\' | b';' | 0..=0x1f | 0x7f)) {
            return Err("a path that other readers read otherwise");
        }
        let plain = String::from_utf8(plain).map_err(|_| "a path that is no UTF-8")?;
        if plain.matches('/').count() != path.matches('/').count() {
            return Err("a path with an escaped slash");
        }
        let segments: Vec<&str> = plain[1..].split('/').collect();
        let (last, before) = segments.split_last().unwrap();
        if segments.iter().any(|segment| matches!(*segment, "." | "..")) || before.iter().any(|one| one.is_empty()) {
            return Err("a path with dots or an empty segment");
        }
        let whole = !last.is_empty();
        match (host, &segments[..]) {
            ("api.test", ["tree" | "", "admin", ..] | ["admin", ..]) => Ok(Self::Forbidden),
            ("api.test", ["things", _]) if whole => Ok(Self::Things),
            ("api.test", ["tree", _, ..]) => Ok(Self::Tree),
            ("api.test", ["status"]) => Ok(Self::Status),
            ("api.test", ["orders", _, "lines", _]) if whole => Ok(Self::Orders),
            ("api.test", ["open", _, ..]) => Ok(Self::Open),
            ("api.test", ["socket", _]) if whole => Ok(Self::Socket),
            ("files.test", ["keyed", _]) if whole => Ok(Self::Keyed),
            _ => Err("no route"),
        }
    }

    /// Opaque paths keep their bytes, and still no reading of them may be another place.
    fn of_object(path: &str) -> Result<Self, &'static str> {
        let cut = |path: &[u8]| -> Vec<u8> {
            let segments = path.split(|byte| *byte == b'/').map(|one| one.split(|byte| *byte == b';').next().unwrap());
            segments.collect::<Vec<_>>().join(&b'/')
        };
        let (once, twice) = (unescaped(path.as_bytes()), unescaped(&unescaped(path.as_bytes())));
        for plain in
            [path.as_bytes().to_vec(), cut(path.as_bytes()), once.clone(), cut(&once), twice.clone(), cut(&twice)]
        {
            let text = String::from_utf8_lossy(&plain).replace('\\', "/");
            let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
            if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
                return Err("an opaque path with dots");
            }
            if matches!(segments[..], ["objects", "vault", ..]) {
                return Ok(Self::Forbidden);
            }
        }
        Ok(Self::Objects)
    }

    /// The gate with these routes, in front of `upstream`.
    pub(crate) fn configure(gate: Gate, upstream: &str) -> Gate {
        let opaque = json!({ "opaque": { "reason": "keys hold %2F" } });
        let files = "files.test";
        let api = "api.test";
        let gate = gate
            .file("api.key", API_KEY)
            .config(json!({
                "upstreams": { "api": { "addresses": [upstream], "host": "downstream" } },
                "credentials": { "key": { "fixed": { "header": "X-Api-Key", "secret": "file:api.key" } } },
            }))
            .role("reader", json!({ "issuer": "machines", "groups": ["readers"] }))
            .role("writer", json!({ "issuer": "machines", "groups": ["writers"] }))
            .route("things", json!({ "host": api, "path": "/things/{id}" }))
            .route("tree", json!({ "host": api, "path": "/tree/{*rest}", "identity_headers": {} }))
            .route("tree-admin", json!({ "host": api, "path": "/tree/admin/{*rest}" }))
            .route("admin", json!({ "host": api, "path": "/admin/{*rest}" }))
            .route("status", json!({ "host": api, "path": "/status" }))
            .route("orders", json!({ "host": api, "path": "/orders/{id}/lines/{line}" }))
            .route("open", json!({ "host": api, "path": "/open/{*rest}", "public": { "reason": "a health page" } }))
            .route("socket", json!({ "host": api, "path": "/socket/{id}", "websocket": true }))
            .route("keyed", json!({ "host": files, "path": "/keyed/{id}", "credential": "key", "identity_headers": {} }))
            .route("objects", json!({ "host": files, "path": "/objects/{*key}", "path_mode": opaque }))
            .route("vault", json!({ "host": files, "path": "/objects/vault/{*rest}" }))
            .policy(
                r#"@id("orders") permit(principal in Role::"writer", action == Action::"POST", resource == Route::"orders");
                   @id("open") forbid(principal, action in Action::"write", resource == Route::"open");"#,
            );
        let reads = ["things", "tree", "status", "socket", "keyed", "objects"].map(|route| (route, "read", "reader"));
        let writes = ["things", "tree", "objects"].map(|route| (route, "write", "writer"));
        reads.into_iter().chain(writes).fold(gate, |gate, (route, action, role)| {
            gate.policy(&format!(
                r#"@id("{route}-{action}")
                   permit(principal in Role::"{role}", action in Action::"{action}", resource == Route::"{route}");"#
            ))
        })
    }
}

/// Whether a second unescaping finds an escape.
fn unescaped_differs(plain: &[u8]) -> bool {
    plain.windows(3).any(|three| three[0] == b'%' && three[1].is_ascii_hexdigit() && three[2].is_ascii_hexdigit())
}

/// The bytes with every escape undone once; what is no escape stays.
pub(crate) fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                plain.push(u8::try_from(high * 16 + low).unwrap());
                at += 3;
            }
            _ => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

#[test]
fn a_path_is_where_a_careful_reader_finds_it() {
    for (host, path, place) in [
        ("api.test", "/things/caf%C3%A9", Place::Things),
        ("api.test", "/tree/", Place::Tree),
        ("api.test", "/tree/x/admin", Place::Tree),
        ("api.test", "/tree/admin", Place::Forbidden),
        ("api.test", "/tree/%61dmin/x", Place::Forbidden),
        ("api.test", "/admin/", Place::Forbidden),
        ("api.test", "/orders/7/lines/8", Place::Orders),
        ("files.test", "/objects/a%2Fb;c//d", Place::Objects),
        ("files.test", "/objects/%2576ault/x", Place::Forbidden),
        ("files.test", "/objects/;x/vault;v", Place::Forbidden),
        ("files.test", "/objects/vault%5cx", Place::Forbidden),
    ] {
        assert_eq!(Place::of(host, path), Ok(place), "{path}");
    }
    for (host, path) in [
        ("api.test", "/things/"),
        ("api.test", "/things/7/8"),
        ("api.test", "/status/"),
        ("api.test", "/tree//x"),
        ("api.test", "/tree/%2e%2e/x"),
        ("api.test", "/tree/a%2fb"),
        ("api.test", "/tree/a%5cb"),
        ("api.test", "/tree/a;b"),
        ("api.test", "/tree/%2561"),
        ("api.test", "/tree/%c0%af"),
        ("api.test", "*"),
        ("files.test", "/things/7"),
        ("files.test", "/objects/..%2fkeyed"),
        ("evil.test", "/things/7"),
    ] {
        assert!(Place::of(host, path).is_err(), "{path}");
    }
}

#[test]
fn only_who_is_permitted_is_permitted() {
    use Caller::{Both, Nobody, Reader, Stranger, Writer};
    assert!(Place::Things.permits(Reader, "GET") && !Place::Things.permits(Reader, "POST"));
    assert!(Place::Things.permits(Writer, "DELETE") && !Place::Things.permits(Writer, "GET"));
    assert!(Place::Orders.permits(Both, "POST") && !Place::Orders.permits(Both, "PUT"));
    assert!(Place::Open.permits(Nobody, "GET") && !Place::Open.permits(Both, "POST"));
    assert!(!Place::Things.permits(Stranger, "GET") && !Place::Things.permits(Nobody, "GET"));
    assert!(!Place::Forbidden.permits(Both, "GET") && !Place::Things.permits(Both, "TRACE"));
}
