//! Proves the bases of an archive: `base.toml` is what was written, `B3SUMS` is the one that it speaks of, and under
//! `data` are exactly those files with those bytes. Directories, links, modes and times are not proven.
//!
//! Nothing is changed and nothing is locked. A base that is removed meanwhile is none any more, whatever was seen of it.

use std::collections::BTreeSet;

use anyhow::Result;

use super::BASES;
use super::base::{self, DATA, RECORD, Record, SUMS};
use super::sums::{self, Sums, Taken};
use crate::edge::dir::Dir;
use crate::edge::tree::Tree;
use crate::value::digest::Digest;
use crate::value::escape::show_bytes;
use crate::value::exit::{Code, Failure, code_of};

/// Longest list of files that is read: tens of millions.
const SUMS_MAX: u64 = 4 << 30;

/// Which bases are proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All.
    #[default]
    All,
    /// None.
    None,
    /// The one of this name.
    One(String),
}

/// What was seen of one base.
#[derive(Clone, Debug)]
pub struct Proven {
    /// Its directory's name.
    pub name: String,
    /// What it is of; `None` where its record is damaged.
    pub record: Option<Record>,
    /// How many files were read.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// One thing that is wrong in a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In which of its files, such as `data/rows.db`.
    pub file: String,
    /// In words.
    pub text: String,
}

/// Proves the bases of an archive, in the order of their names. Names that begin with `.` are of unfinished ones; others
/// that can be none, such as `lost+found`, are passed over, too.
pub fn run(archive: &Dir, which: &Which) -> Result<Vec<Proven>> {
    let names = names(archive)?;
    let asked = match which {
        Which::None => return Ok(Vec::new()),
        Which::All => names,
        Which::One(name) if names.contains(name) => BTreeSet::from([name.clone()]),
        Which::One(name) => {
            let failure = Failure::new(Code::Usage, format!("{} has no base '{name}'", archive.shown(BASES)));
            let known: Vec<String> = names.into_iter().collect();
            let hint = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
            return Err(failure.hint(hint).into());
        }
    };
    let mut proven = Vec::new();
    for name in asked {
        proven.extend(one(archive, &name)?);
    }
    Ok(proven)
}

/// What can be a base.
fn names(archive: &Dir) -> Result<BTreeSet<String>> {
    if archive.identity(BASES)?.is_none() {
        return Ok(BTreeSet::new());
    }
    let names = archive.open_subdir(BASES)?.names()?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).filter(|name| base::is_name(name)).collect())
}

/// Proves one base; `None` when it was removed meanwhile.
pub fn one(archive: &Dir, name: &str) -> Result<Option<Proven>> {
    let bases = archive.open_subdir(BASES)?;
    let Some(identity) = bases.identity(name)? else {
        return Ok(None);
    };
    let proven = Proof::new(name).run(&bases);
    if bases.identity(name)? != Some(identity) {
        return Ok(None);
    }
    proven.map(Some)
}

/// What has been seen so far.
struct Proof(Proven);

impl Proof {
    fn new(name: &str) -> Proof {
        Proof(Proven { name: name.to_owned(), record: None, files: 0, bytes: 0, faults: Vec::new() })
    }

    fn run(mut self, bases: &Dir) -> Result<Proven> {
        let dir = bases.open_subdir(&self.0.name)?;
        self.record(&dir)?;
        let listed = self.listed(&dir)?;
        if dir.identity(DATA)?.is_none() {
            self.wrong(DATA, "it is missing");
            return Ok(self.0);
        }
        let taken = sums::of(&Tree::of(&dir.open_subdir(DATA)?)?, &|_| None)?;
        (self.0.files, self.0.bytes) = (taken.sums.files().len() as u64, taken.bytes);
        if let Some(listed) = listed {
            self.files(&listed, &taken);
        }
        Ok(self.0)
    }

    fn wrong(&mut self, file: &str, text: impl Into<String>) {
        self.0.faults.push(Fault { file: file.to_owned(), text: text.into() });
    }

