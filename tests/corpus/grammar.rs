//! The grammar: sound and odd requests, made of a target, a host, headers and a framing.

use std::net::SocketAddr;

use super::dice::Dice;
use super::mutation;
use super::policy::{Caller, HOSTS, Place};
use super::tokens::Tokens;
use super::vocabulary::{FORGED, FRAMINGS, IDENTITY_NAMES, ODD_CHUNKS, ODD_HOSTS, ODD_TARGETS, PLAIN_LINES};

/// The field by which every request tells which one of which case it is.
pub(crate) const MARK: &str = "X-Case";

/// One case: the bytes of one turn on a connection, and what they were made of.
pub(crate) struct Case {
    pub(crate) bytes: Vec<u8>,
    pub(crate) productions: Vec<&'static str>,
    pub(crate) mutations: Vec<&'static str>,
    /// How many bytes are written first, where that is not all.
    pub(crate) first_write: Option<usize>,
}

/// Makes cases: the same one for the same seed, number and tokens.
pub(crate) struct Grammar {
    pub(crate) seed: u64,
    pub(crate) tokens: Tokens,
    pub(crate) lure: SocketAddr,
}

/// A request in the making.
struct Draft {
    method: &'static str,
    target: String,
    lines: Vec<Vec<u8>>,
    body: Vec<u8>,
}

const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"];
const ODD_METHODS: [&str; 7] = ["TRACE", "CONNECT", "PROPFIND", "get", "GET/", "G", "PRI"];
const PLACES: [Place; 8] = [
    Place::Things,
    Place::Tree,
    Place::Status,
    Place::Orders,
    Place::Open,
    Place::Socket,
    Place::Keyed,
    Place::Objects,
];
const CALLERS: [Caller; 5] = [Caller::Nobody, Caller::Stranger, Caller::Reader, Caller::Writer, Caller::Both];
const SEGMENTS: [&str; 14] = [
    "7",
    "a",
    "red-shoes",
    "caf%C3%A9",
    "x.y",
    "~me",
    "a%20b",
    "a:b",
    "100%25",
    "q!$&'()*+,=@",
    "Admin",
    "%41bc",
    "vault",
    "admin2",
];
const QUERIES: [&str; 8] =
    ["", "", "?q=1", "?q=%2e%2e%2f", "?url=http://LURE/x", "?a=b&a=c", "?", "?next=/tree/admin/x?y"];

impl Grammar {
    /// The case of this number.
    pub(crate) fn case(&self, number: u64) -> Case {
        let mut dice = Dice::of(self.seed, number);
        let mut productions = Vec::with_capacity(6);
        let mut bytes = self.draft(&mut dice, number, 0, &mut productions).bytes();
        if dice.percent(6) {
            productions.push("pipelined");
            for part in 1..=1 + dice.below(2) {
                bytes.extend(self.draft(&mut dice, number, part, &mut productions).bytes());
            }
        }
        let mut mutations = Vec::new();
        if dice.percent(64) {
            for turn in 0..1 + dice.below(5) / 2 {
                // A mark of its own: two requests alike could not be told apart.
                let seed = self.seed ^ u64::try_from(turn + 1).unwrap();
                let other = || self.draft(&mut Dice::of(seed, number), number, 9 + turn, &mut Vec::new()).bytes();
                let (mutated, name) = mutation::mutate(bytes, &mut dice, self.lure, other);
                bytes = mutated;
                mutations.push(name);
            }
        }
        let first_write = dice.percent(4).then(|| dice.below(bytes.len()));
        Case { bytes, productions, mutations, first_write }
    }

