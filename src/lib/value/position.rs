//! Segments, positions and bookmarks: where in a log something is, and the proof that it is the same log.
//!
//! `1-12` names a segment (generation, sequence), `1-12:40960` a position in it, `1-12:40960+0123456789abcdef` a
//! bookmark. Order is total and numeric: `2-1` comes before `12-1`.

use std::fmt;
use std::str::FromStr;

use super::digest::Proof;

/// One log file of a set, by its numbers. The scheme prints its file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// Generation; 1 for engines that have none.
    pub generation: u64,
    /// Sequence within the generation.
    pub sequence: u64,
}

/// A byte offset in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment.
    pub segment: Segment,
    /// Bytes before this position in the segment.
    pub offset: u64,
}

/// A position with the proof of what lies before it in its segment. Accepted wherever a position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bookmark {
    /// The position.
    pub position: Position,
    /// First 16 hex digits of BLAKE3 over the segment's bytes before the position; absent in a bare position.
    pub proof: Option<Proof>,
}

/// Where to start reading a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first byte that is still there.
    Oldest,
    /// The beginning of the newest segment.
    Latest,
    /// After what a receiver holds.
    At(Bookmark),
}

/// Why a text is not a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAPosition(String);

impl Segment {
    /// The segment with these numbers.
    pub fn new(generation: u64, sequence: u64) -> Segment {
        Segment { generation, sequence }
    }

    /// The position this many bytes into the segment.
    pub fn at(self, offset: u64) -> Position {
        Position { segment: self, offset }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.generation, self.sequence)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.segment, self.offset)
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proof {
            Some(proof) => write!(out, "{}+{proof}", self.position),
            None => self.position.fmt(out),
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Oldest => out.write_str("oldest"),
            Start::Latest => out.write_str("latest"),
            Start::At(bookmark) => bookmark.fmt(out),
        }
    }
}

impl fmt::Display for NotAPosition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "'{}' is not a position: expected GENERATION-SEQUENCE:OFFSET, such as 1-12:40960", self.0)
    }
}

impl std::error::Error for NotAPosition {}

/// Digits only: no sign, no space, no empty text, no overflow.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn position(text: &str) -> Option<Position> {
    let (segment, offset) = text.split_once(':')?;
    let (generation, sequence) = segment.split_once('-')?;
    Some(Segment::new(number(generation)?, number(sequence)?).at(number(offset)?))
}

fn bookmark(text: &str) -> Option<Bookmark> {
    match text.split_once('+') {
        Some((bare, proof)) => Some(Bookmark { position: position(bare)?, proof: Some(Proof::parse(proof)?) }),
        None => Some(Bookmark { position: position(text)?, proof: None }),
    }
}

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Position, NotAPosition> {
        position(text).ok_or_else(|| NotAPosition(text.to_owned()))
    }
}

impl FromStr for Bookmark {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Bookmark, NotAPosition> {
        bookmark(text).ok_or_else(|| NotAPosition(text.to_owned()))
    }
}

impl FromStr for Start {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Start, NotAPosition> {
        match text {
            "oldest" => Ok(Start::Oldest),
            "latest" => Ok(Start::Latest),
            other => other.parse().map(Start::At),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_parses() {
        for text in ["1-1:0", "1-12:40960", "18446744073709551615-1:18446744073709551615"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
        let text = "1-12:40960+0123456789abcdef";
        assert_eq!(text.parse::<Bookmark>().unwrap().to_string(), text);
        assert_eq!("oldest".parse::<Start>().unwrap(), Start::Oldest);
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "1",
            "1-1",
            "1-1:",
            "1-:0",
            "-1:0",
            "+1-1:0",
            "1-1:-1",
            "1-1: 0",
            "1-1:0+",
            "1-1:0+0123",
            "1-1:0+0123456789abcdeg",
            "1-1:18446744073709551616",
            "1-1:0 ",
            "1-1:0:0",
            "1-1-1:0",
        ] {
            assert!(text.parse::<Bookmark>().is_err(), "{text}");
        }
    }

    #[test]
    fn order_is_numeric_by_pair_then_offset() {
        let sorted = ["1-1:0", "1-1:9", "1-2:0", "1-10:0", "2-1:0", "12-1:0"];
        let mut shuffled: Vec<Position> = sorted.iter().rev().map(|text| text.parse().unwrap()).collect();
        shuffled.sort();
        assert_eq!(shuffled.iter().map(Position::to_string).collect::<Vec<_>>(), sorted);
    }
}
