//! What a site holds, as lines of text that another site compares with its own, so that no log needs to be sent:
//!
//! ```text
//! repl-digests v=1 set=shop engine=bdb pattern=- identity=- segment-size=0
//! closed at=1-1:1000000 b3=<64 hex digits>
//! open at=1-2:40960 b3=<64 hex digits>
//! prefix at=1-2:8192 b3=<64 hex digits>
//! end segments=2
//! ```
//!
//! A line for each segment, in order: where it ends here and the digest of its bytes up to there, without the bits that
//! engines rewrite. `prefix` is there when it was asked for. The last line shows that nothing was cut off. A version that
//! adds to this is 2.

use std::collections::BTreeMap;

use super::pattern::Pattern;
use super::scheme::Scheme;
use crate::value::digest::Digest;
use crate::value::escape::word;
use crate::value::pairs;
use crate::value::position::{Position, Segment};

/// Most bytes that are listened to: the lines of more than half a million segments.
pub const MOST: u64 = 64 << 20;
/// How the first line begins.
const HEAD: &str = "repl-digests v=1 ";
/// What must be the same at both sites.
const FACTS: [&str; 4] = ["engine", "pattern", "identity", "segment-size"];

/// What a site holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// What it is of.
    pub log: Log,
    /// Its segments.
    pub segments: BTreeMap<Segment, Held>,
    /// A place that was asked for, and the digest of its segment up to there.
    pub prefix: Option<(Position, Digest)>,
}

/// What a log is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    set: String,
    facts: [String; 4],
}

/// What is held of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// How many of its bytes.
    pub length: u64,
    /// Their digest.
    pub digest: Digest,
    /// Whether that is all of it.
    pub is_closed: bool,
}

impl Log {
    /// The log of a set with these rules.
    pub fn new(scheme: &Scheme, set: &str) -> Log {
        let pattern = scheme.pattern().map(Pattern::to_string).unwrap_or_default();
        let facts = [scheme.engine().to_string(), pattern, scheme.identity(), scheme.segment_size().to_string()];
        Log { set: set.to_owned(), facts }
    }

    /// The first thing in which two logs differ, with what it is in each. A set that has no name yet may be any.
    pub fn differs<'a>(&'a self, other: &'a Log) -> Option<(&'static str, &'a str, &'a str)> {
        if !self.set.is_empty() && !other.set.is_empty() && self.set != other.set {
            return Some(("set", &self.set, &other.set));
        }
        let pairs = FACTS.iter().zip(self.facts.iter().zip(&other.facts));
        let mut differing = pairs.filter(|(_, (own, others))| own != others);
        differing.next().map(|(name, (own, others))| (*name, own.as_str(), others.as_str()))
    }

    fn parse(line: &str) -> Option<Log> {
        let rest = line.strip_prefix(HEAD)?;
        let [engine, pattern, identity, size] = FACTS.map(|fact| pairs::get(rest, fact));
        Some(Log { set: pairs::get(rest, "set")?, facts: [engine?, pattern?, identity?, size?] })
    }
}

impl Digests {
    /// The lines.
    pub fn print(&self) -> String {
        let mut text = format!("{HEAD}set={}", word(&self.log.set));
        for (name, fact) in FACTS.iter().zip(&self.log.facts) {
            text += &format!(" {name}={}", word(fact));
        }
        text.push('\n');
        let line = |kind: &str, at: Position, digest: Digest| format!("{kind} at={at} b3={digest}\n");
        for (segment, held) in &self.segments {
            let kind = if held.is_closed { "closed" } else { "open" };
            text += &line(kind, segment.at(held.length), held.digest);
        }
        if let Some((at, digest)) = self.prefix {
            text += &line("prefix", at, digest);
        }
        text + &format!("end segments={}\n", self.segments.len())
    }

