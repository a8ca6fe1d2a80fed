//! Cookies on the wire: names, chunks, attributes. What they hold is sealed elsewhere.

use http::{HeaderMap, HeaderValue, header};

use super::origin::Origin;

/// Bytes of value in one chunk: browsers take about 4,096 with name and attributes.
const CHUNK: usize = 3800;

/// Chunks that one session may fill.
pub(super) const MOST_CHUNKS: usize = 5;

/// Cookies of ours that are looked at in one request; more of them are nobody's browser.
const MOST_COOKIES: usize = 80;

/// Names and attributes of our cookies on one origin.
#[derive(Clone, Debug)]
pub(super) struct CookieNames {
    session: &'static str,
    login: &'static str,
    secure: bool,
}

/// A session cookie that no browser of ours would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CookieFault {
    /// One chunk came twice.
    Twice,
    /// A chunk is missing, out of range or empty.
    Malformed,
}

/// A session cookie's value, joined from its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) text: String,
    pub(super) chunks: usize,
}

impl CookieNames {
    /// `__Host-` names where the origin is secure. On plain loopback browsers refuse that prefix, so the names go
    /// without it.
    pub(super) fn of(origin: &Origin) -> Self {
        if origin.is_secure() {
            Self { session: "__Host-doorward", login: "__Host-doorward_login_", secure: true }
        } else {
            Self { session: "doorward", login: "doorward_login_", secure: false }
        }
    }

    /// Name of the session cookie, without a chunk's number.
    pub(super) fn session(&self) -> &'static str {
        self.session
    }

    /// Name of the cookie of the login attempt whose state has this short form.
    pub(super) fn login(&self, short: &str) -> String {
        format!("{}{short}", self.login)
    }

    /// Name of the cookie that counts logins in a row.
    pub(super) fn count(&self) -> String {
        format!("{}count", self.login)
    }

    /// Our login cookies in a request, the counter left out: short state and value.
    pub(super) fn logins<'a>(&self, headers: &'a HeaderMap) -> Vec<(&'a str, &'a str)> {
        let attempts = ours(headers, self.login).filter(|(short, _)| *short != "count");
        attempts.take(MOST_COOKIES).collect()
    }

    /// The value of our cookie of this exact name; `None` when it is absent or there twice.
    pub(super) fn value<'a>(&self, headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        let mut values = ours(headers, name).filter(|(rest, _)| rest.is_empty());
        let first = values.next()?;
        values.next().is_none().then_some(first.1)
    }

    /// The session cookie, joined; `None` when there is none.
    pub(super) fn session_value(&self, headers: &HeaderMap) -> Result<Option<Joined>, CookieFault> {
        let mut slots = [None; MOST_CHUNKS];
        for (rest, value) in ours(headers, self.session) {
            let Some(number) = rest.strip_prefix('.') else {
                if rest.is_empty() {
                    return Err(CookieFault::Malformed);
                }
                continue;
            };
            // Numbers are one digit: a number that is a size is never believed.
            let slot = match number.as_bytes() {
                [digit @ b'0'..=b'9'] => slots.get_mut(usize::from(*digit - b'0')),
                _ => None,
            };
            let slot = slot.ok_or(CookieFault::Malformed)?;
            if slot.replace(value).is_some() {
                return Err(CookieFault::Twice);
            }
        }
        let chunks = slots.iter().take_while(|slot| slot.is_some()).count();
        let present = slots.iter().flatten().count();
        if present == 0 {
            return Ok(None);
        }
        let values: Vec<&str> = slots.into_iter().flatten().collect();
        let sized = values.iter().all(|value| !value.is_empty() && value.len() <= CHUNK);
        if present != chunks || !sized {
            return Err(CookieFault::Malformed);
        }
        Ok(Some(Joined { text: values.concat(), chunks }))
    }

    /// `Set-Cookie` values that store `text` in chunks and clear every further one: the browser may have got it since
    /// the request, by an answer to another.
    pub(super) fn set_session(&self, text: &str, seconds: i64, headers: &HeaderMap) -> Vec<HeaderValue> {
        let chunks: Vec<&str> = text.as_bytes().chunks(CHUNK).filter_map(|chunk| str::from_utf8(chunk).ok()).collect();
        let set = chunks.iter().enumerate();
        let mut values: Vec<_> =
            set.filter_map(|(number, chunk)| self.set(&format!("{}.{number}", self.session), chunk, seconds)).collect();
        values.extend(self.clear_session_from(chunks.len(), headers));
        values
    }

    /// `Set-Cookie` values that clear every chunk there can be, and what else the request shows.
    pub(super) fn clear_session(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        self.clear_session_from(0, headers)
    }

    fn clear_session_from(&self, first: usize, headers: &HeaderMap) -> Vec<HeaderValue> {
        let chunks = (first..MOST_CHUNKS).filter_map(|number| self.clear(&format!("{}.{number}", self.session)));
        // A number that is none must go too: it would make every later session malformed.
        let stray = |rest: &str| match rest.strip_prefix('.').map(str::as_bytes) {
            Some([digit @ b'0'..=b'9']) => usize::from(*digit - b'0') >= MOST_CHUNKS,
            Some(other) => other.len() < 64 && other.iter().all(u8::is_ascii_graphic),
            None => rest.is_empty(),
        };
        let strays = ours(headers, self.session).filter(|(rest, _)| stray(rest)).take(MOST_COOKIES);
        chunks.chain(strays.filter_map(|(rest, _)| self.clear(&format!("{}{rest}", self.session)))).collect()
    }

    /// One `Set-Cookie` value.
    pub(super) fn set(&self, name: &str, value: &str, seconds: i64) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let line = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        let mut value = HeaderValue::from_str(&line).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// A `Set-Cookie` value that removes a cookie.
    pub(super) fn clear(&self, name: &str) -> Option<HeaderValue> {
        self.set(name, "", 0)
    }
}

