//! What is known about each database's log: file names, order, and how far its bytes are complete, checked records.
//!
//! All knowledge of one engine lives in one file beside this one. A new engine is a new file, a new variant of
//! [`Engine`], [`Scheme`] and [`Scanner`], and the compiler names every place that must learn of it.

pub mod bdb;
pub mod eloquence;
mod kind;
pub mod mariadb;
pub mod plain;
pub mod postgres;
mod scanner;

pub use self::kind::{ENGINES, Engine, Kind};
#[cfg(test)]
use self::scanner::beside;
pub use self::scanner::{Behind, Beside, Closure, Scanner};

use super::pattern::Pattern;
use crate::value::digest::{Mask, Running};
use crate::value::position::{Position, Segment};
use crate::value::time::Time;

/// The rules of one log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Numbered files by a pattern.
    Plain(Pattern),
    /// The same with generations, and the vendor's name.
    Eloquence(Pattern),
    /// Berkeley DB.
    Bdb,
    /// PostgreSQL, of one cluster.
    Postgres(postgres::Cluster),
    /// MariaDB, of one base name.
    Mariadb(Pattern),
}

/// How one segment follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is the next one.
    Next,
    /// It begins a later generation: allowed, and worth a word.
    Generation,
    /// At least one segment is missing in between, or it is not later at all.
    Gap,
}

/// A place in a segment up to which all is whole transactions, with the time of the last one where known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Bytes before it in the segment.
    pub offset: u64,
    /// When its last transaction ended, by the master's clock.
    pub time: Option<Time>,
}

/// Bytes from the beginning of a segment that show what it is.
pub const HEAD: usize = 512;

impl Scheme {
    /// The scheme of a kind of log, with the identity of its database and its segments' fixed size: empty and 0 for
    /// engines that have none.
    pub fn new(kind: &Kind, identity: &str, segment_size: u64) -> Result<Scheme, String> {
        let scheme = match (kind.engine, kind.pattern.clone()) {
            (Engine::Plain, Some(pattern)) => Scheme::Plain(pattern),
            (Engine::Eloquence, Some(pattern)) => Scheme::Eloquence(pattern),
            (Engine::Bdb, None) => Scheme::Bdb,
            (Engine::Postgres, None) => Scheme::Postgres(postgres::Cluster::new(identity, segment_size)?),
            (Engine::Mariadb, Some(pattern)) => Scheme::Mariadb(pattern),
            (engine, _) => return Err(format!("engine {engine} does not go with this pattern")),
        };
        if scheme.identity() != identity || scheme.segment_size() != segment_size {
            return Err(format!("engine {} has no identity and no segment size", kind.engine));
        }
        Ok(scheme)
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        match self {
            Scheme::Plain(_) => Engine::Plain,
            Scheme::Eloquence(_) => Engine::Eloquence,
            Scheme::Bdb => Engine::Bdb,
            Scheme::Postgres(_) => Engine::Postgres,
            Scheme::Mariadb(_) => Engine::Mariadb,
        }
    }

    /// The pattern, for engines that have one.
    pub fn pattern(&self) -> Option<&Pattern> {
        match self {
            Scheme::Plain(pattern) | Scheme::Eloquence(pattern) | Scheme::Mariadb(pattern) => Some(pattern),
            Scheme::Bdb | Scheme::Postgres(_) => None,
        }
    }

    /// What makes this database unlike any other of its engine; empty where the engine has no such thing.
    pub fn identity(&self) -> String {
        match self {
            Scheme::Postgres(cluster) => cluster.system.to_string(),
            _ => String::new(),
        }
    }

    /// Bytes of every segment's file, from its first byte on, where the engine has a fixed size; else 0.
    pub fn segment_size(&self) -> u64 {
        match self {
            Scheme::Postgres(cluster) => cluster.size,
            _ => 0,
        }
    }

    /// The file name of a segment: one path component, never hidden, at most 255 bytes.
    pub fn name(&self, segment: Segment) -> String {
        match self {
            Scheme::Plain(pattern) | Scheme::Eloquence(pattern) | Scheme::Mariadb(pattern) => pattern.name(segment),
            Scheme::Bdb => bdb::name(segment),
            Scheme::Postgres(cluster) => cluster.name(segment),
        }
    }

    /// The segment of a file name.
    pub fn segment(&self, name: &str) -> Option<Segment> {
        match self {
            Scheme::Plain(pattern) | Scheme::Eloquence(pattern) => pattern.segment(name),
            Scheme::Bdb => bdb::segment(name),
            Scheme::Postgres(cluster) => cluster.segment(name),
            Scheme::Mariadb(pattern) => pattern.segment(name).filter(|segment| segment.sequence > 0),
        }
    }

    /// The segment that is kept under a second name, see [`Scheme::other_name`].
    pub fn segment_aside(&self, name: &str) -> Option<Segment> {
        match self {
            Scheme::Postgres(cluster) => cluster.segment(name.strip_suffix(postgres::PARTIAL)?),
            _ => None,
        }
    }