    /// Reads them back, foreign as they are; the error is the first line that is none of them, by its number.
    pub fn parse(bytes: &[u8]) -> Result<Digests, usize> {
        let mut lines = (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n'));
        let mut next = || match lines.next() {
            Some((number, line)) => (number, line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok())),
            None => (0, None),
        };
        let (number, head) = next();
        let log = head.and_then(Log::parse).ok_or(number)?;
        let mut digests = Digests { log, segments: BTreeMap::new(), prefix: None };
        loop {
            let (number, line) = next();
            let line = line.ok_or(number)?;
            if let Some(count) = line.strip_prefix("end ") {
                let is_whole = pairs::count(count, "segments") == Some(digests.segments.len() as u64);
                // To the byte as it is written: nothing behind it, no word twice.
                return if is_whole && digests.print().as_bytes() == bytes { Ok(digests) } else { Err(number) };
            }
            digests.take(line).ok_or(number)?;
        }
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let at: Position = pairs::get(rest, "at")?.parse().ok()?;
        let digest = Digest::parse(&pairs::get(rest, "b3")?)?;
        if kind == "prefix" {
            self.prefix = Some((at, digest));
            return Some(());
        }
        let is_closed = match kind {
            "closed" => true,
            "open" => false,
            _ => return None,
        };
        let is_later = self.segments.last_key_value().is_none_or(|(last, _)| *last < at.segment);
        self.segments.insert(at.segment, Held { length: at.offset, digest, is_closed });
        is_later.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Digests {
        let scheme = Scheme::Plain(Pattern::parse("log %S").unwrap());
        let held = |length, is_closed| Held { length, digest: Digest::of(b"x"), is_closed };
        let segments = BTreeMap::from([(Segment::new(1, 9), held(7, true)), (Segment::new(1, 10), held(0, false))]);
        Digests { log: Log::new(&scheme, "a b"), segments, prefix: Some((Segment::new(1, 10).at(0), Digest::of(b""))) }
    }

    #[test]
    fn lines_are_ascii_and_read_back() {
        let none = Digests { segments: BTreeMap::new(), prefix: None, ..sample() };
        for digests in [sample(), none] {
            let text = digests.print();
            assert!(text.is_ascii());
            assert_eq!(Digests::parse(text.as_bytes()), Ok(digests));
        }
        let sum = Digest::of(b"x");
        let text = sample().print();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "repl-digests v=1 set=a%20b engine=plain pattern=log%20%25S identity=- segment-size=0");
        assert_eq!(lines[1], format!("closed at=1-9:7 b3={sum}"));
        assert_eq!(lines[2], format!("open at=1-10:0 b3={sum}"));
        assert_eq!(lines[4], "end segments=2");
    }

    #[test]
    fn whatever_else_is_said_is_none_of_them_and_the_line_is_named() {
        let text = sample().print();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for end in 0..text.len() {
            assert!(Digests::parse(&text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Digests::parse(&damaged), Ok(sample()), "bit {bit}");
        }
        let said = |lines: &[&str]| Digests::parse(lines.concat().as_bytes()).map(|_| ());
        assert_eq!(said(&["Welcome to mars\n", &text]), Err(1));
        assert_eq!(said(&[lines[0], lines[2], lines[1], lines[4]]), Err(3));
        assert_eq!(said(&[lines[0], lines[1], lines[1], lines[4]]), Err(3));
        assert_eq!(said(&[&text, "more\n"]), Err(5));
        assert_eq!(said(&[lines[0], "closed at=1-1:1 b3=x\n"]), Err(2));
        assert_eq!(said(&[lines[0], lines[1]]), Err(0));
    }

    #[test]
    fn logs_of_other_sets_and_engines_differ_and_a_nameless_set_does_not() {
        let log = sample().log;
        let nameless = Log { set: String::new(), ..log.clone() };
        assert_eq!((log.differs(&log), log.differs(&nameless)), (None, None));
        assert_eq!(log.differs(&Log { set: "c".into(), ..log.clone() }), Some(("set", "a b", "c")));
        assert_eq!(log.differs(&Log::new(&Scheme::Bdb, "")), Some(("engine", "plain", "bdb")));
    }
}
