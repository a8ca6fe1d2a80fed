//! The oracle: whether a request may be at the upstream, judged by what arrived and by what the client had sent.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::grammar::{Grammar, MARK};
use super::journal::{Arrival, Connection, Journal, Turn};
use super::policy::{API_KEY, Caller, HOSTS, Place, unescaped};
use super::reader::{Field, Message};
use super::vocabulary::{FORGED, IDENTITY_NAMES, normal};
use crate::support::ORIGIN;

pub(crate) struct Oracle {
    pub(crate) grammar: Arc<Grammar>,
    pub(crate) journal: Arc<Journal>,
}

/// Fields that Doorward itself says, or says anew.
const OWN: [&str; 19] = [
    "host",
    "authorization",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "traceparent",
    "forwarded",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-api-key",
    "x-doorward-subject",
    "x-doorward-issuer",
    "x-doorward-groups",
    "x-doorward-roles",
];

/// What a request's target and host ask for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// With its port, if any.
    host: String,
    path: String,
    query: Option<String>,
}

impl Oracle {
    /// Judges what arrived; what may not be there is a failure.
    pub(crate) fn arrived(&self, message: &Message, complete: bool) {
        match self.judge(message, complete) {
            Ok(arrival) => self.journal.arrived(arrival),
            Err(why) => self.journal.fail(format!("{why}\narrived: {message:?}")),
        }
    }

    /// A message that is none.
    pub(crate) fn ill_formed(&self, fault: &str, bytes: &[u8]) {
        self.journal.fail(format!("an ill-formed message: {fault}\narrived: {}", bytes.escape_ascii()));
    }

    fn judge(&self, arrived: &Message, complete: bool) -> Result<Arrival, String> {
        well_formed(arrived)?;
        let source = arrived.only("x-forwarded-for").ok_or("not one X-Forwarded-For")?;
        let connection = Connection::of(source).ok_or("the source is no client's")?;
        let id = arrived.only("x-request-id").filter(|id| id.len() == 28).ok_or("not one X-Request-Id")?;
        let id = u64::from_str_radix(&id[16..], 16).map_err(|_| "a request id of another form")?;
        let corresponds = |index: usize, turn: &Turn| {
            let complete = complete && index < turn.forecast.whole.len();
            turn.forecast.message(index).is_some_and(|sent| same(sent, arrived, complete))
        };
        let (turn, found) = self.journal.next(connection, corresponds).ok_or("nobody is on that connection")?;
        let at = |why: String| {
            format!("case {}: {why}\nsent: {}", turn.case, self.grammar.case(turn.case).bytes.escape_ascii())
        };
        let sent = found.and_then(|index| turn.forecast.message(index));
        let sent = sent.ok_or_else(|| at("the client sent no such request".to_owned()))?;
        if complete && found == Some(turn.forecast.whole.len()) {
            return Err(at("the client's body never ended".to_owned()));
        }
        let (place, caller) = self.permitted(sent, arrived, turn.is_mutated).map_err(at)?;
        fields(sent, arrived, place, caller, source, turn.is_mutated).map_err(at)?;
        Ok(Arrival { id, connection, place, caller, complete })
    }

    /// Whether the policy allows it to whom it arrived for, and whether that is who sent it.
    fn permitted(&self, sent: &Message, arrived: &Message, is_mutated: bool) -> Result<(Place, Caller), String> {
        let asked = asked(arrived).ok_or("no target")?;
        let host = asked.host.split(':').next().unwrap_or_default();
        let place = Place::of(host, &asked.path)?;
        let mut evidence = sent.values("authorization");
        let caller = match (evidence.next(), evidence.next()) {
            (Some(value), None) => self.grammar.tokens.caller(&String::from_utf8_lossy(value)),
            _ => Caller::Nobody,
        };
        let caller = if place == Place::Open { Caller::Nobody } else { caller };
        if !place.permits(caller, &arrived.method) {
            return Err(format!("the policy does not allow {caller:?} to {} at {place:?}", arrived.method));
        }
        let told = principal(arrived, place)?;
        if told != format!("{:?}", caller.subject()) {
            return Err(format!("the upstream is told {told}, and {caller:?} called"));
        }
        for field in arrived.fields.iter().chain(&arrived.trailers) {
            // A mutation can make a field of nobody out of the one that holds the token.
            let is_evidence = matches!(&*normal(&field.name), "authorization" | "proxy-authorization" | "cookie");
            if (is_evidence || !is_mutated) && self.grammar.tokens.any_in(&String::from_utf8_lossy(&field.value)) {
                return Err(format!("the caller's token arrived in {}", field.name));
            }
        }
        Ok((place, caller))
    }
}

