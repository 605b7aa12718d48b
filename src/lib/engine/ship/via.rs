//! A receiver that is a command: started, and started again with back-off while its link fails. What the receiver itself
//! refuses is final.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::berth::{Berth, PARTING, is_own_verdict};
use super::board::Link;
use super::tracker::Tracker;
use crate::edge::hook::describe;
use crate::edge::link::{Far, Inlet};
use crate::engine::note::Note;
use crate::value::exit::{Code, Failure, code_of, fail};
use crate::value::position::{Position, Start};

const BACK_OFF_LEAST: Duration = Duration::from_millis(250);
const BACK_OFF_MOST: Duration = Duration::from_secs(30);

impl Berth<'_> {
    /// Connects by a command, again and again.
    pub(super) fn keep_up(&self, far: &Far) -> Result<()> {
        let mut back_off = BACK_OFF_LEAST;
        let mut failing_since = None;
        let mut reached: Option<(Position, Position)> = None;
        loop {
            let (began, mut stands) = (Instant::now(), None);
            let Err(error) = self.connect(far, &mut stands) else {
                return Ok(());
            };
            // One that was away when the end was asked for is missed no more than one that is tried again later.
            let is_missed = stands.is_some() || self.options.once || self.orders.is_abandoned();
            if !code_of(&error).is_transient() || (self.orders.is_ending() && is_missed) {
                return Err(error);
            }
            let place = stands.and_then(|start| match start {
                Start::At(mark) => Some(mark.position),
                _ => None,
            });
            if began.elapsed() > BACK_OFF_MOST || place.is_some_and(|at| has_moved(at, &mut reached)) {
                (back_off, failing_since) = (BACK_OFF_LEAST, None);
            }
            let since = *failing_since.get_or_insert(began);
            if self.options.once && since.elapsed() >= self.options.retry_for {
                let code = if code_of(&error) == Code::Full { Code::Full } else { Code::Link };
                return Err(error.context(Failure::new(code, "gave up on the receiver")));
            }
            self.board.lost(self.id, Link::Retrying, Some((code_of(&error), format!("{error:#}"))));
            let jitter = back_off.mul_f64(0.5 + fastrand::f64() / 2.0);
            (self.monitor)(Note::trouble(&error, format!("trying again in {:.1} s", jitter.as_secs_f64())));
            self.orders.rest(Instant::now() + jitter, &|| (self.monitor)(Note::Alive));
            if self.orders.is_ending() {
                return if self.orders.is_abandoned() { Err(error) } else { Ok(()) };
            }
            back_off = (back_off * 2).min(BACK_OFF_MOST);
        }
    }

    /// One connection by a command; `stands` is where the receiver stood when it greeted.
    fn connect(&self, far: &Far, stands: &mut Option<Start>) -> Result<()> {
        let (peer, input, output) = far.start().context("cannot start the receiver")?;
        self.orders.meet(peer.clone());
        let tracker = Tracker::default();
        let shipped = std::thread::scope(|scope| {
            let (heard, bell, lost, news) = (&tracker, &self.orders.bell, peer.clone(), self.news());
            let inlet = Inlet::new(output, self.options.timeout, None);
            scope.spawn(move || heard.listen(inlet, bell, &|| lost.kill(), &news));
            let shipped = match self.greeting(&tracker) {
                Ok(Some(welcome)) => {
                    *stands = Some(welcome.at);
                    let lost = tracker.clone();
                    self.ship(input, Box::new(move || lost.ended().is_some()), Some(&tracker), self.start(&welcome))
                }
                greeting => {
                    drop(input);
                    greeting.map(|_| ())
                }
            };
            self.part(&tracker, shipped.is_ok());
            let status = peer.finish(if shipped.is_ok() { PARTING } else { Duration::from_secs(5) });
            (shipped, status)
        });
        self.orders.part();
        let (shipped, status) = shipped;
        let shipped = match shipped {
            Err(error) if is_own_verdict(&error) => return Err(error),
            shipped => shipped,
        };
        if let Some(ended) = tracker.ended().filter(|ended| ended.said) {
            return ended.error();
        }
        let status = status?;
        match (shipped, status.code()) {
            (Ok(()), Some(0)) => Ok(()),
            // Nothing else can be known of a command that cannot be run; retrying would hide it.
            (_, Some(code @ (126 | 127))) => {
                fail(Code::Usage, format!("the receiver's command cannot be run (exit status {code})"))
            }
            (Err(error), _) if code_of(&error) != Code::Link => Err(error),
            (shipped, Some(code)) => {
                let known = u8::try_from(code).ok().and_then(Code::from_number).filter(|code| *code != Code::Done);
                let code = known.unwrap_or(Code::Link);
                let text = format!("the receiver {}", describe(status));
                Err(match shipped {
                    Err(error) => error.context(Failure::new(code, text)),
                    Ok(()) => Failure::new(code, text).into(),
                })
            }
            // It may have been killed by us, for a reason that only the tracker knows.
            (_, None) => {
                let why = tracker.ended().map(|ended| format!(": {}", ended.text)).unwrap_or_default();
                fail(Code::Link, format!("the receiver {}{why}", describe(status)))
            }
        }
    }
}

/// Whether the receiver greeted from farther on than ever, or from farther back, as one does that sets its own history
/// aside segment by segment: its link is then not one that only fails. Between two places it cannot go to and fro for
/// ever.
fn has_moved(now: Position, reached: &mut Option<(Position, Position)>) -> bool {
    let before = reached.get_or_insert((now, now));
    let moved = now < before.0 || now > before.1;
    *before = (before.0.min(now), before.1.max(now));
    moved
}
