//! What `repl-wait` asks a running `repl-ship`, and what it is told: lines of text over a local socket.
//!
//! ```text
//! wait v=1 at=now policy=quorum level=flushed
//! at 1-12:40960
//! done
//! ```
//! The answer is `at`, once it is known what is waited for, and `done` when that is so; or `refuse CODE text`. Who asks
//! ends the wait by hanging up.

use std::fmt;

use super::quorum::{Level, Policy};
use crate::value::escape::show;
use crate::value::exit::Code;
use crate::value::pairs;
use crate::value::position::{Bookmark, Position, number};

/// Most bytes of a line, with its line end.
pub const LINE_MAX: usize = 1024;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The log's end when the question arrives.
    Now,
    /// This position; with a proof, of this very log.
    At(Bookmark),
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Up to where.
    pub what: What,
    /// By whom; `None` for the policy that the sender was started with.
    pub policy: Option<Policy>,
    /// How far there.
    pub level: Level,
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This is what is waited for; nothing where there is no log.
    At(Option<Position>),
    /// It is so.
    Done,
    /// It cannot be so.
    Refuse(Code, String),
}

impl What {
    /// Reads `now`, a position or a bookmark.
    pub fn parse(text: &str) -> Result<What, String> {
        match text {
            "now" => Ok(What::Now),
            text => text.parse().map(What::At).map_err(|error| format!("{error}, or 'now'")),
        }
    }
}

impl Question {
    /// Reads a line without its line end.
    pub fn parse(line: &str) -> Option<Question> {
        let rest = line.strip_prefix("wait ")?;
        (pairs::get(rest, "v")? == "1").then_some(())?;
        let policy = match pairs::get(rest, "policy")?.as_str() {
            "" => None,
            policy => Some(Policy::parse(policy).ok()?),
        };
        Some(Question {
            what: What::parse(&pairs::get(rest, "at")?).ok()?,
            policy,
            level: Level::parse(&pairs::get(rest, "level")?).ok()?,
        })
    }
}

impl fmt::Display for Question {
    /// The line without its line end.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match self.what {
            What::Now => "now".to_owned(),
            What::At(mark) => mark.to_string(),
        };
        let policy = self.policy.map_or_else(|| "-".to_owned(), |policy| policy.to_string());
        write!(out, "wait v=1 at={at} policy={policy} level={}", self.level)
    }
}

impl Answer {
    /// Reads a line without its line end.
    pub fn parse(line: &str) -> Option<Answer> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "at" if rest == "-" => Some(Answer::At(None)),
            "at" => rest.parse().ok().map(|at| Answer::At(Some(at))),
            "done" => Some(Answer::Done),
            "refuse" => {
                let (code, text) = rest.split_once(' ').unwrap_or((rest, ""));
                let code = Code::from_number(u8::try_from(number(code)?).ok()?)?;
                (code != Code::Done).then(|| Answer::Refuse(code, text.to_owned()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Answer {
    /// The line without its line end.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::At(None) => out.write_str("at -"),
            Answer::At(Some(at)) => write!(out, "at {at}"),
            Answer::Done => out.write_str("done"),
            Answer::Refuse(code, text) => {
                let text: String = show(text).chars().take(LINE_MAX / 5).collect();
                write!(out, "refuse {} {text}", *code as u8)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        for what in ["now", "1-12:40960", "1-12:40960+0123456789abcdef"] {
            for policy in [None, Some(Policy::AllPeers)] {
                let question = Question { what: What::parse(what).unwrap(), policy, level: Level::Applied };
                assert_eq!(Question::parse(&question.to_string()), Some(question));
            }
        }
        let at = "1-12:40960".parse().unwrap();
        for answer in [
            Answer::At(Some(at)),
            Answer::At(None),
            Answer::Done,
            Answer::Refuse(Code::Usage, "no site applies".into()),
        ] {
            assert_eq!(Answer::parse(&answer.to_string()), Some(answer));
        }
        assert!(Answer::Refuse(Code::Failed, "é\n".repeat(5000)).to_string().len() < LINE_MAX);
    }

    #[test]
    fn anything_else_is_none() {
        for bad in [
            "",
            "wait",
            "wait v=2 at=now policy=- level=flushed",
            "wait v=1 at=oldest policy=- level=flushed",
            "wait v=1 at=now policy=some level=flushed",
            "wait v=1 at=now policy=-",
        ] {
            assert_eq!(Question::parse(bad), None, "{bad}");
        }
        for bad in ["", "at", "at x", "refuse", "refuse 0 x", "refuse 99 x", "hello"] {
            assert_eq!(Answer::parse(bad), None, "{bad}");
        }
    }
}
