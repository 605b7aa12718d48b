//! Compares what is held here with what another site says that it holds: by digests, no log is sent.
//!
//! What both have is compared up to where the one ends that has less of it. If that is the other site, we read our own
//! segment up to there. If it is ours, the other one must say the digest of its segment up to our end: it is asked for
//! (`prefix`), and when it was not, that segment is unproven, which is told. This site is read first, so at a replica of a
//! live master the other one has as much or more.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Report;
use crate::edge::dir::Dir;
use crate::edge::hook::{Answer, Hook};
use crate::edge::read::prefix;
use crate::engine::log;
use crate::rule::digests::{self, Digests, Held, Log};
use crate::rule::scheme::{Scheme, Step};
use crate::value::digest::Digest;
use crate::value::escape::show;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Position, Segment};

/// In the environment of the command: where this site's open segment ends.
pub const AT: &str = "REPL_AT";

/// What the comparison has shown.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// What was proven equal.
    pub equal: Amount,
    /// What only the other site has, at the end.
    pub behind: Amount,
    /// What only this one has, at the end.
    pub ahead: Amount,
    /// What only the other site has, at the beginning.
    pub older_there: Amount,
    /// What only this one has, at the beginning.
    pub older_here: Amount,
    /// How much is held here of a segment of which nothing was proven.
    pub unproven: Option<Position>,
    /// The first segment that is another one, and in which way.
    pub difference: Option<(Segment, String)>,
    /// Which segments the other site lacks, in words.
    pub holes: Vec<String>,
}

/// Segments and bytes; parts of a segment are bytes only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many segments.
    pub segments: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Compared {
    /// Equal as far as both have it, diverged, or a gap; diverged outweighs a gap.
    pub fn code(&self) -> Code {
        match (&self.difference, self.holes.is_empty()) {
            (Some(_), _) => Code::Diverged,
            (None, false) => Code::Gap,
            (None, true) => Code::Done,
        }
    }
}

/// What is held here, for another site to compare; `at` asks for the digest of a segment up to there as well.
pub fn digests(dir: &Dir, report: &Report, at: Option<Position>) -> Result<Digests> {
    let mut segments = BTreeMap::new();
    for (segment, extent) in &report.held {
        let digest = match extent.digest {
            Some(digest) => digest,
            None => digest_of(dir, &report.scheme, segment.at(extent.length))?,
        };
        segments.insert(*segment, Held { length: extent.length, digest, is_closed: extent.is_closed });
    }
    let known = at.filter(|at| segments.get(&at.segment).is_some_and(|held| held.length >= at.offset));
    let prefix = known.map(|at| Ok::<_, anyhow::Error>((at, digest_of(dir, &report.scheme, at)?))).transpose()?;
    Ok(Digests { log: Log::new(&report.scheme, &report.set), segments, prefix })
}

/// The digest of a segment up to a position that is held.
fn digest_of(dir: &Dir, scheme: &Scheme, at: Position) -> Result<Digest> {
    let Some((file, name)) = log::open(dir, scheme, at.segment)? else {
        return fail(Code::Gap, format!("{} has just been removed", dir.shown(&scheme.name(at.segment))));
    };
    let running =
        prefix(&file, scheme.running(), at.offset).with_context(|| format!("cannot read {}", dir.shown(&name)))?;
    if running.length() < at.offset {
        return fail(Code::Corrupt, format!("{} has become shorter", dir.shown(&name)));
    }
    Ok(running.digest())
}

/// Asks another site by a command, and compares.
pub fn run(dir: &Dir, report: &Report, command: &str, timeout: Duration) -> Result<Compared> {
    let ours = digests(dir, report, None)?;
    // Of nothing, where nothing is held.
    let end = ours.segments.last_key_value().map_or(Segment::new(1, 1).at(0), |(last, held)| last.at(held.length));
    let hook = Hook { name: "--against", command: command.to_owned(), timeout: Some(timeout) };
    let theirs = heard(hook.listen(&[(AT, end.to_string())], digests::MOST)?)?;
    if let Some((what, own, others)) = ours.log.differs(&theirs.log) {
        let text = format!("this log is of {what} '{own}', the other one of '{}'", show(others));
        return fail(Code::Fenced, text);
    }
    let digest_at = |at: Position| digest_of(dir, &report.scheme, at);
    compare(&report.scheme, &ours, &theirs, &digest_at)
}

