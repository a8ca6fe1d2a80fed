//! The path that a browser returns to after login: never off this origin, as a browser reads it.

use percent_encoding::percent_decode_str;
use url::Url;

use super::origin::Origin;

/// Longest return path, bytes.
pub(super) const LONGEST: usize = 2048;

/// A path and query on our own origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReturnTo(Url);

impl ReturnTo {
    /// The origin's root.
    pub(super) fn root(own: &Origin) -> Self {
        Self(own.url().clone())
    }

    /// Takes `text` when a browser would stay on `own` and off the reserved paths; `None` for anything doubtful.
    pub(super) fn parse(own: &Origin, text: &str) -> Option<Self> {
        let shaped = text.len() <= LONGEST && text.starts_with('/') && !text.starts_with("//");
        if !shaped || text.chars().any(|char| char.is_control() || char == '\\') {
            return None;
        }
        // The WHATWG parser resolves dot segments, so `/.//evil.test` begins with `//` only after it.
        let mut url = own.url().join(text).ok()?;
        url.set_fragment(None);
        let own_origin = url.origin() == own.url().origin() && url.username().is_empty() && url.password().is_none();
        let path = percent_decode_str(url.path()).decode_utf8().ok()?;
        let doubtful = path.starts_with("//")
            || path.chars().any(|char| char.is_control() || char == '\\')
            || path.split('/').any(|segment| matches!(segment, "." | ".."));
        if !own_origin || doubtful || is_reserved(&path) {
            return None;
        }
        Some(Self(url))
    }

    /// The absolute URL: it leaves a browser nothing to resolve.
    pub(super) fn url(&self) -> &str {
        self.0.as_str()
    }

    /// Path and query.
    pub(super) fn path_and_query(&self) -> String {
        match self.0.query() {
            Some(query) => format!("{}?{query}", self.0.path()),
            None => self.0.path().to_owned(),
        }
    }
}

