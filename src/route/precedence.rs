//! Which of two patterns says more exactly what it catches.

/// How exactly a path pattern says what it catches, segment by segment, its last slash left out.
///
/// Of two patterns that catch one path, the greater is the more exact: at the first segment where they differ, text
/// stands before a parameter, and either before `{*rest}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence(Vec<Segment>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    /// `{*rest}`.
    Rest,
    /// `{id}`, with so many bytes of text around it.
    Parameter(usize),
    Text,
    /// Past the last segment: `/a` is more exact about `/a` than `/a/{*rest}` is.
    End,
}

impl Precedence {
    pub(super) fn of(pattern: &str) -> Self {
        let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
        Self(pattern.split('/').map(Segment::of).chain([Segment::End]).collect())
    }
}

impl Segment {
    fn of(segment: &str) -> Self {
        match segment.split_once('{') {
            None => Self::Text,
            Some((_, rest)) if rest.starts_with('*') => Self::Rest,
            Some((before, rest)) => {
                let after = rest.split_once('}').map_or(0, |(_, after)| after.len());
                Self::Parameter(before.len().saturating_add(after))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_before_a_parameter_and_either_before_the_rest() {
        let order = ["/{*rest}", "/{id}", "/v{id}", "/admin/{*rest}", "/admin/{id}", "/admin/x", "/admin"];
        let order = order.map(Precedence::of);
        assert!(order.windows(2).all(|pair| pair[0] < pair[1]), "{order:?}");
        assert_eq!(Precedence::of("/admin"), Precedence::of("/admin/"));
    }
}
