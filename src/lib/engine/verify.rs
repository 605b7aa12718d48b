//! Proves a log directory: order, gaps, digests, records. It changes nothing and needs no lock, so it can look at a live
//! master, a replica that is being written, or an archive.
//!
//! What a replica holds is what its `position` says: files and lines beyond it are not judged. In a master's directory
//! the segment that is being written counts as far as its records are whole.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use super::log::{self, scheme_of};
use super::site::{self, Closed, Holding};
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::read::prefix_with;
use crate::rule::scheme::{self, Closure, Mark, Scheme, Step};
use crate::value::digest::{Digest, Running};
use crate::value::exit::Code;
use crate::value::position::{Position, Segment};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A segment is missing.
    Gap,
    /// Bytes are not what they must be.
    Corrupt,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// In which segment.
    pub segment: Segment,
    /// At which byte, where one can be named.
    pub offset: Option<u64>,
    /// In words.
    pub text: String,
}

/// What was proven.
#[derive(Clone, Debug)]
pub struct Report {
    /// The rules that were applied.
    pub scheme: Scheme,
    /// The set, where the directory knows it.
    pub set: String,
    /// How many segments were read.
    pub segments: u64,
    /// How many of their bytes.
    pub bytes: u64,
    /// The first segment.
    pub first: Option<Segment>,
    /// The end of what is complete.
    pub end: Option<Position>,
    /// The last boundary.
    pub boundary: Option<(Segment, Mark)>,
    /// What is wrong, in order of segments.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whole, a gap, or corrupt; corrupt outweighs a gap.
    pub fn code(&self) -> Code {
        let has = |kind| self.findings.iter().any(|finding| finding.kind == kind);
        match (has(Kind::Corrupt), has(Kind::Gap)) {
            (true, _) => Code::Corrupt,
            (false, true) => Code::Gap,
            (false, false) => Code::Done,
        }
    }

    /// Whether the log begins where a set begins.
    pub fn is_self_contained(&self) -> bool {
        self.first.is_some_and(|first| self.scheme.is_first(first))
    }
}

/// What must be there, as the directory's own records say.
struct Expected {
    holding: Option<Holding>,
    closed: BTreeMap<Segment, Record>,
}

/// A closed segment, as recorded.
struct Record {
    digest: Digest,
    /// Whether that is of the file as it is, with the bits that other digests leave out.
    is_of_file: bool,
    length: Option<u64>,
}

/// Proves a log directory.
pub fn run(dir: &Dir, told: Option<scheme::Kind>, state: Option<&Path>) -> Result<Report> {
    let (scheme, set) = scheme_of(dir, told, state)?;
    let expected = Expected::read(dir, state, &scheme)?;
    let present = present(dir, &scheme, &expected)?;
    // A live server removes its own log behind it.
    let is_servers = scheme.servers_mark().is_some_and(|mark| matches!(dir.identity(mark), Ok(Some(_))));
    let mut findings = missing(&scheme, &present, &expected, present.first().copied().filter(|_| is_servers));
    let reads = read_all(dir, &scheme, &present, &expected)?;
    let mut report = Report {
        set: set.unwrap_or_default(),
        segments: reads.len() as u64,
        bytes: reads.values().map(|read| read.bytes).sum(),
        first: present.first().copied(),
        end: reads.last_key_value().map(|(segment, read)| segment.at(read.end)),
        boundary: reads.iter().rev().find_map(|(segment, read)| read.boundary.map(|mark| (*segment, mark))),
        findings: Vec::new(),
        scheme,
    };
    findings.extend(reads.into_values().flat_map(|read| read.findings));
    findings.sort_by_key(|finding| (finding.segment, finding.offset));
    report.findings = findings;
    Ok(report)
}

impl Expected {
    fn read(dir: &Dir, state: Option<&Path>, scheme: &Scheme) -> Result<Expected> {
        let mut closed = BTreeMap::new();
        let Some(state) = site::peek(dir, state)? else {
            return Ok(Expected { holding: None, closed });
        };
        let holding = site::holding(&state)?;
        let is_held = |segment: Segment| holding.is_some_and(|holding| holding.holds(segment));
        site::manifest(&state, |digest, name| {
            if let Some(segment) = scheme.segment(name).filter(|segment| is_held(*segment)) {
                closed.insert(segment, Record { digest, is_of_file: true, length: None });
            }
            Ok(())
        })?;
        site::closed_segments(&state, |Closed { segment, length, digest, .. }| {
            if is_held(segment) {
                let recorded = closed.entry(segment);
                recorded.or_insert(Record { digest, is_of_file: false, length: None }).length = Some(length);
            }
            Ok(())
        })?;
        Ok(Expected { holding, closed })
    }
}

/// Segments in order; at a replica none beyond what it holds.
fn present(dir: &Dir, scheme: &Scheme, expected: &Expected) -> Result<Vec<Segment>> {
    let last = expected.holding.map(|holding| holding.held.position.segment);
    let segments = log::segments(dir, scheme, |_| false)?.into_keys();
    Ok(segments.filter(|segment| last.is_none_or(|last| *segment <= last)).collect())
}

