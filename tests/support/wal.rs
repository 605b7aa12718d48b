//! PostgreSQL's log as its own `pg_waldump` and as our scanner see it.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use repl::rule::scheme::postgres::Cluster;
use repl::rule::scheme::{HEAD, Scanner, Scheme};
use repl::value::position::Segment;
use repl::value::time::Time;

/// What `pg_waldump` says of one record.
#[derive(Debug)]
pub struct Printed {
    /// Where it begins and ends in the log.
    pub start: u64,
    pub end: u64,
    pub manager: String,
    pub says: String,
}

/// A place in the log, and when the transaction ended that ends there; `None` where nobody says when.
pub type Boundary = (u64, Option<Time>);

impl Printed {
    pub fn is(&self, manager: &str, word: &str) -> bool {
        self.manager == manager && self.says.split(' ').next() == Some(word)
    }

    /// Whether it ends a transaction or sets a restore point.
    pub fn boundary(&self) -> Option<Boundary> {
        let ends = ["COMMIT", "ABORT", "COMMIT_PREPARED", "ABORT_PREPARED"];
        if ends.iter().any(|word| self.is("Transaction", word)) {
            let stamp = self.says.split(" UTC").next().unwrap();
            let stamp = &stamp[stamp.len() - "2026-01-01 00:00:00.000000".len()..];
            return Some((self.end, Some(Time::parse(stamp).unwrap_or_else(|| panic!("no time: {}", self.says)))));
        }
        self.is("XLOG", "RESTORE_POINT").then_some((self.end, None))
    }
}

/// What a log is of, by its files.
pub fn scheme(wal: &Path) -> Scheme {
    let files = fs::read_dir(wal).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut clusters = files.filter_map(|path| Cluster::read(head(&fs::read(path).unwrap())));
    Scheme::Postgres(clusters.next().expect("no segment is there"))
}

pub fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..HEAD.min(bytes.len())]
}

/// The files that have begun to be the segments of their names, of one timeline.
pub fn files(wal: &Path, timeline: u64) -> BTreeMap<Segment, Vec<u8>> {
    let scheme = scheme(wal);
    let names = fs::read_dir(wal).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let segments = names.filter_map(|name| scheme.segment(&name)).filter(|segment| segment.generation == timeline);
    // A server removes and renames them at any time.
    let read = |segment: Segment| Some((segment, fs::read(wal.join(scheme.name(segment))).ok()?));
    segments.filter_map(read).filter(|(segment, bytes)| scheme.is_begun(*segment, head(bytes))).collect()
}

/// Scans segments in order, each of which knows the one before.
pub fn chain(scheme: &Scheme, files: &BTreeMap<Segment, Vec<u8>>) -> BTreeMap<Segment, Scanner> {
    let mut scanners: BTreeMap<Segment, Scanner> = BTreeMap::new();
    for (segment, bytes) in files {
        let mut scanner = scheme.scanner(*segment, None);
        if let Some((_, before)) = scanners.last_key_value() {
            scanner.follow(before);
        }
        bytes.chunks(1 << 18).for_each(|chunk| scanner.take(chunk));
        scanners.insert(*segment, scanner);
    }
    scanners
}

/// Scans segments in order in the smallest steps: every place up to which the log was safe, and every boundary.
pub fn walk(scheme: &Scheme, files: &BTreeMap<Segment, Vec<u8>>) -> (Vec<u64>, Vec<Boundary>) {
    let (mut ends, mut boundaries) = (Vec::new(), Vec::new());
    let mut before: Option<Scanner> = None;
    for (segment, bytes) in files {
        let mut scanner = scheme.scanner(*segment, None);
        if let Some(before) = &before {
            scanner.follow(before);
        }
        let start = segment.sequence * scheme.segment_size();
        for aligned in bytes.chunks(8) {
            let (safe, boundary) = (scanner.safe(), scanner.boundary());
            scanner.take(aligned);
            if scanner.safe() > safe {
                ends.push(start + scanner.safe());
            }
            if scanner.boundary() != boundary {
                boundaries.extend(scanner.boundary().map(|mark| (start + mark.offset, mark.time)));
            }
        }
        before = Some(scanner);
    }
    (ends, boundaries)
}

