//! Names of what is in a tree: paths below its root, as bytes.
//!
//! A name that came from a peer is foreign until [`Name::parse`] has taken it: no component can lead up, out or nowhere.

use std::cmp::Ordering;
use std::fmt;

use super::escape::show_bytes;

/// Most bytes of one component (`NAME_MAX`).
pub const COMPONENT_MAX: usize = 255;
/// Most bytes of a whole name.
pub const NAME_MAX: usize = 1 << 15;

/// A path below the root of a tree: components joined by `/`, none of them empty, `.` or `..`. The empty name is the root.
///
/// Names are ordered as a walk meets them: a directory, then what is in it, siblings by their bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The root of the tree.
    pub fn root() -> Name {
        Name::default()
    }

    /// Checks foreign bytes.
    pub fn parse(bytes: &[u8]) -> Option<Name> {
        let is_whole =
            bytes.is_empty() || (bytes.len() <= NAME_MAX && bytes.split(|byte| *byte == b'/').all(is_component));
        is_whole.then(|| Name(bytes.into()))
    }

    /// What has this name in the directory of this one; `component` must be one (see [`is_component`]).
    #[must_use]
    pub fn join(&self, component: &[u8]) -> Name {
        if self.is_root() {
            return Name(component.into());
        }
        Name([&self.0, b"/".as_slice(), component].concat().into())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory it is in; the root is in itself.
    #[must_use]
    pub fn parent(&self) -> Name {
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Name(self.0[..end].into())
    }

    /// Its last component; empty for the root.
    pub fn last(&self) -> &[u8] {
        let begin = self.0.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        &self.0[begin..]
    }

    /// Its components from the root on.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }

    /// Whether it is below that directory.
    pub fn is_below(&self, directory: &Name) -> bool {
        match self.0.strip_prefix(directory.bytes()) {
            Some(rest) => (directory.is_root() && !rest.is_empty()) || rest.first() == Some(&b'/'),
            None => false,
        }
    }
}

/// Whether these bytes can be one component of a name.
pub fn is_component(bytes: &[u8]) -> bool {
    !matches!(bytes, b"" | b"." | b"..")
        && bytes.len() <= COMPONENT_MAX
        && !bytes.iter().any(|byte| matches!(byte, 0 | b'/'))
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        // No name holds a zero: as one, the slash sorts a directory's content before its next sibling.
        let keyed = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        self.0.iter().map(keyed).cmp(other.0.iter().map(keyed))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.is_root() { "." } else { "" })?;
        out.write_str(&show_bytes(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn nothing_that_leads_elsewhere_is_a_name() {
        let long = "x".repeat(256);
        for bad in ["/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\0b", &long] {
            assert_eq!(Name::parse(bad.as_bytes()), None, "{bad:?}");
        }
        for good in [b"".as_slice(), b"a", b"a/b", b"...", b"-", b"a\nb/\xff\\"] {
            assert_eq!(Name::parse(good).unwrap().bytes(), good);
        }
    }

    #[test]
    fn order_is_that_of_a_walk() {
        let walk = ["", "a", "a/b", "a/b/c", "a/z", "a!", "a-b", "ab", "b"];
        let mut sorted: Vec<Name> = walk.iter().rev().map(|text| name(text)).collect();
        sorted.sort();
        assert_eq!(sorted, walk.iter().map(|text| name(text)).collect::<Vec<_>>());
    }

    #[test]
    fn parts_fit_together() {
        let deep = name("a/b").join(b"c");
        assert_eq!((deep.parent(), deep.last()), (name("a/b"), b"c".as_slice()));
        assert_eq!((name("a").parent(), Name::root().join(b"a")), (Name::root(), name("a")));
        assert_eq!(deep.components().count(), 3);
        assert!(deep.is_below(&name("a")) && deep.is_below(&Name::root()) && !deep.is_below(&deep));
        assert!(!name("ab").is_below(&name("a")) && !Name::root().is_below(&Name::root()));
    }
}
