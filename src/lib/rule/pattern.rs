//! Segment file names of plain logs: `fw-%N` (generation-sequence), `log.%S`, `wal-%010S.bin` (sequence with width).
//!
//! A name belongs to a pattern only when the pattern prints it again from the numbers read: `fw-01-1` is not `fw-%N`.
//! A pattern may come from a peer, so one that could print a path, a hidden file or an option is refused here.

use std::fmt;

use crate::value::position::{Segment, number};

/// A parsed pattern with exactly one number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    before: String,
    number: Number,
    after: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    /// `%N`: generation-sequence.
    Pair,
    /// `%S`: sequence, zero-padded to this many digits.
    Sequence(usize),
}

/// Longest file name on Linux, in bytes.
const NAME_MAX: usize = 255;
/// Digits of the largest pair, `18446744073709551615-18446744073709551615`.
const PAIR_DIGITS: usize = 41;

impl Pattern {
    /// Reads a pattern; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let refuse =
            |why: &str| Err(format!("'{}' is not a segment name pattern: {why}", crate::value::escape::show(text)));
        let mut before = String::new();
        let mut after = String::new();
        let mut found = None;
        let mut rest = text.chars();
        while let Some(ch) = rest.next() {
            let literal = if found.is_none() { &mut before } else { &mut after };
            if ch != '%' {
                literal.push(ch);
                continue;
            }
            let number = match rest.next() {
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                Some('N') => Number::Pair,
                Some('S') => Number::Sequence(1),
                Some('0') => match width(&mut rest) {
                    Some(width) => Number::Sequence(width),
                    None => return refuse("%0 takes a width from 1 to 20 and S, such as %010S"),
                },
                _ => return refuse("% is followed by N, S, 0 and a width, or %"),
            };
            if found.replace(number).is_some() {
                return refuse("it has more than one number");
            }
        }
        let Some(number) = found else {
            return refuse("it has no %N and no %S");
        };
        if text.contains('/') {
            return refuse("it names a directory; give the directory as LOGDIR and the file name as the pattern");
        }
        if text.chars().any(|ch| ch.is_control() || ch == '\\') {
            return refuse("it has a control character or a backslash");
        }
        if before.starts_with(['.', '-']) {
            return refuse("a segment name does not begin with '.' or '-'");
        }
        if before.ends_with(|ch: char| ch.is_ascii_digit()) || after.starts_with(|ch: char| ch.is_ascii_digit()) {
            return refuse("a digit next to the number makes names ambiguous");
        }
        if before.len() + after.len() + PAIR_DIGITS > NAME_MAX {
            return refuse("names would be longer than 255 bytes");
        }
        Ok(Pattern { before, number, after })
    }

    /// The file name of a segment.
    pub fn name(&self, segment: Segment) -> String {
        let Pattern { before, after, .. } = self;
        match self.number {
            Number::Pair => format!("{before}{}-{}{after}", segment.generation, segment.sequence),
            Number::Sequence(width) => format!("{before}{:0width$}{after}", segment.sequence),
        }
    }

    /// The segment of a file name, if the name is exactly what [`Pattern::name`] prints.
    pub fn segment(&self, name: &str) -> Option<Segment> {
        let digits = name.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        let segment = match self.number {
            Number::Pair => {
                let (generation, sequence) = digits.split_once('-')?;
                Segment::new(number(generation)?, number(sequence)?)
            }
            Number::Sequence(_) => Segment::new(1, number(digits)?),
        };
        (self.name(segment) == name).then_some(segment)
    }
}

/// Reads `10S` after `%0`.
fn width(rest: &mut std::str::Chars<'_>) -> Option<usize> {
    let mut digits = String::new();
    loop {
        match rest.next()? {
            'S' => break,
            digit if digit.is_ascii_digit() && digits.len() < 2 => digits.push(digit),
            _ => return None,
        }
    }
    digits.parse().ok().filter(|width| (1..=20).contains(width))
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.before.replace('%', "%%"), self.after.replace('%', "%%"));
        match self.number {
            Number::Pair => write!(out, "{before}%N{after}"),
            Number::Sequence(1) => write!(out, "{before}%S{after}"),
            Number::Sequence(width) => write!(out, "{before}%0{width}S{after}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_segments_are_each_others_inverse() {
        for (pattern, name, segment) in [
            ("fw-%N", "fw-12-1", Segment::new(12, 1)),
            ("%S.log", "7.log", Segment::new(1, 7)),
            ("log.%010S", "log.0000000042", Segment::new(1, 42)),
            ("100%%-%S", "100%-3", Segment::new(1, 3)),
            ("log.%03S", "log.12345", Segment::new(1, 12345)),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.to_string(), pattern);
            assert_eq!(parsed.segment(name), Some(segment), "{pattern}");
            assert_eq!(parsed.name(segment), name);
        }
    }

    #[test]
    fn a_name_that_would_not_be_printed_is_not_a_segment() {
        let pair = Pattern::parse("fw-%N").unwrap();
        for name in ["fw-01-1", "fw-1", "fw-1-1.gz", "fw--1", "xfw-1-1", "fw-1-18446744073709551616"] {
            assert_eq!(pair.segment(name), None, "{name}");
        }
        let wide = Pattern::parse("log.%010S").unwrap();
        assert_eq!(wide.segment("log.1"), None);
        assert_eq!(wide.segment("log.00000000001"), None);
    }

    #[test]
    fn hostile_and_ambiguous_patterns_are_refused() {
        let long = format!("{}%S", "x".repeat(240));
        for bad in [
            "", "log", "../%S", "a/%S", ".repl%S", "-%S", "%N%S", "%", "%x", "%0S", "%021S", "%0999S", "a\n%S",
            "a\\%S", "1%S", "%S2", "%S\0", &long,
        ] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
