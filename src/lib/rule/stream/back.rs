//! The back channel: lines of text that a person, a shell script or a log can read.
//!
//! ```text
//! welcome v=1 set=orders engine=bdb site=venus epoch=1 at=1-12:40960+0123456789abcdef
//! ack received=1-12:50000 flushed=1-12:40960 applied=-
//! refuse 4 diverged: segment 1-12 differs at 4096
//! ```
//! A line is at most [`LINE_MAX`] bytes with its line end. Unknown keys are passed over.

use std::fmt;

use super::hello::is_name;
use super::{Corrupt, corrupt};
use crate::value::escape::{show, word};
use crate::value::exit::Code;
use crate::value::pairs;
use crate::value::position::{Position, Start, number};

/// Most bytes of a line, with its line end.
pub const LINE_MAX: usize = 1024;

/// One line from a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The first line: who receives, and what it holds.
    Welcome(Welcome),
    /// Progress.
    Ack(Ack),
    /// The receiver ends; its exit code and one line of text.
    Refuse(Code, String),
}

/// Who receives, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The set that is pinned there; empty before the first attach.
    pub set: String,
    /// The engine that is pinned there; empty before the first attach.
    pub engine: String,
    /// Name of the site; may be empty.
    pub site: String,
    /// Its epoch.
    pub epoch: u64,
    /// What it holds, or `oldest`.
    pub at: Start,
    /// Whether it feeds a database.
    pub feeds: bool,
}

/// How far the receiver is. A level that has nothing yet, or is not kept there, is `None` and printed `-`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Read and verified.
    pub received: Option<Position>,
    /// Data and directory entry on stable storage.
    pub flushed: Option<Position>,
    /// Given to the database.
    pub applied: Option<Position>,
}

impl Line {
    /// Reads a line without its line end.
    pub fn parse(line: &[u8]) -> Result<Line, Corrupt> {
        let Ok(text) = std::str::from_utf8(line) else {
            return corrupt("a line from the receiver is not UTF-8");
        };
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let parsed = match verb {
            "welcome" => welcome(rest).map(Line::Welcome),
            "ack" => ack(rest).map(Line::Ack),
            "refuse" => refuse(rest),
            _ => None,
        };
        parsed.ok_or_else(|| {
            Corrupt(format!("the receiver sent '{}'", show(&text.chars().take(200).collect::<String>())))
        })
    }
}

fn welcome(rest: &str) -> Option<Welcome> {
    if pairs::get(rest, "v")? != "1" {
        return None;
    }
    let name = |key: &str| pairs::get(rest, key).filter(|name| is_name(name));
    let at = pairs::get(rest, "at")?.parse().ok()?;
    // Only a sender can mean the newest segment; a receiver says what it holds.
    (at != Start::Latest).then_some(())?;
    Some(Welcome {
        set: name("set")?,
        engine: name("engine")?,
        site: name("site")?,
        epoch: pairs::count(rest, "epoch")?,
        at,
        feeds: pairs::get(rest, "feeds").as_deref() == Some("yes"),
    })
}

fn ack(rest: &str) -> Option<Ack> {
    let level = |key: &str| match pairs::get(rest, key)?.as_str() {
        "" => Some(None),
        position => position.parse().ok().map(Some),
    };
    Some(Ack { received: level("received")?, flushed: level("flushed")?, applied: level("applied")? })
}

fn refuse(rest: &str) -> Option<Line> {
    let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let code = Code::from_number(u8::try_from(number(code)?).ok()?)?;
    (code != Code::Done).then(|| Line::Refuse(code, text.to_owned()))
}

impl fmt::Display for Line {
    /// The line without its line end.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Welcome(Welcome { set, engine, site, epoch, at, feeds }) => {
                let (set, engine, site) = (word(set), word(engine), word(site));
                write!(out, "welcome v=1 set={set} engine={engine} site={site} epoch={epoch} at={at}")?;
                if *feeds { out.write_str(" feeds=yes") } else { Ok(()) }
            }
            Line::Ack(ack) => {
                let level = |at: Option<Position>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
                let (received, flushed, applied) = (level(ack.received), level(ack.flushed), level(ack.applied));
                write!(out, "ack received={received} flushed={flushed} applied={applied}")
            }
            Line::Refuse(code, text) => {
                let room = LINE_MAX - 16;
                let mut shown = show(text);
                shown.truncate((0..=room.min(shown.len())).rev().find(|end| shown.is_char_boundary(*end)).unwrap_or(0));
                write!(out, "refuse {} {shown}", *code as u8)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let at: Start = "1-12:40960+0123456789abcdef".parse().unwrap();
        for line in [
            Line::Welcome(Welcome {
                set: "a b".into(),
                engine: "bdb".into(),
                site: String::new(),
                epoch: 2,
                at,
                feeds: true,
            }),
            Line::Ack(Ack { received: "1-1:5".parse().ok(), flushed: None, applied: None }),
            Line::Refuse(Code::Diverged, "diverged: here".into()),
        ] {
            assert_eq!(Line::parse(line.to_string().as_bytes()), Ok(line));
        }
    }

    #[test]
    fn a_refusal_is_one_bounded_line_whatever_it_quotes() {
        let line = Line::Refuse(Code::Corrupt, "é\n".repeat(2000)).to_string();
        assert!(line.len() < LINE_MAX && !line.contains('\n'), "{}", line.len());
    }

    #[test]
    fn the_longest_welcome_is_a_bounded_line() {
        let name = "é".repeat(42);
        let most = u64::MAX;
        let at = format!("{most}-{most}:{most}+0123456789abcdef").parse().unwrap();
        let welcome =
            Welcome { set: name.clone(), engine: "eloquence".into(), site: name, epoch: most, at, feeds: true };
        let line = Line::Welcome(welcome.clone()).to_string();
        assert!(line.len() < LINE_MAX, "{}", line.len());
        assert_eq!(Line::parse(line.as_bytes()), Ok(Line::Welcome(welcome)));
    }

    #[test]
    fn unknown_keys_are_passed_over() {
        let line = b"ack later=thing received=1-1:5 flushed=- more applied=-";
        assert_eq!(Line::parse(line), Line::parse(b"ack received=1-1:5 flushed=- applied=-"));
        let line = b"welcome v=1 set=- engine=- site=- epoch=0 at=oldest later=thing";
        assert!(matches!(Line::parse(line), Ok(Line::Welcome(_))));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "hello",
            "welcome v=2 set=- engine=- site=- epoch=0 at=oldest",
            "welcome v=1 set=-",
            "welcome v=1 set= engine=- site=- epoch=0 at=oldest",
            "welcome v=1 set=a%0Ab engine=- site=- epoch=0 at=oldest",
            "welcome v=1 set=- engine=- site=- epoch=0 at=latest",
            "ack received=1-1:5",
            "ack received=1-1:5 flushed= applied=-",
            "ack received=x flushed=- applied=-",
            "refuse",
            "refuse 0 fine",
            "refuse 99 x",
            "refuse -1 x",
        ] {
            assert!(Line::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