    fn draft(&self, dice: &mut Dice, number: u64, part: usize, productions: &mut Vec<&'static str>) -> Draft {
        let place = *dice.pick(&PLACES);
        let sound = dice.percent(88);
        let allowed = |dice: &mut Dice| loop {
            let (caller, method) = (*dice.pick(&CALLERS), dice.word(&METHODS));
            if place.permits(caller, method) {
                return (caller, method);
            }
        };
        let (caller, method) = if sound { allowed(dice) } else { (*dice.pick(&CALLERS), dice.word(&METHODS)) };
        productions.push(if sound { "caller who may" } else { "any caller" });
        productions.push(place.route());
        let method = if dice.percent(1) {
            productions.push("odd method");
            dice.word(&ODD_METHODS)
        } else {
            method
        };
        let mut draft =
            Draft { method, target: self.target(place, dice, productions), lines: Vec::new(), body: Vec::new() };
        self.host(&mut draft, place, dice, productions);
        draft.line(format!("{MARK}: {number}.{part}"));
        self.authorization(&mut draft, caller, dice, productions);
        for _ in 0..dice.below(4) {
            draft.line(dice.word(&PLAIN_LINES));
        }
        if dice.percent(5) {
            productions.push("headers named by connection");
            draft.line(format!("Connection: {}", spelled("x-hop-by-hop", dice)));
            draft.line(format!("{}: {FORGED}", spelled("x-hop-by-hop", dice)));
        }
        if dice.percent(35) {
            identity(&mut draft, dice, productions);
        }
        if place == Place::Socket && dice.percent(70) {
            productions.push("upgrade");
            draft.line("Connection: Upgrade");
            draft.line("Upgrade: websocket");
            draft.line("Sec-WebSocket-Version: 13");
            draft.line("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==");
        }
        framing(&mut draft, dice, productions);
        if dice.percent(30) {
            let (one, other) = (dice.below(draft.lines.len()), dice.below(draft.lines.len()));
            draft.lines.swap(one, other);
        }
        draft
    }

    fn target(&self, place: Place, dice: &mut Dice, productions: &mut Vec<&'static str>) -> String {
        if dice.percent(7) {
            productions.push("odd target");
            let of_files = |target: &&&str| target.starts_with("/objects") == (host_of(place) == "files.test");
            let odd: Vec<&'static str> = ODD_TARGETS.iter().filter(of_files).copied().collect();
            return dice.word(&odd).replace("LURE", &self.lure.to_string());
        }
        let mut segment = || dice.word(&SEGMENTS);
        let path = match place {
            Place::Things => format!("/things/{}", segment()),
            Place::Status => "/status".to_owned(),
            Place::Orders => format!("/orders/{}/lines/{}", segment(), segment()),
            Place::Socket => format!("/socket/{}", segment()),
            Place::Keyed => format!("/keyed/{}", segment()),
            Place::Open => format!("/open/{}", segment()),
            Place::Tree => format!("/tree/{}/{}", segment(), segment()),
            Place::Objects => format!("/objects/{}%2f{};v=1//{}", segment(), segment(), segment()),
            Place::Forbidden => "/admin/x".to_owned(),
        };
        format!("{path}{}", dice.word(&QUERIES).replace("LURE", &self.lure.to_string()))
    }

    fn host(&self, draft: &mut Draft, place: Place, dice: &mut Dice, productions: &mut Vec<&'static str>) {
        let host = host_of(place);
        match dice.below(100) {
            0..=79 => draft.line(format!("Host: {host}")),
            80..=84 => {
                productions.push("host in upper case");
                draft.line(format!("hOST:{}", host.to_ascii_uppercase()));
            }
            85..=88 => {
                productions.push("host with its dot");
                draft.line(format!("Host: {host}."));
            }
            89..=93 => {
                productions.push("host with a port");
                draft.line(format!("Host: {host}:{}", dice.word(&["80", "8443", "0", "65535", "080"])));
            }
            94..=95 => {
                productions.push("the other host");
                draft.line(format!("Host: {}", dice.word(&HOSTS)));
            }
            96 => productions.push("no host"),
            97 => {
                productions.push("two hosts");
                draft.line(format!("Host: {host}"));
                draft.line(format!("Host: {}", dice.word(&HOSTS)));
            }
            _ => {
                productions.push("odd host");
                draft.line(format!("Host: {}", dice.word(&ODD_HOSTS).replace("LURE", &self.lure.to_string())));
            }
        }
    }

