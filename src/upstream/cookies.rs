//! Doorward's own cookies: they never reach an upstream, and no upstream sets them.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Beginnings of the names of Doorward's cookies, compared without case.
const OURS: [&[u8]; 3] = [b"__host-doorward", b"__secure-doorward", b"doorward"];

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Cuts Doorward's cookies out of every `Cookie` line; a line that held nothing else goes.
pub(super) fn keep_the_callers(headers: &mut HeaderMap) {
    let holds_ours = |line: &HeaderValue| cookies(line).any(is_ours);
    if !headers.get_all(header::COOKIE).iter().any(holds_ours) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().filter_map(without_ours).collect();
    headers.remove(header::COOKIE);
    for line in lines {
        headers.append(header::COOKIE, line);
    }
}

/// Drops every `Set-Cookie` that a browser could store under one of Doorward's names.
pub(super) fn drop_sets_of_ours(headers: &mut HeaderMap) {
    let sets_ours = |line: &HeaderValue| is_ours(line.as_bytes());
    if !headers.get_all(header::SET_COOKIE).iter().any(sets_ours) {
        return;
    }
    let kept = headers.get_all(header::SET_COOKIE).iter().filter(|line| !sets_ours(line));
    let kept: Vec<HeaderValue> = kept.cloned().collect();
    headers.remove(header::SET_COOKIE);
    for line in kept {
        headers.append(header::SET_COOKIE, line);
    }
}

/// Drops from `Clear-Site-Data` what would clear Doorward's cookies with the upstream's own: a browser does not tell
/// them apart. `"*"` goes as a whole.
pub(super) fn drop_clearings(headers: &mut HeaderMap) {
    let clears_cookies = |directive: &[u8]| {
        let name: Vec<u8> = directive.iter().copied().filter(|byte| !matches!(byte, b'"' | b' ' | b'\t')).collect();
        name == b"*" || name.eq_ignore_ascii_case(b"cookies")
    };
    if !headers.contains_key(CLEAR_SITE_DATA) {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(CLEAR_SITE_DATA)
        .iter()
        .filter_map(|line| {
            let kept: Vec<&[u8]> =
                line.as_bytes().split(|byte| *byte == b',').filter(|directive| !clears_cookies(directive)).collect();
            HeaderValue::from_bytes(&kept.join(&b","[..])).ok().filter(|line| !line.is_empty())
        })
        .collect();
    headers.remove(CLEAR_SITE_DATA);
    for line in kept {
        headers.append(CLEAR_SITE_DATA, line);
    }
}

fn cookies(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b';')
}

/// A nameless cookie (`=__Host-…`) is sent back without its `=`, so a leading one counts for nothing.
fn is_ours(cookie: &[u8]) -> bool {
    let leading =
        cookie.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'=' || **byte == b'"').count();
    let name = cookie.get(leading..).unwrap_or_default();
    OURS.iter().any(|ours| name.get(..ours.len()).is_some_and(|start| start.eq_ignore_ascii_case(ours)))
}

fn without_ours(line: &HeaderValue) -> Option<HeaderValue> {
    let kept: Vec<&[u8]> = cookies(line).filter(|cookie| !is_ours(cookie)).map(<[u8]>::trim_ascii).collect();
    let kept: Vec<&[u8]> = kept.into_iter().filter(|cookie| !cookie.is_empty()).collect();
    if kept.is_empty() {
        return None;
    }
    let mut line = HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok()?;
    line.set_sensitive(true);
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(lines: &[&str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, line.parse().unwrap());
        }
        keep_the_callers(&mut headers);
        headers.get_all(header::COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_callers_cookies_stay_and_ours_go_from_every_line() {
        let session = "a=1; __Host-doorward=x; b=2";
        assert_eq!(kept(&[session, "__HOST-Doorward.1=y;doorward-login-7=z", "c=3"]), ["a=1; b=2", "c=3"]);
        assert_eq!(kept(&["  \t__host-DOORWARD =x;=__Host-doorward=q; __Secure-doorward=1"]), [""; 0]);
        assert_eq!(kept(&["a=\"1;__Host-doorward=x\"; b=2"]), ["a=\"1; b=2"], "a quote hides nothing");
        assert_eq!(kept(&["theme=doorward"]), ["theme=doorward"], "a value is not a name");
    }

    #[test]
    fn an_upstream_cannot_set_our_cookies() {
        let mut headers = HeaderMap::new();
        for line in
            ["__Host-doorward=x; Path=/", " __HOST-DOORWARD.0=y", "=__Host-doorward=z", "doorward-login=1", "a=1"]
        {
            headers.append(header::SET_COOKIE, line.parse().unwrap());
        }
        drop_sets_of_ours(&mut headers);
        let left: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(left, ["a=1"]);
    }
}
