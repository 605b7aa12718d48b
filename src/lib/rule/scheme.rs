//! What is known about each database's log: file names, order, and how far its bytes are complete, checked records.
//!
//! All knowledge of one engine lives in one file beside this one. A new engine is a new file, a new variant of
//! [`Engine`], [`Scheme`] and [`Scanner`], and the compiler names every place that must learn of it.

pub mod bdb;
pub mod eloquence;
pub mod plain;

use std::fmt;

use super::pattern::Pattern;
use crate::value::position::Segment;
use crate::value::time::Time;

/// A database kind, as `--engine` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Numbered files, append-only.
    Plain,
    /// Eloquence forward logs, `fw-1-1`.
    Eloquence,
    /// Berkeley DB and Berkeley DB SQL, `log.0000000001`.
    Bdb,
}

/// Every engine with its name.
pub const ENGINES: [(Engine, &str); 3] =
    [(Engine::Plain, "plain"), (Engine::Eloquence, "eloquence"), (Engine::Bdb, "bdb")];

/// The rules of one log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Numbered files by a pattern.
    Plain(Pattern),
    /// The same with generations, and the vendor's name.
    Eloquence(Pattern),
    /// Berkeley DB.
    Bdb,
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

/// Whether a segment is finished, judged from the beginning of the one after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closure {
    /// It is: its file has its final length and every byte.
    Closed,
    /// The next one has not begun yet.
    Open,
    /// The next one says that records are missing here, or is damaged itself: what and where.
    Damaged(String),
}

/// Reads a segment's bytes in order and says how far they are complete, checked records.
#[derive(Clone, Debug)]
pub enum Scanner {
    /// Every byte counts.
    Raw(plain::Scanner),
    /// Berkeley DB records.
    Bdb(bdb::Scanner),
}

impl Engine {
    /// The engine of this name.
    pub fn parse(name: &str) -> Result<Engine, String> {
        let found = ENGINES.iter().find(|(_, known)| *known == name).map(|(engine, _)| *engine);
        found.ok_or_else(|| {
            let known: Vec<_> = ENGINES.iter().map(|(_, name)| *name).collect();
            format!("'{}' is not an engine: expected {}", crate::value::escape::show(name), known.join(", "))
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ENGINES.iter().find(|(engine, _)| engine == self).map_or("", |(_, name)| name);
        out.write_str(name)
    }
}

impl Scheme {
    /// The scheme of an engine; a pattern is required by `plain`, has a default for `eloquence`, and is wrong for others.
    pub fn new(engine: Engine, pattern: Option<Pattern>) -> Result<Scheme, String> {
        match (engine, pattern) {
            (Engine::Plain, Some(pattern)) => Ok(Scheme::Plain(pattern)),
            (Engine::Plain, None) => Err("engine plain needs --pattern, such as 'log.%S'".to_owned()),
            (Engine::Eloquence, Some(pattern)) => Ok(Scheme::Eloquence(pattern)),
            (Engine::Eloquence, None) => Ok(Scheme::Eloquence(eloquence::default_pattern())),
            (Engine::Bdb, None) => Ok(Scheme::Bdb),
            (Engine::Bdb, Some(_)) => Err("engine bdb has fixed names; leave --pattern out".to_owned()),
        }
    }

    /// The scheme that file names show: exactly one engine must know some of them.
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Scheme, String> {
        let candidates = [Scheme::Bdb, Scheme::Eloquence(eloquence::default_pattern())];
        let mut known = [false; 2];
        for name in names {
            for (known, scheme) in known.iter_mut().zip(&candidates) {
                *known |= scheme.segment(name).is_some();
            }
        }
        let mut found = candidates.into_iter().zip(known).filter_map(|(scheme, known)| known.then_some(scheme));
        match (found.next(), found.next()) {
            (Some(scheme), None) => Ok(scheme),
            (None, _) => Err("no file name shows which engine this is".to_owned()),
            (Some(one), Some(other)) => {
                Err(format!("file names of both {} and {} are there", one.engine(), other.engine()))
            }
        }
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        match self {
            Scheme::Plain(_) => Engine::Plain,
            Scheme::Eloquence(_) => Engine::Eloquence,
            Scheme::Bdb => Engine::Bdb,
        }
    }

    /// The pattern, for engines that have one.
    pub fn pattern(&self) -> Option<&Pattern> {
        match self {
            Scheme::Plain(pattern) | Scheme::Eloquence(pattern) => Some(pattern),
            Scheme::Bdb => None,
        }
    }

    /// The file name of a segment: one path component, never hidden, at most 255 bytes.
    pub fn name(&self, segment: Segment) -> String {
        match self {
            Scheme::Plain(pattern) | Scheme::Eloquence(pattern) => pattern.name(segment),
            Scheme::Bdb => bdb::name(segment),
        }
    }

    /// The segment of a file name.
    pub fn segment(&self, name: &str) -> Option<Segment> {
        match self {
            Scheme::Plain(pattern) | Scheme::Eloquence(pattern) => pattern.segment(name),
            Scheme::Bdb => bdb::segment(name),
        }
    }

    /// Whether this segment has a file of its own: where names hold no generation, `2-1` would be written into the file
    /// of `1-1`. Asked of every segment that a peer names.
    pub fn is_nameable(&self, segment: Segment) -> bool {
        self.segment(&self.name(segment)) == Some(segment)
    }

    /// How `next` follows `segment`.
    pub fn step(&self, segment: Segment, next: Segment) -> Step {
        if next.generation == segment.generation {
            return if segment.sequence.checked_add(1) == Some(next.sequence) { Step::Next } else { Step::Gap };
        }
        // Vendors count a generation's segments from 1; the rule by which generations rise is theirs.
        if next.generation > segment.generation && next.sequence <= 1 { Step::Generation } else { Step::Gap }
    }

    /// Whether a set can begin with this segment, so that the log alone rebuilds the database.
    pub fn is_first(&self, segment: Segment) -> bool {
        segment.generation <= 1 && segment.sequence <= 1
    }

    /// Small files beside the log that a receiver needs too.
    pub fn aux_names(&self) -> &'static [&'static str] {
        match self {
            Scheme::Plain(_) | Scheme::Eloquence(_) => &[],
            Scheme::Bdb => &[bdb::CONFIG],
        }
    }

    /// Whether a file that is no segment belongs to the engine; `head` is its first 512 bytes or fewer.
    pub fn is_side_file(&self, name: &str, head: &[u8]) -> bool {
        match self {
            Scheme::Plain(_) | Scheme::Eloquence(_) => false,
            Scheme::Bdb => bdb::is_side_file(name, head),
        }
    }

    /// What an operator should know about this log's set-up; `config` is the content of its aux file.
    pub fn warning(&self, directory: &str, config: Option<&str>) -> Option<String> {
        match self {
            Scheme::Plain(_) | Scheme::Eloquence(_) => None,
            Scheme::Bdb => bdb::warning(directory, config),
        }
    }

    /// What a receiver's engine must understand, from the first bytes of a segment; empty when nothing is known.
    pub fn fingerprint(&self, head: &[u8]) -> String {
        match self {
            Scheme::Plain(_) | Scheme::Eloquence(_) => String::new(),
            Scheme::Bdb => bdb::fingerprint(head),
        }
    }

    /// A scanner at the beginning of a segment; boundaries later than `until` are not taken.
    pub fn scanner(&self, until: Option<Time>) -> Scanner {
        match self {
            Scheme::Plain(_) | Scheme::Eloquence(_) => Scanner::Raw(plain::Scanner::new(until)),
            Scheme::Bdb => Scanner::Bdb(bdb::Scanner::new(until)),
        }
    }
}

/// Bytes from the beginning of the following segment that [`Scanner::closure`] wants to see.
pub const HEAD: usize = 512;

impl Scanner {
    /// Takes the bytes that follow what was taken so far. Bytes after the last whole record are looked at again after
    /// [`Scanner::rewind`], since a writer may still be at them.
    pub fn take(&mut self, bytes: &[u8]) {
        match self {
            Scanner::Raw(scanner) => scanner.take(bytes),
            Scanner::Bdb(scanner) => scanner.take(bytes),
        }
    }