/// Holes in the order, and what the records name and is not there. What lies before `first` need not be there.
fn missing(scheme: &Scheme, present: &[Segment], expected: &Expected, first: Option<Segment>) -> Vec<Finding> {
    let gap = |segment, text: String| Finding { kind: Kind::Gap, segment, offset: None, text };
    let held = expected.holding.map(|holding| holding.held.position).filter(|at| at.offset > 0);
    let recorded = expected.closed.keys().copied().chain(held.map(|at| at.segment));
    let mut findings: BTreeMap<Segment, Finding> = recorded
        .filter(|segment| present.binary_search(segment).is_err() && first.is_none_or(|first| *segment >= first))
        .map(|segment| (segment, gap(segment, format!("{} is missing; it is recorded as held", scheme.name(segment)))))
        .collect();
    for pair in present.windows(2) {
        let next = Segment::new(pair[0].generation, pair[0].sequence.saturating_add(1));
        if scheme.step(pair[0], pair[1]) == Step::Gap {
            let text = format!("{} is missing: {} comes after {}", scheme.name(next), pair[1], pair[0]);
            findings.entry(next).or_insert_with(|| gap(next, text));
        }
    }
    findings.into_values().collect()
}

/// The segment after one, and whether later ones are there.
#[derive(Clone, Copy)]
struct After {
    segment: Segment,
    is_passed: bool,
}

/// What reading one segment has shown.
struct ReadSegment {
    bytes: u64,
    end: u64,
    boundary: Option<Mark>,
    findings: Vec<Finding>,
}

/// Reads all segments, on all cores.
fn read_all(
    dir: &Dir,
    scheme: &Scheme,
    present: &[Segment],
    expected: &Expected,
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
            if let Some(read) = read_segment(dir, scheme, *segment, after, expected)? {
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
) -> Result<Option<ReadSegment>> {
    // The next one's beginning first: what this one lacks after that is missing for good.
    let next = after.map(|after| log::open(dir, scheme, after.segment)).transpose()?.flatten();
    let Some((file, name)) = log::open(dir, scheme, segment)? else {
        return Ok(None);
    };
    let open = expected.holding.filter(|holding| holding.held.position.segment == segment && !holding.held.closed);
    let limit = open.map_or(u64::MAX, |holding| holding.held.position.offset);
    let mut scanner = scheme.scanner(segment, None);
    scanner.written(clock::written(&file.metadata()?));
    let is_of_file = expected.closed.get(&segment).is_some_and(|record| record.is_of_file);
    let running = if is_of_file { Running::new() } else { scheme.running() };
    let running = prefix_with(&file, running, limit, |bytes| scanner.take(bytes))
        .with_context(|| format!("cannot read {}", dir.shown(&name)))?;
    let mut findings = Vec::new();
    let mut corrupt = |offset, text| findings.push(Finding { kind: Kind::Corrupt, segment, offset, text });
    match (expected.closed.get(&segment), open) {
        (Some(Record { digest, length, .. }), _) => {
            if let Some(length) = length.filter(|length| *length > running.length()) {
                corrupt(
                    Some(running.length()),
                    format!("{name} has {} bytes, it was closed with {length}", running.length()),
                );
            } else if *digest != running.digest() {
                corrupt(None, format!("{name} has digest {}, its record says {digest}", running.digest()));
            }
        }
        (None, Some(Holding { held, .. })) => {
            if running.length() < held.position.offset {
                corrupt(
                    Some(running.length()),
                    format!("{name} has {} bytes, {} are held", running.length(), held.position.offset),
                );
            } else if held.digest != running.digest() {
                let text = format!(
                    "{name} has digest {} up to {}, its record says {}",
                    running.digest(),
                    held.position,
                    held.digest
                );
                corrupt(None, text);
            }
        }
        (None, None) => {}
    }
    if let (Some((next, _)), Some(after)) = (next, after) {
        // What a replica has closed was finished by bytes that it holds.
        let is_passed = after.is_passed || expected.closed.contains_key(&segment);
        if let Closure::Damaged(why) = log::closure(&scanner, &file, after.segment, &next, is_passed)? {
            corrupt(Some(scanner.safe()), format!("{name}: {why}"));
        }
    } else if open.is_some() && running.length() >= limit && scanner.safe() < limit && !scanner.may_be_torn() {
        // Only whole records are ever shipped, so a replica's open segment has nothing else in it.
        let why = scanner.trouble().unwrap_or_else(|| "a record is cut off".to_owned());
        corrupt(Some(scanner.safe()), format!("{name}: {why}"));
    }
    let is_finished = expected.closed.contains_key(&segment) || after.is_some();
    let end = if is_finished { running.length() } else { scanner.safe().min(limit) };
    Ok(Some(ReadSegment { bytes: running.length(), end, boundary: scanner.boundary(), findings }))
}
