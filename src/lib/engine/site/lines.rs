//! The lines of closed segments, in `B3SUMS` and `segments.jsonl`. The receiver adds to them, and holds the directory's
//! lock all its life; `repl-prune` takes lines out meanwhile. Both do so under a second lock that is held for moments.
//! The receiver then looks whether the files that it has open are still the named ones, so no line is added to a file
//! that was replaced.

use anyhow::Result;

use super::{Holding, MANIFEST, SEGMENTS, damaged};
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::journal::{self, Journal};
use crate::edge::lock::Lock;
use crate::rule::scheme::Scheme;
use crate::value::digest::Digest;
use crate::value::position::{Position, Segment};
use crate::value::time::Time;

/// The lock of files of lines.
const LOCK: &str = "lines.lock";

/// A closed segment: a line of `B3SUMS` and of `segments.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Its numbers.
    pub segment: Segment,
    /// Its length in bytes.
    pub length: u64,
    /// Of all its bytes.
    pub digest: Digest,
    /// Of its file as it is, where bits are set that the other leaves out: for `B3SUMS` only.
    pub of_file: Option<Digest>,
    /// Its last boundary, where it has one.
    pub boundary: Option<Position>,
    /// The time of that boundary.
    pub time: Option<Time>,
}

impl Closed {
    /// A line of `segments.jsonl`, with its line end.
    pub(in crate::engine) fn print(&self, scheme: &Scheme) -> String {
        let line = serde_json::json!({
            "v": 1,
            "segment": self.segment.to_string(),
            "name": scheme.name(self.segment),
            "length": self.length,
            "b3": self.digest.to_string(),
            "boundary": self.boundary.map(|at| at.to_string()),
            "time": self.time.map(|time| time.to_string()),
            "received": clock::now().to_string(),
        });
        format!("{line}\n")
    }

    /// Reads a line of `segments.jsonl`.
    pub(in crate::engine) fn parse(line: &str) -> Option<Closed> {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        if value.get("v")?.as_u64()? != 1 {
            return None;
        }
        let text = |key: &str| value.get(key)?.as_str();
        let segment = format!("{}:0", text("segment")?).parse::<Position>().ok()?.segment;
        Some(Closed {
            segment,
            length: value.get("length")?.as_u64()?,
            digest: Digest::parse(text("b3")?)?,
            of_file: None,
            boundary: text("boundary").and_then(|at| at.parse().ok()),
            time: text("time").and_then(Time::parse),
        })
    }
}

/// Splits a line of `B3SUMS` into digest and file name.
fn manifest_line(line: &str) -> Option<(Digest, &str)> {
    let (digest, name) = line.split_once("  ")?;
    Some((Digest::parse(digest)?, name))
}

/// Reads `segments.jsonl`, each line to `each`.
pub fn closed_segments(state: &Dir, mut each: impl FnMut(Closed) -> Result<()>) -> Result<()> {
    journal::read(state, SEGMENTS, |line| each(Closed::parse(line).ok_or_else(|| damaged(state, SEGMENTS))?))
}

/// Reads `B3SUMS`, each digest and name to `each`.
pub fn manifest(state: &Dir, mut each: impl FnMut(Digest, &str) -> Result<()>) -> Result<()> {
    journal::read(state, MANIFEST, |line| {
        let (digest, name) = manifest_line(line).ok_or_else(|| damaged(state, MANIFEST))?;
        each(digest, name)
    })
}

/// Looks for one name in `B3SUMS`, without reading what the other lines say: a server asks for one segment after another,
/// and there may be many.
pub fn recorded(state: &Dir, name: &str) -> Result<Option<Digest>> {
    let mut found = None;
    journal::read(state, MANIFEST, |line| {
        if line.ends_with(name) {
            let (digest, of) = manifest_line(line).ok_or_else(|| damaged(state, MANIFEST))?;
            found = if of == name { Some(digest) } else { found };
        }
        Ok(())
    })?;
    Ok(found)
}

/// Until the result is dropped nobody else changes files of lines.
pub(in crate::engine) fn alone(state: &Dir) -> Result<Lock> {
    Lock::wait(state, LOCK)
}

/// Takes out the lines of segments before this one. Each of the two files is replaced whole.
pub(super) fn take_out(state: &Dir, scheme: &Scheme, before: Segment) -> Result<()> {
    let _alone = alone(state)?;
    journal::retain(state, MANIFEST, |line| {
        let segment = manifest_line(line).and_then(|(_, name)| scheme.segment(name));
        segment.is_none_or(|segment| segment >= before)
    })?;
    journal::retain(state, SEGMENTS, |line| Closed::parse(line).is_none_or(|closed| closed.segment >= before))
}

/// The open files.
pub(super) struct Lines {
    scheme: Scheme,
    manifest: Journal,
    segments: Journal,
}

impl Lines {
    /// Opens them, cut behind what is held.
    pub(super) fn open(state: &Dir, scheme: &Scheme, holding: Option<&Holding>) -> Result<Lines> {
        let _alone = alone(state)?;
        let is_held = |segment: Segment| holding.is_some_and(|holding| holding.holds(segment));
        let manifest = Journal::open(state, MANIFEST, |line| {
            manifest_line(line).and_then(|(_, name)| scheme.segment(name)).is_some_and(is_held)
        })?;
        let segments =
            Journal::open(state, SEGMENTS, |line| Closed::parse(line).is_some_and(|closed| is_held(closed.segment)))?;
        Ok(Lines { scheme: scheme.clone(), manifest, segments })
    }

    /// Cuts them behind what is held.
    pub(super) fn cut(&mut self, state: &Dir, holding: &Holding) -> Result<()> {
        *self = Lines::open(state, &self.scheme, Some(holding))?;
        Ok(())
    }

    /// Adds a line for each segment to both, durably.
    pub(super) fn add(&mut self, state: &Dir, segments: &[Closed]) -> Result<()> {
        if segments.is_empty() {
            return Ok(());
        }
        let sum = |one: &Closed| format!("{}  {}\n", one.of_file.unwrap_or(one.digest), self.scheme.name(one.segment));
        let sums: String = segments.iter().map(sum).collect();
        let lines: String = segments.iter().map(|one| one.print(&self.scheme)).collect();
        let _alone = alone(state)?;
        self.manifest.renew(state, MANIFEST)?;
        self.segments.renew(state, SEGMENTS)?;
        self.manifest.append(&sums)?;
        self.segments.append(&lines)?;
        self.manifest.sync()?;
        self.segments.sync()
    }
}