    fn authorization(&self, draft: &mut Draft, caller: Caller, dice: &mut Dice, productions: &mut Vec<&'static str>) {
        let token = self.tokens.of(caller, dice.below(4));
        if dice.percent(8) {
            let (what, token) = dice.pick(self.tokens.bad());
            productions.push(what);
            draft.line(format!("Authorization: Bearer {token}"));
        } else if let Some(token) = token {
            match dice.below(40) {
                0 => {
                    productions.push("two authorizations");
                    draft.line(format!("Authorization: Bearer {token}"));
                    draft.line(format!("Authorization: Bearer {}", dice.pick(self.tokens.bad()).1));
                }
                1 => {
                    productions.push("another scheme");
                    draft.line(format!(
                        "Authorization: {} {token}",
                        dice.word(&["Basic", "DPoP", "Bearer,", "Token", ""])
                    ));
                }
                2 => {
                    productions.push("scheme in lower case");
                    draft.line(format!("authorization: bearer {token}"));
                }
                _ => draft.line(format!("Authorization: Bearer {token}")),
            }
        }
    }
}

fn host_of(place: Place) -> &'static str {
    HOSTS[usize::from(matches!(place, Place::Keyed | Place::Objects))]
}

impl Draft {
    fn line(&mut self, line: impl AsRef<str>) {
        self.lines.push(line.as_ref().as_bytes().to_vec());
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for line in &self.lines {
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Fields by which the client would pass for somebody else, in any spelling, beside others and named by `Connection`.
fn identity(draft: &mut Draft, dice: &mut Dice, productions: &mut Vec<&'static str>) {
    productions.push("identity headers");
    let mut names = Vec::new();
    for _ in 0..1 + dice.below(4) {
        let name = spelled(dice.word(&IDENTITY_NAMES), dice);
        for _ in 0..1 + dice.below(5) / 4 {
            let value = *dice.pick(&[
                FORGED,
                "root, forged-by-the-caller",
                "for=forged-by-the-caller",
                "\"forged-by-the-caller\"",
            ]);
            let at = dice.below(draft.lines.len() + 1);
            draft.lines.insert(at, format!("{name}: {value}").into_bytes());
        }
        names.push(name);
    }
    if dice.percent(20) {
        productions.push("identity headers named by connection");
        names
            .push((dice.word(&["authorization", "x-forwarded-for", "host", "x-doorward-subject", "close"])).to_owned());
        draft.line(format!("Connection: {}", names.join(", ")));
    }
}

/// A name as somebody may spell it.
pub(crate) fn spelled(name: &str, dice: &mut Dice) -> String {
    match dice.below(6) {
        0 => name.to_owned(),
        1 => name.to_ascii_uppercase(),
        2 => name.replace('-', "_"),
        3 => name.replacen('-', "_", 1),
        4 => name.replace('-', "."),
        _ => name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect::<Vec<_>>().join("-"),
    }
}

/// A body and the lines that frame it.
fn framing(draft: &mut Draft, dice: &mut Dice, productions: &mut Vec<&'static str>) {
    if dice.percent(5) {
        productions.push("odd framing");
        for _ in 0..1 + dice.below(2) {
            draft.line(dice.word(&FRAMINGS));
        }
        draft.body = dice.word(&ODD_CHUNKS).as_bytes().to_vec();
        return;
    }
    let writes = matches!(draft.method, "POST" | "PUT" | "PATCH");
    if !writes && !dice.percent(3) {
        return;
    }
    let length = *dice.pick(&[0, 0, 1, 5, 30, 200, 3000]);
    let body: Vec<u8> = (0..length).map(|_| dice.byte()).collect();
    if dice.percent(60) {
        productions.push("content length");
        draft.line(format!("Content-Length: {}", body.len()));
        draft.body = body;
        return;
    }
    productions.push("chunked");
    draft.line("Transfer-Encoding: chunked");
    let mut framed = Vec::new();
    for chunk in body.chunks(1 + dice.below(100)) {
        let size = if dice.percent(80) { format!("{:x}", chunk.len()) } else { format!("00{:X}", chunk.len()) };
        framed.extend_from_slice(size.as_bytes());
        if dice.percent(5) {
            framed.extend_from_slice(format!(";note={FORGED}").as_bytes());
        }
        framed.extend_from_slice(b"\r\n");
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n");
    if dice.percent(30) {
        productions.push("trailers");
        let name = spelled(dice.word(&IDENTITY_NAMES), dice);
        draft.line(format!("Trailer: Checksum, {name}"));
        framed.extend_from_slice(format!("Checksum: 7\r\n{name}: {FORGED}\r\n").as_bytes());
    }
    framed.extend_from_slice(b"\r\n");
    draft.body = framed;
}
