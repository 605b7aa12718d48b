//! `repl-sync` as operators run it: real trees, a real sshd, commands that write down what they were run for.

mod guards;
mod hooks;
mod letters;
mod options;
mod remote;
mod trees;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::rig::{Ran, Rig};
use super::tree;

/// A scratch directory with a source and room for a destination.
struct Site {
    rig: Rig,
}

impl Site {
    /// With nothing in the source.
    fn empty() -> Site {
        let site = Site { rig: Rig::new() };
        fs::create_dir(site.src()).unwrap();
        site
    }

    /// With some small files in the source.
    fn some() -> Site {
        let site = Site::empty();
        site.write("a", "one");
        site.write("dir/b", "two");
        site.write("dir/c.log", tree::noise(100_000, 1));
        site
    }

    /// With some small files that both sides have.
    fn synced() -> Site {
        let site = Site::some();
        site.ok("src dst");
        site
    }

    fn src(&self) -> PathBuf {
        self.rig.path("src")
    }

    fn dst(&self) -> PathBuf {
        self.rig.path("dst")
    }

    /// Writes a file in the source, and what is above it.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        write(&self.src().join(name), bytes);
    }

    fn run(&self, arguments: &str) -> Ran {
        self.rig.run(&format!("$SYNC {arguments}"))
    }

    /// A run that must succeed; returns what it prints.
    #[track_caller]
    fn ok(&self, arguments: &str) -> String {
        self.rig.ok(&format!("$SYNC {arguments}"))
    }

    /// The report of a run that must succeed.
    #[track_caller]
    fn report(&self, arguments: &str) -> Value {
        let out = self.ok(&format!("--json {arguments}"));
        serde_json::from_str(out.trim_end()).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// The files in the scratch directory that belong to a sync.
    fn litter(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![self.rig.root.path().to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(".repl-sync") {
                    found.push(name);
                } else if entry.file_type().unwrap().is_dir() {
                    waiting.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// A number of a report.
#[track_caller]
fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"))
}

/// Nothing was sent and nothing was done.
#[track_caller]
fn assert_idle(report: &Value) {
    for key in ["literal_bytes", "created", "updated", "dressed", "deleted"] {
        assert_eq!(number(report, key), 0, "{key} in {report}");
    }
}