    /// A second name under which the engine may keep a segment.
    pub fn other_name(&self, segment: Segment) -> Option<String> {
        match self {
            Scheme::Postgres(cluster) => Some(cluster.name(segment) + postgres::PARTIAL),
            _ => None,
        }
    }

    /// Whether this segment has a file of its own: where names hold no generation, `2-1` would be written into the file
    /// of `1-1`. Asked of every segment that a peer names.
    pub fn is_nameable(&self, segment: Segment) -> bool {
        self.segment(&self.name(segment)) == Some(segment)
    }

    /// Whether the file of a segment has begun to be it, by its first bytes: engines make files ahead, and give old ones
    /// the names of segments to come.
    pub fn is_begun(&self, segment: Segment, head: &[u8]) -> bool {
        match self {
            Scheme::Postgres(cluster) => cluster.is_begun(segment, head),
            _ => true,
        }
    }

    /// Whether a segment that has begun says that it began in an earlier generation: its own began inside it, so that it is
    /// the first of its generation. Any other is an earlier generation's file that was given its name.
    pub fn is_inherited(&self, segment: Segment, head: &[u8]) -> bool {
        match self {
            Scheme::Postgres(cluster) => cluster.is_inherited(segment, head),
            _ => false,
        }
    }

    /// Whether files are made ahead or used again, so that [`Scheme::is_begun`] must be asked.
    pub fn recycles(&self) -> bool {
        matches!(self, Scheme::Postgres(_))
    }

    /// How `next` follows `segment`.
    pub fn step(&self, segment: Segment, next: Segment) -> Step {
        if next.generation == segment.generation {
            return if segment.sequence.checked_add(1) == Some(next.sequence) { Step::Next } else { Step::Gap };
        }
        let begins = match self {
            // A timeline goes on where its parent was left.
            Scheme::Postgres(_) => segment.sequence.saturating_add(1),
            // Vendors count a generation's segments from 1; the rule by which generations rise is theirs.
            _ => 1,
        };
        let least = if let Scheme::Postgres(_) = self { segment.sequence } else { 0 };
        let follows = next.generation > segment.generation && (least..=begins).contains(&next.sequence);
        if follows { Step::Generation } else { Step::Gap }
    }

    /// Whether a later generation is another history from its fork on: then a log that ends in an earlier one is not
    /// merely behind.
    pub fn forks(&self) -> bool {
        matches!(self, Scheme::Postgres(_))
    }

    /// Whether a set can begin with this segment, so that the log alone rebuilds the database.
    pub fn is_first(&self, segment: Segment) -> bool {
        // PostgreSQL's log never begins with the cluster: initdb writes files that are not in it.
        !matches!(self, Scheme::Postgres(_)) && segment.generation <= 1 && segment.sequence <= 1
    }

    /// Whether a small file beside the log is one that a receiver needs too. The name is a peer's, perhaps.
    pub fn is_aux(&self, name: &str) -> bool {
        match self {
            // The index has the master's own paths.
            Scheme::Plain(_) | Scheme::Eloquence(_) | Scheme::Mariadb(_) => false,
            Scheme::Bdb => name == bdb::CONFIG,
            Scheme::Postgres(_) => postgres::is_aux(name),
        }
    }

    /// Segments that belong to the newest generation's own past, as far as the engine's aux files tell: for each earlier
    /// generation its last segment. Others are of a history that was left.
    pub fn lineage(&self, generation: u64, history: &str) -> Option<Vec<Segment>> {
        Some(self.left(generation, history)?.into_iter().map(|left| left.segment).collect())
    }

    /// The same, with the place where each earlier generation was left.
    pub fn left(&self, generation: u64, history: &str) -> Option<Vec<Position>> {
        match self {
            Scheme::Postgres(cluster) => cluster.left(generation, history),
            _ => None,
        }
    }

    /// The aux file that tells of a generation's past.
    pub fn history_name(&self, generation: u64) -> Option<String> {
        match self {
            Scheme::Postgres(_) => postgres::history_name(generation),
            _ => None,
        }
    }

    /// The generation of whose past an aux file tells.
    pub fn history_of(&self, name: &str) -> Option<u64> {
        match self {
            Scheme::Postgres(_) => postgres::history_of(name),
            _ => None,
        }
    }

    /// Whether this would be an aux file and never is one: servers ask for it nevertheless.
    pub fn is_no_aux(&self, name: &str) -> bool {
        matches!(self, Scheme::Postgres(_)) && name == postgres::NO_HISTORY
    }

    /// Whether aux files, once written, never change: two of the same name that differ are of two histories.
    pub fn has_fixed_aux(&self) -> bool {
        matches!(self, Scheme::Postgres(_))
    }

    /// Whether a record may begin in one segment and end in the next.
    pub fn spans(&self) -> bool {
        matches!(self, Scheme::Postgres(_))
    }

