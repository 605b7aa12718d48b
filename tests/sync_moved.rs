//! Files whose bytes moved, since some were inserted or removed before them: what is sent is about what is new, and the
//! result is right, for both ways of a sync.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What a change may cost beyond its own bytes: the group that it is in and the one that it ends in, and the edges of
/// blocks.
const NEAR: usize = 160 * KIB;
/// Both ways.
const WAYS: [&str; 2] = ["--stage", "--inplace"];

/// Deterministic bytes that do not compress and are nowhere alike.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn insert(old: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    [&old[..at], new, &old[at..]].concat()
}

/// A source and a destination with one file each.
struct Site {
    root: TempDir,
}

impl Site {
    fn new(old: &[u8], new: &[u8]) -> Site {
        let site = Site { root: tempfile::tempdir().unwrap() };
        for (dir, bytes) in [("src", new), ("dst", old)] {
            fs::create_dir(site.path(dir)).unwrap();
            fs::write(site.path(dir).join("f"), bytes).unwrap();
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, options: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repl-sync"));
        command.args(options.split_whitespace()).args(["--json", "src", "dst"]).current_dir(self.root.path());
        command
    }

    /// Makes the destination what the source is; returns the report.
    #[track_caller]
    fn sync(&self, options: &str) -> Value {
        let ran = self.command(options).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    #[track_caller]
    fn assert_equal(&self) {
        let [new, here] = ["src/f", "dst/f"].map(|path| fs::read(self.path(path)).unwrap());
        assert!(new == here);
        let left: Vec<_> = fs::read_dir(self.path("dst")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["f"]);
    }
}

#[track_caller]
fn number(report: &Value, key: &str) -> usize {
    report[key].as_u64().unwrap() as usize
}

/// Syncs, and returns how many bytes of the file were sent.
#[track_caller]
fn literal(way: &str, old: &[u8], new: &[u8]) -> usize {
    let site = Site::new(old, new);
    let report = site.sync(way);
    site.assert_equal();
    assert_eq!(number(&site.sync(way), "literal_bytes"), 0);
    number(&report, "literal_bytes")
}

#[test]
fn what_is_inserted_is_what_is_sent() {
    let old = noise(5 * MIB + 333, 1);
    for way in WAYS {
        for length in [1, 100, MIB] {
            for at in [0, 2 * MIB + 77, old.len()] {
                let sent = literal(way, &old, &insert(&old, at, &noise(length, 2)));
                assert!((length..length + NEAR).contains(&sent), "{way}: {sent} for {length} at {at}");
            }
        }
    }
}

#[test]
fn what_is_removed_costs_next_to_nothing() {
    let old = noise(5 * MIB + 333, 3);
    for way in WAYS {
        for new in [&old[1..], &old[100..], &old[MIB + 5..], &[&old[..MIB], &old[2 * MIB + 1..]].concat()] {
            let sent = literal(way, &old, new);
            assert!(sent < NEAR, "{way}: {sent} for {}", new.len());
        }
    }
}

#[test]
fn several_changes_and_swapped_blocks_are_found() {
    let old = noise(6 * MIB, 4);
    let twice = insert(&insert(&old, 4 * MIB + 1, &noise(300, 5)), MIB, &noise(5000, 6));
    let balanced = insert(&old[700..], 3 * MIB, &noise(700, 7));
    let swapped = [&old[4 * MIB..], &old[..4 * MIB]].concat();
    for way in WAYS {
        for new in [&twice, &balanced, &swapped] {
            let sent = literal(way, &old, new);
            assert!(sent < 2 * NEAR, "{way}: {sent}");
        }
    }
}

#[test]
fn many_ranges_move_at_little_cost() {
    let old = noise(40 * MIB + 9, 8);
    let twice = insert(&insert(&old, 24 * MIB + 11, &noise(2 * MIB, 9)), 100, b"inserted");
    let grown = insert(&old, 0, &noise(17 * MIB, 10));
    for way in WAYS {
        let sent = literal(way, &old, &twice);
        assert!(sent < 2 * MIB + 3 * NEAR, "{way}: {sent}");
        let sent = literal(way, &grown, &old);
        assert!(sent < 2 * NEAR, "{way}: {sent}");
    }
    // All of the first range is new, and what was there is needed by the next. What is behind the old end may have been
    // appended: it is asked for as new until other ranges have shown that bytes moved, and that is as much once more.
    let sent = literal("--stage", &old, &grown);
    assert!(sent < 2 * 17 * MIB + 2 * NEAR, "{sent}");
}

#[test]
fn a_file_that_only_grew_is_appended_to() {
    let old = noise(20 * MIB, 11);
    let site = Site::new(&old, &insert(&old, old.len(), &noise(3 * MIB, 12)));
    let inode = || fs::metadata(site.path("dst/f")).unwrap().ino();
    let before = inode();
    assert_eq!(number(&site.sync("--inplace"), "literal_bytes"), 3 * MIB);
    site.assert_equal();
    assert_eq!(inode(), before);
}

#[test]
fn moved_bytes_meet_holes_and_other_names() {
    let (head, tail) = (noise(3 * MIB, 13), noise(3 * MIB, 14));
    let sparse = |path: &Path, shift: u64| {
        let file = fs::File::create(path).unwrap();
        file.write_all_at(b"first", 0).unwrap();
        file.write_all_at(&head, shift).unwrap();
        file.write_all_at(&tail, 9 * MIB as u64 + shift).unwrap();
    };
    for way in WAYS {
        let site = Site::new(b"", b"");
        sparse(&site.path("src/f"), 5);
        sparse(&site.path("dst/f"), 0);
        let old = fs::read(site.path("dst/f")).unwrap();
        fs::hard_link(site.path("dst/f"), site.path("other")).unwrap();
        let sent = number(&site.sync(way), "literal_bytes");
        site.assert_equal();
        assert!(sent < 2 * NEAR, "{way}: {sent}");
        assert!(fs::read(site.path("other")).unwrap() == old);
        assert!(fs::metadata(site.path("dst/f")).unwrap().blocks() * 512 < 7 * MIB as u64);
    }
}

/// Two blocks with the same MD4 and the same weak sum: for the search, one is the other.
#[test]
fn bytes_that_only_seem_to_have_moved_are_fetched() {
    let text = include_str!("data/md4-collision.txt");
    let block = |line: &str| -> Vec<u8> {
        (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
    };
    let blocks: Vec<_> = text.lines().map(block).collect();
    let with = |block: &[u8]| {
        let mut bytes = noise(3 * MIB, 15);
        bytes[MIB..MIB + block.len()].copy_from_slice(block);
        bytes
    };
    let (old, other) = (with(&blocks[0]), with(&blocks[1]));
    let moved = |bytes: &[u8]| [&bytes[2 * MIB + 7..], &bytes[..2 * MIB + 7]].concat();
    for way in WAYS {
        let sent = literal(way, &old, &moved(&old));
        assert!(sent < 2 * NEAR, "{way}: {sent}");
        let site = Site::new(&old, &moved(&other));
        let report = site.sync(way);
        site.assert_equal();
        assert!(number(&report, "literal_bytes") > 3 * MIB, "{way}: nothing lied: {report}");
        assert_eq!(number(&report, "passes"), 1, "{way}");
    }
}

/// What an earlier run staged, and has not put in place, is the old content of the next.
#[test]
fn a_file_moves_again_before_it_is_in_place() {
    let old = noise(4 * MIB, 14);
    for way in WAYS {
        let mut new = insert(&old, 0, b"one");
        let site = Site::new(&old, &new);
        for more in ["two", "three"] {
            let ran = site.command(&format!("{way} --hook before-switch=false")).output().unwrap();
            assert!(!ran.status.success());
            assert!(fs::read(site.path("dst/f")).unwrap() == old);
            new = insert(&insert(&new, 0, more.as_bytes()), 2 * MIB, more.as_bytes());
            fs::write(site.path("src/f"), &new).unwrap();
        }
        let sent = number(&site.sync(way), "literal_bytes");
        site.assert_equal();
        assert!(sent < 3 * NEAR, "{way}: {sent}");
    }
}

/// A run that was killed leaves a new file of its own in the stage: the next one must not put that in place.
#[test]
fn what_a_killed_run_was_writing_goes() {
    let old = noise(MIB, 16);
    let site = Site::new(&old, &insert(&old, 0, b"one"));
    assert!(!site.command("--stage --hook before-switch=false").output().unwrap().status.success());
    let left = site.path(".repl-sync-dst/stage/.repl-sync-123-0");
    fs::write(&left, "half").unwrap();
    site.sync("--stage");
    site.assert_equal();
    assert!(!left.exists());
}

/// Pages that a journal has already change again, in part, and the file gets shorter.
#[test]
fn the_same_bytes_change_again_before_they_are_in_place() {
    let old = noise(MIB, 17);
    let mut new = old.clone();
    let site = Site::new(&old, &old);
    for (round, length) in [(1, MIB), (2, MIB), (3, MIB / 2 + 3000)] {
        let at = MIB / 2 - 20_000 + round * 5000;
        new[at..at + 10_000].copy_from_slice(&noise(10_000, round as u64));
        new.truncate(length);
        fs::write(site.path("src/f"), &new).unwrap();
        let ran = site.command("--inplace --hook before-switch=false").output().unwrap();
        assert_eq!(ran.status.code(), Some(9), "{ran:?}");
    }
    let report = site.sync("--inplace");
    site.assert_equal();
    assert_eq!(number(&report, "literal_bytes"), 0);
}