/// Whether a decoded path is Doorward's own, in any spelling that some reader takes for it.
fn is_reserved(path: &str) -> bool {
    let squeezed: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty() && *segment != ".").collect();
    squeezed.iter().any(|segment| segment.split(';').next().is_some_and(|name| name.eq_ignore_ascii_case(".doorward")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Origin {
        Origin::parse("https://own.test").unwrap()
    }

    #[test]
    fn no_shape_of_open_redirect_is_taken() {
        let shapes = [
            "//evil.test",
            "///evil.test",
            "////evil.test",
            "//evil.test/%2e%2e",
            "/\\evil.test",
            "\\evil.test",
            "\\\\evil.test",
            "\\/evil.test",
            "/\\/evil.test",
            "//\\evil.test",
            "/\\\\evil.test",
            "/x\\..\\..\\evil",
            "/\t/evil.test",
            "/\n/evil.test",
            "/\r/evil.test",
            "\t//evil.test",
            "\n//evil.test",
            " //evil.test",
            " /x",
            "/\t\\evil.test",
            "/\u{0}/evil.test",
            "/\u{b}/evil.test",
            "/\u{7f}evil",
            "/\u{85}evil",
            "https://evil.test",
            "http://evil.test",
            "https:evil.test",
            "https:/evil.test",
            "https:///evil.test",
            "https:\\\\evil.test",
            "HTTPS://evil.test",
            "https://own.test@evil.test",
            "https://own.test.evil.test",
            "https://own.test",
            "javascript:alert(1)",
            "java\nscript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "ftp://evil.test",
            "ws://evil.test",
            "evil.test",
            "@evil.test",
            ":80",
            "?x",
            "#x",
            "",
            ".",
            "..",
            "./x",
            "../x",
            "/.//evil.test",
            "/..//evil.test",
            "/x/..//evil.test",
            "/./..//evil.test",
            "/%2e//evil.test",
            "/%2e%2e//evil.test",
            "/x/%2E%2E//evil.test",
            "/%2fevil.test",
            "/%2Fevil.test",
            "/%5cevil.test",
            "/%5Cevil.test",
            "/%09/evil.test",
            "/%0a/evil.test",
            "/%0d%0aLocation:%20https://evil.test",
            "/%00",
            "/%ff",
            "/.doorward",
            "/.doorward/",
            "/.doorward/login",
            "/.doorward/logout",
            "/%2edoorward/login",
            "/%2Edoorward/logout",
            "/.door%77ard/logout",
            "/.Doorward/logout",
            "/x/../.doorward/logout",
            "/x/%2e%2e/.doorward/logout",
            "/./.doorward/logout",
            "/.doorward;x/logout",
            "/.doorward%2flogout",
            "/.doorward%5clogout",
            "/.doorward%3Bx",
            "/;/../.doorward/logout",
            "/x/%2E./.doorward",
            "/.%64oorward/callback",
            "/%2e%64%6f%6f%72%77%61%72%64/logout",
            "//evil.test:443",
            "//evil.test?x",
            "//evil.test#x",
            "//user@evil.test",
            "//own.test@evil.test",
            "//own.test",
            "//[::1]",
            "//127.0.0.1",
            "//2130706433",
            "//0x7f000001",
            "//evil%2etest",
            "//evil\u{3002}test",
            "//\u{ff45}vil.test",
            "//e\u{301}vil.test",
            "//xn--evil-test",
            "//%65vil.test",
            "// evil.test",
            "//\tevil.test",
            "//;@evil.test",
            "//:evil.test",
            "//?evil.test",
            "//#evil.test",
            "//@evil.test",
            "/\\\t/evil.test",
            "/\t/\\evil.test",
            "/\u{1}/evil.test",
            "/\u{8}/evil.test",
            "/\u{c}/evil.test",
            "/\u{1b}[2J",
            "/x\r\nLocation: https://evil.test",
            "/x\nSet-Cookie: a=b",
            "/x\\..\\evil.test",
            "/..\\evil.test",
            "/..%5cevil.test",
            "/..%2f%2fevil.test//",
            "/%2e%2e//evil.test",
            "/%2E%2e//evil.test",
            "/.%2e//evil.test",
            "/%2e.//evil.test",
            "/x/%2e%2e//evil.test",
            "/a/b/../..//evil.test",
            "/a/./..//evil.test",
            "/./../..//evil.test",
            "/%2f/evil.test",
            "/%2f%2fevil.test",
            "/%5c%5cevil.test",
            "/%5c/evil.test",
            "/%0d/evil.test",
            "/%0b/evil.test",
            "/%1f/evil.test",
            "/%7f/evil.test",
            "/%c2%85evil",
            "/%c0%af%c0%afevil.test",
            "/%c0%ae%c0%ae/evil.test",
            "/%e0%80%af/evil.test",
            "/%f0%80%80%af",
            "/%80",
            "/%fe%ff",
            "HtTpS://evil.test",
            "https:\\/\\/evil.test",
            "https:/\\evil.test",
            "https:evil.test/x",
            "https:///own.test",
            "https:////own.test",
            "\u{1}https://evil.test",
            " https://evil.test",
            "\u{a0}//evil.test",
            "\u{feff}//evil.test",
            "\u{2028}//evil.test",
            "x://evil.test",
            "about:blank",
            "blob:https://evil.test/1",
            "view-source:https://evil.test",
            "feed:https://evil.test",
            "JaVaScRiPt:alert(1)",
            "javascript://own.test/%0aalert(1)",
            "java\tscript:alert(1)",
            "&#47;&#47;evil.test",
            "%2f%2fevil.test",
            "%5c%5cevil.test",
            "%68ttps://evil.test",
            "..//evil.test",
            "./\\evil.test",
            "x//evil.test",
            "*",
            "%",
            "~",
            "\u{0}",
            "\u{7f}",
        ];
        assert!(shapes.len() >= 150, "{}", shapes.len());
        for shape in shapes {
            assert_eq!(ReturnTo::parse(&own(), shape), None, "{shape:?}");
        }
        assert_eq!(ReturnTo::parse(&own(), &format!("/{}", "x".repeat(LONGEST))), None);
    }

    #[test]
    fn whatever_is_taken_stays_on_the_origin_when_read_again() {
        let pieces = ["/", "\\", ".", "..", "%2e", "%2f", "%5c", "@", ":", "evil.test", "\t", "?", "#", ";", "//"];
        let pieces = pieces.iter();
        for a in pieces.clone() {
            for b in pieces.clone() {
                for c in pieces.clone() {
                    for d in pieces.clone() {
                        let text = format!("/{a}{b}{c}{d}");
                        let Some(taken) = ReturnTo::parse(&own(), &text) else { continue };
                        let again = own().url().join(&taken.path_and_query()).unwrap();
                        assert_eq!(again.origin(), own().url().origin(), "{text:?}");
                        assert!(taken.url().starts_with("https://own.test/"), "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn ordinary_paths_are_taken_without_their_fragment() {
        for (text, taken) in [
            ("/", "https://own.test/"),
            ("/a/b?c=d&e=https://x.test//y", "https://own.test/a/b?c=d&e=https://x.test//y"),
            ("/a#b", "https://own.test/a"),
            ("/a/../b", "https://own.test/b"),
            ("/@evil.test", "https://own.test/@evil.test"),
            ("/ä", "https://own.test/%C3%A4"),
        ] {
            assert_eq!(ReturnTo::parse(&own(), text).unwrap().url(), taken);
        }
    }
}
