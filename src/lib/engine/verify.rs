//! Proves a log directory: order, gaps, digests, records, and the bases of an archive. It changes nothing and needs no
//! lock, so it can look at a live master, a replica that is being written, or an archive.
//!
//! What a replica holds is what its `position` says: files and lines beyond it are not judged. In a master's directory
//! the segment that is being written counts as far as its records are whole.

pub mod against;
mod expected;
mod reach;
mod segment;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use self::expected::Expected;
pub use self::reach::Reach;

use super::archive::Archive;
use super::archive::prove::{self, Proven, Which};
use super::log::{self, scheme_of};
use super::site::{self, horizon};
use crate::edge::dir::Dir;
use crate::rule::scheme::{self, Mark, Scheme, Step};
use crate::value::digest::Digest;
use crate::value::exit::Code;
use crate::value::position::{Position, Segment};
use crate::value::time::Time;

/// What can be told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kind of log.
    pub kind: Option<scheme::Kind>,
    /// Where the site's state is instead of `.repl`.
    pub state: Option<PathBuf>,
    /// Which bases are proven as well.
    pub bases: Which,
    /// Which part of the log.
    pub scope: Scope,
}

/// A part of a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// From this segment on.
    pub from: Option<Segment>,
    /// Up to this one.
    pub to: Option<Segment>,
    /// Boundaries later than this do not count.
    pub until: Option<Time>,
}

impl Scope {
    fn has(&self, segment: Segment) -> bool {
        self.from.is_none_or(|from| segment >= from) && self.to.is_none_or(|to| segment <= to)
    }
}

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
    /// What is held of each segment.
    pub held: BTreeMap<Segment, Extent>,
    /// What is wrong, in order of segments.
    pub findings: Vec<Finding>,
    /// What is missing, also of the part that was not read.
    pub gaps: Vec<Finding>,
    /// The bases.
    pub bases: Vec<Proven>,
    /// What can be recovered, where log was received and bases are looked at.
    pub reach: Vec<Reach>,
}

/// What is held of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How many of its bytes.
    pub length: u64,
    /// Their digest, where it came of itself.
    pub digest: Option<Digest>,
    /// Whether that is all of it.
    pub is_closed: bool,
    /// Its last boundary.
    pub boundary: Option<Mark>,
    /// Whether it has one that is too late to count.
    pub is_past: bool,
}

impl Report {
    /// Whole, a gap, or corrupt; corrupt outweighs a gap.
    pub fn code(&self) -> Code {
        let has = |kind| self.findings.iter().any(|finding| finding.kind == kind);
        let is_damaged = self.bases.iter().any(|base| !base.faults.is_empty());
        match (is_damaged || has(Kind::Corrupt), has(Kind::Gap)) {
            (true, _) => Code::Corrupt,
            (false, true) => Code::Gap,
            (false, false) => Code::Done,
        }
    }

    /// How many things are wrong.
    pub fn faults(&self) -> usize {
        self.findings.len() + self.bases.iter().map(|base| base.faults.len()).sum::<usize>()
    }

    /// Whether the log begins where a set begins.
    pub fn is_self_contained(&self) -> bool {
        self.first.is_some_and(|first| self.scheme.is_first(first))
    }
}

/// Proves a log directory.
pub fn run(dir: &Dir, options: &Options) -> Result<Report> {
    let state = options.state.as_deref();
    let (scheme, set) = scheme_of(dir, options.kind.clone(), state)?;
    let expected = Expected::read(dir, state, &scheme)?;
    let scope = options.scope;
    let mut present = present(dir, &scheme, &expected)?;
    // A live server removes its own log behind it.
    let is_servers = scheme.servers_mark().is_some_and(|mark| matches!(dir.identity(mark), Ok(Some(_))));
    let mut gaps = missing(dir, &scheme, &present, &expected, present.first().copied().filter(|_| is_servers))?;
    present.retain(|segment| scope.has(*segment));
    let mut findings = expected.faults(&scheme);
    let reads = segment::read_all(dir, &scheme, &present, &expected, scope.until)?;
    // What was pruned since we began has gone by right.
    let horizon = site::peek(dir, state)?.map(|state| horizon::read(&state)).transpose()?.flatten();
    for found in [&mut gaps, &mut findings] {
        found.retain(|finding| Some(finding.segment) >= horizon);
    }
    findings.splice(..0, gaps.iter().cloned());
    let mut report = Report {
        set: set.unwrap_or_default(),
        segments: reads.len() as u64,
        bytes: reads.values().map(|read| read.bytes).sum(),
        first: present.first().copied(),
        end: reads.last_key_value().map(|(segment, read)| segment.at(read.held.length)),
        boundary: reads.iter().rev().find_map(|(segment, read)| read.held.boundary.map(|mark| (*segment, mark))),
        held: reads.iter().map(|(segment, read)| (*segment, read.held)).collect(),
        findings: Vec::new(),
        gaps,
        bases: prove::run(dir, &options.bases)?,
        reach: Vec::new(),
        scheme,
    };
    findings.extend(reads.into_values().flat_map(|read| read.findings));
    findings.retain(|finding| scope.has(finding.segment));
    findings.sort_by_key(|finding| (finding.segment, finding.offset));
    report.findings = findings;
    if options.bases != Which::None && expected.holding.is_some() {
        report.reach = reach::all(&Archive::open(dir, state)?, &report);
    }
    Ok(report)
}

/// Segments in order; at a replica none beyond what it holds, and none before what it keeps.
fn present(dir: &Dir, scheme: &Scheme, expected: &Expected) -> Result<Vec<Segment>> {
    let last = expected.holding.map(|holding| holding.held.position.segment);
    let segments = log::segments(dir, scheme, |_| false)?.into_keys();
    let is_kept = |segment: &Segment| Some(*segment) >= expected.horizon && last.is_none_or(|last| *segment <= last);
    Ok(segments.filter(is_kept).collect())
}

/// Holes in the order, and what the records name and is not there. What lies before `first` need not be there.
fn missing(
    dir: &Dir,
    scheme: &Scheme,
    present: &[Segment],
    expected: &Expected,
    first: Option<Segment>,
) -> Result<Vec<Finding>> {
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
    for finding in findings.values_mut() {
        if expected.holding.is_none() {
            // A server makes files ahead, and gives old ones other names.
            continue;
        }
        // A file that does not begin as its segment is there, and is none.
        let name = scheme.name(finding.segment);
        if let Some(file) = dir.open_read(&name)? {
            finding.kind = Kind::Corrupt;
            finding.text = format!("{name} has {} bytes and is not what its name says", file.metadata()?.len());
        }
    }
    Ok(findings.into_values().collect())
}
