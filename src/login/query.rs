//! The query of a request to one of login's paths.

use http::request::Parts;
use url::form_urlencoded;

const LONGEST: usize = 8 * 1024;

/// A query of bounded length whose single values are single.
pub(super) struct Query(pub(super) Vec<(String, String)>);

impl Query {
    pub(super) fn parse(head: &Parts) -> Option<Self> {
        let text = head.uri.query().unwrap_or_default();
        let fits = text.len() <= LONGEST;
        fits.then(|| Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect()))
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value, when there is exactly one.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.all(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }
}
