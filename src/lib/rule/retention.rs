//! What is kept, and for whom. Bases by number and age; log from the first segment that anybody needs. Whatever is said
//! here, what goes is a prefix of the log, and nobody's need is in it.
//!
//! Does no I/O, reads no clock: now is a value.

use std::fmt;
use std::time::Duration;

use crate::rule::config::secret::mask;
use crate::value::position::{Position, Segment};
use crate::value::time::Time;

/// How many bases, and how old ones, are kept; what either of the two keeps is kept. Without both, all are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest.
    pub count: Option<usize>,
    /// Those that are needed to recover to any time in this long before now.
    pub age: Option<Duration>,
}

/// A base, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Its name.
    pub name: String,
    /// When it was complete.
    pub ended: Time,
    /// Log is needed from here on; `None` for all of it.
    pub position: Option<Position>,
    /// Whether a running recovery has it.
    pub is_leased: bool,
}

/// Why a base is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing was said of bases.
    Unasked,
    /// It is among the newest of which so many are kept.
    Count(usize),
    /// Without it one could not go back as far as was asked.
    Age,
    /// It is the newest from which the log here goes on.
    Newest,
    /// The log here has not come to its position: nobody can go on from it yet.
    Ahead,
    /// A running recovery has it.
    Leased,
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Unasked => out.write_str("all bases are kept without --keep-bases and --keep-for"),
            Why::Count(1) => out.write_str("it is the newest, and --keep-bases keeps 1"),
            Why::Count(count) => write!(out, "it is one of the newest {count}, which --keep-bases keeps"),
            Why::Age => out.write_str("--keep-for needs it"),
            Why::Newest => out.write_str("it is the newest"),
            Why::Ahead => out.write_str("the log here has not come to its position yet"),
            Why::Leased => out.write_str("a running recovery has it"),
        }
    }
}

/// Says of each base why it is kept, or `None` where it goes. `end` is the end of the log that is held.
///
/// A base that the log has not come to yet is kept and counts for nothing: were an older one to go because of it, there
/// might be no base left that the log here leads on from.
pub fn bases(stands: &[Stand], keep: Keep, end: Position, now: Time) -> Vec<Option<Why>> {
    let is_ahead = |stand: &Stand| stand.position.is_some_and(|position| position > end);
    let mut order: Vec<usize> = (0..stands.len()).filter(|at| !is_ahead(&stands[*at])).collect();
    // Newest first.
    order.sort_by_key(|at| {
        let Stand { ended, position, name, .. } = &stands[*at];
        std::cmp::Reverse((*ended, *position, name.clone()))
    });
    let mut said = vec![None; stands.len()];
    let since = keep.age.map(|age| Time(now.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))));
    let mut is_reached = false;
    for (rank, at) in order.into_iter().enumerate() {
        let counted = keep.count.filter(|count| rank < *count).map(Why::Count);
        // The first that ended before is the one from which that time is reached.
        let aged = since.filter(|_| !is_reached).map(|_| Why::Age);
        is_reached |= since.is_some_and(|since| stands[at].ended <= since);
        said[at] = counted.or(aged).or((rank == 0).then_some(Why::Newest));
    }
    for (stand, said) in stands.iter().zip(&mut said) {
        *said = match *said {
            _ if keep == Keep::default() => Some(Why::Unasked),
            None if is_ahead(stand) => Some(Why::Ahead),
            None if stand.is_leased => Some(Why::Leased),
            why => why,
        };
    }
    said
}

/// Who needs log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A base that is kept.
    Base(String),
    /// A consumer that was named.
    Consumer(String),
    /// A receiver of `repl-ship`, as its status names it.
    Receiver(String),
    /// A running recovery.
    Lease(String),
    /// The database that is fed here.
    Feed,
    /// The recovery of the standby's database, which begins at a checkpoint.
    Checkpoint,
    /// Whoever goes on: the last segment always stays.
    End,
    /// Nobody has said what is needed: why.
    Nobody(&'static str),
}

impl Who {
    /// For messages. A receiver may be known by a command that has a secret in it: to the letter, that is for state files.
    pub fn shown(&self) -> String {
        mask(&self.to_string())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Base(name) => write!(out, "base {name}"),
            Who::Consumer(name) => write!(out, "consumer {name}"),
            Who::Receiver(name) => write!(out, "receiver '{name}'"),
            Who::Lease(name) => write!(out, "the recovery with lease {name}"),
            Who::Feed => out.write_str("the feed"),
            Who::Checkpoint => out.write_str("the standby's next recovery"),
            Who::End => out.write_str("the end of the log"),
            Who::Nobody(why) => out.write_str(why),
        }
    }
}

/// A need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Whose it is.
    pub who: Who,
    /// All log from this position's segment on; `None` for all there is.
    pub from: Option<Position>,
}

impl Need {
    /// Whether a segment is needed.
    pub fn covers(&self, segment: Segment) -> bool {
        self.from.is_none_or(|from| segment >= from.segment)
    }
}

/// The first segment that must stay, where any may go at all: with no need, nothing is known, and nothing goes.
pub fn horizon(needs: &[Need]) -> Option<Segment> {
    let first = needs.iter().map(|need| need.from.map(|from| from.segment)).min()?;
    // `None` is the least: one who needs all keeps all.
    first
}

/// Who needs a segment, in words.
pub fn keepers(needs: &[Need], segment: Segment) -> String {
    let who: Vec<_> = needs.iter().filter(|need| need.covers(segment)).map(|need| need.who.shown()).collect();
    who.join(", ")
}

/// How many of these closed segments, oldest first, must go so that so many bytes become free.
pub fn to_free(lengths: impl IntoIterator<Item = u64>, bytes: u64) -> usize {
    let mut freed = 0_u64;
    lengths
        .into_iter()
        .take_while(|length| {
            let is_needed = freed < bytes;
            freed = freed.saturating_add(*length);
            is_needed
        })
        .count()
}

#[cfg(test)]
mod tests;
