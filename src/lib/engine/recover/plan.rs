//! What a recovery is going to do: from which base, by which log, up to where.

use crate::engine::archive::base::Base;
use crate::engine::sync::profile::Profile;
use crate::rule::scheme::Scheme;
use crate::value::digest::{Digest, Running};
use crate::value::name::Name;
use crate::value::position::{Position, Segment};
use crate::value::time::Time;

/// See the module. All of it is proven.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The base; without one, log that begins with the set.
    pub base: Option<Base>,
    /// The kind of database.
    pub engine: Profile,
    /// The rules of the archive's log.
    pub scheme: Scheme,
    /// The log, in order.
    pub logs: Vec<Log>,
    /// Where it ends; unknown where the base has no log and the archive none behind it.
    pub end: Option<Position>,
    /// The time of the last transaction before that.
    pub time: Option<Time>,
    /// Where the last record before that begins in all of the log, where the engine is told that.
    pub last: Option<u64>,
    /// Where the log ends that the archive says it holds.
    pub held: Option<Position>,
    /// What is missing of that behind the end, in words.
    pub lost: Vec<String>,
}

/// A segment of the archive.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its numbers.
    pub segment: Segment,
    /// Its file's name.
    pub name: String,
    /// So many bytes have this digest.
    pub hashed: u64,
    /// See there.
    pub digest: Digest,
    /// A digest of none of its bytes.
    pub running: Running,
    /// So many bytes are used.
    pub laid: u64,
    /// How long it is.
    pub length: u64,
    /// So much of what is used is whole transactions.
    pub whole: u64,
}

impl Plan {
    /// Whether log is copied to where the base has its own, for the engine's recovery to find.
    pub fn lays_log(&self) -> bool {
        matches!(self.engine, Profile::Bdb | Profile::Plain | Profile::Eloquence)
    }

    /// Where in the target log is laid.
    pub fn log_place(&self) -> Name {
        let place = self.base.as_ref().map(|base| base.record.log.as_deref());
        match place {
            Some(Some(place)) if place != "." => Name::root().join(place.as_bytes()),
            // Nothing is known of where it belongs: beside the database, for the operator's command.
            Some(None) => Name::root().join(super::place::MARKER.as_bytes()).join(super::LOG.as_bytes()),
            Some(Some(_)) | None => Name::root(),
        }
    }

    /// How many bytes are laid.
    pub fn bytes(&self) -> u64 {
        let logs = if self.lays_log() { self.logs.iter().map(|log| log.laid.min(log.length)).sum() } else { 0 };
        self.base.as_ref().map_or(0, |base| base.record.bytes) + logs
    }

    /// Whether the archive has more log than is recovered.
    pub fn is_cut(&self) -> bool {
        self.end.zip(self.held).is_some_and(|(end, held)| end < held)
    }

    /// As lines: what is missing behind the end.
    pub fn losses(&self) -> String {
        self.lost.iter().map(|lost| format!("behind that {lost}\n")).collect()
    }

    /// As lines: what is done, in order.
    pub fn print(&self) -> String {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let mut lines = format!("engine {}\n", self.engine);
        lines += &match &self.base {
            Some(base) => {
                let place = or_dash(base.record.position.map(|at| at.to_string()));
                format!("base {} {place} {} files {} bytes\n", base.name, base.record.files, base.record.bytes)
            }
            None => "base none\n".to_owned(),
        };
        lines += &match (self.logs.first(), self.logs.last()) {
            (Some(first), Some(last)) => {
                format!("log {} to {}, {} segments\n", first.segment, last.segment, self.logs.len())
            }
            _ => "log none\n".to_owned(),
        };
        let more = self.held.filter(|_| self.is_cut()).map(|held| format!(", the archive has more, to {held}"));
        lines
            + &format!(
                "end {} {}{}\n",
                or_dash(self.end.map(|end| end.to_string())),
                or_dash(self.time.map(|time| time.to_string())),
                more.unwrap_or_default()
            )
            + &self.losses()
    }
}