    fn record(&mut self, dir: &Dir) -> Result<()> {
        match base::read(dir) {
            Ok(record) => self.0.record = Some(record),
            Err(error) if code_of(&error) == Code::Corrupt => self.wrong(RECORD, "it is missing or damaged"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What the base says that it has.
    fn listed(&mut self, dir: &Dir) -> Result<Option<Sums>> {
        let Some(bytes) = dir.read_small(SUMS, SUMS_MAX)? else {
            self.wrong(SUMS, "it is missing");
            return Ok(None);
        };
        let own = Digest::of(&bytes);
        if let Some(told) = self.0.record.as_ref().map(|record| record.sums).filter(|told| *told != own) {
            self.wrong(SUMS, format!("it has digest {own}, {RECORD} says {told}"));
        }
        let listed = Sums::parse(&bytes);
        if listed.is_none() {
            self.wrong(SUMS, "it is damaged");
        }
        Ok(listed)
    }

    /// Compares what is listed with what is there.
    fn files(&mut self, listed: &Sums, taken: &Taken) {
        let before = self.0.faults.len();
        let shown = |name: &[u8]| format!("{DATA}/{}", show_bytes(name));
        for (name, digest) in listed.files() {
            match taken.sums.get(name) {
                None => self.wrong(&shown(name), "it is missing"),
                Some(own) if own != digest => {
                    self.wrong(&shown(name), format!("it has digest {own}, {SUMS} says {digest}"));
                }
                Some(_) => {}
            }
        }
        for (name, _) in taken.sums.files().filter(|(name, _)| listed.get(name).is_none()) {
            self.wrong(&shown(name), format!("{SUMS} does not name it"));
        }
        if self.0.faults.len() == before
            && let Some(record) = &self.0.record
            && (record.files, record.bytes) != (self.0.files, self.0.bytes)
        {
            let here = format!("{} files with {} bytes", self.0.files, self.0.bytes);
            let text = format!("it has {here}, {RECORD} says {} with {}", record.files, record.bytes);
            self.wrong(DATA, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::engine::sync::profile::Profile;
    use crate::value::time::Time;

    /// An archive with a base `b` of two files and an empty one, and its path.
    fn archive() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join(BASES).join("b");
        fs::create_dir_all(base.join("data/d")).unwrap();
        fs::write(base.join("data/d/rows"), "rows").unwrap();
        fs::write(base.join("data/index"), "index").unwrap();
        fs::write(base.join("data/empty"), "").unwrap();
        let taken = sums::of(&Tree::open(&base.join(DATA)).unwrap(), &|_| None).unwrap();
        fs::write(base.join(SUMS), taken.sums.print()).unwrap();
        record(&base, &taken, 3, 9);
        (root, base)
    }

    fn record(base: &std::path::Path, taken: &Taken, files: u64, bytes: u64) {
        let record = Record {
            engine: Profile::Bdb,
            source: "master".into(),
            identity: String::new(),
            position: Some("1-1:4".parse().unwrap()),
            time: None,
            log: None,
            begun: Time(1),
            ended: Time(2),
            files,
            bytes,
            sums: Digest::of(&taken.sums.print()),
            reason: None,
        };
        fs::write(base.join(RECORD), record.print().unwrap()).unwrap();
    }

    /// `file: words` of all that is wrong.
    fn faults(root: &tempfile::TempDir) -> Vec<String> {
        let proven = run(&Dir::open(root.path()).unwrap(), &Which::All).unwrap();
        proven
            .into_iter()
            .flat_map(|base| base.faults.into_iter().map(|fault| format!("{}: {}", fault.file, fault.text)))
            .collect()
    }

    #[test]
    fn a_whole_base_has_no_fault_and_unfinished_ones_are_passed_over() {
        let (root, base) = archive();
        fs::create_dir(root.path().join("bases/.b.new")).unwrap();
        fs::create_dir(root.path().join("bases/lost+found")).unwrap();
        assert_eq!(faults(&root), [""; 0]);
        let dir = Dir::open(root.path()).unwrap();
        let proven = one(&dir, "b").unwrap().unwrap();
        assert_eq!((proven.files, proven.bytes, proven.record.is_some()), (3, 9, true));
        assert!(one(&dir, "c").unwrap().is_none());
        fs::remove_dir_all(base).unwrap();
        assert_eq!(run(&dir, &Which::All).unwrap().len(), 0);
        let error = run(&dir, &Which::One("b".into())).unwrap_err();
        assert_eq!(code_of(&error), Code::Usage);
    }

    #[test]
    fn each_thing_that_is_wrong_is_named_with_its_file() {
        type Damage = fn(&std::path::Path);
        let matrix: [(&[&str], Damage); 9] = [
            (&["data/index: it is missing"], |base| fs::remove_file(base.join("data/index")).unwrap()),
            (&["data/new: B3SUMS does not name it"], |base| fs::write(base.join("data/new"), "").unwrap()),
            (&["data/index: it has digest"], |base| fs::write(base.join("data/index"), "indez").unwrap()),
            (&["data/d/rows: it is missing", "data/rows: B3SUMS does not name it"], |base| {
                fs::rename(base.join("data/d/rows"), base.join("data/rows")).unwrap();
            }),
            (&["data: it is missing"], |base| fs::remove_dir_all(base.join("data")).unwrap()),
            (&["base.toml: it is missing or damaged"], |base| fs::remove_file(base.join(RECORD)).unwrap()),
            (&["B3SUMS: it is missing"], |base| fs::remove_file(base.join(SUMS)).unwrap()),
            (&["B3SUMS: it has digest", "B3SUMS: it is damaged"], |base| fs::write(base.join(SUMS), "x").unwrap()),
            (&["B3SUMS: it has digest", "data/index: B3SUMS does not name it"], |base| {
                let sums = fs::read_to_string(base.join(SUMS)).unwrap();
                let less: String = sums.split_inclusive('\n').filter(|line| !line.contains("index")).collect();
                fs::write(base.join(SUMS), less).unwrap();
            }),
        ];
        for (expected, damage) in matrix {
            let (root, base) = archive();
            damage(&base);
            let found = faults(&root);
            let fits = |(found, expected): (&String, &&str)| found.starts_with(expected);
            assert!(found.len() == expected.len() && found.iter().zip(expected).all(fits), "{found:?}, {expected:?}");
        }
        for (files, bytes) in [(4, 9), (3, 8)] {
            let (root, base) = archive();
            let taken = sums::of(&Tree::open(&base.join(DATA)).unwrap(), &|_| None).unwrap();
            record(&base, &taken, files, bytes);
            assert_eq!(
                faults(&root),
                [format!("data: it has 3 files with 9 bytes, base.toml says {files} with {bytes}")]
            );
        }
    }
}