/// How many chunks a value of this many bytes fills.
pub(super) fn chunks_of(bytes: usize) -> usize {
    bytes.div_ceil(CHUNK)
}

/// Whether a cookie of this name is Doorward's own, and so never the upstream's business.
#[must_use]
pub fn is_own_cookie(name: &str) -> bool {
    let name = name.strip_prefix("__Host-").unwrap_or(name);
    let Some(rest) = name.strip_prefix("doorward") else { return false };
    rest.is_empty() || rest.starts_with('.') || rest.starts_with("_login_")
}

/// Cookies whose name begins with `prefix`: the rest of the name, and the value. Other cookies may hold any bytes.
fn ours<'a>(headers: &'a HeaderMap, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let pair = str::from_utf8(pair).ok()?.trim_matches([' ', '\t']);
        let (name, value) = pair.split_once('=')?;
        Some((name.strip_prefix(prefix)?, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> CookieNames {
        CookieNames::of(&Origin::parse("https://own.test").unwrap())
    }

    fn jar(lines: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(header::COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        map
    }

    fn joined(lines: &[&str]) -> Result<Option<String>, CookieFault> {
        Ok(names().session_value(&jar(lines))?.map(|joined| joined.text))
    }

    #[test]
    fn chunks_are_joined_in_their_own_order() {
        assert_eq!(joined(&["a=1; __Host-doorward.1=two; __Host-doorward.0=one"]).unwrap().unwrap(), "onetwo");
        assert_eq!(joined(&["__Host-doorward.0=one", "__Host-doorward.1=two"]).unwrap().unwrap(), "onetwo");
        assert_eq!(joined(&["x=\u{e4}; __Host-doorward.0=one"]).unwrap().unwrap(), "one", "others may hold any bytes");
        assert_eq!(joined(&["a=1; __Host-doorward_login_00000000=x"]).unwrap(), None);
    }

    #[test]
    fn a_gap_an_extra_or_a_huge_number_is_refused() {
        for line in [
            "__Host-doorward.1=two",
            "__Host-doorward.0=one; __Host-doorward.2=three",
            "__Host-doorward.0=one; __Host-doorward.5=six",
            "__Host-doorward.99999999=x",
            "__Host-doorward.00=x",
            "__Host-doorward.+1=x",
            "__Host-doorward.=x",
            "__Host-doorward=x",
            "__Host-doorward.0=",
        ] {
            assert_eq!(joined(&[line]), Err(CookieFault::Malformed), "{line}");
        }
        assert_eq!(joined(&["__Host-doorward.0=a; __Host-doorward.0=b"]), Err(CookieFault::Twice));
    }

    #[test]
    fn a_session_clears_the_chunks_that_it_does_not_fill() {
        let text = "x".repeat(CHUNK + 1);
        let old = jar(&["__Host-doorward.0=a; __Host-doorward.7=b"]);
        let set: Vec<_> = names().set_session(&text, 60, &old).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        assert_eq!(set.len(), 6, "two chunks, three that are empty from now on, and a stray");
        assert!(set[0].starts_with("__Host-doorward.0=xxx") && set[1].starts_with("__Host-doorward.1=x;"));
        assert_eq!(set[2], "__Host-doorward.2=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure");
        assert!(set.iter().all(|line| line.len() < 4096));
        assert!(set[5].starts_with("__Host-doorward.7=; "));
        assert_eq!(names().clear_session(&old).len(), 6);
        assert_eq!(names().clear_session(&HeaderMap::new()).len(), 5, "whatever the request shows");
    }

    #[test]
    fn plain_loopback_uses_names_that_browsers_take_there() {
        let names = CookieNames::of(&Origin::parse("http://localhost:8080").unwrap());
        let line = names.set("doorward.0", "x", 60).unwrap();
        assert_eq!(line.to_str().unwrap(), "doorward.0=x; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        for own in ["doorward.0", "__Host-doorward.4", "__Host-doorward_login_0a0b0c0d", "doorward_login_count"] {
            assert!(is_own_cookie(own), "{own}");
        }
        assert!(!is_own_cookie("doorwards") && !is_own_cookie("session"));
    }
}
