//! What must be there, as the directory's own records say, and whether they agree with each other.
//!
//! Each closed segment has a line in `B3SUMS`, of its file as it is, and one in `segments.jsonl`, of what all sites have;
//! both were on stable storage before `position` said that it is closed. So one that only one of them names is damage.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::{Finding, Kind};
use crate::edge::dir::Dir;
use crate::edge::slots;
use crate::engine::site::{self, Closed, Holding, horizon};
use crate::rule::scheme::Scheme;
use crate::value::digest::Digest;
use crate::value::position::Segment;

/// See the module.
pub(super) struct Expected {
    /// What is held; `None` at a master.
    pub(super) holding: Option<Holding>,
    /// The closed segments that are held.
    pub(super) closed: BTreeMap<Segment, Record>,
    /// Before it nothing is kept any more.
    pub(super) horizon: Option<Segment>,
    /// Whether one of the two records of what is held is damaged.
    is_torn: bool,
}

/// A closed segment, as recorded.
#[derive(Default)]
pub(super) struct Record {
    /// Of its file as it is, in `B3SUMS`.
    pub(super) of_file: Option<Digest>,
    /// Its length and the digest that all sites have, in `segments.jsonl`.
    pub(super) closed: Option<(u64, Digest)>,
}

impl Expected {
    /// Reads the records of a log directory; those of segments that are not held are from a crash.
    pub(super) fn read(dir: &Dir, state: Option<&Path>, scheme: &Scheme) -> Result<Expected> {
        let mut closed: BTreeMap<Segment, Record> = BTreeMap::new();
        let Some(state) = site::peek(dir, state)? else {
            return Ok(Expected { holding: None, closed, horizon: None, is_torn: false });
        };
        let is_torn = slots::is_torn(&state, site::POSITION)?;
        let (holding, horizon) = (site::holding(&state)?, horizon::read(&state)?);
        // No word about the log, but one that a receiver would stumble over.
        site::master::read(&state)?;
        let is_held =
            |segment: Segment| Some(segment) >= horizon && holding.is_some_and(|holding| holding.holds(segment));
        site::manifest(&state, |digest, name| {
            if let Some(segment) = scheme.segment(name).filter(|segment| is_held(*segment)) {
                closed.entry(segment).or_default().of_file = Some(digest);
            }
            Ok(())
        })?;
        site::closed_segments(&state, |Closed { segment, length, digest, .. }| {
            if is_held(segment) {
                closed.entry(segment).or_default().closed = Some((length, digest));
            }
            Ok(())
        })?;
        Ok(Expected { holding, closed, horizon, is_torn })
    }

    /// What is wrong with the records themselves.
    pub(super) fn faults(&self, scheme: &Scheme) -> Vec<Finding> {
        let corrupt = |segment, text| Finding { kind: Kind::Corrupt, segment, offset: None, text };
        let mut faults = Vec::new();
        if let Some(Holding { held, .. }) = self.holding.filter(|_| self.is_torn) {
            let (file, at) = (site::POSITION, held.position);
            let text =
                format!("one of the two records in {file} is damaged; by the other one, what is held ends at {at}");
            faults.push(Finding { offset: Some(at.offset), ..corrupt(at.segment, text) });
        }
        for (segment, record) in &self.closed {
            let lacking = match (&record.of_file, &record.closed) {
                (None, _) => site::MANIFEST,
                (_, None) => site::SEGMENTS,
                _ => continue,
            };
            faults.push(corrupt(*segment, format!("{} is closed and has no line in {lacking}", scheme.name(*segment))));
        }
        faults
    }
}