    /// Whether a file that is no segment belongs to the engine; `head` is its first 512 bytes or fewer.
    pub fn is_side_file(&self, name: &str, head: &[u8]) -> bool {
        match self {
            Scheme::Plain(_) | Scheme::Eloquence(_) => false,
            Scheme::Bdb => bdb::is_side_file(name, head),
            Scheme::Postgres(_) => postgres::is_side_file(name),
            Scheme::Mariadb(pattern) => mariadb::is_side_file(pattern, name),
        }
    }

    /// A name that only a server's own log directory has, not an archive.
    pub fn servers_mark(&self) -> Option<&'static str> {
        matches!(self, Scheme::Postgres(_)).then_some(postgres::STATUS)
    }

    /// What an operator should know about this log's set-up; `config` is the content of its aux file.
    pub fn warning(&self, directory: &str, config: Option<&str>) -> Option<String> {
        match self {
            Scheme::Bdb => bdb::warning(directory, config),
            _ => None,
        }
    }

    /// The aux file that [`Scheme::warning`] looks at.
    pub fn config_name(&self) -> Option<&'static str> {
        matches!(self, Scheme::Bdb).then_some(bdb::CONFIG)
    }

    /// What a receiver's engine must understand, from the first bytes of a segment; empty when nothing is known.
    pub fn fingerprint(&self, head: &[u8]) -> String {
        match self {
            Scheme::Plain(_) | Scheme::Eloquence(_) => String::new(),
            Scheme::Bdb => bdb::fingerprint(head),
            Scheme::Postgres(_) => postgres::fingerprint(head),
            Scheme::Mariadb(_) => mariadb::fingerprint(head),
        }
    }

    /// The bits of a segment's bytes that its digest leaves out.
    pub fn mask(&self) -> Option<Mask> {
        matches!(self, Scheme::Mariadb(_)).then_some(mariadb::IN_USE)
    }

    /// A digest of no bytes of a segment.
    pub fn running(&self) -> Running {
        Running::masked(self.mask())
    }

    /// A scanner at the beginning of a segment; boundaries later than `until` are not taken.
    pub fn scanner(&self, segment: Segment, until: Option<Time>) -> Scanner {
        match self {
            Scheme::Plain(_) | Scheme::Eloquence(_) => Scanner::Raw(plain::Scanner::new(until)),
            Scheme::Bdb => Scanner::Bdb(bdb::Scanner::new(until)),
            Scheme::Postgres(cluster) => Scanner::Postgres(Box::new(postgres::Scanner::new(*cluster, segment, until))),
            Scheme::Mariadb(pattern) => Scanner::Mariadb(Box::new(mariadb::Scanner::new(pattern, until))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_show_the_engine_only_when_unambiguous() {
        let detect = |names: &[&str]| Kind::detect(names.iter().copied()).map(|kind| kind.engine);
        assert_eq!(detect(&["__db.001", "log.0000000001"]), Ok(Engine::Bdb));
        assert_eq!(detect(&["fw-12-1"]), Ok(Engine::Eloquence));
        assert_eq!(detect(&["archive_status", "000000010000000A000000FF"]), Ok(Engine::Postgres));
        assert!(detect(&["a.log"]).is_err());
        assert!(detect(&["fw-1-1", "log.0000000001"]).is_err());
    }

    #[test]
    fn a_segment_whose_name_is_anothers_is_not_nameable() {
        let plain = |pattern: &str| Scheme::Plain(Pattern::parse(pattern).unwrap());
        for (scheme, generation, sequence, nameable) in [
            (plain("log.%S"), 1, 7, true),
            (plain("log.%S"), 2, 7, false),
            (plain("log.%S"), 0, 7, false),
            (plain("log.%N"), 2, 7, true),
            (Scheme::Bdb, 1, 7, true),
            (Scheme::Bdb, 2, 7, false),
            (Scheme::Bdb, 1, 0, false),
            (Scheme::Bdb, 1, 10_000_000_000, false),
        ] {
            assert_eq!(scheme.is_nameable(Segment::new(generation, sequence)), nameable, "{generation}-{sequence}");
        }
    }

    #[test]
    fn a_sequence_hole_is_a_gap_and_a_new_generation_is_not() {
        let scheme = Scheme::Eloquence(eloquence::default_pattern());
        let step = |a: (u64, u64), b: (u64, u64)| scheme.step(Segment::new(a.0, a.1), Segment::new(b.0, b.1));
        assert_eq!(step((1, 1), (1, 2)), Step::Next);
        assert_eq!(step((1, 1), (1, 3)), Step::Gap);
        assert_eq!(step((1, 2), (1, 1)), Step::Gap);
        assert_eq!(step((1, 7), (2, 1)), Step::Generation);
        assert_eq!(step((2, 1), (12, 1)), Step::Generation);
        assert_eq!(step((1, 7), (2, 2)), Step::Gap);
        assert_eq!(step((2, 1), (1, 1)), Step::Gap);
        assert_eq!(step((1, u64::MAX), (1, 0)), Step::Gap);
    }
}