/// The log as `pg_waldump` shows it, from the first whole record of a segment on.
pub fn printed(wal: &Path, from: Segment) -> Vec<Printed> {
    let scheme = scheme(wal);
    let mut command = Command::new("/usr/lib/postgresql/15/bin/pg_waldump");
    let start = from.sequence * scheme.segment_size();
    let start = format!("{:X}/{:X}", start >> 32, start & 0xffff_ffff);
    // (A segment's name would be where it begins, and where it ends.)
    command.env("TZ", "UTC").arg("-p").arg(wal).args(["-t", &from.generation.to_string(), "-s", &start]);
    let output = command.output().unwrap_or_else(|error| panic!("{error}\nhint: apt-get install postgresql-15"));
    // It ends with an error where the log ends.
    let text = String::from_utf8(output.stdout).unwrap();
    let records: Vec<_> = text.lines().filter(|line| line.starts_with("rmgr: ")).collect();
    assert!(!records.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    records.into_iter().map(|line| parse(line, scheme.segment_size())).collect()
}

fn parse(line: &str, size: u64) -> Printed {
    let field = |name: &str| line.split_once(name).unwrap_or_else(|| panic!("{line}")).1;
    let length = field("len (rec/tot):").split_once('/').unwrap().1.split_once(',').unwrap().0;
    let start = super::postgres::lsn(field("lsn: ").split(',').next().unwrap());
    let end = end(start, length.trim().parse().unwrap(), size);
    let manager = field("rmgr: ").split(' ').next().unwrap().to_owned();
    Printed { start, end, manager, says: field("desc: ").trim().to_owned() }
}

/// Where a record ends, by the layout: pages of 8 KiB with headers of 24 bytes, a segment's first of 40; aligned by 8.
fn end(mut at: u64, mut left: u64, size: u64) -> u64 {
    loop {
        let room = 8192 - at % 8192;
        if left <= room {
            return (at + left).next_multiple_of(8);
        }
        (at, left) = (at + room, left - room);
        at += if at.is_multiple_of(size) { 40 } else { 24 };
    }
}

/// Holds the scanner against `pg_waldump` over all segments of a timeline, from one on; returns what both saw.
#[track_caller]
pub fn compare(wal: &Path, timeline: u64) -> Vec<Printed> {
    let (scheme, files) = (scheme(wal), files(wal, timeline));
    let printed = printed(wal, *files.keys().next().unwrap());
    let size = scheme.segment_size();
    let (ends, boundaries) = walk(&scheme, &files);
    let mut expected = Vec::new();
    for record in &printed {
        expected.push(record.end);
        if record.is("XLOG", "SWITCH") && record.end % size != 0 {
            // What is behind it belongs to it.
            expected.push(record.end.next_multiple_of(size));
        }
    }
    let differ = ends.iter().zip(&expected).find(|(ours, theirs)| ours != theirs);
    assert!(differ.is_none() && ends.len() == expected.len(), "{differ:x?}, {} and {}", ends.len(), expected.len());
    let theirs: Vec<_> = printed.iter().filter_map(Printed::boundary).collect();
    assert_eq!(boundaries.len(), theirs.len());
    for ((ours, our_time), (theirs, their_time)) in boundaries.iter().zip(&theirs) {
        assert!(ours == theirs && our_time.is_some(), "{ours:x} {theirs:x}");
        assert!(their_time.is_none() || their_time == our_time, "{ours:x}: {our_time:?} {their_time:?}");
    }
    for pair in printed.windows(2) {
        let between = pair[1].start - pair[0].end;
        let goes_on = [0, 24, 40].contains(&between) || pair[0].is("XLOG", "SWITCH");
        assert!(goes_on || pair[1].is("XLOG", "OVERWRITE_CONTRECORD"), "{pair:?}");
    }
    printed
}
