//! How far a recovery of an archive comes: by its log alone, and from each of its bases.

use super::Report;
use crate::engine::archive::Archive;
use crate::rule::scheme::Engine;
use crate::value::position::Position;
use crate::value::time::Time;

/// What can be recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// From this base; `None` for log alone.
    pub base: Option<String>,
    /// Up to here.
    pub end: Position,
    /// The time of the last transaction before that.
    pub time: Option<Time>,
}

/// Each base that is whole and from which the log goes on, in order of names; log alone first.
pub(super) fn all(archive: &Archive<'_>, report: &Report) -> Vec<Reach> {
    let needs_base = matches!(archive.origin.scheme.engine(), Engine::Postgres | Engine::Mariadb);
    let start = report.first.filter(|_| report.is_self_contained() && !needs_base).map(|first| first.at(0));
    let alone = start.map(|start| reach(report, None, start, None)).filter(|alone| alone.end.offset > 0);
    let whole = report.bases.iter().filter(|base| base.faults.is_empty());
    let based = whole.filter_map(|base| {
        let record = base.record.as_ref()?;
        Some(reach(report, Some(base.name.clone()), record.position?, record.time))
    });
    // What left the log's history before its base ended is no past of it.
    let is_past = |reach: &Reach| {
        let from = report.bases.iter().find(|base| Some(&base.name) == reach.base.as_ref());
        let from = from.and_then(|base| base.record.as_ref()?.position);
        let generations = report.held.keys().map(|segment| segment.generation);
        archive.check_past(generations.filter(|one| *one <= reach.end.segment.generation), from).is_ok()
    };
    alone.into_iter().chain(based).filter(is_past).collect()
}

/// The end of the log that is whole from a position on; the position itself, where the log does not have it.
fn reach(report: &Report, base: Option<String>, from: Position, time: Option<Time>) -> Reach {
    let wrong = report.findings.iter().map(|finding| finding.segment).filter(|wrong| *wrong >= from.segment).min();
    let mut found = Reach { base, end: from, time };
    if report.held.contains_key(&from.segment) {
        let log = report.held.range(from.segment..);
        for (segment, held) in log.take_while(|(segment, _)| wrong.is_none_or(|wrong| **segment < wrong)) {
            found.end = found.end.max(segment.at(held.length));
            found.time = held.boundary.and_then(|mark| mark.time).or(found.time);
        }
    }
    found
}
