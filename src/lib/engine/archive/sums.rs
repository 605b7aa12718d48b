//! The digests of all regular files of a base, taken on all cores, and the file `B3SUMS` that has them.
//!
//! A line is `<64 hex digits>  data/NAME`, as `b3sum` writes and checks it, in the order of names' bytes. A name with a
//! backslash or a line end has these as `\\` and `\n`, and a backslash in front of the line, which is `b3sum`'s own way. A
//! byte that is not UTF-8 is `\xHH` in such a line: no other name is written like that, and `b3sum`, which can check no
//! such name, says so and goes on.

mod pieces;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use super::base::DATA;
use crate::edge::tree::Tree;
use crate::value::digest::Digest;
use crate::value::entry::Entry;
use crate::value::name::Name;

/// Digests by name, in the order of names' bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<Box<[u8]>, Digest>);

/// What the files of a tree are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The digest of each.
    pub sums: Sums,
    /// How many bytes all of them have.
    pub bytes: u64,
}

/// The digests of all regular files of a tree, read on all cores. What `known` has a digest of is not read; it is asked in
/// the order of a walk, of entries without extended attributes. A file that changes its size meanwhile is an error.
pub fn of(tree: &Tree, known: &dyn Fn(&Entry) -> Option<Digest>) -> Result<Taken> {
    pieces::all(tree, known)
}

impl Sums {
    /// The names with their digests.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&[u8], &Digest)> {
        self.0.iter().map(|(name, digest)| (&**name, digest))
    }

    /// The digest of a file.
    pub fn get(&self, name: &[u8]) -> Option<&Digest> {
        self.0.get(name)
    }

    fn insert(&mut self, name: &Name, digest: Digest) {
        self.0.insert(name.bytes().into(), digest);
    }

    /// As `B3SUMS` has them: ASCII, and UTF-8 where names are.
    pub fn print(&self) -> Vec<u8> {
        let mut text = String::new();
        for (name, digest) in &self.0 {
            let name = escape(name);
            let mark = if name.contains('\\') { "\\" } else { "" };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{mark}{digest}  {DATA}/{name}");
        }
        text.into_bytes()
    }

    /// Reads exactly what [`Sums::print`] writes: any other order, a line twice or a name that leads elsewhere is none.
    pub fn parse(bytes: &[u8]) -> Option<Sums> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut sums = Sums::default();
        for line in text.split_inclusive('\n') {
            let line = line.strip_suffix('\n')?;
            let (digest, name) = line.strip_prefix('\\').unwrap_or(line).split_once("  ")?;
            let name = Name::parse(&unescape(name.strip_prefix(DATA)?.strip_prefix('/')?)?)?;
            sums.insert(&name, Digest::parse(digest)?);
        }
        (!sums.0.contains_key(b"".as_slice()) && sums.print() == bytes).then_some(sums)
    }
}

