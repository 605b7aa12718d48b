//! File names: `BASE.000001`, and beside them `BASE.index` and `BASE.state`.

use crate::rule::pattern::Pattern;

const NUMBER: &str = ".%06S";
const INDEX: &str = ".index";
const STATE: &str = ".state";

/// The names of one base.
fn pattern(base: &str) -> Option<Pattern> {
    Pattern::parse(&(base.replace('%', "%%") + NUMBER)).ok().filter(|_| !base.is_empty())
}

/// Whether a pattern is of this engine: the number has six digits or more, behind a dot, and ends the name.
pub(in crate::rule::scheme) fn is_pattern(pattern: &Pattern) -> bool {
    pattern.to_string().strip_suffix(NUMBER).is_some_and(|base| !base.is_empty())
}

/// The patterns of the logs that file names show: those of which the index is there and a segment.
pub(in crate::rule::scheme) fn detect(names: &[&str]) -> Vec<Pattern> {
    let indexes = names.iter().filter_map(|name| pattern(name.strip_suffix(INDEX)?));
    let has_segment = |pattern: &Pattern| names.iter().any(|name| pattern.segment(name).is_some());
    let mut found: Vec<_> = indexes.filter(has_segment).collect();
    found.sort_by_key(Pattern::to_string);
    found
}

/// What the server keeps beside the segments of this pattern.
pub(in crate::rule::scheme) fn is_side_file(pattern: &Pattern, name: &str) -> bool {
    let base = name.strip_suffix(INDEX).or_else(|| name.strip_suffix(STATE));
    base.and_then(self::pattern).as_ref() == Some(pattern)
}