    /// The offset of the next byte to take.
    pub fn at(&self) -> u64 {
        match self {
            Scanner::Raw(scanner) => scanner.safe(),
            Scanner::Bdb(scanner) => scanner.at(),
        }
    }

    /// The end of the last whole, checked record.
    pub fn safe(&self) -> u64 {
        match self {
            Scanner::Raw(scanner) => scanner.safe(),
            Scanner::Bdb(scanner) => scanner.safe(),
        }
    }

    /// The last boundary at or before [`Scanner::safe`] that is not later than the limit.
    pub fn boundary(&self) -> Option<Mark> {
        match self {
            Scanner::Raw(scanner) => scanner.boundary(),
            Scanner::Bdb(scanner) => scanner.boundary(),
        }
    }

    /// Whether a boundary later than the limit was seen.
    pub fn is_past_limit(&self) -> bool {
        match self {
            Scanner::Raw(scanner) => scanner.is_past_limit(),
            Scanner::Bdb(scanner) => scanner.is_past_limit(),
        }
    }

    /// Whether more bytes can be of use before [`Scanner::rewind`]: false at what is no record (yet).
    pub fn is_hungry(&self) -> bool {
        match self {
            Scanner::Raw(_) => true,
            Scanner::Bdb(scanner) => scanner.is_hungry(),
        }
    }

    /// Goes back to the end of the last whole record.
    pub fn rewind(&mut self) {
        match self {
            Scanner::Raw(_) => {}
            Scanner::Bdb(scanner) => scanner.rewind(),
        }
    }

    /// Says when the file was last written, before its bytes are taken: all that engines without records know.
    pub fn written(&mut self, time: Time) {
        match self {
            Scanner::Raw(scanner) => scanner.written(time),
            Scanner::Bdb(_) => {}
        }
    }

    /// Why the bytes at [`Scanner::safe`] are no whole record, once they were taken.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Scanner::Raw(_) => None,
            Scanner::Bdb(scanner) => scanner.trouble(),
        }
    }

    /// Whether this segment is finished, given the first bytes ([`HEAD`] or fewer) of the one after it.
    pub fn closure(&self, head: &[u8]) -> Closure {
        match self {
            Scanner::Raw(_) => Closure::Closed,
            Scanner::Bdb(scanner) => scanner.closure(head),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_show_the_engine_only_when_unambiguous() {
        assert_eq!(Scheme::detect(["__db.001", "log.0000000001"]), Ok(Scheme::Bdb));
        assert_eq!(Scheme::detect(["fw-12-1"]).map(|scheme| scheme.engine()), Ok(Engine::Eloquence));
        assert!(Scheme::detect(["a.log"]).is_err());
        assert!(Scheme::detect(["fw-1-1", "log.0000000001"]).is_err());
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
