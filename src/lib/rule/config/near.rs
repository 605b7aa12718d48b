//! The known name that somebody may have meant.

/// The nearest of some names, if it is near enough to be a slip: a letter in three that is wrong, missing, too many or
/// exchanged with its neighbour, or hyphens and underscores, or letters' case.
pub(super) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A name is short. What is not is no slip of one.
    if text.chars().count() > 40 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let (text, limit) = (plain(text), text.chars().count().div_ceil(3));
    let ranked = known.into_iter().map(|name| (distance(&text, &plain(name)), name));
    ranked.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name)
}

/// Steps from one text to the other: letters put in, left out, changed, or exchanged with the next one.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<_>>()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let known = ["keep-for", "keep-bases", "set", "state", "logdir"];
        for (text, found) in [
            ("keep_for", Some("keep-for")),
            ("Keep-For", Some("keep-for")),
            ("kepe-for", Some("keep-for")),
            ("keep-base", Some("keep-bases")),
            ("sett", Some("set")),
            ("lodgir", Some("logdir")),
            ("stat", Some("state")),
            ("directory", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, known), found, "{text}");
        }
        assert_eq!(nearest(&"state".repeat(1000), known), None);
    }

    #[test]
    fn distances_are_those_of_the_book() {
        for (one, other, steps) in [("", "", 0), ("a", "", 1), ("", "ab", 2), ("ab", "ba", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(one, other), steps, "{one} {other}");
        }
    }
}
