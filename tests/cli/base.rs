//! `repl-base` as operators run it: trees with everything, an archive beside them or behind a real sshd, and whatever
//! goes wrong in between.

mod archive;
mod earlier;
mod faults;
mod options;
mod remote;

use std::fs;
use std::path::{Path, PathBuf};

use repl::edge::dir::Dir;
use repl::edge::tree::Tree;
use repl::engine::archive::{base, sums};
use repl::value::digest::Digest;
use serde_json::Value;

use super::rig::{Ran, Rig};
use super::tree;

/// A scratch directory with a source, and room for an archive.
struct Vault {
    rig: Rig,
}

impl Vault {
    /// With nothing in the source.
    fn empty() -> Vault {
        let vault = Vault { rig: Rig::new() };
        fs::create_dir(vault.src()).unwrap();
        vault
    }

    /// With some small files in the source.
    fn some() -> Vault {
        let vault = Vault::empty();
        vault.write("a", "one");
        vault.write("dir/b", "two");
        vault.write("dir/c.log", tree::noise(100_000, 1));
        vault
    }

    fn src(&self) -> PathBuf {
        self.rig.path("src")
    }

    fn bases(&self) -> PathBuf {
        self.rig.path("archive/bases")
    }

    /// The copied directory of a base.
    fn data(&self, name: &str) -> PathBuf {
        self.bases().join(name).join("data")
    }

    /// Writes a file in the source, and what is above it.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.src().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn run(&self, arguments: &str) -> Ran {
        self.rig.run(&format!("$BASE {arguments}"))
    }

    /// A run that must succeed; returns what it prints.
    #[track_caller]
    fn ok(&self, arguments: &str) -> String {
        self.rig.ok(&format!("$BASE {arguments}"))
    }

    /// Takes a base that is what the source is; returns the report.
    #[track_caller]
    fn take(&self, name: &str, options: &str) -> Value {
        let report = self.report(&format!("--name {name} {options} src archive"));
        tree::assert_same(&self.src(), &self.data(name));
        assert_whole(&self.bases().join(name));
        assert_eq!(self.names(), self.listed(), "nothing but bases, a lock and a history");
        report
    }

    /// What `--json` says of a run that must succeed.
    #[track_caller]
    fn report(&self, arguments: &str) -> Value {
        let out = self.ok(&format!("--json {arguments}"));
        serde_json::from_str(out.trim_end()).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// All names beside the bases, but for the lock and the history.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = match fs::read_dir(self.bases()) {
            Ok(found) => found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
            Err(_) => Vec::new(),
        };
        names.retain(|name| name != ".lock" && name != "history.jsonl");
        names.sort();
        names
    }

    /// The names that `--list` tells, in the order of names.
    #[track_caller]
    fn listed(&self) -> Vec<String> {
        let out = self.ok("--list archive");
        let mut names: Vec<_> = out.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// All of a directory with inodes, times and sizes: whatever is changed shows.
    fn state(&self, below: &str) -> String {
        self.rig.ok(&format!("find {below} -printf '%p %i %T@ %C@ %s %m %l\\n' | sort"))
    }
}

/// Every file of a base is what its list of digests says, the list what its record says, and nothing else is there.
#[track_caller]
fn assert_whole(path: &Path) {
    let record = base::read(&Dir::open(path).unwrap()).unwrap();
    let taken = sums::of(&Tree::open(&path.join("data")).unwrap(), &|_| None).unwrap();
    let text = fs::read(path.join("B3SUMS")).unwrap();
    assert!(taken.sums.print() == text, "{}", path.display());
    assert_eq!((record.sums, record.bytes), (Digest::of(&text), taken.bytes), "{}", path.display());
    assert_eq!(record.files, taken.sums.files().len() as u64);
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["B3SUMS", "base.toml", "data"]);
    let found = Ran::from(std::process::Command::new("find").arg(path).args(["-name", ".repl*"]).output().unwrap());
    assert_eq!(found.out, "");
}

#[test]
fn a_tree_with_everything_is_kept_and_checked_without_the_suite() {
    let vault = Vault::empty();
    tree::small(&vault.src());
    fs::File::create(vault.src().join("hollow")).unwrap().set_len(64 << 20).unwrap();
    tree::touch(&vault.src(), 1_234_567_890, 5);
    let report = vault.take("one", "--reason 'because \"so\"'");
    let text = fs::read_to_string(vault.bases().join("one/base.toml")).unwrap();
    for line in ["v = 1", "engine = \"plain\"", "identity = \"\"", "reason = 'because \"so\"'"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(text.contains(&format!("source = \"{}\"", vault.src().display())), "{text}");
    assert_eq!(report["base"]["reason"], "because \"so\"");
    let history = fs::read_to_string(vault.bases().join("history.jsonl")).unwrap();
    let line: Value = serde_json::from_str(&history).unwrap();
    assert_eq!(
        (&line["did"], &line["name"], &line["reason"]),
        (&"base".into(), &"one".into(), &report["base"]["reason"])
    );
    // The one name that is not UTF-8 is one that b3sum can write no line for, and check none.
    let checked = vault.rig.run("cd archive/bases/one && b3sum --check B3SUMS");
    let (good, files) = (checked.out.matches(": OK\n").count() as u64, report["base"]["files"].as_u64().unwrap());
    assert_eq!(good, files - 1, "{checked:?}");
    assert!(!checked.out.contains("FAILED (digest"), "{checked:?}");
}

#[test]
fn what_did_not_change_is_another_name_of_the_same_file() {
    let vault = Vault::empty();
    tree::small(&vault.src());
    vault.write("long", tree::noise(3_000_000, 1));
    vault.take("one", "");
    let report = vault.take("two", "");
    assert_eq!(report["sync"]["literal_bytes"], 0, "{report}");
    let inodes = |name: &str| {
        let list = "find . -type f -printf '%P %i\\n' | sort";
        vault.rig.ok(&format!("cd archive/bases/{name}/data && {list}"))
    };
    assert_eq!(inodes("one"), inodes("two"));
    let blocks = |names: &str| vault.rig.ok(&format!("cd archive/bases && du -sc {names} | tail -n 1 | cut -f 1"));
    let (one, both) = (blocks("one").trim().parse::<u64>().unwrap(), blocks("one two").trim().parse::<u64>().unwrap());
    assert!(both - one < 1000, "{one} {both}");
}
