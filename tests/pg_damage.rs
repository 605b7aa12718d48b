//! Real PostgreSQL logs with every kind of damage: the exact verdict of `repl-ship` and of `repl-verify`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/wal.rs"]
mod wal;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use postgres::{Postgres, Stage, Stop};
use repl::rule::scheme::Scheme;
use repl::value::position::Segment;
use rig::{Ran, Rig};

const SIZE: u64 = 1 << 20;
const SHIP: &str = "$SHIP -S --state state --via '$APPLY --acks --logs-only archive' master";

/// A server's `pg_wal` at rest, and places in it.
struct Log {
    rig: Rig,
    scheme: Scheme,
    first: u64,
    newest: u64,
    /// A segment that is full of records, and one that a switch ended.
    full: u64,
    switched: u64,
    /// A byte in the full one that a record's checksum covers.
    inside: u64,
    /// A segment whose last record goes on in the next.
    spanning: u64,
}

impl Log {
    fn path(&self, dir: &str, number: u64) -> PathBuf {
        self.rig.path(dir).join(self.scheme.name(Segment::new(1, number)))
    }

    /// One pass into an archive.
    fn ship(&self) -> Ran {
        self.rig.run(SHIP)
    }

    fn verify(&self, dir: &str) -> Ran {
        self.rig.run(&format!("$VERIFY {dir}"))
    }

    /// As it was, and nothing shipped.
    fn again(&self) {
        self.rig.ok("rm -rf master archive state && cp -a kept master");
    }

    /// All that is before a segment is in the archive.
    #[track_caller]
    fn assert_shipped(&self, end: u64) {
        for number in self.first..end {
            let [ours, theirs] = ["archive", "kept"].map(|dir| fs::read(self.path(dir, number)).unwrap());
            assert!(ours == theirs, "{number}");
        }
    }
}

/// The log of a new server, with small records, a switch in the middle, and a record longer than two segments.
fn written() -> Rig {
    let stage = Stage::new();
    let mut server = Postgres::init(&stage, "master", 1, "");
    server.fill(1);
    server.sql("select pg_switch_wal()");
    server.sql("create table more as select i, md5(i::text) from generate_series(1, 30000) i");
    server.sql("select pg_logical_emit_message(true, 'test', repeat('0123456789abcdef', 150000))");
    server.sql("create index on more (i)");
    server.stop(Stop::Fast);
    let rig = Rig::new();
    rig.ok(&format!("cp -a {} kept", server.wal().display()));
    rig
}

fn log() -> Log {
    let rig = written();
    let kept = rig.path("kept");
    let (scheme, files) = (wal::scheme(&kept), wal::files(&kept, 1));
    let (first, newest) = (files.keys().next().unwrap().sequence, files.keys().next_back().unwrap().sequence);
    let printed = wal::printed(&kept, Segment::new(1, first));
    let switched = printed.iter().find(|record| record.is("XLOG", "SWITCH")).unwrap().start / SIZE;
    let full = switched - 3;
    let middle = full * SIZE + SIZE / 2;
    let inside = printed.iter().find(|record| record.start > middle && record.start % 8192 < 8000).unwrap().start;
    let scanners = wal::chain(&scheme, &files);
    let goes_on = |number: &u64| scanners[&Segment::new(1, *number)].trouble().is_some();
    let spanning = (first + 1..full).rev().find(goes_on).expect("no record goes on in the next segment");
    let log = Log { rig, scheme, first, newest, full, switched, inside: inside % SIZE + 20, spanning };
    log.again();
    log
}

fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