/// Whom the upstream takes the caller for, as text in quotes: by the assertion, and by the plain headers.
fn principal(arrived: &Message, place: Place) -> Result<String, String> {
    let plain = arrived.only("x-doorward-subject");
    if place == Place::Keyed {
        return plain.map(|subject| format!("{subject:?}")).ok_or("no subject".to_owned());
    }
    let claims = arrived.only("authorization").and_then(|value| claims(value.strip_prefix("Bearer ")?));
    let claims = claims.ok_or("no assertion")?;
    let subject = match (claims["kind"].as_str(), claims["sub"].as_str()) {
        (Some("Anonymous"), Some(subject)) => subject,
        (Some("Workload"), Some(subject)) => subject.strip_prefix("machines|").ok_or("of another issuer")?,
        _ => return Err(format!("an assertion about nobody: {claims}")),
    };
    let roles = claims["roles"].as_array().map(|roles| roles.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    let callers = [Caller::Nobody, Caller::Reader, Caller::Writer, Caller::Both];
    let is_known = |caller: &Caller| caller.subject() == subject && roles.as_deref() == Some(caller.roles());
    if !callers.iter().any(is_known) || claims["iss"] != format!("{ORIGIN}/.doorward") {
        return Err(format!("a strange assertion: {claims}"));
    }
    if plain.is_some_and(|plain| plain != subject) {
        return Err(format!("two subjects: {plain:?} and {subject:?}"));
    }
    Ok(format!("{subject:?}"))
}

fn claims(assertion: &str) -> Option<Value> {
    let payload = assertion.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// What a strict origin server demands besides the framing.
pub(crate) fn well_formed(message: &Message) -> Result<(), String> {
    if message.is_http10 {
        return Err("HTTP/1.0".to_owned());
    }
    if message.is_extended {
        return Err("an extension of a chunk".to_owned());
    }
    let (path, query) = message.target.split_once('?').unwrap_or((&message.target, ""));
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    // What browsers send in queries as it is (URL standard, query percent-encode set).
    let in_query = |byte: u8| in_path(byte) || b"?[]^`{|}\\".contains(&byte);
    if !path.starts_with('/') || !path.bytes().all(in_path) || !query.bytes().all(in_query) {
        return Err("a target that is not in origin form".to_owned());
    }
    let escapes = path.split('%').skip(1);
    if escapes.into_iter().any(|rest| !rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()) || rest.len() < 2) {
        return Err("a broken escape".to_owned());
    }
    let host = message.only("host").ok_or("not one host")?;
    if !HOSTS.contains(&host.split(':').next().unwrap_or_default()) {
        return Err(format!("a host of nobody: {host}"));
    }
    for name in OWN {
        if message.values(name).count() > 1 {
            return Err(format!("{name} twice"));
        }
    }
    if message.only("connection").is_some_and(|value| !matches!(value, "te" | "upgrade")) {
        return Err("a connection field of the caller's".to_owned());
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "proxy", "expect", "cookie", "http2-settings"]
    {
        if message.values(name).next().is_some() {
            return Err(format!("{name} arrived"));
        }
    }
    Ok(())
}

/// Whether `arrived` is what `sent` becomes: method, host, path, query, mark, and the body where both are complete.
fn same(sent: &Message, arrived: &Message, complete: bool) -> bool {
    let (Some(from), Some(to)) = (asked(sent), asked(arrived)) else { return false };
    let is_opaque = to.host.starts_with("files.test") && to.path.starts_with("/objects/");
    let same_path =
        from.path == to.path || (!is_opaque && unescaped(from.path.as_bytes()) == unescaped(to.path.as_bytes()));
    sent.method == arrived.method
        && same_path
        && (&from.host, &from.query) == (&to.host, &to.query)
        && sent.values(MARK).eq(arrived.values(MARK))
        && if complete { sent.body == arrived.body } else { sent.body.starts_with(&arrived.body) }
}

/// `None` for a target that nothing may be made of.
fn asked(message: &Message) -> Option<Asked> {
    let target = message.target.split('#').next().unwrap_or_default();
    let mut hosts = message.values("host");
    let field = hosts.next();
    if hosts.next().is_some() {
        return None;
    }
    let field = field.map(|host| host_of(std::str::from_utf8(host).ok()?));
    let (host, rest) = if target.starts_with('/') {
        (field??, target.to_owned())
    } else {
        let (_, rest) = target.split_once("://")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let host = host_of(authority)?;
        if field.is_some_and(|field| field.as_ref() != Some(&host)) {
            return None;
        }
        (host, if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") })
    };
    let (path, query) = rest.split_once('?').map_or((&*rest, None), |(path, query)| (path, Some(query.to_owned())));
    Some(Asked { host, path: path.to_owned(), query })
}

/// In lower case, without a last dot, the port without leading zeros.
fn host_of(text: &str) -> Option<String> {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    match port {
        None => Some(name),
        Some(port) => Some(format!("{name}:{}", port.parse::<u16>().ok().filter(|_| !port.starts_with('+'))?)),
    }
}

/// Every field is Doorward's own, or one that the client sent and may say.
fn fields(
    sent: &Message,
    arrived: &Message,
    place: Place,
    caller: Caller,
    source: &str,
    is_mutated: bool,
) -> Result<(), String> {
    let host = asked(sent).map(|asked| asked.host).unwrap_or_default();
    let tells = place.tells_identity();
    let some = |there: bool, value: String| there.then_some(value);
    for (name, wanted) in [
        ("host", Some(host.clone())),
        ("x-forwarded-host", Some(host.clone())),
        ("x-forwarded-proto", Some("http".to_owned())),
        ("forwarded", Some(format!("for={source};proto=http;host=\"{host}\""))),
        ("x-api-key", some(place == Place::Keyed, API_KEY.to_owned())),
        ("x-doorward-subject", some(tells, caller.subject().to_owned())),
        ("x-doorward-issuer", some(tells, "machines".to_owned())),
        ("x-doorward-groups", some(tells, caller.groups().join(","))),
        ("x-doorward-roles", some(tells, caller.roles().join(","))),
    ] {
        let value = arrived.only(name);
        if value != wanted.as_deref() {
            return Err(format!("{name} is {value:?}, not {wanted:?}"));
        }
    }
    if arrived.only("upgrade").is_some() && place != Place::Socket {
        return Err("an upgrade that the route does not allow".to_owned());
    }
    if place == Place::Keyed && arrived.values("authorization").next().is_some() {
        return Err("an authorization beside the key".to_owned());
    }
    let trace = arrived.only("traceparent").unwrap_or_default();
    if trace.len() != 55 || !trace.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(format!("traceparent is {trace:?}"));
    }
    let named: Vec<String> = sent
        .values("connection")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|token| normal(String::from_utf8_lossy(token).trim()))
        .collect();
    let is_own = |field: &&Field| OWN.contains(&&*field.name.to_ascii_lowercase());
    for field in arrived.fields.iter().filter(|field| !is_own(field)) {
        callers_own(field, &sent.fields, is_mutated)?;
        if named.contains(&normal(&field.name)) {
            return Err(format!("{} is of the connection", field.name));
        }
    }
    for field in &arrived.trailers {
        callers_own(field, &sent.trailers, is_mutated)?;
    }
    Ok(())
}

/// A field that the client sent so, by a name that names nobody.
fn callers_own(field: &Field, sent: &[Field], is_mutated: bool) -> Result<(), String> {
    let holds = |value: &[u8]| value.windows(FORGED.len()).any(|window| window.eq_ignore_ascii_case(FORGED.as_bytes()));
    let is_it = |sent: &Field| sent.name.eq_ignore_ascii_case(&field.name) && sent.value == field.value;
    if IDENTITY_NAMES.contains(&&*normal(&field.name)) {
        return Err(format!("an identity header of the caller's: {field:?}"));
    }
    // A mutation can make a name of an identity header one of nobody.
    if !is_mutated && holds(&field.value) {
        return Err(format!("the caller's word in {field:?}"));
    }
    if sent.iter().any(is_it) { Ok(()) } else { Err(format!("the client sent no {field:?}")) }
}