/// A name as `B3SUMS` has it; see the module. One that needs no escape has no backslash then.
fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text += &chunk.valid().replace('\\', r"\\").replace('\n', r"\n");
        text.extend(chunk.invalid().iter().map(|byte| format!(r"\x{byte:02x}")));
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        name.push(match byte {
            b'\\' => match rest.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'x' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::rule::sync::merkle::{GROUP, RANGE};

    const NAMES: [&[u8]; 9] =
        [b"a", b"a!", b"a/b", b"back\\slash", b"line\nend", b"\\x41", b"\\\\n", "\u{e9} \r".as_bytes(), b"\xff\\\xfe"];

    fn write(root: &Path, name: &[u8], bytes: &[u8]) {
        let path = root.join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn all(root: &Path) -> Taken {
        of(&Tree::open(root).unwrap(), &|_| None).unwrap()
    }

    fn bytes(length: u64) -> Vec<u8> {
        (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    #[test]
    fn files_of_every_size_have_the_digest_of_their_bytes() {
        let root = tempfile::tempdir().unwrap();
        let lengths =
            [0, 1, GROUP - 1, GROUP, GROUP + 1, RANGE - 1, RANGE, RANGE + 1, 2 * RANGE, 2 * RANGE + GROUP + 5];
        for length in lengths {
            write(root.path(), format!("d/{length}").as_bytes(), &bytes(length));
        }
        std::fs::File::create(root.path().join("hole")).unwrap().set_len(RANGE + 3).unwrap();
        std::os::unix::fs::symlink("d/0", root.path().join("link")).unwrap();
        let Taken { sums, bytes: count } = all(root.path());
        assert_eq!(sums.files().len(), lengths.len() + 1);
        assert_eq!(count, lengths.iter().sum::<u64>() + RANGE + 3);
        for length in lengths {
            let digest = Digest::of(&bytes(length));
            assert_eq!(sums.get(format!("d/{length}").as_bytes()), Some(&digest), "{length}");
        }
        assert_eq!(sums.get(b"hole"), Some(&Digest::of(&vec![0; RANGE as usize + 3])));
    }

    #[test]
    fn what_is_known_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), b"a", b"a");
        write(root.path(), b"b", b"b");
        let known = |entry: &Entry| (entry.name.bytes() == b"a").then_some(Digest::of(b"told"));
        let taken = of(&Tree::open(root.path()).unwrap(), &known).unwrap();
        assert_eq!(taken.sums.get(b"a"), Some(&Digest::of(b"told")));
        assert_eq!(taken.sums.get(b"b"), Some(&Digest::of(b"b")));
        assert_eq!(taken.bytes, 2);
    }

    #[test]
    fn a_file_that_changes_its_size_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        for size in [5, GROUP + 5, RANGE + 5] {
            for to in [size - 1, size + 1] {
                write(root.path(), b"a", &[1]);
                std::fs::File::options().write(true).open(root.path().join("a")).unwrap().set_len(size).unwrap();
                let cut = |entry: &Entry| {
                    let file = std::fs::File::options().write(true).open(root.path().join("a")).unwrap();
                    assert_eq!(entry.stamp.size, size);
                    file.set_len(to).unwrap();
                    None
                };
                let error = of(&Tree::open(root.path()).unwrap(), &cut).unwrap_err();
                assert!(format!("{error:#}").ends_with("/a: it has changed meanwhile"), "{size} {to}: {error:#}");
            }
        }
        let gone = |_: &Entry| {
            std::fs::remove_file(root.path().join("a")).unwrap();
            None
        };
        of(&Tree::open(root.path()).unwrap(), &gone).unwrap_err();
    }

    #[test]
    fn every_name_is_read_back_in_the_order_of_bytes() {
        let root = tempfile::tempdir().unwrap();
        for name in NAMES.iter().filter(|name| **name != b"a") {
            write(root.path(), name, name);
        }
        let sums = all(root.path()).sums;
        let names: Vec<&[u8]> = sums.files().map(|(name, _)| name).collect();
        assert!(names.is_sorted() && names.len() == NAMES.len() - 1, "{names:?}");
        assert_eq!(Sums::parse(&sums.print()), Some(sums));
        assert_eq!(Sums::parse(b""), Some(Sums::default()));
    }

    #[test]
    fn a_line_in_any_other_shape_is_none() {
        let sum = Digest::of(b"").to_string();
        let one = |line: &str| Sums::parse(line.as_bytes()).is_some();
        assert!(one(&format!("{sum}  data/a\n")) && one(&format!("\\{sum}  data/a\\\\b\\n\\xff\n")));
        for name in ["", "a", "data", "data/", "data//a", "data/..", "data/a/../b", "data/a\\nb"] {
            assert!(!one(&format!("{sum}  {name}\n")), "{name}");
        }
        for name in ["a\\", "a\\q", "\\x4", "\\x+1", "\\x41", "\\xFF", "\\xc3\\xa9", "\\\u{e9}", "a"] {
            assert!(!one(&format!("\\{sum}  data/{name}\n")), "{name}");
        }
        for line in [format!("{sum}  data/a"), format!("{sum} data/a\n"), format!("\\{sum}  data/a\n"), "\n".to_owned()]
        {
            assert!(!one(&line), "{line:?}");
        }
        let (a, b) = (format!("{sum}  data/a\n"), format!("{sum}  data/b\n"));
        assert!(one(&format!("{a}{b}")) && !one(&format!("{b}{a}")) && !one(&format!("{a}{a}")));
        assert_eq!(Sums::parse(&[sum.as_bytes(), b"  data/\xff\n"].concat()), None);
    }

    #[test]
    fn no_flipped_bit_is_read_as_the_same() {
        let mut sums = Sums::default();
        for name in NAMES {
            sums.insert(&Name::parse(name).unwrap(), Digest::of(name));
        }
        let text = sums.print();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Sums::parse(&damaged).as_ref(), Some(&sums), "bit {bit}");
        }
    }

    #[test]
    fn b3sum_checks_what_is_written_and_writes_the_same() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join(DATA);
        let names = ["a!", "a/b", "back\\slash", "line\nend", "\\x41", "\u{e9} x"];
        for name in names {
            write(&data, name.as_bytes(), name.as_bytes());
        }
        let text = all(&data).sums.print();
        std::fs::write(root.path().join("B3SUMS"), &text).unwrap();
        let b3sum = |args: &[&str]| {
            let mut command = Command::new("b3sum");
            let ran = command.args(args).current_dir(root.path()).output();
            ran.expect("b3sum is needed: apt-get install b3sum")
        };
        let checked = b3sum(&["--check", "B3SUMS"]);
        assert!(checked.status.success(), "{checked:?}");
        let paths: Vec<String> = names.iter().map(|name| format!("{DATA}/{name}")).collect();
        let mut own: Vec<String> =
            String::from_utf8(b3sum(&paths.iter().map(String::as_str).collect::<Vec<_>>()).stdout)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect();
        let mut ours: Vec<String> = String::from_utf8(text).unwrap().lines().map(str::to_owned).collect();
        own.sort();
        ours.sort();
        assert_eq!(ours, own);
        // One that it cannot check does not keep it from the others.
        write(&data, b"\xff", b"x");
        std::fs::write(root.path().join("B3SUMS"), all(&data).sums.print()).unwrap();
        let said = String::from_utf8_lossy(&b3sum(&["--check", "B3SUMS"]).stdout).into_owned();
        assert_eq!(said.matches(": OK").count(), names.len(), "{said}");
    }
}