fn set_length(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn swap(one: &Path, other: &Path) {
    let bytes = fs::read(one).unwrap();
    fs::copy(other, one).unwrap();
    fs::write(other, bytes).unwrap();
}

#[test]
fn a_whole_log_with_a_record_longer_than_a_segment_is_shipped_to_its_end_and_proven() {
    let log = log();
    let ran = log.ship();
    assert_eq!(ran.code, 0, "{ran:?}");
    log.assert_shipped(log.newest);
    let position = log.rig.ok("$APPLY --position archive");
    assert!(position.starts_with(&format!("1-{}:", log.newest)), "{position}");
    for dir in ["master", "archive"] {
        let ran = log.verify(dir);
        assert_eq!(ran.code, 0, "{dir}: {ran:?}");
        let end = position.split('+').next().unwrap();
        assert!(ran.out.contains(&format!(" to {end}")), "{dir}: {ran:?}, {end}");
    }
}

#[test]
fn every_damage_of_a_servers_log_has_its_verdict() {
    type Damage<'a> = &'a dyn Fn(&Log);
    let foreign = written();
    let matrix: [(&str, i32, &str, Damage); 8] = [
        ("missing", 3, "gap", &|log| fs::remove_file(log.path("master", log.full)).unwrap()),
        ("flipped", 6, "is damaged", &|log| flip(&log.path("master", log.full), log.inside)),
        ("system flipped", 6, "of system", &|log| flip(&log.path("master", log.full), 24)),
        ("short", 6, "is damaged", &|log| set_length(&log.path("master", log.full), SIZE / 2 + 4096)),
        ("long", 6, "longer than a segment", &|log| set_length(&log.path("master", log.full), SIZE + 8192)),
        ("flipped behind a switch", 6, "behind a segment switch", &|log| {
            flip(&log.path("master", log.switched), SIZE - 1);
        }),
        ("swapped", 3, "gap", &|log| swap(&log.path("master", log.full), &log.path("master", log.full + 1))),
        ("foreign", 6, "of system", &|log| {
            let name = log.scheme.name(Segment::new(1, log.full));
            fs::copy(foreign.path("kept").join(name), log.path("master", log.full)).unwrap();
        }),
    ];
    let log = log();
    for (what, code, says, damage) in matrix {
        log.again();
        damage(&log);
        let ran = log.ship();
        assert!(ran.code == code && ran.err.contains(says), "{what}: {ran:?}");
        // The one before may end with a record whose end cannot be proven any more.
        log.assert_shipped(log.full - 1);
        let ran = log.verify("master");
        let word = if code == 3 { "gap 1-" } else { "corrupt 1-" };
        assert!(ran.code == code && ran.out.lines().any(|line| line.starts_with(word)), "{what}: {ran:?}");
    }
}

#[test]
fn a_used_file_under_a_name_to_come_is_passed_over() {
    let log = log();
    for later in [1, 2, 3] {
        fs::copy(log.path("kept", log.full + later), log.path("master", log.newest + later)).unwrap();
    }
    fs::write(log.path("master", log.newest + 4), vec![0; SIZE as usize]).unwrap();
    let ran = log.ship();
    assert_eq!(ran.code, 0, "{ran:?}");
    log.assert_shipped(log.newest);
    assert!(!log.path("archive", log.newest + 1).exists());
    assert_eq!(log.verify("master").code, 0);
}

#[test]
fn bug_a_record_cut_off_in_the_newest_segment_was_damage_of_the_one_before() {
    let log = log();
    let next = log.spanning + 1;
    for number in next + 1..=log.newest {
        fs::remove_file(log.path("master", number)).unwrap();
    }
    let mut bytes = fs::read(log.path("master", next)).unwrap();
    bytes[40..].fill(0);
    fs::write(log.path("master", next), bytes).unwrap();
    let ran = log.verify("master");
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = log.ship();
    assert_eq!(ran.code, 0, "{ran:?}");
    log.assert_shipped(log.spanning);
    let position = log.rig.ok("$APPLY --position archive");
    assert!(position.starts_with(&format!("1-{}:", log.spanning)), "{position}");
    // The rest comes, to the same directory: another one would be another instance. It goes on where it was.
    log.rig.ok("rm -r master/* && cp -a kept/. master");
    let ran = log.ship();
    assert_eq!(ran.code, 0, "{ran:?}");
    log.assert_shipped(log.newest);
    assert_eq!(log.verify("archive").code, 0);
}

#[test]
fn every_damage_of_an_archive_has_its_verdict() {
    type Damage = fn(&Log);
    let matrix: [(&str, i32, Damage); 10] = [
        ("first missing", 3, |log| fs::remove_file(log.path("archive", log.first)).unwrap()),
        ("missing", 3, |log| fs::remove_file(log.path("archive", log.full)).unwrap()),
        ("newest missing", 3, |log| fs::remove_file(log.path("archive", log.newest)).unwrap()),
        ("flipped", 6, |log| flip(&log.path("archive", log.full), log.inside)),
        ("padding of a page header flipped", 6, |log| flip(&log.path("archive", log.full), 8192 + 20)),
        ("flipped behind a switch", 6, |log| flip(&log.path("archive", log.switched), SIZE - 1)),
        ("newest flipped", 6, |log| flip(&log.path("archive", log.newest), 40 + 20)),
        ("short", 6, |log| set_length(&log.path("archive", log.full), SIZE - 1)),
        ("missing and flipped", 6, |log| {
            fs::remove_file(log.path("archive", log.full)).unwrap();
            flip(&log.path("archive", log.switched), 1000);
        }),
        // Neither is the file of its name.
        ("swapped", 6, |log| swap(&log.path("archive", log.full), &log.path("archive", log.full + 1))),
    ];
    let log = log();
    assert_eq!(log.ship().code, 0);
    log.rig.ok("cp -a archive shipped");
    for (what, code, damage) in matrix {
        log.rig.ok("rm -rf archive && cp -a shipped archive");
        assert_eq!(log.verify("archive").code, 0);
        damage(&log);
        let ran = log.verify("archive");
        assert_eq!(ran.code, code, "{what}: {ran:?}");
    }
}

/// A server gives files that lie beyond the fork new names: one may become the same segment of the new timeline.
#[test]
fn bug_a_segment_of_the_timeline_that_was_left_was_shipped_under_its_new_name() {
    let stage = Stage::new();
    let mut master = Postgres::init(&stage, "master", 1, "");
    master.fill(1);
    master.stop(Stop::Fast);
    stage.ok("cp -a master standby && touch standby/standby.signal");
    master.start();
    master.sql("create table more as select i, md5(i::text) from generate_series(1, 50000) i");
    master.stop(Stop::Fast);
    let mut standby = Postgres::at(&stage, "standby");
    standby.set(&format!("port = {}\n", standby.port));
    standby.start();
    standby.promote();
    standby.sql("create table other as select i from generate_series(1, 20000) i");
    standby.stop(Stop::Fast);
    let rig = Rig::new();
    rig.ok(&format!("rmdir master && cp -a {} master", standby.wal().display()));
    let scheme = wal::scheme(&rig.path("master"));
    let newest = wal::files(&rig.path("master"), 2).keys().next_back().unwrap().sequence;
    let [old, new] = [1, 2].map(|timeline| scheme.name(Segment::new(timeline, newest + 1)));
    let left = master.wal().join(old);
    assert!(left.exists(), "the old master has not gone on for long enough");
    fs::copy(left, rig.path("master").join(&new)).unwrap();
    let ran = rig.run(SHIP);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!rig.path("archive").join(new).exists());
    let position = rig.ok("$APPLY --position archive");
    assert!(position.starts_with(&format!("2-{newest}:")), "{position}");
    for dir in ["master", "archive"] {
        let ran = rig.run(&format!("$VERIFY {dir}"));
        assert_eq!(ran.code, 0, "{dir}: {ran:?}");
    }
}
