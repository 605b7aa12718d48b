//! Reads segments, each once, and judges them by their records and by what is recorded of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use super::expected::{Expected, Record};
use super::{Extent, Finding, Kind};
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::read::prefix_with;
use crate::engine::log;
use crate::rule::scheme::{Closure, Scanner, Scheme, Step};
use crate::rule::verdict::Held;
use crate::value::digest::{Mask, Running};
use crate::value::position::Segment;
use crate::value::time::Time;

/// The segment after one, and whether later ones are there.
#[derive(Clone, Copy)]
struct After {
    segment: Segment,
    is_passed: bool,
}

/// What reading one segment has shown.
pub(super) struct ReadSegment {
    /// How many bytes were read.
    pub(super) bytes: u64,
    /// What is held of it.
    pub(super) held: Extent,
    /// What is wrong with it.
    pub(super) findings: Vec<Finding>,
}

/// Reads all segments, on all cores.
pub(super) fn read_all(
    dir: &Dir,
    scheme: &Scheme,
    present: &[Segment],
    expected: &Expected,
    until: Option<Time>,
) -> Result<BTreeMap<Segment, ReadSegment>> {
    let (next, reads) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || -> Result<()> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(segment) = present.get(at) else {
                return Ok(());
            };
            let after = present.get(at + 1).copied().filter(|after| scheme.step(*segment, *after) != Step::Gap);
            let after = after.map(|after| After { segment: after, is_passed: present.len() > at + 2 });
            if let Some(read) = read_segment(dir, scheme, *segment, after, expected, until)? {
                reads.lock().insert(*segment, read);
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(present.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(())));
        joined.collect::<Result<Vec<()>>>()
    })?;
    Ok(reads.into_inner())
}

/// Reads and judges one segment; `None` when it has just been removed.
fn read_segment(
    dir: &Dir,
    scheme: &Scheme,
    segment: Segment,
    after: Option<After>,
    expected: &Expected,
    until: Option<Time>,
) -> Result<Option<ReadSegment>> {
    // The next one's beginning first: what this one lacks after that is missing for good.
    let next = after.map(|after| log::open(dir, scheme, after.segment)).transpose()?.flatten();
    let Some((file, name)) = log::open(dir, scheme, segment)? else {
        return Ok(None);
    };
    let open = expected.holding.map(|holding| holding.held);
    let open = open.filter(|held| held.position.segment == segment && !held.closed);
    let limit = open.map_or(u64::MAX, |held| held.position.offset);
    let mut scanner = scheme.scanner(segment, until);
    scanner.written(clock::written(&file.metadata()?));
    let read = Hashed::read(&file, scheme.mask(), limit, &mut scanner);
    let read = read.with_context(|| format!("cannot read {}", dir.shown(&name)))?;
    let record = expected.closed.get(&segment);
    let mut judge = Judge { segment, name, findings: Vec::new() };
    match (record, open) {
        (Some(record), _) => judge.closed(record, &read),
        (None, Some(held)) => judge.open(held, &read),
        (None, None) => {}
    }
    if let (Some((next, _)), Some(after)) = (next, after) {
        // What a replica has closed was finished by bytes that it holds.
        let is_passed = after.is_passed || record.is_some();
        if let Closure::Damaged(why) = log::closure(&scanner, &file, after.segment, &next, is_passed)? {
            judge.corrupt(Some(scanner.safe()), &format!(": {why}"));
        }
    } else if open.is_some() && read.length() >= limit && scanner.safe() < limit && !scanner.may_be_torn() {
        // Only whole records are ever shipped, so a replica's open segment has nothing else in it.
        let why = scanner.trouble().unwrap_or_else(|| "a record is cut off".to_owned());
        judge.corrupt(Some(scanner.safe()), &format!(": {why}"));
    }
    let is_closed = record.is_some() || after.is_some();
    let length = if is_closed { read.length() } else { scanner.safe().min(limit) };
    let digest = (length == read.length()).then(|| read.of_log().digest());
    let (boundary, is_past) = (scanner.boundary(), scanner.is_past_limit());
    let held = Extent { length, digest, is_closed, boundary, is_past };
    Ok(Some(ReadSegment { bytes: read.length(), held, findings: judge.findings }))
}

/// The digests of what was read of a segment, in one reading.
struct Hashed {
    of_file: Running,
    /// The one that all sites have, where bits are set that it leaves out.
    of_log: Option<Running>,
}

impl Hashed {
    fn read(file: &File, mask: Option<Mask>, limit: u64, scanner: &mut Scanner) -> std::io::Result<Hashed> {
        let mut of_log = mask.map(|mask| Running::masked(Some(mask)));
        let of_file = prefix_with(file, Running::new(), limit, |bytes| {
            scanner.take(bytes);
            // The bits are in the first piece, and clear in all segments but those that a crash or their use has left.
            let is_first = of_log.as_ref().is_some_and(|running| running.length() == 0);
            if is_first && mask.is_some_and(|mask| !mask.is_set(0, bytes)) {
                of_log = None;
            }
            if let Some(running) = &mut of_log {
                running.update(bytes);
            }
        })?;
        Ok(Hashed { of_log: of_log.filter(|running| running.length() > 0), of_file })
    }

    fn length(&self) -> u64 {
        self.of_file.length()
    }

    fn of_log(&self) -> &Running {
        self.of_log.as_ref().unwrap_or(&self.of_file)
    }
}

/// Says what is wrong with a segment.
struct Judge {
    segment: Segment,
    name: String,
    findings: Vec<Finding>,
}

impl Judge {
    fn corrupt(&mut self, offset: Option<u64>, words: &str) {
        let text = format!("{}{words}", self.name);
        self.findings.push(Finding { kind: Kind::Corrupt, segment: self.segment, offset, text });
    }

    fn closed(&mut self, record: &Record, read: &Hashed) {
        let (have, of_file, of_log) = (read.length(), read.of_file.digest(), read.of_log().digest());
        let length = record.closed.map(|(length, _)| length);
        if let Some(length) = length.filter(|length| *length > have) {
            return self.corrupt(Some(have), &format!(" has {have} bytes, it was closed with {length}"));
        }
        if let Some(told) = record.of_file.filter(|told| *told != of_file) {
            return self.corrupt(None, &format!(" has digest {of_file}, its record says {told}"));
        }
        if let Some((_, told)) = record.closed.filter(|(_, told)| *told != of_log) {
            return self.corrupt(None, &format!(" has digest {of_log}, its record says {told}"));
        }
        if let Some(length) = length.filter(|length| *length < have) {
            self.corrupt(Some(length), &format!(" has {have} bytes, it was closed with {length}"));
        }
    }

    fn open(&mut self, held: Held, read: &Hashed) {
        let (have, digest) = (read.length(), read.of_log().digest());
        if have < held.position.offset {
            self.corrupt(Some(have), &format!(" has {have} bytes, {} are held", held.position.offset));
        } else if held.digest != digest {
            let words = format!(" has digest {digest} up to {}, its record says {}", held.position, held.digest);
            self.corrupt(None, &words);
        }
    }
}