/// What another site has said: lines, with status 0, or 3 where it has a gap. Its verdicts count; that it cannot be asked
/// is a link's failure.
fn heard(answer: Answer) -> Result<Digests> {
    if answer.is_long {
        return fail(Code::Corrupt, format!("the --against command has printed more than {} bytes", digests::MOST));
    }
    let code = answer.status.and_then(|status| u8::try_from(status).ok()).and_then(Code::from_number);
    let words = answer.words.unwrap_or_default();
    match code {
        Some(Code::Done | Code::Gap) => {}
        Some(code @ (Code::Usage | Code::Fenced | Code::Corrupt)) => return fail(code, words),
        _ => {
            let hint = "it is run by /bin/sh -c, without standard input; try it by hand";
            return Err(Failure::new(Code::Link, words).hint(hint).into());
        }
    }
    Digests::parse(&answer.bytes).map_err(|line| {
        let place = if line == 0 { "its last line is missing".to_owned() } else { format!("line {line} is none") };
        let text = format!("the --against command does not print what repl-verify --digests does: {place}");
        Failure::new(Code::Corrupt, text).hint("if its login shell prints something, let it be silent").into()
    })
}

/// Compares what two sites hold; `digest_at` reads a segment here up to a position that is held.
fn compare(
    scheme: &Scheme,
    ours: &Digests,
    theirs: &Digests,
    digest_at: &dyn Fn(Position) -> Result<Digest>,
) -> Result<Compared> {
    let mut compared = Compared { holes: holes(scheme, ours, theirs), ..Compared::default() };
    for (segment, own) in &ours.segments {
        match theirs.segments.get(segment) {
            Some(other) => {
                Pair { segment: *segment, own: *own, other: *other }.compare(
                    theirs.prefix,
                    digest_at,
                    &mut compared,
                )?;
            }
            None => only_one(&theirs.segments, *segment, own, &mut compared.older_here, &mut compared.ahead),
        }
    }
    for (segment, other) in theirs.segments.iter().filter(|(segment, _)| !ours.segments.contains_key(segment)) {
        only_one(&ours.segments, *segment, other, &mut compared.older_there, &mut compared.behind);
    }
    Ok(compared)
}

/// Counts a segment that the other site does not have, before its first or behind its last one. (In between is a hole.)
fn only_one(others: &BTreeMap<Segment, Held>, segment: Segment, held: &Held, older: &mut Amount, newer: &mut Amount) {
    let is_older = others.first_key_value().is_some_and(|(first, _)| segment < *first);
    let is_newer = others.last_key_value().is_none_or(|(last, _)| segment > *last);
    if is_older || is_newer {
        let amount = if is_older { older } else { newer };
        amount.segments += 1;
        amount.bytes += held.length;
    }
}

/// Where the other site has a hole, and where the one ends before the other begins.
fn holes(scheme: &Scheme, ours: &Digests, theirs: &Digests) -> Vec<String> {
    let others: Vec<Segment> = theirs.segments.keys().copied().collect();
    let pairs = others.windows(2).filter(|pair| scheme.step(pair[0], pair[1]) == Step::Gap);
    let mut holes: Vec<String> =
        pairs.map(|pair| format!("the other site has a hole: {} comes after {}", pair[1], pair[0])).collect();
    let bounds =
        |digests: &Digests| Some((*digests.segments.first_key_value()?.0, *digests.segments.last_key_value()?.0));
    if let (Some((own_first, own_last)), Some((first, last))) = (bounds(ours), bounds(theirs)) {
        if own_last < first && scheme.step(own_last, first) == Step::Gap {
            holes.push(format!("the other site begins with {first}, this one ends with {own_last}"));
        }
        if last < own_first && scheme.step(last, own_first) == Step::Gap {
            holes.push(format!("this site begins with {own_first}, the other one ends with {last}"));
        }
    }
    holes
}

/// A segment that both have.
struct Pair {
    segment: Segment,
    own: Held,
    other: Held,
}

impl Pair {
    fn compare(
        &self,
        prefix: Option<(Position, Digest)>,
        digest_at: &dyn Fn(Position) -> Result<Digest>,
        compared: &mut Compared,
    ) -> Result<()> {
        let Pair { segment, own, other } = *self;
        let shorter = if own.length < other.length { own } else { other };
        if shorter.is_closed && own.length != other.length {
            differ(compared, segment, format!("it has {} bytes here and {} there", own.length, other.length));
            return Ok(());
        }
        let at = segment.at(shorter.length);
        let digests = match own.length.cmp(&other.length) {
            Ordering::Equal => Some((own.digest, other.digest)),
            Ordering::Greater => Some((digest_at(at)?, other.digest)),
            Ordering::Less => prefix.filter(|(asked, _)| *asked == at).map(|(_, digest)| (own.digest, digest)),
        };
        match digests {
            Some((own, other)) if own != other => {
                differ(compared, segment, format!("up to {at} it has digest {own} here and {other} there"));
                return Ok(());
            }
            Some(_) => {
                compared.equal.segments += u64::from(own.length == other.length);
                compared.equal.bytes += at.offset;
            }
            // Nothing of nothing can differ.
            None => compared.unproven = Some(at).filter(|at| at.offset > 0),
        }
        compared.ahead.bytes += own.length - shorter.length;
        compared.behind.bytes += other.length - shorter.length;
        Ok(())
    }
}

fn differ(compared: &mut Compared, segment: Segment, text: String) {
    compared.difference.get_or_insert((segment, text));
}
