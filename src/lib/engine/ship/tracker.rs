//! What a receiver has said on the back channel. One thread reads its lines; the shipping thread asks.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;

use anyhow::Result;
use parking_lot::Mutex;

use crate::edge::bell::Bell;
use crate::rule::stream::back::{Ack, LINE_MAX, Line, Welcome};
use crate::value::exit::{Code, Failure};
use crate::value::position::{Position, Start};

/// The receiver as its lines show it.
#[derive(Clone, Default)]
pub(super) struct Tracker(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    welcome: Option<Welcome>,
    /// What it held when it greeted, unless it has set some of that aside since.
    held: Option<Position>,
    ack: Ack,
    /// Whether it has acknowledged anything, be it that it has nothing.
    has_acked: bool,
    /// Whether somebody was told what is acknowledged, and is to be woken by more.
    is_asked: bool,
    ended: Option<Ended>,
}

/// Why no more lines come.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// What the receiver said, or what the silence means.
    pub(super) code: Code,
    /// In words.
    pub(super) text: String,
    /// Whether the receiver said it itself.
    pub(super) said: bool,
}

/// What follows from a line.
enum Heed {
    /// Whoever waits is to look.
    Ring,
    /// Nobody waits for it.
    Nothing,
    /// No more lines come.
    End(Ended),
}

impl Tracker {
    /// Reads lines until the channel ends; `news` is called with each, and `bell` is rung, for an acknowledgement only once
    /// somebody has asked for one: a lane that follows has nothing to do for each. `lost` is called when the receiver is
    /// silent or talks nonsense, so that whoever is stuck writing to it comes free.
    pub(super) fn listen(&self, input: impl Read, bell: &Bell, lost: &dyn Fn(), news: &dyn Fn(&Line)) {
        let mut lines = BufReader::new(input);
        let ended = loop {
            match next_line(&mut lines) {
                Ok(Some(line)) => {
                    news(&line);
                    match self.hear(line) {
                        Heed::Ring => bell.ring(),
                        Heed::Nothing => {}
                        Heed::End(ended) => break ended,
                    }
                }
                Ok(None) => break Ended { code: Code::Link, text: "the receiver is gone".into(), said: false },
                Err((code, text)) => {
                    lost();
                    let text = match self.welcome() {
                        Some(_) => text,
                        None => format!("it did not greet: {text}"),
                    };
                    break Ended { code: if self.welcome().is_some() { Code::Link } else { code }, text, said: false };
                }
            }
        };
        self.0.lock().ended = Some(ended);
        bell.ring();
    }

    fn hear(&self, line: Line) -> Heed {
        let mut heard = self.0.lock();
        match line {
            Line::Welcome(welcome) => {
                heard.held = match welcome.at {
                    Start::At(mark) => Some(mark.position),
                    _ => None,
                };
                heard.welcome = Some(welcome);
            }
            Line::Ack(ack) => {
                heard.ack = ack;
                heard.has_acked = true;
                if !heard.is_asked {
                    return Heed::Nothing;
                }
            }
            Line::Refuse(code, text) => return Heed::End(Ended { code, text, said: true }),
        }
        Heed::Ring
    }

    /// The greeting, once it came.
    pub(super) fn welcome(&self) -> Option<Welcome> {
        self.0.lock().welcome.clone()
    }

    /// Whether this much is on stable storage there: acknowledged, or held when it greeted.
    pub(super) fn has_flushed(&self, position: Position) -> bool {
        let mut heard = self.0.lock();
        heard.is_asked = true;
        heard.ack.flushed.max(heard.held) >= Some(position)
    }

    /// Whether it has set aside some of what it held when it greeted: it acknowledges less now. (It acknowledges what it
    /// holds at any time, also before it has compared anything.)
    pub(super) fn has_gone_back(&self) -> bool {
        let mut heard = self.0.lock();
        heard.is_asked = true;
        let has = heard.has_acked && heard.ack.received < heard.held;
        heard.held = heard.held.filter(|_| !has);
        has
    }

    /// Why no more lines come, once none do.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.0.lock().ended.clone()
    }
}

impl Ended {
    /// As an error.
    pub(super) fn error<T>(self) -> Result<T> {
        let text = if self.said { format!("the receiver refuses: {}", self.text) } else { self.text };
        Err(Failure::new(self.code, text).into())
    }
}

/// The next line, or what is wrong: silence, or words that no receiver says (exit code 2 where the greeting should be).
fn next_line(lines: &mut BufReader<impl Read>) -> Result<Option<Line>, (Code, String)> {
    let mut line = Vec::new();
    let read = lines.take(LINE_MAX as u64).read_until(b'\n', &mut line);
    match read {
        Ok(0) => Ok(None),
        Ok(_) => match line.strip_suffix(b"\n") {
            Some(whole) => Line::parse(whole).map(Some).map_err(|error| {
                (
                    Code::Usage,
                    format!("{}, which is no line of repl-apply --acks (a login shell that prints?)", error.0),
                )
            }),
            None if line.len() == LINE_MAX => Err((Code::Usage, "the receiver sent a line that is too long".into())),
            None => Ok(None),
        },
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            Err((Code::Link, "the receiver is silent: nothing came from it in time".into()))
        }
        Err(error) => Err((Code::Link, format!("cannot read from the receiver: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_set_aside_is_not_flushed_and_to_hold_it_still_is_not_to_set_it_aside() {
        let at = |text: &str| text.parse::<Position>().unwrap();
        let tracker = Tracker::default();
        let hear = |line: &str| drop(tracker.hear(Line::parse(line.as_bytes()).unwrap()));
        hear("welcome v=1 set=- engine=plain site=- epoch=0 at=1-3:9+0123456789abcdef");
        assert!(tracker.has_flushed(at("1-3:9")) && !tracker.has_flushed(at("1-3:10")));
        assert!(!tracker.has_gone_back());
        hear("ack received=1-3:9 flushed=1-3:9 applied=-");
        assert!(!tracker.has_gone_back());
        hear("ack received=1-3:4 flushed=1-3:4 applied=-");
        assert!(tracker.has_gone_back());
        assert!(tracker.has_flushed(at("1-3:4")) && !tracker.has_flushed(at("1-3:5")));

        // All of it.
        hear("welcome v=1 set=- engine=plain site=- epoch=0 at=1-3:4+0123456789abcdef");
        hear("ack received=- flushed=- applied=-");
        assert!(tracker.has_gone_back() && !tracker.has_flushed(at("1-1:0")));
    }
}
