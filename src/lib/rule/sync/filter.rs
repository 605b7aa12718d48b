//! Which names take part: patterns as rsync writes them, the first that matches wins.
//!
//! A pattern with a leading `/` is anchored at the root, any other may match at any depth; a trailing `/` matches
//! directories only; `*` and `?` stay within one component, `**` does not. What is below a directory that does not take
//! part does not, either.

use globset::{Glob, GlobBuilder, GlobMatcher};

use crate::value::name::Name;

/// The suite's own files in a tree take part in no sync.
const OWN: [&str; 2] = [".repl", ".repl-sync"];

/// Patterns in the order of their rank.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    matcher: GlobMatcher,
    is_for_directories: bool,
    verdict: Verdict,
}

/// What a pattern says of the names it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They take part.
    Include,
    /// They are passed over.
    Exclude,
}

impl Filter {
    /// Adds a pattern, ranked behind those that are there.
    pub fn add(&mut self, verdict: Verdict, pattern: &str) -> Result<(), String> {
        let wrong = |why: &str| format!("pattern '{pattern}': {why}");
        let (body, is_for_directories) = match pattern.strip_suffix('/') {
            Some(body) => (body, true),
            None => (pattern, false),
        };
        let body = match body.strip_prefix('/') {
            Some(anchored) => anchored.to_owned(),
            None => format!("**/{body}"),
        };
        if body.is_empty() || body == "**/" {
            return Err(wrong("names nothing"));
        }
        let glob: Glob = GlobBuilder::new(&body)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| wrong(&error.kind().to_string()))?;
        self.rules.push(Rule { matcher: glob.compile_matcher(), is_for_directories, verdict });
        Ok(())
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a name is left out. Of what is below a directory that is left out, nobody asks.
    pub fn leaves_out(&self, name: &Name, is_directory: bool) -> bool {
        if name.is_root() {
            return false;
        }
        if is_own(name.last()) {
            return true;
        }
        let candidate = {
            use std::os::unix::ffi::OsStrExt as _;
            std::ffi::OsStr::from_bytes(name.bytes())
        };
        let fits = |rule: &&Rule| (is_directory || !rule.is_for_directories) && rule.matcher.is_match(candidate);
        self.rules.iter().find(fits).is_some_and(|rule| rule.verdict == Verdict::Exclude)
    }
}

/// `.repl`, and everything that begins with `.repl-sync`.
fn is_own(component: &[u8]) -> bool {
    component == OWN[0].as_bytes() || component.starts_with(OWN[1].as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(patterns: &[&str], name: &str, is_directory: bool) -> bool {
        let mut filter = Filter::default();
        for pattern in patterns {
            let (verdict, pattern) = match pattern.strip_prefix('+') {
                Some(pattern) => (Verdict::Include, pattern),
                None => (Verdict::Exclude, *pattern),
            };
            filter.add(verdict, pattern).unwrap();
        }
        filter.leaves_out(&Name::parse(name.as_bytes()).unwrap(), is_directory)
    }

    #[test]
    fn anchors_depths_and_directories() {
        assert!(left_out(&["x"], "x", false) && left_out(&["x"], "a/b/x", false) && !left_out(&["x"], "xy", false));
        assert!(left_out(&["/x"], "x", false) && !left_out(&["/x"], "a/x", false));
        assert!(left_out(&["x/"], "a/x", true) && !left_out(&["x/"], "a/x", false));
        assert!(left_out(&["*.tmp"], "a/b.tmp", false) && !left_out(&["/a/*"], "a/b/c", false));
        assert!(left_out(&["/a/**"], "a/b/c", false) && left_out(&["a/x"], "q/a/x", false));
        assert!(left_out(&["a[0-9]"], "a7", false) && left_out(&["a\\*"], "a*", false));
    }

    #[test]
    fn the_first_match_wins() {
        assert!(!left_out(&["+keep.log", "*.log"], "a/keep.log", false));
        assert!(left_out(&["*.log", "+keep.log"], "a/keep.log", false));
    }

    #[test]
    fn the_suites_own_files_never_take_part() {
        for own in [".repl", "a/.repl", ".repl-sync", ".repl-sync-incomplete", ".repl-sync-main"] {
            assert!(left_out(&["+*"], own, true), "{own}");
        }
        assert!(!left_out(&[], ".replica", false) && !left_out(&["*"], "", true));
    }

    #[test]
    fn a_pattern_that_means_nothing_is_refused() {
        for bad in ["", "/", "a[", "{a"] {
            assert!(Filter::default().add(Verdict::Exclude, bad).is_err(), "{bad:?}");
        }
    }
}
